"""A whole run: what it says, what it costs, with xdist, and how it ends when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_machine.model import Record
from tests.conftest import SLOWNESS

from .conftest import Forgotten, Run

OURS = ("lab", "machine", "plugins", "store", "owner", "model", "plugin.rooms")
HEAVY = ["docker", "cryptography", "click", "filelock", "platformdirs", "requests", "tomllib"]
HEAVY += [f"pytest_machine.{name}" for name in OURS]


def test_a_run_without_machines_imports_next_to_nothing(inner: pytest.Pytester) -> None:
    inner.makeconftest("")
    inner.makepyfile(f"import sys\ndef test_it(): assert not [name for name in {HEAVY!r} if name in sys.modules]")
    # xdist brings platformdirs' and others' modules in some versions; they are not ours.
    result = inner.runpytest_subprocess("-p", "no:xdist", "-p", "no:platformdirs")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*machine:*")
    result.stdout.no_fnmatch_line("*= machines =*")


def test_public_names() -> None:
    code = """
import sys, pytest_machine
assert not [n for n in sys.modules if n.startswith('pytest_machine.')]
for name in pytest_machine.__all__:
    assert getattr(getattr(pytest_machine, name), "__name__", name) == name
assert set(pytest_machine.__all__) <= set(dir(pytest_machine))
try:
    pytest_machine.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_header_and_section(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.machine(image="one")
        def test_one(machine): ...

        @pytest.mark.machine(image="two", count=2)
        def test_two(machine): ...

        @pytest.mark.machine(options={"fail_create": "disk"})
        def test_broken(machine): ...

        def test_none(): ...
        """,
        passed=3,
        errors=1,
    )
    result.stdout.fnmatch_lines(
        [
            "collected 4 items",
            "machine: fake (privileged), image one",
            "machine: fake (privileged), image two",
            "*= machines =*",
            "3 machines made: fake (privileged), image one; fake (privileged), image two*",
            "ready after *.* s (median), *.* s (longest)",
            "1 could not be made",
            "none is left",
        ]
    )
    assert [line for line in result.stdout.lines if line.startswith("machine: ")] == [
        "machine: fake (privileged), image one",
        "machine: fake (privileged), image two",
        "machine: fake (privileged), image fake",
    ]


def test_failed_creation_is_told_without_a_traceback(run: Run) -> None:
    result = run(
        "import pytest\n@pytest.mark.machine('web', options={'fail_create': 'disk'})\ndef test_it(machine): ...",
        errors=1,
    )
    result.stdout.fnmatch_lines(
        ["*ERROR at setup of test_it*", "The machine 'web' was told to fail.", "  step  disk", "hint: *"]
    )
    result.stdout.no_fnmatch_line("*During handling*")
    for module in ("lab.py", "birth.py", "leasing.py", "fake.py"):
        result.stdout.no_fnmatch_line(f"*{module}:*")


def test_what_is_left_is_named(inner: pytest.Pytester, left: Callable[[], list[Record]]) -> None:
    inner.makepyfile(
        "import pytest\n@pytest.mark.machine('stays', options={'fail_destroy': True})\ndef test_it(machine): ..."
    )
    result = inner.runpytest_inprocess()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*= machines =*", "1 left: stays", "hint: pytest-machine prune"])
    from pytest_machine.testing.fake import FakeDriver

    for record in left():
        FakeDriver().destroy(record)


def test_xdist(inner: pytest.Pytester, left: Callable[[], list[Record]], forgotten: Forgotten) -> None:
    """Both workers have machines of the same names, at once, in one run."""
    inner.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("x", range(4))
        def test_it(machine, x):
            assert machine.name == "machine"
            assert machine.docker.ping()

        @pytest.mark.parametrize("x", range(4))
        def test_shared(session_machine, x): ...
        """
    )
    result = inner.runpytest_subprocess("-n", "2")
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(
        ["*= machines =*", "[56] machines made: fake (privileged)*", "ready after *", "none is left"]
    )
    assert left() == []
    forgotten()


def test_xdist_worker_that_crashes_leaves_nothing(inner: pytest.Pytester, left: Callable[[], list[Record]]) -> None:
    inner.makepyfile(
        "import os, signal\ndef test_it(machine): os.kill(os.getpid(), signal.SIGKILL)\ndef test_b(machine): ..."
    )
    result = inner.runpytest_subprocess("-n", "1")
    result.stdout.fnmatch_lines(["*crashed*"])
    assert left() == []


WAITS = """
import pathlib, time, pytest

@pytest.fixture
def last():
    yield
    pathlib.Path("torn-down").touch()

@pytest.mark.parametrize("x", [1, 2])
def test_it(last, machine, x):
    pathlib.Path(f"up-{x}").touch()
    time.sleep(60)
"""


@pytest.fixture
def waiting(inner: pytest.Pytester) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a run that waits in a test which has a machine."""
    inner.makepyfile(WAITS)
    started = []

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        until((inner.path / "up-1").exists, 30 * SLOWNESS)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(check: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


Waiting = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
class TestSignals:
    def test_term_tears_down_in_order(
        self, inner: pytest.Pytester, waiting: Waiting, left: Callable[[], list[Record]]
    ) -> None:
        process = waiting()
        process.terminate()
        out, _ = process.communicate(timeout=30 * SLOWNESS)
        assert process.returncode == 128 + signal.SIGTERM, out
        assert (inner.path / "torn-down").exists()
        assert "SIGTERM" in out
        assert "none is left" in out
        assert left() == []

    def test_interrupt(self, inner: pytest.Pytester, waiting: Waiting, left: Callable[[], list[Record]]) -> None:
        process = waiting()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30 * SLOWNESS)
        assert process.returncode == pytest.ExitCode.INTERRUPTED, out
        assert (inner.path / "torn-down").exists()
        assert left() == []

    def test_kill_is_the_reapers(self, waiting: Waiting, left: Callable[[], list[Record]], home: Path) -> None:
        process = waiting()
        assert left() != []  # not when it is dead: the reaper may be quick
        process.kill()
        process.communicate(timeout=30 * SLOWNESS)
        until(lambda: left() == [] and not list((home / "runs").glob("[!.]*")), 10 * SLOWNESS)

    def test_term_under_xdist_leaves_nothing(self, waiting: Waiting, left: Callable[[], list[Record]]) -> None:
        process = waiting("-n", "2")
        process.terminate()
        process.communicate(timeout=60 * SLOWNESS)
        until(lambda: not left(), 10 * SLOWNESS)

    def test_term_is_handled_by_others_without_machines(self, inner: pytest.Pytester) -> None:
        inner.makepyfile("import os, signal\ndef test_it(): assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL")
        inner.runpytest_subprocess().assert_outcomes(passed=1)
