"""Each line with `# error` is one that a type checker must refuse."""

from __future__ import annotations

import pytest_machine
from pytest_machine import CommandFaild  # error
from pytest_machine import Lab, Machine
from pytest_machine import Partitoin  # error
from pytest_machine.driver import Sene  # error
from pytest_machine.errors import UsageErorr  # error
from pytest_machine.faults.network import Dealy  # error
from pytest_machine.testing import DriverSuit  # error

pytest_machine.Loos(0.3)  # error


def test_it(machine: Machine, lab: Lab) -> None:
    machine.run(["ls", "-l"])  # error
    machine.run("ls", cwd="/")  # error
    machine.sh(["ls"])  # error
    machine.rnu("ls")  # error
    machine.wait_for(prot=80)  # error
    machine.port("web", "80")  # error
    lab.inject("Partition")  # error
    lab["web"].networks["front"].adress  # error
    pytest_machine.Loss(chance="30%")  # error
    pytest_machine.Delay("100ms")  # error
