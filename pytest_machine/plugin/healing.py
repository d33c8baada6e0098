"""Heals what tests leave broken: after each, whatever happened in it, and with a warning that names the test.

What is injected while a test runs is to be over when it ends. What its fixtures injected ends with those; only when all
of the test is torn down, and before anybody else has the machines, is the rest healed. A fixture of a wider scope may
break its lab for as long as that lasts.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

import pytest

from pytest_machine.errors import CleanupFailed, MachineError
from pytest_machine.support import clock

from .journal import Journal

if TYPE_CHECKING:
    from pytest_machine.breaking import Injection
    from pytest_machine.disturbance import Disturbance
    from pytest_machine.lab import Lab

    from .tracking import Node


class Healing:
    """Knows every lab that tests have, and what is broken in it on purpose."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._labs: list[Lab] = []
        self._wide: set[str] = set()  # what fixtures of wider scopes injected: their tokens
        self._disturbed: list[Disturbance] = []  # and the schedules that they began

    def leased(self, node: Node, lab: Lab) -> None:
        """Note that a test or a scope has a lab; before it has it no more, all is healed."""
        if lab not in self._labs:
            self._labs.append(lab)
            lab.watch_faults(functools.partial(self._note, lab))
        # Behind the lab's own end, so before it; but after all that the node's fixtures do in their end.
        node.addfinalizer(functools.partial(self._let_go, node, lab))

    def _let_go(self, node: Node, lab: Lab) -> None:
        errors = self._stop(node, lab)
        left = lab.faults if not isinstance(node, pytest.Item) else self._left([lab])
        errors += self._heal(node, left)
        if not lab.faults and not isinstance(node, pytest.Item):
            self._labs = [each for each in self._labs if each is not lab]
        _raise(errors)

    def _stop(self, node: Node, lab: Lab) -> list[Exception]:
        """End random schedules that nobody has ended, before what they injected is looked at."""
        going = [each for each in lab.disturbances if not isinstance(node, pytest.Item) or each not in self._disturbed]
        errors: list[Exception] = []
        for disturbance in going:
            try:
                disturbance.stop()
            except (MachineError, OSError) as error:
                errors.append(error)
            node.warn(
                pytest.PytestWarning(
                    f"{node.nodeid} left a schedule of faults going, which was ended: seed {disturbance.seed}."
                    " Write `with lab.disturb(...):`."
                )
            )
        return errors

    def _left(self, labs: Iterable[Lab]) -> list[Injection]:
        left = (injection for lab in labs for injection in lab.faults if not injection.scheduled)
        return [injection for injection in left if injection.token not in self._wide]

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
        """Let fixtures of wider scopes break their labs."""
        before = {injection.token for injection in self._left(self._labs)}
        try:
            return (yield)
        finally:
            if fixturedef.scope != "function":
                self._wide |= {injection.token for injection in self._left(self._labs)} - before
                self._disturbed = [each for lab in self._labs for each in lab.disturbances]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Heal what the test itself has left."""
        before = {injection.token for injection in self._left(self._labs)}

        def left() -> list[Injection]:
            return [injection for injection in self._left(self._labs) if injection.token not in before]

        try:
            result = yield
        except KeyboardInterrupt:
            raise  # the machines are about to go; what is left of a shared one is seen when it is reset
        except BaseException as error:
            for lab in self._labs:
                lab.note_failure(error)
            try:
                others = self._heal(item, left())
            except pytest.PytestWarning as warning:  # where warnings are errors
                others = [warning]
            for other in others:
                error.add_note(f"Besides: {other}")
            raise
        _raise(self._heal(item, left()))
        return result

    def _heal(self, node: Node, left: Iterable[Injection]) -> list[Exception]:
        going = list(left)
        errors: list[Exception] = []
        for injection in going[::-1]:
            try:
                injection.heal()
            except (MachineError, OSError) as error:
                errors.append(error)
        if going:
            what = ", ".join(repr(injection.fault) for injection in going)
            end = "could not be healed" if errors else "was healed" if len(going) == 1 else "were healed"
            node.warn(
                pytest.PytestWarning(
                    f"{node.nodeid} left behind what it had injected, which {end}: {what}."
                    " Write `with lab.inject(...):`, or call `heal` in the end."
                )
            )
        return errors

    def _note(self, lab: Lab, injection: Injection) -> None:
        for name in sorted(injection.touched):
            if name in lab:
                ended = clock.now() if injection.ended is None else injection.ended
                self._journal.note("fault", lab[name].record, injection.begun, ended, text=str(injection))


def _raise(errors: list[Exception]) -> None:
    if errors:
        raise errors[0] if len(errors) == 1 else CleanupFailed("Not every fault could be healed.", errors)
