"""Upkeep: machines of wider scopes' fixtures work when a test begins, whatever the tests before did to them.

A machine that was stopped or frozen runs again, with all that a fixture has prepared on it. For one that is gone the
fixture that made it is torn down, and with it the fixtures that build on it; pytest sets them up again for the test.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_machine.errors import MachineError

from .fixtures import SCOPES
from .pool import Pool, scope_node
from .waking import awake

if TYPE_CHECKING:
    from pytest_machine.machine import Machine

    from .tracking import Node


@dataclass(frozen=True, slots=True, eq=False)
class _Making:
    """A fixture that is being set up."""

    definition: pytest.FixtureDef[object]
    request: pytest.FixtureRequest


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """Machines, and the fixture that asked for them."""

    by: _Making
    pool: Pool
    machines: Sequence[Machine]


class Upkeep:
    """Knows which fixture of a wider scope has which machines."""

    def __init__(self) -> None:
        self._making: list[_Making] = []
        self._held: dict[Node, list[_Held]] = {}

    def held(self, node: Node, pool: Pool, machines: Sequence[Machine]) -> None:
        """Note that the fixture that is being set up has machines of a pool; a test that asks itself gets no others."""
        if self._making and self._making[-1].definition.scope != "function":
            self._held.setdefault(node, []).append(_Held(self._making[-1], pool, machines))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Note which fixture is being set up."""
        self._making.append(_Making(fixturedef, request))
        try:
            return (yield)
        finally:
            self._making.pop()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Have the machines of wider scopes run, or their fixtures set up again, before the test's own setup."""
        for scope in reversed(SCOPES):
            for held in list(self._held.get(scope_node(item, scope), ())):
                if held.by.definition.cached_result is not None and not _work(held.machines):
                    self._lose(item, scope_node(item, scope), held)
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[object]) -> None:
        """Forget what a fixture had that was torn down."""
        for node, held in list(self._held.items()):
            left = [each for each in held if each.by.definition is not fixturedef]
            if left:
                self._held[node] = left
            else:
                del self._held[node]

    def _lose(self, item: pytest.Item, node: Node, lost: _Held) -> None:
        """Tear down every fixture that has some of these machines, then destroy what is left of them."""
        ids = {machine.id for machine in lost.machines}
        for held in list(self._held.get(node, ())):
            if ids.isdisjoint(machine.id for machine in held.machines):
                continue
            try:
                held.by.definition.finish(held.by.request)  # type: ignore[arg-type]  # it is the one pytest gave us
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  # a teardown cannot do much with a machine that is gone
                item.warn(
                    pytest.PytestWarning(
                        f"The teardown of '{held.by.definition.argname}' failed, whose machine was destroyed: {error}"
                    )
                )
        lost.pool.lose(lost.machines)


def _work(machines: Sequence[Machine]) -> bool:
    """Return whether machines run and their Docker answers, maybe because they do so again."""
    try:
        for machine in machines:
            awake(machine)
    except (MachineError, OSError):
        return False
    return True
