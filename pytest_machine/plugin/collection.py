"""Wrong marks end the collection: said once, before any machine is made, with the tests that they stand on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest

from pytest_machine.errors import MachineError

from . import levels, marker, matrix
from .choice import Choice
from .fixtures import uses_machine
from .pool import shared_scope


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Make a run of a test for each engine that its marks list; what is wrong with the marks is said later."""
    with contextlib.suppress(MachineError):
        matrix.parametrize(metafunc, levels.machines(metafunc.definition))


class Collection:
    """Checks the marks of all tests as they are collected."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    def checked(self, report: pytest.CollectReport) -> pytest.CollectReport:
        """Return the report of a module or class, made an error when it has wrong marks."""
        if report.passed and (wrong := self.wrong(report.result)):
            report.outcome = "failed"
            report.longrepr = wrong
            report.result = []
        return report

    def check(self, items: Sequence[pytest.Item]) -> None:
        """Raise `pytest.UsageError` for wrong marks: hooks may have added some to tests that were collected."""
        if wrong := self.wrong(items):
            raise pytest.UsageError(wrong)

    def wrong(self, nodes: Sequence[pytest.Item | pytest.Collector]) -> str:
        """Return what is wrong with the marks of tests, or nothing."""
        found: dict[str, list[str]] = {}
        for item in nodes:
            if isinstance(item, pytest.Item):
                try:
                    self._check(item)
                except MachineError as error:
                    found.setdefault(str(error), []).append(item.nodeid)
        return "\n\n".join(f"{_listed(tests)}: {text}" for text, tests in found.items())

    def _check(self, item: pytest.Item) -> None:
        if next(item.iter_markers(levels.NAME), None) is None:
            return
        asked = levels.asked(item)
        marker.check(asked)
        shared_scope([self._choice.completed(one) for one in asked])
        marker.swarm(asked)
        if uses_machine(item):
            for one in asked:
                if not matrix.engines(one):  # a list that no run of the test goes through is told of at its setup
                    self._choice.expect(one)


def _listed(tests: list[str]) -> str:
    more = f" and {len(tests) - 3} more" if len(tests) > 3 else ""
    return ", ".join(tests[:3]) + more
