"""The DOCKER_* variables of a test's machine, in the environment for as long as the test runs.

A machine of a wider scope outlives the test that made it, and its fixture is not run again for the next one; so it is
the test, and not the fixture, that carries the variables: from its setup, or the moment its machine is made, to the end
of its teardown. A test that uses no machine sees none, also beside others that share one.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from .fixtures import SCOPES, wide
from .pool import Pool, scope_node

if TYPE_CHECKING:
    from pytest_machine.machine import Machine


class Environment:
    """Sets the variables for the test that is running."""

    def __init__(self) -> None:
        self._test = ExitStack()

    def show(self, machine: Machine) -> None:
        """Set a machine's variables until the test that runs now is over."""
        self._test.enter_context(machine.environment())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Show the machine that an earlier test's fixture made: of several scopes, the narrowest."""
        names = set(getattr(item, "fixturenames", ()))
        for scope in SCOPES:
            if names.isdisjoint(wide(scope)):
                continue
            pool = Pool.found(scope_node(item, scope))
            if pool and pool.first:
                self.show(pool.first)
                return

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Put everything back, after all fixtures of the test."""
        try:
            return (yield)
        finally:
            self._test.close()
