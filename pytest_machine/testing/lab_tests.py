"""The part of `DriverSuite` that uses a driver as tests do: through `Lab` and `Machine`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_machine import engine
from pytest_machine.driver import SupportsAdoption
from pytest_machine.errors import CommandFailed, Unsupported
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Spec, State, new_id
from pytest_machine.plugins import Registry
from pytest_machine.store import Store

from .bench import Bench


class LabTests(Bench):
    """Tests of machines in a lab: what a test's fixtures do with a driver."""

    @pytest.fixture
    def suite_lab(self, _nothing_left: None, tmp_path: Path) -> Iterator[Lab]:
        """Return an empty lab for the driver's machines; it is destroyed at the end."""
        if not self.has_engine:
            pytest.skip(f"machines of '{self.driver().name}' have no Docker daemon: no test can use them")
        hooks = SimpleNamespace(pytest_machine_drivers=lambda: [self.driver_class])
        identity = new_id()
        self.own.add(identity)
        lab = Lab(store=Store(tmp_path / "lab"), registry=Registry([hooks]), run="run-lab", id=identity)
        yield lab
        lab.destroy(kill=True)

    def machines_of(self, lab: Lab, *names: str) -> list[Machine]:
        """Create machines in a lab, and return them."""
        made = lab.create(
            *(
                Spec(
                    name=name,
                    driver=self.driver().name,
                    options={key: value for key, value in self.options.items() if value is not None},
                    timeout=self.ready_seconds,
                )
                for name in names
            )
        )
        self.own.update(machine.id for machine in made)
        return made

    def several(self) -> tuple[str, ...]:
        """Return the names of the machines that a lab can have: two, or one where there can be only one."""
        return ("one", "two") if self.many > 1 else ("one",)

    def test_a_lab_has_machines_that_are_ready(self, suite_lab: Lab, tmp_path: Path) -> None:
        """Each runs, Docker answers over TLS, and commands run in it where it has SSH."""
        for machine in self.machines_of(suite_lab, *self.several()):
            assert machine.state is State.RUNNING
            assert engine.version(machine.address, certs=machine.record.directory), "Docker does not say its version"
            assert machine.env["DOCKER_HOST"] == machine.url
            self._expect_commands(machine, tmp_path)

    def _expect_commands(self, machine: Machine, folder: Path) -> None:
        if not machine.address.ssh_port:
            with pytest.raises(Unsupported):
                machine.run("true")
            return
        assert machine.run("echo", "two words").stdout == "two words\n"
        with pytest.raises(CommandFailed):
            machine.run("false")
        machine.put(b"brought\0here", "/tmp/brought")  # noqa: S108  # in the machine
        machine.get("/tmp/brought", folder / "brought")  # noqa: S108
        assert (folder / "brought").read_bytes() == b"brought\0here"

    def test_machines_of_a_lab_know_each_other(self, suite_lab: Lab) -> None:
        """The name of each resolves in the others, where they have SSH."""
        machines = self.machines_of(suite_lab, *self.several())
        for machine in machines:
            if not machine.address.ssh_port:
                pytest.skip("machines without SSH cannot be asked for names")
            if isinstance(machine.driver, SupportsAdoption):
                pytest.skip("an existing host knows the names that it knew")
            for other in machines:
                found = machine.run("getent", "hosts", other.name, check=False)
                assert found.returncode == 0, f"'{machine.name}' does not know '{other.name}'"

    def test_a_machine_is_destroyed_in_its_lab(self, suite_lab: Lab) -> None:
        """The others go on, its name is free, and another machine can have it."""
        before = self.leftovers()
        names = self.several()
        first, *others = self.machines_of(suite_lab, *names)
        first.destroy()
        assert [machine.name for machine in suite_lab.machines] == list(names[1:])
        for other in others:
            assert other.state is State.RUNNING, f"destroying '{first.name}' stopped '{other.name}'"
            assert engine.version(other.address, certs=other.record.directory)
        (again,) = self.machines_of(suite_lab, first.name)
        assert again.id != first.id
        assert engine.version(again.address, certs=again.record.directory)
        suite_lab.destroy()
        self.expect_left(before, "After the destruction of a lab")
