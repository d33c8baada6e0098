"""The host's memory caps how many machines live: the others wait, and say so."""

from __future__ import annotations

import pytest

from tests.conftest import SLOWNESS

from .conftest import Left, Log, Run

# Held until the third one waits, whenever its worker comes, and then for longer than it takes that one to say so.
WIDE = """
import os, pathlib, pytest
from dirty import use
from patience import until

pytestmark = pytest.mark.machine(options={"weight": "40m"})

HOME = pathlib.Path(os.environ["PYTEST_MACHINE_HOME"])
WAITED = pathlib.Path("waited")

def somebody_waits():
    if any((HOME / "memory").glob("*.wait")):
        WAITED.touch()
    return WAITED.exists()

@pytest.mark.parametrize("x", range(3))
def test_it(machine, x):
    until(somebody_waits)
    use(machine, x, 5)
"""


def at_once(entries: list[dict[str, object]]) -> int:
    """Return how many of the noted tests ran at the same moment, at most."""
    return max(sum(e["begun"] <= one["begun"] < e["ended"] for e in entries) for one in entries)  # type: ignore[operator]


def test_workers_wait_and_the_terminal_says_so(inner: pytest.Pytester, log: Log, left: Left) -> None:
    inner.makepyfile(WIDE)
    result = inner.runpytest_subprocess("-n", "3", "--machine-memory-cap=100m")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["machine: gw?: waiting for memory: a machine wants 40 MiB and 80 MiB of 100 MiB are taken by 2 machines (*)"]
    )
    assert at_once(log()) == 2
    assert left() == []


def test_quiet(inner: pytest.Pytester, log: Log) -> None:
    inner.makepyfile(WIDE)
    result = inner.runpytest_subprocess("-q", "-n", "3", "--machine-memory-cap=100m")
    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*waiting for memory*")


def test_tests_that_hold_and_want_more_come_to_an_end(inner: pytest.Pytester, log: Log, left: Left) -> None:
    """Each worker keeps its module's machine and wants one more, and all together they are too many."""
    for name in "abc":
        inner.makepyfile(
            **{
                f"test_{name}": """
                import pytest, time
                from dirty import use

                pytestmark = pytest.mark.machine(options={"weight": "40m"})

                @pytest.mark.parametrize("x", range(2))
                def test_it(module_machine, machine, x):
                    time.sleep(0.2)
                    use(machine, x)

                @pytest.mark.machine("a", "b")
                def test_several(module_machine, machines):
                    use(machines[0], 1)
                """
            }
        )
    result = inner.runpytest_subprocess("-n", "3", "--machine-memory-cap=100m", timeout=120 * SLOWNESS)
    result.assert_outcomes(passed=9)
    assert left() == []


def test_idle_machines_of_earlier_runs_make_room(inner: pytest.Pytester, log: Log, left: Left) -> None:
    inner.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.machine(options={"weight": "40m"})

        @pytest.mark.machine(reuse="runs")
        def test_one(machine): ...

        @pytest.mark.machine("a", "b")
        def test_two(machines): ...
        """
    )
    inner.runpytest_inprocess("-k", "one", "--machine-memory-cap=100m").assert_outcomes(passed=1, deselected=1)
    assert len(left()) == 1
    inner.runpytest_inprocess("-k", "two", "--machine-memory-cap=100m").assert_outcomes(passed=1, deselected=1)
    assert left() == []


def test_one_process_says_it_too(inner: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is another run that has the memory."""
    import subprocess
    import sys
    import time

    inner.makepyfile(
        test_other="""
        import os, pathlib, time
        from patience import until

        def test_it(machine):
            memory = pathlib.Path(os.environ["PYTEST_MACHINE_HOME"], "memory")
            until(lambda: any(memory.glob("*.wait")))
            time.sleep(5)  # longer than it takes the other run to say it
        """
    )
    cap = "--machine-memory-cap=20m"
    with subprocess.Popen([sys.executable, "-m", "pytest", cap, "test_other.py"], stdout=subprocess.DEVNULL):
        from pytest_machine.memory import Ledger
        from pytest_machine.owner import state_dir

        end = time.monotonic() + 20 * SLOWNESS
        while Ledger(state_dir()).taken().machines == 0:
            assert time.monotonic() < end
            time.sleep(0.1)
        inner.makepyfile(test_this="def test_it(machine): ...")
        result = inner.runpytest_inprocess(cap, "test_this.py")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["machine: waiting for memory: a machine wants 16 MiB and 16 MiB of 20 MiB *"])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--machine-memory-cap=much", "a size is a number with a unit, such as '512m' or '4g'"),
        ("--machine-spares=-1", "it takes a whole number, 0 or more"),
        ("--machine-ttl=soon", "a time is a number with a unit, such as '90s', '30m' or '2h'"),
    ],
)
def test_wrong_settings_are_told(inner: pytest.Pytester, option: str, said: str) -> None:
    inner.makepyfile("def test_it(machine): ...")
    result = inner.runpytest_inprocess(option)
    name, _, value = option.partition("=")
    result.stderr.fnmatch_lines([f"*The option '{name}' cannot be '{value}': {said}."])
