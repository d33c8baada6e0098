"""pytest inside pytest, on fake machines: no root, no image, and a machine takes a fraction of a second."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_machine.model import Record
from pytest_machine.testing.fake import FakeDriver
from pytest_machine.waiting import NotYet, wait
from tests.conftest import SLOWNESS

# pytester forgets what was imported during an inner run, and cryptography's library cannot be loaded twice; nor may the
# kinds of faults, whose names our package keeps.
for module in ("docker", "cryptography.x509", "pytest_machine.lab", "pytest_machine.reaper", "pytest_machine.sketch"):
    importlib.import_module(module)

CONFTEST = """
from pytest_machine.testing.fake import FakeDriver

def pytest_machine_drivers():
    return [FakeDriver]
"""

# For inner tests that hold until something has come about, however long that takes on a busy host.
PATIENCE = """
import time

def until(check, seconds=60):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
"""

# What a reaper, and nobody else, puts into a run's directory.
REAPERS = ("reaper.lock", "reaper.log", "reaping.lock", "over")

Run = Callable[..., pytest.RunResult]
Left = Callable[[], list[Record]]
Log = Callable[[], list[dict[str, object]]]
Forgotten = Callable[[], None]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the inner runs keep their state."""
    home, fakes = tmp_path / "home", tmp_path / "fakes"
    monkeypatch.setenv("PYTEST_MACHINE_HOME", str(home))
    # When its run is over a reaper looks for all that is dead: that of an earlier test must find nothing of ours.
    monkeypatch.setenv("PYTEST_MACHINE_FAKES", str(fakes))
    yield home
    # Engines that a failed test has left end when their home is gone.
    shutil.rmtree(fakes, ignore_errors=True)


@pytest.fixture
def inner(pytester: pytest.Pytester, home: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite whose driver is the fake one."""
    # Whoever runs these tests may have a machine of their own.
    for name in ("CI", "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_MACHINE_DRIVER", "fake")
    # No place for bytecode: a module that is replaced by one of its size within a second would be taken for the one
    # before. Elsewhere it is wanted, for whoever is started in a test starts faster with it.
    (pytester.path / "__pycache__").touch()
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(patience=PATIENCE)
    pytester.makeini(
        "[pytest]\naddopts = -p no:cacheprovider -p no:hypothesispytest --strict-markers --strict-config -ra\n"
    )
    return pytester


@pytest.fixture
def left(home: Path) -> Callable[[], list[Record]]:
    """What the fake driver still has of the runs of this test."""

    def look() -> list[Record]:
        return [record for record in FakeDriver().find() if home in record.store.parents]

    return look


@pytest.fixture
def forgotten(home: Path) -> Forgotten:
    """No run is noted any more."""

    def no_run_is_noted() -> None:
        if noted := [str(path) for path in (home / "runs").glob("[!.]*/**")]:
            raise NotYet(", ".join(noted))

    def check() -> None:
        # A reaper that comes up while the run removes its directory puts its lock there again, and then removes both.
        assert [path for path in (home / "runs").glob("[!.]*/*") if path.name not in REAPERS] == []
        wait(no_run_is_noted, "The end of the run's notes", timeout=10 * SLOWNESS)

    return check


@pytest.fixture
def run(inner: pytest.Pytester, left: Callable[[], list[Record]], forgotten: Forgotten) -> Run:
    """Run a test module, given as text, in this process; nothing may be left of it."""

    def run(source: str, *args: str, **outcomes: int) -> pytest.RunResult:
        inner.makepyfile(test_it=source)
        result = inner.runpytest_inprocess(*args)
        result.assert_outcomes(**(outcomes or {"passed": 1}))
        assert left() == []
        forgotten()
        return result

    return run


# Each test leaves a file on the machine's disk, and notes whom it met there.
DIRTY = """
import json, os, pathlib, pytest, time
from pytest_machine.testing.fake import FakeDriver

LOG = pathlib.Path({log!r})

def disk(machine):
    return FakeDriver().directory / "machines" / machine.id / "disk"

def use(machine, test, seconds=0.0):
    found = sorted(path.name for path in disk(machine).glob("dirt-*"))
    assert machine.docker.ping()
    (disk(machine) / f"dirt-{{test}}").touch()
    begun = time.time()
    time.sleep(seconds)
    line = dict(id=machine.id, name=machine.name, found=found, begun=begun, ended=time.time())
    line["worker"] = os.environ.get("PYTEST_XDIST_WORKER", "")
    line["cert"] = (machine.record.directory / "server.pem").read_text()
    with LOG.open("a") as file:
        file.write(json.dumps(line) + "\\n")
"""


@pytest.fixture
def log(inner: pytest.Pytester) -> Log:
    """What the inner tests noted, one entry each."""
    path = inner.path / "log"
    inner.makepyfile(dirty=DIRTY.format(log=str(path)))
    inner.syspathinsert()
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]
