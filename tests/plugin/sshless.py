"""The fake driver with machines that no SSH leads into, as those of a driver that makes only Docker engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_machine.model import Address, Id, Record, Seen
from pytest_machine.testing import FakeDriver


@dataclass(frozen=True, kw_only=True)
class Sshless(FakeDriver):
    """See above."""

    def reserve(self, record: Record) -> Address:
        """Return an address without a port for SSH."""
        return replace(super().reserve(record), ssh_port=0)

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Return the same address."""
        return {
            id_: replace(seen, address=replace(seen.address, ssh_port=0) if seen.address else None)
            for id_, seen in super().look(records).items()
        }


def pytest_machine_drivers() -> list[type[FakeDriver]]:
    """For a conftest that imports it."""
    return [Sshless]
