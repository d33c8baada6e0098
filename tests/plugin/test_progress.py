"""The line that shows how many machines are ready: real runs on a terminal, in one process and in several."""

from __future__ import annotations

import re
import subprocess

import pytest

from pytest_machine.plugin.progress import Count, said, summed

from .terminal import PYTEST, drive, screen

# Both tests create their machines at the same moment: each waits until the other has begun.
TOGETHER = """
import pathlib, pytest
from patience import until

def meet(name):
    (pathlib.Path(__file__).parent / f"{name}.here").touch()
    until(lambda: len(list(pathlib.Path(__file__).parent.glob("*.here"))) == 2)

@pytest.fixture
def both(request):
    meet(request.node.name)

@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.machine(count=2, options={"delay": 2.0})
def test_it(both, machines, number): ...
"""


@pytest.fixture(autouse=True)
def _terminal(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run on a terminal that can move its cursor, whatever runs these."""
    monkeypatch.setenv("TERM", "xterm")
    inner.makepyfile(TOGETHER)


@pytest.mark.parametrize("argument", ["--color=no", "-v"])
def test_the_controller_shows_the_sum_of_its_workers(argument: str) -> None:
    code, shown = drive([*PYTEST, "-n2", argument], [])
    assert code == 0, shown
    assert re.search(r"\r\x1b\[K[0-4] of 4 machines ready, \d\.\d s", shown), shown
    left = screen(shown)
    assert "machines ready" not in left
    # What pytest writes stands where it would stand without the line.
    assert re.search(r"^\.\. +\[100%\]$" if argument != "-v" else r"^\[gw\d\] \[100%\] PASSED ", left, re.MULTILINE), (
        left
    )
    assert "2 passed" in left


def test_one_line_however_long_it_takes() -> None:
    """The line is drawn over itself: it adds no row."""
    _, shown = drive([*PYTEST, "-n2", "--color=no"], [])
    _, without = drive([*PYTEST, "-n2", "--color=no", "-q"], [])
    assert shown.count("machines ready") > 3
    assert "machines ready" not in without


def test_no_line_in_a_pipe() -> None:
    done = subprocess.run([*PYTEST, "-n2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "machines ready" not in done.stdout + done.stderr


def test_a_worker_that_dies_leaves_no_count(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import os, pathlib, pytest, threading
        from patience import until

        RUNS = pathlib.Path(os.environ["PYTEST_MACHINE_HOME"]) / "runs"

        def counts():
            return list(RUNS.glob("*/progress/gw0.json"))

        @pytest.fixture
        def dies():
            def die():
                until(counts)
                os._exit(1)
            threading.Thread(target=die).start()

        @pytest.mark.machine(options={"delay": 30.0})
        def test_dies(dies, machine): ...

        def test_lives(): until(lambda: not counts())
        """
    )
    code, shown = drive([*PYTEST, "-n1", "--color=no"], [])
    assert code == 1, shown
    assert "1 failed, 1 passed" in shown


def test_counts_are_summed() -> None:
    assert summed([]) is None
    assert summed([Count(1, 3, 5.0), Count(0, 1, 4.0)]) == Count(1, 4, 4.0)
    assert said(0, 1, 1.0) == "0 of 1 machine ready, 1.0 s"
