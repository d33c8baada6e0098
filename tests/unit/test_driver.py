from __future__ import annotations

from typing import cast

import pytest

from pytest_machine.driver import CAPABILITIES, NEEDS, Driver, missing
from pytest_machine.model import Isolation


class Plain:
    """Has nothing but a user namespace."""

    isolation = Isolation.USER_NAMESPACE


class Powerful(Plain):
    def start(self, record: object) -> None: ...

    def stop(self, record: object) -> None: ...

    def kill(self, record: object) -> None: ...


class Half(Plain):
    """Can freeze, and not thaw."""

    def pause(self, record: object) -> None: ...


def lacks(driver: object, *needs: str) -> list[str]:
    return missing(cast(Driver, driver), needs)


@pytest.mark.parametrize("need", sorted(CAPABILITIES))
def test_what_is_not_there_is_missing(need: str) -> None:
    assert lacks(Plain(), need) == [need]


def test_what_is_there_is_not_missing() -> None:
    assert lacks(Powerful(), "power", "kill") == []
    assert lacks(Powerful(), "snapshots", "power", "pause", "console") == ["console", "pause", "snapshots"]
    assert lacks(Half(), "pause") == ["pause"]
    assert lacks(Plain()) == []


def test_isolation_is_a_need_too() -> None:
    assert lacks(Plain(), "privileged", "user-namespace") == []
    assert lacks(Plain(), "own-kernel") == ["own-kernel"]


def test_a_word_that_nobody_knows_is_missing() -> None:
    assert lacks(Powerful(), "telepathy") == ["telepathy"]
    assert "telepathy" not in NEEDS
    assert {"power", "own-kernel"} <= NEEDS
