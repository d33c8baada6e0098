"""Engines that are there already, known by their address alone: nothing is done to them, ever.

For whoever wants one among the others in `ls` and `env`. With ``certs``, a test can use it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from pytest_machine.errors import BadSpec
from pytest_machine.model import Access, Address, Id, Isolation, Record, Seed, Seen, State
from pytest_machine.options import option


@dataclass(frozen=True, kw_only=True)
class NoneDriver:
    """Knows engines by their address alone, and does nothing to them."""

    name: ClassVar[str] = "none"

    url: str = option("", help="address of its Docker, such as tcp://192.0.2.1:2376", flag="--url")
    certs: str = option(
        "", help="directory with ca.pem, cert.pem and key.pem that it was set up for; default: the store's", flag=None
    )

    @property
    def isolation(self) -> Isolation:
        """None that we know of: it may be this computer's own."""
        return Isolation.PRIVILEGED

    def check(self) -> None:
        """Raise unless an engine is named."""
        if not self.url:
            raise BadSpec(
                "--url option is required when no driver is selected",
                hint="docker-machine create -d none --url tcp://192.0.2.1:2376 NAME",
            )

    def access(self, record: Record) -> Access:  # noqa: ARG002  # all that it takes is among the options
        """Return whose certificates its clients have; nothing is to be done to it."""
        return Access(certs=Path(self.certs).expanduser() if self.certs else None, provision=False)

    def create(self, record: Record, seed: Seed) -> None:
        """Do nothing: it is there."""

    def destroy(self, record: Record) -> None:
        """Do nothing: it is not ours to end."""

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Return that it runs: nobody knows better."""
        seen = Seen(state=State.RUNNING, address=self._address())
        return {record.id: seen for record in records}

    def find(self) -> Iterable[Record]:
        """Return nothing: they carry no tags."""
        return ()

    def _address(self) -> Address:
        try:
            found = urlsplit(self.url)
            host, port = found.hostname or "", found.port or 0
        except ValueError:
            host, port = "", 0
        return Address(ip=host, ssh_port=0, engine_port=port, engine=self.url)
