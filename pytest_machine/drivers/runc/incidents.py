"""What the kernel did to a machine: out-of-memory kills, oopses, core dumps, refusals. Read on the host, from outside.

The host's kernel log names the group of whatever it kills; where it says less, its uid tells whose process it was. An
oops is the shared kernel's own trouble: every machine that lives then is told of it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from pytest_machine.errors import LimitExceeded
from pytest_machine.model import Incident, Record, Trouble
from pytest_machine.support import clock, trees
from pytest_machine.support.text import visible

from . import cgroups, leases
from .kernel import open_lines
from .places import Place

_PATTERN = Path("/proc/sys/kernel/core_pattern")
_LOG = "/dev/kmsg"

_OOPS = re.compile(
    r"\bOops\b|\bkernel BUG at\b|^BUG: |general protection fault, |unable to handle .*(?:NULL|page fault|paging)|"
    r"soft lockup|hard LOCKUP|blocked for more than \d+ seconds|Internal error: "
)
_ABOUT_A_KILL = re.compile(r"memcg|oom|Memory cgroup|Tasks in|Task in", re.IGNORECASE)
_KILLED = re.compile(r"Killed process (?P<pid>\d+) \((?P<name>.*?)\).*?(?:UID:(?P<uid>\d+))?(?: pgtables.*)?$")
_VICTIM = re.compile(r"oom-kill:.*task_memcg=(?P<group>[^,]*),.*\bpid=(?P<pid>\d+)")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the kernel's log."""

    at: float
    """Unix time, seconds; the kernel's clock may be some off."""
    stamp: str
    """As the kernel wrote it: never twice the same for two events."""
    text: str


def found(record: Record) -> list[Incident]:
    """Return all that befell a machine since it was made."""
    place = Place(record.id)
    lease = leases.ledger().leases.get(record.id)
    uids = range(lease.uid, lease.uid + leases.UID_COUNT) if lease else range(0)
    lines = log()
    told = of_log(lines, group=f"/{cgroups.ROOT}/{record.id}", uids=uids, since=record.created)
    if not lines:
        told = [Incident(Trouble.OOM, f"out-of-memory kill {number}") for number in range(1, _kills(record) + 1)]
    return [*told, *cores(place)]


def of_log(lines: Iterable[Line], *, group: str, uids: range, since: float) -> list[Incident]:
    """Return what a log tells of the machine of that group, whose processes have those uids on the host."""
    told: list[Incident] = []
    victims: set[str] = set()
    for line in lines:
        mine = re.search(re.escape(group) + r"(?![0-9a-f])", line.text) is not None
        if victim := _VICTIM.search(line.text):
            if mine:
                victims.add(victim["pid"])
        elif killed := _KILLED.search(line.text):
            # The line that names the group is left out when many are killed at once.
            by_uid = killed["uid"] is not None and int(killed["uid"]) in uids and line.at >= since
            if killed["pid"] in victims or by_uid:
                victims.discard(killed["pid"])
                told.append(Incident(Trouble.OOM, f"[{line.stamp}] {line.text}"))
        elif _OOPS.search(line.text) and line.at >= since:
            told.append(Incident(Trouble.OOPS, f"[{line.stamp}] {line.text} (of this host's kernel, which it shares)"))
        elif mine and not _ABOUT_A_KILL.search(line.text):
            told.append(Incident(Trouble.KERNEL, f"[{line.stamp}] {line.text}"))
    return told


def log() -> list[Line]:
    """Return the kernel's log as it is now; empty where it cannot be read."""
    try:
        descriptor = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    boot = clock.now() - clock.monotonic()
    lines: list[Line] = []
    try:
        while True:
            try:
                raw = os.read(descriptor, 8192)  # one record a read
            except BrokenPipeError:  # overwritten while we read: the next read goes on with the oldest
                continue
            except OSError:  # EAGAIN: that was all
                break
            lines += _parsed(raw.decode(errors="replace"), boot)
    finally:
        os.close(descriptor)
    return lines


def _parsed(raw: str, boot: float) -> Iterator[Line]:
    head, _, text = raw.partition(";")
    fields = head.split(",")
    if len(fields) >= 3 and fields[2].isdigit():
        seconds = int(fields[2]) / 1e6
        # Continuation lines are the record's keys, which nobody needs here.
        yield Line(boot + seconds, f"{seconds:.6f}", text.partition("\n")[0])


def _kills(record: Record) -> int:
    """Return how often the machine's groups count a kill, for hosts whose log we may not read."""
    total = 0
    for top in cgroups.of_machine(record.id):
        # v2 counts a group's children in; v1 each for itself.
        whole = (top / "memory.events").exists()
        for folder in trees.walk(top, limits=_LIMITS):
            for name in ("memory.events", "memory.oom_control"):
                words = (line.split() for line in folder.lines(name))
                total += sum(int(word[1]) for word in words if word[0] == "oom_kill")
            if whole:
                folder.into.clear()
    return total


def cores(place: Place) -> list[Incident]:
    """Return the core dumps that lie in the machine and in its containers; where not all could be searched, say so."""
    pattern = core_pattern()
    if pattern.startswith("|"):
        return []
    name = re.sub(r"%.", "*", pattern.rpartition("/")[2])
    home = place.mounted_disk if os.path.ismount(place.mounted_disk) else place.state
    told: list[Incident] = []
    deadline = clock.monotonic() + _LIMITS.seconds
    try:
        for below, where in _layers(home):
            limits = replace(_LIMITS, seconds=max(0.0, deadline - clock.monotonic()))
            told += [
                Incident(Trouble.CORE, visible(f"core dump {where}{path}"))
                for path in _cores(home, below, name, limits)
            ]
    except (LimitExceeded, OSError) as error:
        said = error.message if isinstance(error, LimitExceeded) else str(error)
        told.append(Incident(Trouble.CORE, visible(f"not all of its files could be searched for core dumps: {said}")))
    return told


# A machine makes as many files as its disk takes; the search is part of each test's time.
_LIMITS = trees.Limits(entries=2_000_000, seconds=20)
_CONTAINERS = 2000


def _cores(home: Path, below: tuple[str, ...], name: str, limits: trees.Limits) -> Iterator[str]:
    with contextlib.closing(trees.walk(home, *below, limits=limits)) as folders:
        for folder in folders:
            if folder.parent is None and below == ("upper",):
                folder.into[:] = [each for each in folder.into if each not in ("proc", "sys", "dev")]
            for entry in folder.entries:
                if (fnmatch(entry.name, name) or fnmatch(entry.name, f"{name}.*")) and _is_core(folder, entry):
                    yield "/".join(("", *folder.names, entry.name))


def _layers(home: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Return each tree in which processes of the machine write, and what to say before a path in it."""
    yield ("upper",), ""
    layers: list[str] = []
    with contextlib.closing(trees.walk(home, "docker", "overlay2", limits=_LIMITS)) as folders:
        for top in folders:
            # A container's layer has one beside it.
            layers = sorted(each.removesuffix("-init") for each in top.into if each.endswith("-init"))
            break
    for layer in layers[:_CONTAINERS]:
        yield ("docker", "overlay2", layer, "diff"), f"in the container's layer {layer[:12]}: "
    yield ("docker", "volumes"), "in the volume "


def _is_core(folder: trees.Folder, entry: os.DirEntry[str]) -> bool:
    head = folder.read(entry.name, size=18) if entry.is_file(follow_symlinks=False) else b""
    # ELF; the type is a half word in the file's own byte order, and 4 is a core.
    return head[:4] == b"\x7fELF" and int.from_bytes(head[16:18], "little" if head[5:6] == b"\x01" else "big") == 4


def core_pattern() -> str:
    """Return where this host's kernel puts core dumps."""
    return next(iter(open_lines(str(_PATTERN))), "core").strip()


def unseen() -> Mapping[Trouble, str]:
    """Return what cannot be seen on this host, and why."""
    told = {}
    if (pattern := core_pattern()).startswith("|"):
        told[Trouble.CORE] = f"this host's kernel gives core dumps to a program, {pattern[1:].split()[0]}"
    if not os.access(_LOG, os.R_OK):
        told[Trouble.OOPS] = f"the kernel's log {_LOG} cannot be read"
    return told
