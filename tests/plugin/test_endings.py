"""However a run ends, nothing is left of it ten seconds later, and who reads its output knows why and what to do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_machine import owner, reaper
from pytest_machine.model import Record
from pytest_machine.plugins import Registry
from pytest_machine.testing.fake import FakeDriver
from tests.conftest import SLOWNESS, alone

from .conftest import Run

Left = Callable[[], list[Record]]
ALLOWED = 10.0 * SLOWNESS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such signals")


def until(check: Callable[[], object], what: str, seconds: float = ALLOWED) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)


class Suite:
    """A suite in a process of its own."""

    def __init__(self, pytester: pytest.Pytester, home: Path, left: Left) -> None:
        self.path, self.home, self.left = pytester.path, home, left
        self._pytester = pytester
        self._started: list[subprocess.Popen[str]] = []

    def start(self, source: str, *args: str, until_there: str = "up") -> subprocess.Popen[str]:
        """Start a run of a test module; return when it has made the file of that name."""
        self._pytester.makepyfile(test_it=source)
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
            # Whoever is started in the background by a shell ignores Ctrl-C, and so do its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # a handler, no lock
        )
        self._started.append(process)
        until(
            lambda: (self.path / until_there).exists() or process.poll() is not None,
            "the run has come so far",
            40 * SLOWNESS,
        )
        return process

    def ends(self, process: subprocess.Popen[str], seconds: float = ALLOWED) -> str:
        """Return the run's output; nothing of it may be left soon."""
        begun = time.monotonic()
        out, _ = process.communicate(timeout=seconds)
        self.nothing_is_left(ALLOWED - min(ALLOWED - 1, time.monotonic() - begun))
        # pytest's own capturing falls over a second Ctrl-C in its last steps, and says so.
        own = out.replace("Exception ignored in: <generator object CaptureManager.", "")
        for word in ("Exception in thread", "Exception ignored", "Fatal Python error", "INTERNALERROR"):
            assert word not in own, out
        return out

    def nothing_is_left(self, seconds: float = ALLOWED) -> None:
        until(lambda: not self.left() and not self.runs(), "nothing is left", seconds)

    def runs(self) -> list[Path]:
        return sorted((self.home / "runs").glob("[!.]*"))

    def reapers(self) -> list[int]:
        shown = subprocess.run(["ps", "-eww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
        found = (line.split(None, 1) for line in shown.splitlines() if "pytest_machine.reaper" in line)
        return [int(pid) for pid, args in found if str(self.home) in args]

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout
            process.stdout.close()


@pytest.fixture
def suite(inner: pytest.Pytester, home: Path, left: Left) -> Iterator[Suite]:
    suite = Suite(inner, home, left)
    yield suite
    suite.close()
    suite.nothing_is_left(30 * SLOWNESS)


WAITS = """
import pathlib, time, pytest

@pytest.fixture
def last():
    yield
    pathlib.Path("torn-down").touch()

@pytest.mark.machine("web")
@pytest.mark.machine("db")
def test_it(last, lab):
    pathlib.Path("up").touch()
    time.sleep(60)

def test_other(last, session_machine):
    pathlib.Path("other").touch()
    time.sleep(60)
"""


class TestOneProcess:
    def test_exitfirst(self, run: Run) -> None:
        run("def test_a(session_machine, machine): assert 0\ndef test_b(machine): ...", "-x", failed=1)

    def test_failure_in_a_fixture(self, run: Run) -> None:
        run(
            """
            import pytest

            @pytest.fixture
            def broken(machine, session_machine):
                raise RuntimeError
            @pytest.fixture
            def broken_end(machine_factory):
                machine_factory("late")
                yield
                raise RuntimeError
            def test_a(broken): ...
            def test_b(broken_end): ...
            """,
            passed=1,
            errors=2,
        )

    def test_failure_after_networks_were_made(self, run: Run, home: Path) -> None:
        """A fake machine has no SSH, so it cannot be told the others' names: then the networks go as well."""
        run(
            """
            import pytest

            @pytest.mark.machine("web", networks=["front"])
            @pytest.mark.machine("db", networks=["front"])
            def test_it(lab): ...
            """,
            errors=1,
        )
        assert [each for each in FakeDriver().find_networks() if home in each.store.parents] == []

    def test_interrupt(self, suite: Suite) -> None:
        process = suite.start(WAITS)
        process.send_signal(signal.SIGINT)
        out = suite.ends(process)
        assert process.returncode == pytest.ExitCode.INTERRUPTED, out
        assert (suite.path / "torn-down").exists()
        assert "none is left" in out

    @pytest.mark.parametrize("pause", [0.0, 0.05, 0.15])
    def test_interrupt_twice(self, suite: Suite, pause: float) -> None:
        """The second soon after the first: in Python's own last steps it would be Python that is interrupted."""
        process = suite.start(WAITS)
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
        suite.ends(process)

    def test_interrupt_while_machines_are_made(self, suite: Suite) -> None:
        process = suite.start(
            """
            import pathlib, pytest

            @pytest.fixture(autouse=True)
            def first():
                pathlib.Path("up").touch()

            @pytest.mark.machine(count=5, options={"delay": 0.5})
            def test_it(first, machines): ...
            """
        )
        until(suite.left, "something is being made")
        process.send_signal(signal.SIGINT)
        out = suite.ends(process)
        assert process.returncode == pytest.ExitCode.INTERRUPTED, out

    def test_interrupt_while_a_slow_driver_makes_a_machine(self, suite: Suite) -> None:
        """Nobody waits a minute for it: what comes of it is the reaper's business."""
        process = suite.start(
            """
            import pathlib, pytest

            @pytest.mark.machine(options={"delay": 15.0})
            def test_it(request):
                pathlib.Path("up").touch()
                request.getfixturevalue("machine")
            """
        )
        until(suite.left, "something is being made")
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        suite.ends(process)
        assert time.monotonic() - begun < ALLOWED

    def test_interrupt_in_teardown(self, suite: Suite) -> None:
        process = suite.start(
            """
            import pathlib, pytest, time

            @pytest.fixture
            def slow_end(session_machine):
                yield
                pathlib.Path("up").touch()
                time.sleep(60)

            @pytest.mark.machine(count=3)
            def test_it(machines, slow_end): ...
            """
        )
        process.send_signal(signal.SIGINT)
        suite.ends(process)

    def test_term(self, suite: Suite) -> None:
        """The second comes in the middle of the teardown, which goes on."""
        process = suite.start(
            """
            import pathlib, pytest, time
            from patience import until

            @pytest.fixture
            def slow_end(lab):
                yield
                pathlib.Path("tearing-down").touch()
                until(pathlib.Path("second").exists)
                pathlib.Path("torn-down").touch()

            @pytest.mark.machine("web")
            @pytest.mark.machine("db")
            def test_it(slow_end):
                pathlib.Path("up").touch()
                time.sleep(60)
            """
        )
        process.terminate()
        until((suite.path / "tearing-down").exists, "it tears down")
        process.terminate()
        (suite.path / "second").touch()
        out = suite.ends(process)
        assert process.returncode == 128 + signal.SIGTERM, out
        assert (suite.path / "torn-down").exists()
        assert "none is left" in out

    def test_kill(self, suite: Suite) -> None:
        process = suite.start(WAITS)
        process.kill()
        process.communicate()
        suite.nothing_is_left()

    def test_kill_while_machines_are_made(self, suite: Suite) -> None:
        process = suite.start(
            """
            import pathlib, pytest

            @pytest.mark.machine(count=3, options={"delay": 0.3})
            def test_it(request):
                pathlib.Path("up").touch()
                request.getfixturevalue("machines")
            """
        )
        until(suite.left, "something is being made")
        process.kill()
        process.communicate()
        suite.nothing_is_left()

    def test_a_creation_that_hangs_is_given_up(self, suite: Suite) -> None:
        process = suite.start(
            """
            import pytest

            @pytest.mark.machine("slow", options={"delay": 2.5}, timeout=1)
            def test_slow(machine): ...
            def test_next(machine): ...
            """,
        )
        out = suite.ends(process, 60)
        assert "The machine 'slow' was not made in time." in out
        assert "hint: allow it more" in out
        assert "1 passed, 1 error" in out


class TestWorkers:
    def test_term(self, suite: Suite) -> None:
        process = suite.start(WAITS, "-n", "2")
        until((suite.path / "other").exists, "both are at work", 30 * SLOWNESS)
        begun = time.monotonic()
        process.terminate()
        out = suite.ends(process)
        assert process.returncode == 128 + signal.SIGTERM, out
        assert (suite.path / "torn-down").exists()
        assert time.monotonic() - begun < ALLOWED

    @pytest.mark.parametrize("whom", ["controller", "group"])
    def test_interrupt(self, suite: Suite, whom: str) -> None:
        process = suite.start(WAITS, "-n", "2")
        until((suite.path / "other").exists, "both are at work", 30 * SLOWNESS)
        os.kill(process.pid if whom == "controller" else -process.pid, signal.SIGINT)
        out = suite.ends(process)
        assert process.returncode == pytest.ExitCode.INTERRUPTED, out
        assert (suite.path / "torn-down").exists()

    def test_interrupt_twice(self, suite: Suite) -> None:
        process = suite.start(WAITS, "-n", "2")
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=ALLOWED)
        suite.nothing_is_left()

    def test_kill_the_controller(self, suite: Suite) -> None:
        process = suite.start(WAITS, "-n", "2")
        process.kill()
        process.wait()
        suite.nothing_is_left()

    def test_kill_a_worker(self, suite: Suite) -> None:
        """What it had goes while the run goes on."""
        process = suite.start(
            """
            import os, pathlib, signal
            from patience import until

            def test_it(machine):
                os.kill(os.getpid(), signal.SIGKILL)

            def test_other():
                until(pathlib.Path("go-on").exists, 120)
                pathlib.Path("done").touch()
            """,
            "-n",
            "2",
            until_there=".",
        )
        until(suite.left, "there is a machine", 30 * SLOWNESS)
        until(lambda: not suite.left(), "the killed worker's machine is gone")
        assert process.poll() is None, "that was the end of the run"
        assert not (suite.path / "done").exists()
        (suite.path / "go-on").touch()
        out = suite.ends(process, 60 * SLOWNESS)
        assert "1 passed" in out
        assert "1 failed" in out

    @alone
    def test_term_without_machines_is_none_of_our_business(self, suite: Suite) -> None:
        process = suite.start(
            "import pathlib, time\ndef test_it():\n    pathlib.Path('up').touch()\n    time.sleep(60)", "-n", "1"
        )
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGTERM
        reaper.prune(Registry([FakeHook()]))


class FakeHook:
    """Stands for a conftest with the fake driver."""

    def pytest_machine_drivers(self) -> list[type[FakeDriver]]:
        return [FakeDriver]


class TestReaper:
    def test_one_that_is_killed_is_started_again(self, suite: Suite) -> None:
        process = suite.start(WAITS)
        until(suite.reapers, "it has a reaper")
        (first,) = suite.reapers()
        time.sleep(5)  # one that has just been started may be on its way
        os.kill(first, signal.SIGKILL)
        until(lambda: suite.reapers() and suite.reapers() != [first], "another one has come")
        time.sleep(1)
        assert len(suite.reapers()) == 1
        process.kill()
        process.communicate()
        suite.nothing_is_left()
        until(lambda: not suite.reapers(), "it has gone too")

    def abandoned(self, suite: Suite) -> None:
        """Leave the machines of a run that was killed together with its reaper."""
        process = suite.start(WAITS)
        until(suite.reapers, "it has a reaper")
        os.kill(process.pid, signal.SIGSTOP)
        for pid in suite.reapers():
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()
        time.sleep(1)
        assert len(suite.left()) == 2
        assert suite.reapers() == []

    @alone
    def test_both_killed_then_prune(self, suite: Suite) -> None:
        self.abandoned(suite)
        found = reaper.prune(Registry([FakeHook()]))
        assert sorted(each.name for each in found if suite.home.name in str(each) or each.doomed) >= ["db", "web"]
        suite.nothing_is_left(1)

    def test_both_killed_then_the_next_run(self, suite: Suite, inner: pytest.Pytester) -> None:
        self.abandoned(suite)
        inner.makepyfile(test_it="def test_it(machine): ...")
        inner.runpytest_subprocess().assert_outcomes(passed=1)
        suite.nothing_is_left()

    def test_store_deleted_then_the_next_run(self, suite: Suite, inner: pytest.Pytester) -> None:
        self.abandoned(suite)
        shutil.rmtree(suite.home)
        inner.makepyfile(test_it="def test_it(machine): ...")
        inner.runpytest_subprocess().assert_outcomes(passed=1)
        suite.nothing_is_left()

    def test_a_reaper_that_comes_up_after_its_run(
        self, suite: Suite, inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a busy computer it starts for longer than a short run lasts, and finds its run's notes gone."""
        self.abandoned(suite)
        shutil.rmtree(suite.home)
        slow = inner.mkdir("slow")
        (slow / "sitecustomize.py").write_text(
            "import os, sys, time\n"
            "end = time.monotonic() + 90\n"
            "while 'pytest_machine.reaper' in sys.orig_argv and time.monotonic() < end:\n"
            f"    if os.path.exists({str(slow / 'go')!r}): break\n"
            "    time.sleep(0.05)\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(slow))
        inner.makepyfile(test_it="def test_it(machine): ...")
        inner.runpytest_subprocess().assert_outcomes(passed=1)
        assert len(suite.left()) == 2
        assert not suite.runs()
        (slow / "go").touch()
        suite.nothing_is_left()

    @alone
    def test_store_deleted_under_a_living_run_that_is_killed_then_prune(self, suite: Suite) -> None:
        process = suite.start(WAITS)
        # In one step: the run lives, and what it writes meanwhile would make a removal file by file fail.
        aside = suite.home.rename(suite.home.with_name("deleted"))
        shutil.rmtree(aside)
        process.kill()
        process.communicate()
        reaper.prune(Registry([FakeHook()]))
        suite.nothing_is_left(1)


class TestTrouble:
    def test_a_machine_that_cannot_be_destroyed_holds_up_nobody(
        self, inner: pytest.Pytester, left: Left, suite: Suite
    ) -> None:
        """It is said at the end, tried again by the reaper, and by `prune` when its driver has come to its senses."""
        inner.makeconftest(
            """
            import pathlib
            from pytest_machine.errors import DriverError
            from pytest_machine.testing.fake import FakeDriver

            class Stubborn(FakeDriver):
                def destroy(self, record):
                    if record.name == "stays" and pathlib.Path(__file__).with_name("stubborn").exists():
                        raise ValueError("a stranger's bug")
                    super().destroy(record)

            def pytest_machine_drivers():
                return [Stubborn]
            """
        )
        (inner.path / "stubborn").touch()
        inner.makepyfile(
            """
            import pytest

            @pytest.mark.machine("stays")
            @pytest.mark.machine("goes")
            def test_it(lab): ...
            """
        )
        result = inner.runpytest_subprocess()
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["*a stranger's bug*", "1 left: stays", "hint: pytest-machine prune"])
        assert [record.name for record in left()] == ["stays"]
        (inner.path / "stubborn").unlink()
        suite.nothing_is_left(20 * SLOWNESS)  # the reaper's next try

    @pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
    def test_a_full_disk(self, inner: pytest.Pytester, home: Path, left: Left) -> None:
        """Where runs are noted there is no room: no machine is made, it is said why, and what was there can go."""
        home.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(home)], check=True)
        try:
            inner.makepyfile(
                f"""
                import pathlib, pytest

                def test_first(machine): ...

                def test_filled(machine):
                    import os
                    filler = os.open({str(home / "filler")!r}, os.O_WRONLY | os.O_CREAT)
                    try:
                        while os.write(filler, bytes(4096)): ...
                    except OSError:
                        os.close(filler)

                def test_none(machine): ...
                """
            )
            result = inner.runpytest_subprocess()
            result.assert_outcomes(passed=2, errors=1)
            result.stdout.fnmatch_lines(["*No space left*", "hint: free space there*"])
            result.stdout.no_fnmatch_line("*Traceback*")
            assert left() == []
            until(lambda: not list((home / "runs").glob("[!.]*")), "the run is gone")
            again = inner.runpytest_subprocess()
            again.stdout.fnmatch_lines(["*No space left*", "hint: free space there*"])
            assert left() == []
        finally:
            subprocess.run(["umount", "-l", str(home)], check=True)


def test_the_run_lets_go_of_a_lock_that_hangs(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A census that somebody holds for ever ends in an error that says what to do, not in a run that hangs."""
    from filelock import FileLock

    from pytest_machine.errors import StoreError

    monkeypatch.setattr(owner, "_PATIENCE", 0.2)
    (home / "runs").mkdir(parents=True)
    with FileLock(home / "runs" / ".lock"), pytest.raises(StoreError, match="cannot be counted"):
        owner.Run.begin()
