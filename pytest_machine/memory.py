"""How much of this host's memory its machines take, over all of a user's runs; and who waits for some.

::

    STATE/memory/HEX.json          one for each admission: machines by name, bytes each, and the store that notes them
    STATE/memory/HEX.lock          held by the process that was admitted, until its machines are noted or have failed
    STATE/memory/NANOSECONDS-HEX.wait    one for each request that waits; locked by it, in the order of the queue
    STATE/memory/busy/PID-HEX.lock       held by a process while it runs a test

Nothing has to be given back: a machine counts for as long as its store has its record, whoever destroys it in the end,
and a process that dies leaves nothing that counts. A request is admitted whole or not at all, first come, first served.

It cannot come to a deadlock. A process may hold machines (of a module, say) and want more, and so may another; each
would wait for the other. So a request waits only while somebody else who holds machines is *busy*, which one that waits
is not: when all wait, the first of the queue goes on, above the cap. That is also what becomes of a request that is
larger than the cap itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from pytest_machine.support.folders import make_folder

from . import stored
from .store import RECORD, write
from .support import clock, files, parsing, trees
from .support.locks import is_held, lock_file

SHARE = 0.8
"""Of the memory that is available, how much machines may take when nobody set a cap; the rest is for the tests."""

# Seconds between two looks of a request that waits: the first, and what it grows to.
_LOOK, _LONGEST = 0.05, 0.5
# A wait that is over before anybody could read of it is not worth a line.
_QUIET = 2.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What lives now."""

    machines: int
    bytes: int
    cap: int


@dataclass(frozen=True, slots=True)
class _Admission:
    """Machines that were admitted together, and live."""

    machines: Mapping[str, int]
    """Name → bytes."""
    store: Path
    process: str


class Ledger:
    """This process's view of the host's machines. `cap` is in bytes; None: `SHARE` of what was available before any."""

    def __init__(self, directory: Path, cap: int | None = None) -> None:
        self._directory = directory / "memory"
        self._cap = cap
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        make_folder(self._directory / "busy")
        self._busy = FileLock(self._directory / "busy" / f"{self._name}.lock", thread_local=False)

    def work(self) -> None:
        """Say that this process runs a test, at whose end it may give machines back; again: nothing happens."""
        if not self._busy.is_locked:
            with self._lock():
                self._busy.acquire()

    def rest(self) -> None:
        """Say that it does not, or only waits."""
        if self._busy.is_locked:
            with self._lock():
                _free(self._busy)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Say so for as long as the block lasts."""
        worked = self._busy.is_locked
        self.rest()
        try:
            yield
        finally:
            if worked:
                self.work()

    @contextlib.contextmanager
    def admitted(
        self,
        wanted: Mapping[str, int],
        store: Path,
        *,
        tell: Callable[[str], object] = lambda _: None,
        waiting: Callable[[], object] = lambda: None,
    ) -> Iterator[None]:
        """Wait until there is memory for machines (name → bytes) that are to be noted in `store`; make them inside.

        `tell` hears a line when it takes longer; `waiting` is called again and again meanwhile.
        """
        lock = self._enter(wanted, store) or self._queue(wanted, store, tell, waiting)
        with self._making(lock):
            yield

    @contextlib.contextmanager
    def spare(self, wanted: Mapping[str, int], store: Path) -> Iterator[bool]:
        """Like `admitted`, without waiting: yields whether there is memory that nobody else waits for."""
        lock = self._enter(wanted, store)
        if lock is None:
            yield False
            return
        with self._making(lock):
            yield True

    def anybody_waits(self) -> bool:
        """Return whether some request waits."""
        with self._lock():
            return bool(self._waiting())

    def taken(self) -> Taken:
        """Return what lives now."""
        with self._lock():
            return self._taken(self._alive())

    def tidy(self) -> None:
        """Remove the notes of what is gone; when nothing lives, what was measured before it did goes too."""
        with self._lock():
            if not self._alive():
                trees.remove(self._directory / "available")
            self._waiting()
            for path in (self._directory / "busy").glob("*.lock"):
                is_held(path)
            # Who was killed while it was admitted. Admissions are written under our lock, so nobody is at it now.
            for path in self._directory.glob(".*.tmp"):
                path.unlink(missing_ok=True)
            for path in self._directory.glob("[0-9a-f]*.lock"):
                if not path.with_suffix(".json").exists():
                    is_held(path)

    @contextlib.contextmanager
    def _making(self, lock: FileLock) -> Iterator[None]:
        try:
            yield
        finally:
            # From now on the machines count that are noted.
            with self._lock():
                _free(lock)

    def _enter(self, wanted: Mapping[str, int], store: Path, ticket: str = "") -> FileLock | None:
        """Return the lock of an admission, held; None when it is not this one's turn."""
        with self._lock():
            queue = self._waiting()
            if queue and queue[0] != ticket:
                return None
            alive = self._alive()
            taken = self._taken(alive)
            fits = taken.bytes + sum(wanted.values()) <= taken.cap
            others = {each.process for each in alive} - {self._name}
            # Spares have no ticket, and nobody needs them enough to go above the cap.
            if not fits and (not ticket or any(map(self._works, others))):
                return None
            path = self._directory / f"{secrets.token_hex(6)}.json"
            lock = FileLock(path.with_suffix(".lock"), thread_local=False)
            lock.acquire()
            note = {"machines": dict(wanted), "store": str(store), "process": self._name}
            write(path, json.dumps(note).encode(), durable=False)
            return lock

    def _queue(
        self,
        wanted: Mapping[str, int],
        store: Path,
        tell: Callable[[str], object],
        waiting: Callable[[], object],
    ) -> FileLock:
        ticket = self._directory / f"{clock.stamp()}-{secrets.token_hex(4)}.wait"
        lock = FileLock(ticket, thread_local=False)
        with self._lock():
            lock.acquire()
        begun, pause, told = clock.monotonic(), _LOOK, False
        try:
            with self.resting():
                while True:
                    waiting()
                    if (entered := self._enter(wanted, store, ticket.name)) is not None:
                        return entered
                    if not told and clock.monotonic() - begun > _QUIET:
                        told = True
                        tell(_line(wanted, self.taken()))
                    clock.sleep(pause)
                    pause = min(pause * 1.5, _LONGEST)
        finally:
            with self._lock():
                _free(lock)

    def _taken(self, alive: list[_Admission]) -> Taken:
        sizes = [size for each in alive for size in each.machines.values()]
        return Taken(len(sizes), sum(sizes), self._cap if self._cap is not None else self._usual(empty=not alive))

    def _usual(self, *, empty: bool) -> int:
        """Return the cap where nobody set one, from what was available when no machine lived."""
        path = self._directory / "available"
        if not empty:
            with contextlib.suppress(OSError, ValueError):
                return int(int(files.read_text(path, largest=100)) * SHARE)
        found = available()
        with contextlib.suppress(OSError):
            if path.is_dir():
                trees.remove(path)
            write(path, str(found).encode(), durable=False)
        return int(found * SHARE)

    def _alive(self) -> list[_Admission]:
        """Return the admissions of which something lives, with what lives of each; forget the others."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            with contextlib.suppress(*files.UNREADABLE):
                note = _admission(files.read_table(path, "the admission"))
                if not is_held(path.with_suffix(".lock")):
                    noted = Path(note.store) / "machines"
                    sizes = note.machines.items()
                    note = replace(
                        note, machines={name: size for name, size in sizes if (noted / name / RECORD).exists()}
                    )
                if note.machines:
                    found.append(note)
                    continue
            # A damaged one counts for nothing: at worst more machines are made at once than there is memory for.
            with contextlib.suppress(OSError):
                trees.remove(path)
        return found

    def _waiting(self) -> list[str]:
        return [path.name for path in sorted(self._directory.glob("*.wait")) if is_held(path)]

    def _works(self, process: str) -> bool:
        return is_held(self._directory / "busy" / f"{process}.lock")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        # Whoever looks whether a lock is held takes it for a moment, so two must not look at once.
        with lock_file(self._directory / ".lock", singleton=True).acquire(poll_interval=0.005):
            yield


def tidy(directory: Path) -> None:
    """Remove what says nothing any more, of processes and machines that are gone; `directory` is the state's."""
    if (directory / "memory").is_dir():
        Ledger(directory).tidy()


def available() -> int:
    """Return the bytes of memory that new processes can have here; a very large number where nobody can tell.

    Linux: ``MemAvailable`` of ``/proc/meminfo``, or what this process's control group may still take if that is less.
    Elsewhere: half of the physical memory.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = Path("/proc/meminfo").read_text().splitlines()
            line = next(line for line in lines if line.startswith("MemAvailable"))
            return min([int(line.split()[1]) * 1024, *_of_group()])
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return sys.maxsize


def _of_group() -> Iterator[int]:
    """Yield what the control group leaves, where a container's limit is seen as the root of its groups."""
    root = Path("/sys/fs/cgroup")
    for limit, used in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max", or no such group
            yield max(0, int(limit.read_text()) - int(used.read_text()))


def _free(lock: FileLock) -> None:
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def _admission(data: Mapping[str, object]) -> _Admission:
    sizes = parsing.table(data.get("machines"), "'machines'")
    return _Admission(
        {
            stored.name(name, "a machine"): parsing.integer(size, "the memory of a machine", least=0, most=1 << 62)
            for name, size in sizes.items()
        },
        parsing.path(data.get("store"), "'store'"),
        stored.name(data.get("process"), "'process'"),
    )


def _line(wanted: Mapping[str, int], taken: Taken) -> str:
    many = f"{len(wanted)} machines want" if len(wanted) > 1 else "a machine wants"
    alive = f"{taken.machines} machine{'' if taken.machines == 1 else 's'}"
    return (
        f"waiting for memory: {many} {_mb(sum(wanted.values()))} and {_mb(taken.bytes)} of {_mb(taken.cap)} "
        f"are taken by {alive} (--machine-memory-cap)"
    )


def _mb(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB" if size < 10 << 30 else f"{size / (1 << 30):.1f} GiB"
