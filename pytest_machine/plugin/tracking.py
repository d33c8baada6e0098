"""Which machines of wider scopes the running test uses, noted whenever a test or a fixture gets one.

A test's ``fixturenames`` do not say it: ``request.getfixturevalue("module_machine")`` adds nothing to them, and a
module's fixture that has called it is handed to later tests from pytest's cache. So each fixture of a wider scope that
has got a machine is watched: a later test that gets the fixture uses the machine too.

Present in every run, so it imports nothing of ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator

import pytest

Node = pytest.Item | pytest.Collector
Fixture = pytest.FixtureDef[object]

TRACKING = pytest.StashKey["Tracking"]()
_NODES = pytest.StashKey[dict[Node, None]]()
_LAST = pytest.StashKey[bool]()


class Tracking:
    """Follows fixtures as pytest sets them up."""

    def __init__(self) -> None:
        self.item: pytest.Item | None = None
        """The test that is set up, runs or is torn down."""
        self.used: Callable[[Node], None] = lambda _: None
        """Called when the running test gets the machines of a wider scope, by the scope's node; once a test."""
        self.fixtures_over: Callable[[], None] = lambda: None
        """Called when all fixtures of the test itself are torn down, and before those of wider scopes are."""
        self._setups: list[Fixture] = []
        self._watched: dict[Fixture, dict[Node, None]] = {}

    def use(self, node: Node) -> None:
        """Note that the machines of a wider scope go to whatever is set up or run now."""
        for fixture in self._setups:
            if fixture.scope != "function":
                self._watch(fixture, node)
        if self.item is not None and node not in self.item.stash[_NODES]:
            self.item.stash[_NODES][node] = None
            self.used(node)

    def _watch(self, fixture: Fixture, node: Node) -> None:
        nodes = self._watched.get(fixture)
        if nodes is None:
            nodes = self._watched[fixture] = {}
            # No hook is called for a fixture that comes from the cache.
            fixture.execute = functools.partial(self._execute, fixture.execute, nodes)  # type: ignore[method-assign]
        if node not in nodes:
            nodes[node] = None
            fixture.addfinalizer(nodes.clear)

    def _execute(
        self, execute: Callable[..., object], nodes: dict[Node, None], request: pytest.FixtureRequest
    ) -> object:
        value = execute(request=request)
        for node in list(nodes):
            self.use(node)
        return value

    def _end(self) -> None:
        self.fixtures_over()

    def ends_fixtures(self, item: pytest.Item) -> bool:
        """Whether `fixtures_over` is called in the teardown of a test, because it has fixtures of its own."""
        return item.stash.get(_LAST, False)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Begin with a test that uses nothing, also when it is run again."""
        self.item = item
        item.stash[_NODES] = {}
        item.stash[_LAST] = False
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Forget the test when everything is torn down."""
        try:
            return (yield)
        finally:
            self.item = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: Fixture, request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Know what is being set up; the finalizer added before a test's first fixture is the last one called."""
        item = request.node
        if request.scope == "function" and isinstance(item, pytest.Item) and not self.ends_fixtures(item):
            item.stash[_LAST] = True
            item.addfinalizer(self._end)
        self._setups.append(fixturedef)
        try:
            return (yield)
        finally:
            self._setups.pop()


def nodes(item: pytest.Item) -> list[Node]:
    """Return the nodes of wider scopes whose machines a test has got, widest first."""
    found: dict[Node, None] = item.stash.get(_NODES, {})
    return sorted(found, key=lambda node: len(node.listchain()))


def of(config: pytest.Config) -> Tracking:
    """Return the run's."""
    return config.stash[TRACKING]
