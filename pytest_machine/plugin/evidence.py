"""What a machine looks like from all sides when a test has failed: gathered in seconds, whatever state it is in.

Three witnesses are asked at once: the engine, by its API; the inside, by SSH; the driver, from outside. Each that does
not answer in time is left behind, and what the others said stays. A wrecked machine costs `SECONDS` and no more.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_machine import answers, engine, presence
from pytest_machine.birth import KEY, KNOWN_HOSTS
from pytest_machine.driver import Driver, SupportsConsole, SupportsReset
from pytest_machine.errand import Errand
from pytest_machine.errors import MachineError
from pytest_machine.model import State
from pytest_machine.ssh import SshConnection
from pytest_machine.store import Store
from pytest_machine.support import clock, files, parsing
from pytest_machine.support.text import decoded, visible

from .masking import Mask

if TYPE_CHECKING:
    from pytest_machine.model import Address, Record

SECONDS = 15.0
"""For one machine, all in all."""
_ANSWER = 4.0
"""For one answer of its engine."""
_LOOKED = 2.0
"""For its driver to say whether it is there, before its engine and SSH are asked."""
_CONTAINERS = 20
"""How many containers are looked at, newest first."""
_LINES = 200
"""Lines of each container's log."""
_LOG = 4 << 20
"""Bytes of each container's log that are read, at most: lines may be of any length."""
_SIZE = 256 << 10
"""Bytes of each part, at most; its end is kept."""

_MARK = "@@ptm-part@@ "
# df and docker hang where a file system or an engine does.
_INSIDE = f"""\
part() {{ echo "{_MARK}$1"; }}
part 'daemon log'
tail -c 131072 /var/log/dockerd.log 2>/dev/null || journalctl -u docker -n 500 --no-pager 2>/dev/null
part 'disk and memory'
timeout 3 df -h 2>&1; echo; timeout 3 df -i / /var/lib/docker 2>&1; echo; free -m 2>/dev/null || cat /proc/meminfo
part 'processes'
ps -eo pid,ppid,rss,stat,etime,args --sort=-rss 2>/dev/null | cut -c1-200 | head -n 60
part 'network'
ip -br address 2>/dev/null; ip route 2>/dev/null
part 'files changed since it was ready'
[ -z "$1" ] || timeout 5 find / -xdev -newerct "@$1" ! -type d ! -path '/var/log/*' 2>/dev/null | head -n 200
part 'logs of containers on its disk'
for f in $(ls -t /var/lib/docker/containers/*/*-json.log 2>/dev/null | head -n {_CONTAINERS}); do
  echo "== $f"; tail -n 50 "$f"
done
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found out about one machine, by title, masked; the order is the order of interest."""

    machine: str
    parts: Mapping[str, str]


class _Desk:
    """Where witnesses lay down what they know; it is closed when the time is over."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}
        self._lock = threading.Lock()
        self._open = True

    def put(self, title: str, text: str) -> None:
        with self._lock:
            if self._open and text.strip():
                self._parts[title] = text

    def close(self) -> dict[str, str]:
        with self._lock:
            self._open = False
            return self._parts


def gather(record: Record, driver: Driver, *, seconds: float = SECONDS) -> Evidence:
    """Return all that can be told of a machine within `seconds`; raises nothing that a machine could be the reason of.

    The machine may be half-made, dead, frozen, cut off or gone.
    """
    desk, mask = _Desk(), Mask()
    with contextlib.suppress(MachineError, OSError):
        mask.learn_options(Store(record.store).secrets(record.name))
    with contextlib.suppress(*files.UNREADABLE, ValueError):  # the daemon's variables may all hold secrets
        lines = shlex.split(files.read_text(record.directory / "machine.env"))
        mask.learn([line.partition("=")[2] for line in lines])
    witnesses: dict[str, Callable[[], None]] = {"its driver": lambda: _outside(record, driver, desk)}
    looked = Errand(lambda: presence.look([(driver, record)], timeout=_LOOKED)[record.id].state)

    def if_present(ask: Callable[[], None]) -> Callable[[], None]:
        # The address of a machine that is gone may be another machine's by now.
        return lambda: None if looked.result() is State.ABSENT or presence.is_forgotten(record) else ask()

    if (address := record.address) is not None:
        witnesses["its Docker"] = if_present(lambda: _engine(record, address, desk, mask))
        if address.ssh_port:
            witnesses["SSH"] = if_present(lambda: _inside(record, address, desk, seconds=seconds))
    failures: dict[str, str] = {}
    threads = {name: _start(name, ask, failures) for name, ask in witnesses.items()}
    deadline = clock.monotonic() + seconds
    for thread in threads.values():
        thread.join(max(0.0, deadline - clock.monotonic()))
    for name, thread in threads.items():
        if thread.is_alive():
            failures[name] = f"no answer within {seconds:g} s"
    failures = dict(failures)  # who is late may still add to the other
    parts = desk.close()
    if "what the test changed on the host" in parts:
        parts.pop("files changed since it was ready", None)
    if "docker ps -a" in parts:
        parts.pop("logs of containers on its disk", None)  # the engine told it better
    if failures:
        parts["what could not be asked"] = "\n".join(f"{name}: {why}" for name, why in failures.items())
    return Evidence(
        record.name,
        {
            visible(title, lines=False): visible(mask.over(_end(parts[title].replace("\r\n", "\n"))))
            for title in sorted(parts, key=_rank)
        },
    )


def _start(name: str, ask: Callable[[], None], failures: dict[str, str]) -> threading.Thread:
    def run() -> None:
        try:
            ask()
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the machine must not become the test's report
            failures[name] = str(error) or type(error).__name__

    # A daemon: one that hangs must not keep the run from ending.
    thread = threading.Thread(target=run, name=f"evidence: {name}", daemon=True)
    thread.start()
    return thread


_FIRST = (
    "what could not be asked",
    "state",
    "what the test changed",
    "files changed",
    "incidents",
    "docker ps -a",
    "log of",
    "daemon",
)
_LAST = ("processes", "network", "inspect of")


def _rank(title: str) -> tuple[int, str]:
    for rank, beginning in enumerate(_FIRST):
        if title.startswith(beginning):
            return rank, title
    for rank, beginning in enumerate(_LAST):
        if title.startswith(beginning):
            return 100 + rank, title
    return 50, title


def _end(text: str) -> str:
    return text if len(text) <= _SIZE else f"… (its last {_SIZE >> 10} KiB)\n{text[-_SIZE:]}"


def _outside(record: Record, driver: Driver, desk: _Desk) -> None:
    seen = answers.seen(driver, record)
    desk.put("state", f"{seen.state} {seen.detail}".strip())
    if isinstance(driver, SupportsConsole):
        desk.put("console", answers.console(driver, record))
    # It is compared with what was noted of it, and that is only done for machines that are shared.
    if isinstance(driver, SupportsReset):
        with contextlib.suppress(MachineError):
            desk.put("what the test changed on the host", "\n".join(answers.changes(driver, record)) or "nothing")


def _engine(record: Record, address: Address, desk: _Desk, mask: Mask) -> None:
    if not (record.directory / "key.pem").exists():
        return
    with engine.Api(address, certs=record.directory, timeout=_ANSWER) as api:
        found: list[dict[str, Any]] = [parsing.table(each, "a container") for each in api.get("/containers/json?all=1")]
    desk.put("docker ps -a", table(found))
    for each in found[:_CONTAINERS]:
        name, path = _name(each), f"/containers/{quote(str(each['Id']), safe='')}"
        with engine.Api(address, certs=record.directory, timeout=_ANSWER) as api:
            inspected = parsing.table(api.get(f"{path}/json"), f"what the daemon says of '{name}'")
            config: dict[str, Any] = parsing.table(inspected.get("Config") or {}, "its configuration")
            mask.learn_environment([each for each in config.get("Env") or () if isinstance(each, str)])
            desk.put(f"inspect of '{name}'", json.dumps(inspected, indent=1))
            log = api.read(f"{path}/logs?stdout=1&stderr=1&timestamps=1&tail={_LINES}", size=_LOG)
        desk.put(f"log of '{name}'", decoded(log if config.get("Tty") else _demultiplexed(log)))


def _demultiplexed(log: bytes) -> bytes:
    """Return what a container printed on both streams; each part has a head of 8 bytes, the last 4 are its size."""
    found, place = bytearray(), 0
    while place + 8 <= len(log):
        size = int.from_bytes(log[place + 4 : place + 8], "big")
        found += log[place + 8 : place + 8 + size]
        place += 8 + size
    return bytes(found)


def table(containers: list[dict[str, Any]]) -> str:
    """Return what ``docker ps -a`` prints of the API's answer."""
    rows = [("CONTAINER ID", "IMAGE", "COMMAND", "STATUS", "PORTS", "NAMES")]
    for each in containers:
        ports = ", ".join(
            f"{port.get('IP', '')}:{port['PublicPort']}->{port['PrivatePort']}/{port['Type']}"
            if "PublicPort" in port
            else f"{port['PrivatePort']}/{port['Type']}"
            for port in each.get("Ports") or ()
        )
        command = each.get("Command", "")
        short = command if len(command) <= 40 else f"{command[:39]}…"
        rows.append((each["Id"][:12], each.get("Image", ""), short, each.get("Status", ""), ports, _name(each)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _name(container: Mapping[str, Any]) -> str:
    names = container.get("Names") or [container["Id"][:12]]
    return str(names[0]).lstrip("/")


def _inside(record: Record, address: Address, desk: _Desk, *, seconds: float) -> None:
    key = record.directory / KEY
    if not key.exists():
        return
    # A connection of our own: the test's may be what is broken. Without a master, which would outlive the time.
    connection = SshConnection(address, key=key, known_hosts=record.directory / KNOWN_HOSTS, control=False)
    # The script by its standard input: as an argument it would be among the processes that it lists.
    ready = f"{record.ready:.3f}" if record.ready else ""
    said = connection.run("sh", "-s", ready, input=_INSIDE, timeout=seconds - 1, check=False)
    if _MARK not in said.stdout:
        raise OSError(" ".join(said.stderr.split()) or f"ssh returned {said.returncode}")
    for part in said.stdout.split(_MARK)[1:]:
        title, _, text = part.partition("\n")
        desk.put(title, text)
