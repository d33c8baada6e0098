"""The driver 'runc' does what every driver must do; the oracle asks this host's own tools."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.drivers.runc.places import Place
from pytest_machine.model import Id
from pytest_machine.testing import DriverSuite, Specimen, host_leftovers
from tests.conftest import alone
from tests.outside import Outside

PLACES = (Path("/var/lib/pytest-machine/runc"), Path("/run/pytest-machine/runc"))
# The driver's own, from its first machine on: which address and uids are taken, and the folders of machines.
STAYS = {f"file: {PLACES[0] / name}" for name in ("ledger.json", "copy.ledger.json", "machines")}
STAYS |= {f"file: {PLACES[1] / name}" for name in ("state", "machines")}


@alone
class TestRunc(DriverSuite):
    driver_class = RuncDriver
    shared = "PYTEST_MACHINE_SHARED_HOST" in os.environ
    options = {"memory": "512m"}  # noqa: RUF012  # ten lines read better without ClassVar
    outside: ClassVar[str]

    def leftovers(self) -> set[str]:
        found = host_leftovers(*PLACES)
        found -= STAYS
        # Lock files stay: removing one lets two processes lock two files of one name. No SSH is the driver's, and the
        # bench's has no masters: they are of somebody who was killed before, and end in their own time.
        return {thing for thing in found if not thing.endswith(".lock") and not thing.startswith("process: ssh ")}

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _outside(cls) -> Iterator[None]:
        """Have somebody beyond this host."""
        if os.geteuid() != 0 or not shutil.which("ip"):
            yield
            return
        with Outside() as cls.outside:
            yield

    def damage(self, machine: Specimen) -> None:
        Place(Id(machine.id)).tag.write_text('{"id": ', "utf-8")

    def reaches_outside(self, machine: Specimen) -> bool:
        with self.ssh(machine) as connection:
            script = f"exec 3<>/dev/tcp/{self.outside}/7 && cat <&3"
            result = connection.run("timeout", "5", "bash", "-c", script, check=False)
        return result.stdout == "from outside\n"
