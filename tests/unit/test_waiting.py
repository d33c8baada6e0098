from __future__ import annotations

import re
import time

import pytest

from pytest_machine.errors import ConnectFailed, DriverError, WaitTimeout
from pytest_machine.waiting import NotYet, wait
from tests.conftest import SLOWNESS


class Check:
    """Goes through its outcomes, staying with the last one, and notes when it was called."""

    def __init__(self, *outcomes: BaseException | str) -> None:
        self.outcomes = list(outcomes)
        self.times: list[float] = []

    def __call__(self) -> str:
        self.times.append(time.monotonic())
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def test_what_the_check_returns_comes_back() -> None:
    check = Check("there")
    assert wait(check, "It", timeout=5) == "there"
    assert len(check.times) == 1


@pytest.mark.parametrize(
    "error", [NotYet("no"), ConnectionRefusedError("no"), ConnectFailed("no"), WaitTimeout("no")], ids=repr
)
def test_not_yet_means_again(error: Exception) -> None:
    check = Check(error, error, "there")
    assert wait(check, "It", timeout=5) == "there"
    assert len(check.times) == 3


@pytest.mark.parametrize("error", [DriverError("no"), ValueError("no"), KeyboardInterrupt()], ids=repr)
def test_anything_else_passes_through_at_once(error: BaseException) -> None:
    check = Check(error)
    with pytest.raises(type(error)) as caught:
        wait(check, "It", timeout=5)
    assert caught.value is error
    assert len(check.times) == 1


def test_at_the_deadline_it_says_what_it_last_saw() -> None:
    cause = ConnectFailed("Nobody\nanswers.", facts={"not": "shown"})
    begun = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        wait(Check(NotYet("first"), cause), "SSH on 'web'", timeout=0.3)
    assert 0.3 <= time.monotonic() - begun < 1 * SLOWNESS
    assert isinstance(caught.value, WaitTimeout)
    assert caught.value.message == "SSH on 'web' did not come about within 0.3 s."
    assert caught.value.facts["last seen"] == "Nobody answers."
    waited = re.fullmatch(r"(\d+\.\d) s, \d+ tries", str(caught.value.facts["waited"]))
    assert waited
    assert 0.3 <= float(waited[1]) <= 1 * SLOWNESS
    assert caught.value.__cause__ is cause


def test_an_error_without_words_is_named() -> None:
    with pytest.raises(WaitTimeout, match="last seen  TimeoutError"):
        wait(Check(TimeoutError()), "It", timeout=0)


def test_there_is_a_last_try_at_the_deadline() -> None:
    check = Check(NotYet(""))
    begun = time.monotonic()
    with pytest.raises(WaitTimeout):
        wait(check, "It", timeout=0.3, every=10, longest=10)
    assert len(check.times) == 2
    assert 0.3 - 0.1 <= check.times[-1] - begun <= 0.3 + 0.1 * SLOWNESS


def test_pauses_grow_to_a_limit() -> None:
    check = Check(NotYet(""))
    with pytest.raises(WaitTimeout):
        wait(check, "It", timeout=1, every=0.02, longest=0.05)
    pauses = [b - a for a, b in zip(check.times, check.times[1:], strict=False)]
    # Sleeps are never shorter than asked for, and on a busy machine longer.
    assert pauses[0] >= 0.018
    assert all(pause >= 0.045 for pause in pauses[12:-1])
    assert 10 / SLOWNESS <= len(pauses) <= 27
