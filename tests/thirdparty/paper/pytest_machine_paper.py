"""A whole driver in fifty lines, as a stranger might publish it: its machines are files, and do nothing.

What it shows: five methods are enough, the tags are the whole record, and the file's name is the machine's id, so that
neither the store nor a memory is needed to find and destroy what was made.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pytest_machine.driver import Driver
from pytest_machine.errors import DriverUnavailable
from pytest_machine.hookspecs import hookimpl
from pytest_machine.model import Address, Id, Isolation, Record, Seed, Seen, State
from pytest_machine.options import option


@dataclass(frozen=True, kw_only=True)
class PaperDriver:
    """Writes machines down."""

    name: ClassVar[str] = "paper"

    folder: str = option("", help="where the files are written")

    @property
    def isolation(self) -> Isolation:
        """Nothing runs, so nothing gets out; but nothing holds it back either."""
        return Isolation.PRIVILEGED

    def check(self) -> None:
        """Raise unless there is a folder to write to."""
        if not Path(self.folder or "missing").is_dir():
            raise DriverUnavailable("The driver 'paper' has no folder.", hint="give options={'folder': '/tmp'}")

    def create(self, record: Record, seed: Seed) -> None:  # paper holds no seed
        """Write the tags."""
        # Written aside, outside of what is looked through: killed at any moment, there are whole tags or none.
        aside = Path(self.folder).with_name(f".{record.id}.tags")
        aside.write_text(json.dumps(record.to_json()), "utf-8")
        aside.replace(self._tags(record.id))

    def destroy(self, record: Record) -> None:
        """Throw away all that bears the id."""
        for path in Path(self.folder).glob(f"{record.id}.*"):
            path.unlink(missing_ok=True)

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Tell which files there are."""
        there = {path.stem for path in Path(self.folder).glob("*.json")}
        return {
            # Not an address to reach it at, but one of its own: 127.0.0.0/8 has room for 24 bits of the id.
            record.id: Seen(state=State.RUNNING, address=Address(ip=_loopback(record.id)))
            if record.id in there
            else Seen(state=State.ABSENT)
            for record in records
        }

    def find(self) -> Iterable[Record]:
        """Read all tags; a file that is just being written has none yet."""
        for path in sorted(Path(self.folder).glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                yield Record.from_json(json.loads(path.read_text("utf-8")))

    def _tags(self, machine: Id) -> Path:
        return Path(self.folder, f"{machine}.json")


def _loopback(machine: Id) -> str:
    return ".".join(["127", *(str(int(machine[at : at + 2], 16)) for at in (0, 2, 4))])


@hookimpl
def pytest_machine_drivers() -> Iterable[type[Driver]]:
    """Offer the driver to pytest-machine."""
    return [PaperDriver]
