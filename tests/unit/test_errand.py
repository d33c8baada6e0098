from __future__ import annotations

import threading
import time

import pytest

from pytest_machine.errand import Errand, wait_all


def test_brings_back_what_the_call_returned() -> None:
    assert Errand(lambda: 42).result() == 42


def test_raises_what_the_call_raised() -> None:
    def fail() -> None:
        raise KeyError("lost")

    errand = Errand(fail)
    with pytest.raises(KeyError, match="lost"):
        errand.result()
    assert not errand.leave()


def test_what_comes_late_is_cleared_away() -> None:
    gate = threading.Event()
    cleared: list[int] = []

    def late() -> int:
        gate.wait(10)
        return 42

    errand = Errand(late, late=cleared.append)
    assert not errand.wait(0.01)
    assert errand.leave()
    gate.set()
    assert errand.wait(10), "it has not ended before that is cleared away"
    assert cleared == [42]


def test_what_is_there_in_time_is_not() -> None:
    cleared: list[int] = []
    errand = Errand(lambda: 42, late=cleared.append)
    errand.wait(10)
    assert not errand.leave(), "there was nothing to walk away from"
    assert errand.result() == 42
    assert cleared == []


def test_only_so_many_at_once() -> None:
    turn, lock = threading.Semaphore(2), threading.Lock()
    now = most = 0

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1

    errands = [Errand(work, turn=turn) for _ in range(8)]
    assert wait_all(errands, 10)
    assert most == 2


def test_waiting_for_all_ends_in_time() -> None:
    gate = threading.Event()
    begun = time.monotonic()
    assert not wait_all([Errand(lambda: gate.wait(10)) for _ in range(5)], 0.1)
    assert time.monotonic() - begun < 9
    gate.set()
