"""Random sequences of what may happen to a lab, by our API and behind its back: its invariants hold after each step."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pytest_machine import engine
from pytest_machine.errors import MachineError, NotRunning, UnknownMachine
from pytest_machine.faults import power
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Spec, State, new_id
from pytest_machine.plugins import Registry
from pytest_machine.store import Store
from tests.conftest import FULL
from tests.plugin.sshless import Sshless

NAMES = ("a", "b", "c")
NETWORKS = ("front", "back")

# What may happen to one machine by our API, and what a hand, another shell or a provider may do to it.
_BY_API = ("destroy", "stop", "start", "kill", "pause", "resume", "reset")
_BEHIND = ("destroy", "stop", "start", "kill", "pause", "resume")


class _Fakes:
    @staticmethod
    def pytest_machine_drivers() -> list[type[Sshless]]:
        return [Sshless]


class LabStates(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="ptm-lab-")
        home = Path(self.directory.name)
        self.driver = Sshless(directory=home / "fakes")
        self.registry = Registry([_Fakes()])
        self.lab = Lab(store=Store(home / "store"), registry=self.registry, id=new_id())
        self.old: list[Machine] = []

    def teardown(self) -> None:
        self.lab.heal()
        assert self.lab.faults == []
        self.lab.destroy(kill=True)
        assert list(self.driver.find()) == []
        assert list(self.driver.find_networks()) == []
        assert self.lab.store.names() == []
        self.directory.cleanup()

    def _any(self, number: int) -> Machine | None:
        machines = self.lab.machines
        return machines[number % len(machines)] if machines else None

    @rule(name=st.sampled_from(NAMES), network=st.sampled_from([None, *NETWORKS]))
    def create(self, name: str, network: str | None) -> None:
        """A name is taken exactly when a machine of it is there, whatever state the others are in."""
        spec = Spec(
            name=name,
            driver="fake",
            options={"directory": str(self.driver.directory)},
            networks=(network,) if network else (),
        )
        before = {each.name for each, seen in self.lab.status().items() if seen.state is not State.ABSENT}
        if name in before:
            with pytest.raises(MachineError):
                self.lab.create(spec)
            return
        (made,) = self.lab.create(spec)
        assert made.state is State.RUNNING
        self.old.append(made)

    @rule(number=st.integers(0, 2), what=st.sampled_from(_BY_API))
    def by_api(self, number: int, what: str) -> None:
        if machine := self._any(number):
            with contextlib.suppress(MachineError):  # a documented error, such as of one that does not run
                getattr(machine, what)()

    @rule(number=st.integers(0, 2), what=st.sampled_from(_BEHIND))
    def behind_our_back(self, number: int, what: str) -> None:
        if machine := self._any(number):
            with contextlib.suppress(MachineError):
                getattr(self.driver, what)(machine.record)

    @rule(number=st.integers(0, 2))
    def by_another_shell(self, number: int) -> None:
        if machine := self._any(number):
            with contextlib.suppress(UnknownMachine):  # it was gone, and nobody had asked
                Machine.load(machine.name, store=self.lab.store, registry=self.registry).destroy(kill=True)

    @rule(number=st.integers(0, 2), network=st.sampled_from(NETWORKS), on=st.booleans())
    def attach_or_detach(self, number: int, network: str, on: bool) -> None:
        if machine := self._any(number):
            with contextlib.suppress(MachineError):
                (self.lab.attach if on else self.lab.detach)(machine, network)

    @rule(number=st.integers(0, 2), fault=st.sampled_from([power.Kill, power.Pause, power.Restart]))
    def inject(self, number: int, fault: type[power.Kill | power.Pause | power.Restart]) -> None:
        if machine := self._any(number):
            with contextlib.suppress(MachineError):
                self.lab.inject(fault(machine.name))

    @precondition(lambda self: self.lab.faults)
    @rule(number=st.integers(0, 9))
    def heal(self, number: int) -> None:
        faults = self.lab.faults
        faults[number % len(faults)].heal()
        assert len(self.lab.faults) == len(faults) - 1

    @rule()
    def heal_all(self) -> None:
        self.lab.heal()
        assert self.lab.faults == []

    @rule(number=st.integers(0, 9))
    def destroy_an_old_handle(self, number: int) -> None:
        """A handle of long ago harms no machine that has its name or its address now."""
        if self.old:
            self.old[number % len(self.old)].destroy(kill=True)

    @invariant()
    def the_lab_is_what_is_there(self) -> None:
        seen = self.lab.status()
        alive = {record.id: record.name for record in self.driver.find()}
        assert {machine.id: machine.name for machine in seen} == alive
        assert sorted(self.lab.store.names()) == sorted(alive.values())
        assert {machine.name for machine in self.lab} == set(alive.values())
        for machine, at in seen.items():
            assert machine.name in self.lab
            assert self.lab[machine.name] is machine
            assert set(machine.networks) <= set(self.lab.networks)
            if at.state is State.RUNNING:
                assert engine.ping(machine.address, certs=machine.record.directory)
                assert machine.env["DOCKER_HOST"] == machine.url

    @invariant()
    def who_is_gone_says_so(self) -> None:
        there = set(self.lab.machines)
        for machine in self.old:
            if machine not in there:
                assert machine.gone
                for use in (lambda machine=machine: machine.env, machine.start, machine.renew):
                    with contextlib.suppress(NotRunning):
                        raise AssertionError(f"a machine that is gone returned {use()!r}")

    @invariant()
    def the_lab_can_be_used(self) -> None:
        with self.lab.environment():
            self.lab.draw(Path(self.directory.name) / "lab.svg")


TestLabStates = LabStates.TestCase
TestLabStates.settings = settings(
    max_examples=30 if FULL else 6,
    stateful_step_count=20 if FULL else 12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not FULL,
    print_blob=True,
)
