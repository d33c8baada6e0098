"""The DOCKER_* variables of a test's machine, in the environment for as long as the test runs.

A machine of a wider scope outlives the test that made it, so it is the test, and not the fixture, that carries the
variables: from the moment it gets the machine to the end of its teardown, behind every fixture. A test that uses no
machine sees none, also beside others that share one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_machine.client_environment import assert_covers

from .tracking import Tracking

if TYPE_CHECKING:
    from pytest_machine.client_environment import Cover
    from pytest_machine.machine import Machine
    from pytest_machine.model import Id


class Environment:
    """Sets the variables for the test that is running."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        # What a test's own fixtures left changed is no value to go on with; what wider ones then restore, is.
        tracking.fixtures_over = assert_covers
        self._covers: dict[Id, Cover] = {}

    def show(self, machine: Machine) -> None:
        """Set a machine's variables until the test that runs now is over, the first time that it gets the machine."""
        if machine.id not in self._covers:
            self._covers[machine.id] = machine.cover()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Put everything back, after all fixtures of the test and of the scopes that end with it."""
        if not self._tracking.ends_fixtures(item):
            assert_covers()
        try:
            return (yield)
        finally:
            for cover in reversed(self._covers.values()):
                cover.end(yielding=True)
            self._covers.clear()
