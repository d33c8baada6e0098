"""What may happen to a lab, as rules of hypothesis: by its API and behind its back; and what holds after each step.

Two tests play them: `tests/plugin/test_lab_invariants.py` on fake machines, `tests/real/sequences.py` on real ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pytest_machine.errors import MachineError, NotRunning, UnknownMachine
from pytest_machine.fault import Fault
from pytest_machine.faults import power
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Record, Seen, Spec, State

NAMES = ("a", "b", "c")
NETWORKS = ("front", "back")
POWER: tuple[type[power.Kill | power.Pause | power.Restart], ...] = (power.Kill, power.Pause, power.Restart)

_BY_API = ("destroy", "stop", "start", "kill", "pause", "resume", "reset")


def _own(name: str) -> st.SearchStrategy[Any]:
    """Choose among what the class that plays has under a name."""
    return st.runner().flatmap(lambda runner: st.sampled_from(getattr(runner, name)))


class LabRules(RuleBasedStateMachine):
    """The rules and the invariants; a subclass has the driver."""

    driver: Any
    lab: Lab
    home: Path
    behind: ClassVar[tuple[str, ...]] = ("destroy", "stop", "start", "kill", "pause", "resume")
    """What another shell, a provider or a hand may do to one machine."""

    def __init__(self) -> None:
        super().__init__()
        self.old: list[Machine] = []
        self.unseen = False
        """Whether something happened behind the lab's back since the lab was last mended."""

    # What differs.

    def spec(self, name: str, networks: tuple[str, ...]) -> Spec:
        """Return the spec of a machine."""
        raise NotImplementedError

    def act_behind(self, machine: Machine, what: str) -> None:
        """Do one of `behind`."""
        getattr(self.driver, what)(machine.record)

    def fault(self, what: type[Any], machine: Machine) -> Fault:
        """Return a fault at a machine."""
        made: Fault = what(machine.name)
        return made

    faults: ClassVar[tuple[type[Any], ...]] = POWER

    def found(self) -> Iterable[Record]:
        """Return the lab's machines that there are, without the lab."""
        records: Iterable[Record] = self.driver.find()
        return records

    def check_machine(self, machine: Machine, at: Seen) -> None:
        """Check that one machine is what the lab says of it."""
        raise NotImplementedError

    def check_lab(self, seen: dict[Machine, Seen]) -> None:
        """Check what is between machines."""

    # The rules.

    def teardown(self) -> None:
        """Heal and destroy everything; nothing is left."""
        self.lab.heal()
        assert self.lab.faults == []
        self.lab.destroy(kill=True)
        assert list(self.found()) == []
        assert list(self.driver.find_networks()) == []
        assert self.lab.store.names() == []

    def _any(self, number: int) -> Machine | None:
        machines = self.lab.machines
        return machines[number % len(machines)] if machines else None

    @rule(name=st.sampled_from(NAMES), network=st.sampled_from([None, *NETWORKS]))
    def create(self, name: str, network: str | None) -> None:
        """A name is taken exactly when a machine of it is there, whatever state the others are in."""
        spec = self.spec(name, (network,) if network else ())
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
        """A machine does what is asked, or raises a documented error, such as of one that does not run."""
        if machine := self._any(number):
            with contextlib.suppress(MachineError):
                getattr(machine, what)()

    @rule(number=st.integers(0, 2), what=_own("behind"))
    def behind_our_back(self, number: int, what: str) -> None:
        """Something happens to a machine without its lab."""
        if machine := self._any(number):
            self.unseen = True
            with contextlib.suppress(MachineError):
                self.act_behind(machine, what)

    @rule(number=st.integers(0, 2))
    def by_another_shell(self, number: int) -> None:
        """Another process destroys a machine by its store."""
        if machine := self._any(number):
            self.unseen = True
            with contextlib.suppress(UnknownMachine):  # it was gone already, and the lab was not asked since
                Machine.load(machine.name, store=self.lab.store, registry=self.lab.registry).destroy(kill=True)

    @rule(number=st.integers(0, 2), network=st.sampled_from(NETWORKS), on=st.booleans())
    def attach_or_detach(self, number: int, network: str, on: bool) -> None:
        """A machine joins a network of the lab or leaves it."""
        if machine := self._any(number):
            with contextlib.suppress(MachineError):
                (self.lab.attach if on else self.lab.detach)(machine, network)

    @rule(number=st.integers(0, 2), fault=_own("faults"))
    def inject(self, number: int, fault: type[Any]) -> None:
        """A fault is in force until it is healed."""
        if machine := self._any(number):
            with contextlib.suppress(MachineError):
                self.lab.inject(self.fault(fault, machine))

    @precondition(lambda self: self.lab.faults)
    @rule(number=st.integers(0, 9))
    def heal(self, number: int) -> None:
        """One fault ends, and no other."""
        faults = self.lab.faults
        faults[number % len(faults)].heal()
        assert len(self.lab.faults) == len(faults) - 1

    @rule()
    def heal_all(self) -> None:
        """All faults end."""
        self.lab.heal()
        assert self.lab.faults == []

    @rule(number=st.integers(0, 9))
    def destroy_an_old_handle(self, number: int) -> None:
        """A handle of a destroyed machine harms no machine that has its name or its address now."""
        if self.old:
            self.old[number % len(self.old)].destroy(kill=True)

    # The invariants.

    @invariant()
    def the_lab_is_what_is_there(self) -> None:
        """The lab, its store and the driver have the same machines, and what runs answers."""
        if self.unseen:
            self.lab.mend()
            self.unseen = False
        seen = self.lab.status()
        alive = {record.id: record.name for record in self.found()}
        assert {machine.id: machine.name for machine in seen} == alive
        assert sorted(self.lab.store.names()) == sorted(alive.values())
        assert {machine.name for machine in self.lab} == set(alive.values())
        for machine, at in seen.items():
            assert machine.name in self.lab
            assert self.lab[machine.name] is machine
            assert set(machine.networks) <= set(self.lab.networks)
            self.check_machine(machine, at)
        self.check_lab(seen)

    @invariant()
    def who_is_gone_says_so(self) -> None:
        """A handle of a destroyed machine raises `NotRunning`."""
        there = set(self.lab.machines)
        for machine in self.old:
            if machine not in there:
                assert machine.gone
                for use in (lambda machine=machine: machine.env, machine.start, machine.renew):
                    with contextlib.suppress(NotRunning):
                        raise AssertionError(f"a machine that is gone returned {use()!r}")

    @invariant()
    def the_lab_can_be_used(self) -> None:
        """Whatever state its machines are in, the lab shows itself."""
        with self.lab.environment():
            self.lab.draw(self.home / "lab.svg")
