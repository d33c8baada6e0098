"""Where machines of this driver keep what outlives a process, and what outlives a boot.

One fixed place a host, not the store of whoever asked: overlay's upper directories must be on a real disk, addresses
and uid ranges are the host's to give out, and a machine must be found when its store is gone (docs/decisions/0001).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_machine import store
from pytest_machine.model import Id, Record

STATE = Path("/var/lib/pytest-machine/runc")
"""Survives a boot: tags, leases, disks."""
RUN = Path("/run/pytest-machine/runc")
"""Gone at the next boot, as is all that it speaks of: mounts, pids."""


def write(path: Path, data: object) -> None:
    """Write JSON, whole or not at all."""
    # Not durable: a boot that loses the last second of this file has lost the machines' processes too.
    store.write(path, json.dumps(data).encode(), durable=False)


def read(path: Path) -> dict[str, str]:
    """Return what was written of a machine."""
    found: dict[str, str] = json.loads(path.read_text())
    return found


def make_passable(folder: Path) -> None:
    """Make a folder that every machine's root can pass through and nobody can list."""
    for path in reversed((folder, *folder.parents)):
        if not path.exists():
            path.mkdir(mode=0o711, exist_ok=True)


def let_in(folder: Path, owner: int) -> None:
    """Let one machine's root, and no other, pass through a folder of ours: its layers are below."""
    os.chown(folder, 0, owner)
    folder.chmod(0o710)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold one of the host's locks; the kernel lets go of it when we die."""
    import fcntl  # here, so that the driver can be imported, and say that it needs Linux, where there is none

    make_passable(STATE)
    # The file stays: removing a lock file lets two processes lock two files of one name.
    descriptor = os.open(STATE / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Of somebody who was killed while writing what this lock guards: nobody else is at it now.
        for half in STATE.glob(f".{name}.json.*.tmp"):
            half.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one machine."""

    id: Id

    @property
    def state(self) -> Path:
        """What survives a boot."""
        return STATE / "machines" / self.id

    @property
    def run(self) -> Path:
        """What does not: bundle, mounts, pid."""
        return RUN / "machines" / self.id

    @property
    def tag(self) -> Path:
        """The record, as it was when the machine was made: first to come, last to go."""
        return self.state / "tag.json"

    @property
    def noted(self) -> Path:
        """What an untouched machine looks like."""
        return self.state / "noted.json"

    @property
    def known(self) -> Path:
        """What it was noted with, and boots into: its next note need not look again."""
        return self.state / "known.json"

    @property
    def unlike(self) -> Path:
        """Is there when something of that was found to be another than was noted."""
        return self.state / "unlike"

    @property
    def disk(self) -> Path:
        """The sparse image of the machine's own file system, where a size was asked for."""
        return self.state / "disk.img"

    @property
    def mounted_disk(self) -> Path:
        """Where `disk` is mounted while the machine lives."""
        return self.run / "disk"

    @property
    def pid_file(self) -> Path:
        """PID 1, as the host counts."""
        return self.run / "pid"

    def seeded(self) -> bool:
        """Whether everything that the machine is born with is on its disk."""
        return (self.state / "seeded").exists()

    def write_tag(self, record: Record) -> None:
        """Note whose machine this is, before anything else of it exists."""
        make_passable(self.state.parent)
        self.state.mkdir(mode=0o700, exist_ok=True)
        write(self.tag, record.to_json())


def tags() -> Iterator[Record]:
    """Return the record in every tag; a folder without a readable one is not a machine yet, or not any more."""
    try:
        folders = sorted((STATE / "machines").iterdir())
    except FileNotFoundError:
        return
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            data: Mapping[str, object] = json.loads((folder / "tag.json").read_text())
            yield Record.from_json(data)
