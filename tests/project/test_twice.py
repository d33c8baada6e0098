"""`scripts/test` runs what failed once more, alone: seen on small projects."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="scripts/test is a program of bash")

SCRIPTS = Path(__file__).parents[2] / "scripts"
LOUD = "PASSED ONLY THE SECOND TIME"

# `first()` is true in the first run of the tests, and false in the second.
CONFTEST = """
import os, pathlib, pytest

def first(name):
    seen = pathlib.Path(name)
    if seen.exists():
        return False
    seen.touch()
    return True

__builtins__["first"] = first
"""
GOOD = "import pytest\n@pytest.mark.alone\ndef test_alone(): ...\ndef test_good(): ...\n"
FLAKE = "def test_flake(): assert not first('flake'), 'too slow'\n"


FLAKES = {
    "test_call": FLAKE,
    "test_lonely": "import pytest\n@pytest.mark.alone\ndef test_flake(): assert not first('lonely'), 'too slow'\n",
    "test_setup": """
import pytest
@pytest.fixture
def it(): assert not first('setup'), 'too slow'
def test_flake(it): ...
""",
    "test_teardown": """
import pytest
@pytest.fixture
def it():
    yield
    assert not first('teardown'), 'too slow'
def test_flake(it): ...
""",
    "test_name": """
import pytest
@pytest.mark.parametrize('x', ['a::b [c]/d'])
def test_flake(x): assert not first('name'), 'too slow'
""",
}
BAD = "def test_bad(): assert 0, 'always'\n"
SKIPS = "import pytest\ndef test_skip():\n    if not first('skip'): pytest.skip('no')\n    assert 0\n"


class Project:
    """A project with this one's scripts, tools that find nothing, and tests."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.write("scripts/setup", "#!/bin/sh\n")
        for name in ("ruff", "lint-imports", "mypy", "sphinx-build"):
            self.write(f".venv/bin/{name}", "#!/bin/sh\n")
        self.write(".venv/bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        self.write("bin/sudo", '#!/bin/sh\nexec "$@"\n')
        for name in ("test", "common.bash", "twice.py"):
            shutil.copy(SCRIPTS / name, top / "scripts" / name)
        self.write("pytest.ini", "[pytest]\nmarkers = alone\naddopts = -p no:machine -p no:cacheprovider\n")
        self.write("conftest.py", CONFTEST)
        self.write("test_good.py", GOOD)
        (top / "tmp").mkdir()

    def write(self, name: str, text: str) -> None:
        (self.top / name).parent.mkdir(parents=True, exist_ok=True)
        (self.top / name).write_text(text)
        (self.top / name).chmod(0o755)

    def start(self, *argv: str | Path) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        return subprocess.Popen(
            argv, cwd=self.top, text=True,
            env={**kept, "PATH": f"{self.top}/bin:{os.environ['PATH']}", "TMPDIR": f"{self.top}/tmp"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *argv: str | Path) -> tuple[int, str]:
        """Return a program's exit status and what it printed."""
        with self.start(*argv) as process:
            said, _ = process.communicate(timeout=300)
        return process.returncode, said

    def test(self, *words: str) -> tuple[int, str]:
        """Run `scripts/test`."""
        return self.run(self.top / "scripts/test", *words)

    def twice(self, *words: str) -> tuple[int, str]:
        """Run the part of it that runs pytest, in one process or as `words` say; then what must be alone."""
        return self.run(*self.argv(*words))

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "scripts/twice.py", "-m", "not alone", *words, "--then", "-m", "alone"]

    def logs(self) -> list[Path]:
        return sorted(self.top.glob("tmp/*/first.log"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_what_passes_only_then_is_named(project: Project) -> None:
    for name, text in FLAKES.items():
        project.write(f"{name}.py", text)
    status, said = project.test()
    assert status == 0, said
    assert said.splitlines()[-1] == f"{len(FLAKES) + 2} passed, {len(FLAKES)} only the second time"
    named = said.partition(LOUD)[2].splitlines()[1:]
    assert [line.partition(".py::test_flake")[0] for line in named[: len(FLAKES)]] == sorted(FLAKES)
    (log,) = project.logs()
    assert named[len(FLAKES)] == f"the first log: {log}"
    assert log.read_text().count("AssertionError: too slow") >= len(FLAKES)
    assert "Each of these has a fault" in named[len(FLAKES) + 1]


def test_what_passes_is_run_once(project: Project) -> None:
    status, said = project.twice()
    assert (status, said.splitlines()[-1]) == (0, "2 passed")
    assert LOUD not in said
    assert not project.logs(), "no log of a good run is kept"


def test_what_fails_twice_fails(project: Project) -> None:
    """And so does what was skipped the second time."""
    for name, text in {"test_a": FLAKE, "test_b": BAD, "test_c": SKIPS}.items():
        project.write(f"{name}.py", text)
    status, said = project.twice()
    assert status == 1
    assert said.splitlines()[-1] == "2 failed, 3 passed, 1 only the second time"
    twice, _, late = said.partition(LOUD)
    assert twice.rpartition(" failed twice ")[2].splitlines()[1:3] == ["test_b.py::test_bad", "test_c.py::test_skip"]
    assert late.splitlines()[1] == "test_a.py::test_flake"
    assert project.logs()


@pytest.mark.parametrize(
    ("workers", "source", "says"),
    [
        (1, "import os\ndef test_x():\n    if first('x'): os._exit(7)\n", "a worker crashed in test_x.py::test_x"),
        (1, "if first('b') or first('c'): raise ImportError\n", "could not be collected"),
        (0, "if first('b') or first('c'): raise ImportError\n", "could not be collected"),
        (0, "import os\ndef test_x():\n    if first('x'): os._exit(7)\n", "exit status 7"),
        (0, "import os\ndef test_x():\n    if first('x'): os._exit(0)\n", "ended before its end"),
        (0, "import pytest\ndef test_x():\n    if first('x'): pytest.exit('no', returncode=0)\n", "interrupted"),
    ],
)
def test_what_is_no_failed_test_has_no_second_try(project: Project, workers: int, source: str, says: str) -> None:
    project.write("test_a.py", FLAKE)
    project.write("test_x.py", source)
    status, said = project.twice("-n", str(workers))
    assert status > 0, said
    assert LOUD not in said
    assert says in said.rpartition(" no second try ")[2], said
    assert project.logs()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_internal_error_has_no_second_try(project: Project, workers: int) -> None:
    hook = "def pytest_runtest_logstart(nodeid):\n    if 'good' in nodeid and first('hook'): raise RuntimeError\n"
    project.write("conftest.py", CONFTEST + hook)
    project.write("test_a.py", FLAKE)
    status, said = project.twice("-n", str(workers))
    assert status > 0
    assert "internal error" in said.rpartition(" no second try ")[2], said
    assert LOUD not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_ends_and_has_no_second_try(project: Project, number: signal.Signals) -> None:
    """The test that is being run ends in order. Ctrl-C goes to all processes of a terminal's group."""
    project.write(
        "conftest.py", f"{CONFTEST}import signal\nsignal.signal(signal.SIGTERM, signal.default_int_handler)\n"
    )
    project.write("test_a.py", FLAKE)
    project.write(
        "test_x.py",
        "import pathlib, time, pytest\n@pytest.fixture\ndef it():\n    yield\n    pathlib.Path('torn').touch()\n"
        "def test_x(it):\n    pathlib.Path('up').touch()\n    time.sleep(60)\n",
    )
    with project.start(*project.argv()) as process:
        until((project.top / "up").exists)
        if number == signal.SIGINT:
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), number)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode > 0
    assert "the run was interrupted" in said
    assert LOUD not in said
    assert (project.top / "torn").exists()


def until(check: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_words_are_given_to_pytest_alone(project: Project) -> None:
    """Somebody who names tests is at work on them, and wants no second try."""
    project.write("test_a.py", FLAKE)
    status, said = project.test("test_a.py")
    assert status == 1
    assert "1 failed in" in said.splitlines()[-1]
