"""Random sequences of what may happen to a lab, by our API and behind its back: its invariants hold after each step."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

from pytest_machine import engine
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Seen, Spec, State, new_id
from pytest_machine.plugins import Registry
from pytest_machine.store import Store
from tests.conftest import FULL
from tests.lab_rules import LabRules
from tests.plugin.sshless import Sshless


class _Fakes:
    @staticmethod
    def pytest_machine_drivers() -> list[type[Sshless]]:
        return [Sshless]


class LabStates(LabRules):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="ptm-lab-")
        self.home = Path(self.directory.name)
        self.driver = Sshless(directory=self.home / "fakes")
        self.lab = Lab(store=Store(self.home / "store"), registry=Registry([_Fakes()]), id=new_id())

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()

    def spec(self, name: str, networks: tuple[str, ...]) -> Spec:
        return Spec(name=name, driver="fake", options={"directory": str(self.driver.directory)}, networks=networks)

    def check_machine(self, machine: Machine, at: Seen) -> None:
        if at.state is State.RUNNING:
            assert engine.ping(machine.address, certs=machine.record.directory)
            assert machine.env["DOCKER_HOST"] == machine.url


TestLabStates = LabStates.TestCase
TestLabStates.settings = settings(
    max_examples=30 if FULL else 6,
    stateful_step_count=20 if FULL else 12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not FULL,
    print_blob=True,
)
