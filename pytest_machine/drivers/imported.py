"""Machines that somebody else made, and whose access was imported: they are used, and never made or destroyed.

All that is known of such a machine is its address. What it does is asked of that: somebody listens on its Docker's port
or on that of SSH, or nobody does. Whoever made it can start, stop and remove it; here it is forgotten at most.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pytest_machine.errand import Errand
from pytest_machine.errors import DriverUnavailable
from pytest_machine.model import Access, Id, Isolation, Record, Seed, Seen, State
from pytest_machine.options import option

# Seconds that a machine has to accept a connection: around the earth and back, some ten times.
_PATIENCE = 2.0


@dataclass(frozen=True, kw_only=True)
class ImportedDriver:
    """Uses machines whose access was exported elsewhere (`docker-machine import`). It makes none, and destroys none."""

    name: ClassVar[str] = "imported"

    origin: str = option("", help="the driver that made the machine")

    @property
    def isolation(self) -> Isolation:
        """Nothing is known of it, so that nothing is promised."""
        return Isolation.PRIVILEGED

    def check(self) -> None:
        """Raise `DriverUnavailable`: it never makes a machine."""
        raise _makes_none()

    def access(self, record: Record) -> Access:
        """Return what came along, which is in the machine's directory already."""
        return Access(certs=record.directory, provision=False)

    def create(self, record: Record, seed: Seed) -> None:  # noqa: ARG002  # the protocol's
        """Raise `DriverUnavailable`."""
        raise _makes_none()

    def destroy(self, record: Record) -> None:
        """Leave the machine alone: it belongs to whoever made it, and there is nothing of it here but its record."""

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Return whether somebody listens at the machines' addresses; all are asked at once."""
        asked = {record.id: Errand(functools.partial(_seen, record)) for record in records}
        return {known: errand.result() for known, errand in asked.items()}

    def find(self) -> Iterable[Record]:
        """Return none: it has put its tags on nothing."""
        return []


def _makes_none() -> DriverUnavailable:
    return DriverUnavailable(
        "The driver 'imported' makes no machines: it uses those whose access was imported.",
        hint="docker-machine import FILE",
    )


def _seen(record: Record) -> Seen:
    address = record.address
    if address is None:
        return Seen(state=State.ERROR, detail="its access came without an address")
    reasons = []
    for port in (address.engine_port, address.ssh_port):
        try:
            with socket.create_connection((address.ip, port), timeout=_PATIENCE):
                return Seen(state=State.RUNNING, address=address)
        except OSError as error:
            reasons.append(f"{address.ip}:{port}: {error.strerror or error}")
    return Seen(state=State.STOPPED, address=address, detail="; ".join(reasons))
