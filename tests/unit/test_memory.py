"""The ledger of memory: what counts, who waits, and that nobody waits forever."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_machine.memory import Ledger, available, tidy
from pytest_machine.store import RECORD


def noted(store: Path, *names: str) -> None:
    """Put records into a store, as far as the ledger looks at them."""
    for name in names:
        (store / "machines" / name).mkdir(parents=True)
        (store / "machines" / name / RECORD).touch()


def gone(store: Path, *names: str) -> None:
    for name in names:
        (store / "machines" / name / RECORD).unlink()


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[..., Ledger]:
    """Ledgers as two processes would have them: a lock of one is none of the other's."""
    return lambda cap=100: Ledger(tmp_path / "state", cap)


def waits(ledger: Ledger, wanted: dict[str, int], store: Path) -> tuple[threading.Thread, list[str], threading.Event]:
    """Ask in a thread; return it, what it was told, and whether it was admitted."""
    told: list[str] = []
    entered = threading.Event()

    def ask() -> None:
        with ledger.admitted(wanted, store, tell=told.append):
            noted(store, *wanted)
        entered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread, told, entered


def test_machines_count_from_admission_until_their_record_is_gone(
    ledger: Callable[..., Ledger], tmp_path: Path
) -> None:
    one = ledger()
    with one.admitted({"a": 10, "b": 20}, tmp_path / "s"):
        assert one.taken().bytes == 30
        noted(tmp_path / "s", "a", "b")
    assert (one.taken().machines, one.taken().bytes) == (2, 30)
    gone(tmp_path / "s", "b")
    assert ledger().taken().bytes == 10
    gone(tmp_path / "s", "a")
    assert one.taken().bytes == 0
    assert not list((tmp_path / "state" / "memory").glob("*.json"))


def test_what_could_not_be_made_does_not_count(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    one = ledger()
    with pytest.raises(ValueError, match="no"), one.admitted({"a": 10}, tmp_path / "s"):
        raise ValueError("no")
    assert one.taken().bytes == 0


def test_what_does_not_fit_waits_and_says_so(
    ledger: Callable[..., Ledger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_machine.memory._QUIET", 0.2)
    one, other = ledger(), ledger()
    one.work()
    with one.admitted({"a": 60}, tmp_path / "s"):
        noted(tmp_path / "s", "a")
    thread, told, entered = waits(other, {"b": 60}, tmp_path / "t")
    assert not entered.wait(1)
    assert other.taken().bytes == 60
    assert told == [
        "waiting for memory: a machine wants 0 MiB and 0 MiB of 0 MiB are taken by 1 machine (--machine-memory-cap)"
    ]
    gone(tmp_path / "s", "a")
    assert entered.wait(5)
    thread.join()


def test_first_come_first_served(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    """A large request is not starved by small ones that would still fit."""
    one, large, small = ledger(), ledger(), ledger()
    one.work()
    with one.admitted({"a": 60}, tmp_path / "s"):
        noted(tmp_path / "s", "a")
    waiting = [waits(large, {"b": 90}, tmp_path / "t")]
    while not one.anybody_waits():
        time.sleep(0.01)
    waiting.append(waits(small, {"c": 10}, tmp_path / "u"))
    with small.spare({"d": 10}, tmp_path / "v") as there_is:
        assert not there_is, "nor by spares"
    assert not waiting[1][2].wait(0.7)
    gone(tmp_path / "s", "a")
    for thread, _, entered in waiting:
        assert entered.wait(5)
        thread.join()


def test_when_all_wait_the_first_goes_on(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    """Both hold a machine and want another one: without the rule they would wait forever."""
    both = [ledger(), ledger()]
    for number, each in enumerate(both):
        each.work()
        with each.admitted({"held": 50}, tmp_path / f"held-{number}"):
            noted(tmp_path / f"held-{number}", "held")
    waiting = [waits(each, {"more": 50}, tmp_path / f"more-{n}") for n, each in enumerate(both)]
    first = next(n for _ in range(500) for n in (0, 1) if waiting[n][2].wait(0.01))
    assert not waiting[1 - first][2].is_set(), "one at a time: the first is busy again"
    both[first].rest()  # its test is over
    assert waiting[1 - first][2].wait(5)


def test_more_than_the_cap_goes_alone(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    with ledger().admitted({"a": 1000}, tmp_path / "s"):
        noted(tmp_path / "s", "a")
    with ledger().spare({"b": 1}, tmp_path / "s") as there_is:
        assert not there_is


@pytest.mark.real
def test_nobody_waits_for_the_dead(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from pytest_machine.memory import Ledger
ledger = Ledger(Path(sys.argv[1]) / "state", 100)
ledger.work()
with ledger.admitted({"a": 100}, Path(sys.argv[1]) / "s"):
    print("in", flush=True)
    sys.stdin.readline()
    os._exit(9)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "in\n"
        thread, _, entered = waits(ledger(), {"b": 50}, tmp_path / "t")
        assert not entered.wait(0.5)
        process.stdin.write("\n")
    assert entered.wait(5)
    thread.join()


def test_spares_never_go_above_the_cap(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    one = ledger()
    with one.spare({"a": 60}, tmp_path / "s") as there_is:
        assert there_is
        noted(tmp_path / "s", "a")
    with one.spare({"b": 60}, tmp_path / "s") as there_is:
        assert not there_is


def test_the_usual_cap_is_of_what_was_available_before(
    ledger: Callable[..., Ledger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [1000]
    monkeypatch.setattr("pytest_machine.memory.available", lambda: left[0])
    one = ledger(None)
    with one.admitted({"a": 500}, tmp_path / "s"):
        noted(tmp_path / "s", "a")
        left[0] = 500  # the machine takes it: it must not be counted twice
        assert one.taken().cap == 800
    gone(tmp_path / "s", "a")
    assert one.taken().cap == 400


def test_garbage_counts_nothing(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    one = ledger()
    for number, text in enumerate(("", "[]", "{}", json.dumps({"machines": {"a": 1}, "store": 3}))):
        (tmp_path / "state" / "memory" / f"{number}.json").write_text(text)
    assert one.taken().bytes == 0


def test_available() -> None:
    assert (1 << 20) < available() < (1 << 50)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_what_is_admitted_without_waiting_fits(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    one = Ledger(folder / "state", 100)
    total = 0
    for number, size in enumerate(sizes):
        with one.spare({f"m{number}": size}, folder / "s") as there_is:
            assert there_is == (total + size <= 100)
            if there_is:
                noted(folder / "s", f"m{number}")
                total += size
    assert one.taken().bytes == total


def test_what_says_nothing_any_more_is_cleared_up(ledger: Callable[..., Ledger], tmp_path: Path) -> None:
    one, state = ledger(None), tmp_path / "state"

    def files() -> set[str]:
        return {str(path.relative_to(state)) for path in state.rglob("*") if path.is_file()} - {"memory/.lock"}

    with one.admitted({"a": 10}, tmp_path / "s"):
        noted(tmp_path / "s", "a")
    alive = files()
    assert "memory/available" in alive
    (state / "memory/busy/1-dead.lock").touch()
    (state / "memory/00000000000000000001-dead.wait").touch()
    (state / "memory/0123456789ab.lock").touch()
    (state / "memory/.0123456789ab.json.12345678.tmp").touch()
    tidy(state)
    assert files() == alive, "what lives counts, what is dead has gone"
    one.work()
    gone(tmp_path / "s", "a")
    tidy(state)
    assert len(files()) == 1, "only that it works"
    one.rest()
    assert files() == set()


def test_tidying_makes_nothing(tmp_path: Path) -> None:
    tidy(tmp_path)
    assert list(tmp_path.iterdir()) == []
