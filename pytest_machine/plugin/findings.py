"""Reduces the evidence about a machine to one line, and to sections for what is out of the ordinary.

Everything else is for the files of ``--machine-artifacts``. Evidence comes out of the machine: each reader here takes
any text, and what it cannot read counts as ordinary.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from pytest_machine.support.text import visible

_FULL = 95
"""Per cent of a disk, or of its inodes, from which on it is reported as full."""
_DISKS = ("/", "/var/lib/docker")
_LOUD = ("warning", "warn", "error", "fatal", "panic")
_LEVEL = re.compile(r'\blevel="?(\w+)')
_MESSAGE = re.compile(r'\bmsg="((?:[^"\\]|\\.)*)"|\bmsg=(\S+)')
_TIME = re.compile(r'\btime="([^"]{1,40})"')
# gRPC's own chatter about connections inside the daemon, and the lines of the init system between the daemon's.
_CHATTER = re.compile(r"module=grpc|\bgrpc:|\[core\]|systemd\[1\]:|^-- ")
_REASON = 160
"""Characters of one reason in the line."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a report says about one machine."""

    line: str
    """``running, 2 containers, disk 29 %``."""
    odd: tuple[tuple[str, str], ...]
    """Title and text of each thing that is out of the ordinary."""


@dataclass(frozen=True, slots=True)
class _Container:
    name: str
    trouble: str


def of(parts: Mapping[str, str], *, ready: float | None) -> Findings:
    """Return what a report says about a machine, by its evidence; `ready` is when it became ready, in Unix time.

    What its daemon said about itself while it booted, and says again later, is not news.
    """
    state = " ".join(parts.get("state", "").split()) or "state unknown"
    containers = [each for each in _containers(parts) if each.trouble]
    fills = {title: _fill(parts.get("disk and memory", ""), title) for title in ("Use%", "IUse%")}
    full = [share for share in fills.values() if share is not None and share >= _FULL]
    killed = any("out of memory" in each.trouble for each in containers)
    odd: list[tuple[str, str]] = []
    if not state.startswith(("running", "paused")):
        odd.append(("console", parts.get("console", "")))
    if containers:
        odd.append(("docker ps -a", parts.get("docker ps -a", "")))
        odd += [(f"log of '{each.name}'", parts.get(f"log of '{each.name}'", "")) for each in containers]
    odd.append(("logs of containers on its disk", parts.get("logs of containers on its disk", "")))
    odd.append(("daemon log", "\n".join(warnings(parts.get("daemon log", ""), ready=ready))))
    if full or killed:
        odd.append(("disk and memory", parts.get("disk and memory", "")))
    return Findings(
        visible("; ".join([_line(state, parts, fills["Use%"], containers), *_silent(parts)]), lines=False),
        tuple((visible(title, lines=False), visible(text)) for title, text in odd if text.strip()),
    )


def warnings(log: str, *, ready: float | None) -> list[str]:
    """Return the warnings and errors in a daemon's log, and what it wrote outside of its log's form.

    `ready` is when the machine became ready, in Unix time: what was said before, and is said again, is left out.
    """
    found: list[str] = []
    usual: set[str] = set()
    for line in log.splitlines():
        if not line.strip() or _CHATTER.search(line):
            continue
        level = _LEVEL.search(line)
        if level is not None and level[1] not in _LOUD:
            continue
        message = _message(line)
        if ready is not None and (at := _time(line)) is not None and at <= ready:
            usual.add(message)
        elif message not in usual:
            found.append(line)
    return found


def _message(line: str) -> str:
    found = _MESSAGE.search(line)
    return (found[1] or found[2] or "") if found else line


def _time(line: str) -> float | None:
    if (found := _TIME.search(line)) is None:
        return None
    try:
        return datetime.fromisoformat(found[1]).timestamp()
    except (ValueError, OverflowError):
        return None


def _line(state: str, parts: Mapping[str, str], disk: int | None, odd: Iterable[_Container]) -> str:
    said = [state]
    if "docker ps -a" in parts:
        count = max(0, len(parts["docker ps -a"].strip().splitlines()) - 1)
        said.append(f"{count} container{'' if count == 1 else 's'}")
        said += [f"'{each.name}' {each.trouble}" for each in odd]
    if disk is not None:
        said.append(f"disk {disk} %")
    return ", ".join(said)


def _silent(parts: Mapping[str, str]) -> Iterator[str]:
    """Yield what did not answer, and why."""
    for line in parts.get("what could not be asked", "").splitlines():
        # The further lines of an error are its facts and its hint.
        if re.match(r"(its \w+|SSH): ", line):
            yield line if len(line) <= _REASON else f"{line[:_REASON]}…"


def _containers(parts: Mapping[str, str]) -> Iterator[_Container]:
    for title, text in parts.items():
        if title.startswith("inspect of '") and title.endswith("'"):
            found: object = None
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(text)
            if isinstance(found, dict):
                yield _Container(title.removeprefix("inspect of '")[:-1], _trouble(found))


def _trouble(inspected: Mapping[str, object]) -> str:
    """Return what is wrong with a container, by what ``docker inspect`` says of it; nothing when it is well."""
    state = inspected.get("State")
    if not isinstance(state, Mapping):
        return ""
    status, code = str(state.get("Status")), state.get("ExitCode")
    if state.get("OOMKilled") is True:
        return "was killed: out of memory"
    if status in ("exited", "dead") and code != 0:
        return f"exited with {code}"
    if status == "created" and (error := state.get("Error")):
        return f"did not start: {' '.join(str(error).split())[:_REASON]}"
    if status in ("restarting", "dead", "paused"):
        return f"is {status}"
    if (count := inspected.get("RestartCount")) and isinstance(count, int):
        return f"restarted {count} times" if count > 1 else "restarted once"
    health = state.get("Health")
    if isinstance(health, Mapping) and health.get("Status") == "unhealthy":
        return "is unhealthy"
    return ""


def _fill(text: str, column: str) -> int | None:
    """Return how full the fullest of a machine's own disks is, in per cent, by what ``df`` printed."""
    found: list[int] = []
    place = None
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["Filesystem"]:
            place = words.index(column) if column in words else None
        elif place is not None and len(words) > place and words[-1] in _DISKS:
            share = words[place].removesuffix("%")
            if share.isascii() and share.isdigit() and len(share) <= 3:
                found.append(int(share))
    return max(found, default=None)
