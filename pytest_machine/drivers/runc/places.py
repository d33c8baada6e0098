"""Where machines of this driver keep what outlives a process, and what outlives a boot.

One fixed place a host, not the store of whoever asked: overlay's upper directories must be on a real disk, addresses
and uid ranges are the host's to give out, and a machine must be found when its store is gone (docs/decisions/0001).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_machine import store, stored
from pytest_machine.model import Id, Record
from pytest_machine.stored import Damaged
from pytest_machine.support import files, parsing
from pytest_machine.support.folders import make_folder
from pytest_machine.support.parsing import Malformed
from pytest_machine.support.text import shell_word, visible

STATE = Path("/var/lib/pytest-machine/runc")
"""Survives a boot: tags, leases, disks."""
RUN = Path("/run/pytest-machine/runc")
"""Gone at the next boot, as is all that it speaks of: mounts, pids."""

# Bytes of the note of a machine's files.
_LARGEST = 256 << 20


def write(path: Path, data: object) -> None:
    """Write JSON, whole or not at all."""
    # Not durable: a boot that loses the last second of this file has lost the machines' processes too.
    store.write(path, json.dumps(data).encode(), durable=False)


def read(path: Path) -> dict[str, str]:
    """Return what was written of a machine; raises `OSError` or `Malformed`."""
    found = files.read_table(path, f"'{path.name}'", largest=_LARGEST)
    return {key: parsing.lines(value, f"an entry of '{path.name}'") for key, value in found.items()}


def make_passable(folder: Path) -> None:
    """Make a folder that every machine's root can pass through and nobody can list."""
    make_folder(folder, 0o711)


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
        for half in STATE.glob(f".*{name}.json.*.tmp"):
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
    def console(self) -> Path:
        """Where the console of a machine without a disk lies while it lives: a file system in memory."""
        return self.run / "console"

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
    """Return the record in every tag that can be read."""
    for id_ in _ids(STATE):
        with contextlib.suppress(*files.UNREADABLE):
            yield Record.from_json(files.read_json(Place(Id(id_)).tag, "the tag"))


def damaged() -> Iterator[Damaged]:
    """Return every machine whose tag cannot be read, or of which anything is there without a tag."""
    for id_ in sorted({*_ids(STATE), *_ids(RUN)}):
        place = Place(Id(id_))
        data: object = None
        try:
            data = files.read_json(place.tag, "the tag")
            if Record.from_json(data).id != id_:
                raise Malformed("it is the tag of another machine")
        except FileNotFoundError:
            # The tag comes first and goes last: where there is nothing else, it is being written or removed.
            if _has_more(place) and not os.path.lexists(place.tag):
                yield _left(None, "there is no tag", id_, place)
        except files.UNREADABLE as error:
            yield _left(data, error if isinstance(error, Malformed) else files.reason(error), id_, place)


def _left(data: object, reason: Exception | str, id_: str, place: Place) -> Damaged:
    try:
        return stored.damaged(data, reason, id=stored.id_(id_), place=str(place.tag))
    except Malformed:
        where = place.state if os.path.lexists(place.state) else place.run
        reason = f"its folder is not named like a machine; rm -r -- {shell_word(where)}"
        return stored.damaged(data, reason, id="", place=visible(str(where), lines=False))


def _has_more(place: Place) -> bool:
    with contextlib.suppress(OSError):
        if any(place.run.iterdir()):
            return True
    with contextlib.suppress(OSError):
        return any(not path.name.endswith(".tmp") for path in place.state.iterdir())
    return False


def _ids(top: Path) -> list[str]:
    try:
        return sorted(path.name for path in (top / "machines").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
