"""The driver 'runc' does what every driver must do; the oracle asks this host's own tools."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.testing import DriverSuite, host_leftovers
from tests.conftest import alone


@alone
class TestRunc(DriverSuite):
    driver_class = RuncDriver
    shared = "PYTEST_MACHINE_SHARED_HOST" in os.environ
    options = {"memory": "512m"}  # noqa: RUF012  # ten lines read better without ClassVar

    def leftovers(self) -> set[str]:
        found = host_leftovers(Path("/var/lib/pytest-machine/runc"), Path("/run/pytest-machine/runc"))
        # Lock files stay: removing one lets two processes lock two files of one name.
        return {thing for thing in found if not thing.endswith(".lock")}
