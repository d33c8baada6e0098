"""pytest inside pytest, on fake machines: no root, no image, and a machine takes a fraction of a second."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
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

Run = Callable[..., pytest.RunResult]
Left = Callable[[], list[Record]]
Log = Callable[[], list[dict[str, object]]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the inner runs keep their state."""
    home = tmp_path / "home"
    monkeypatch.setenv("PYTEST_MACHINE_HOME", str(home))
    return home


@pytest.fixture
def inner(pytester: pytest.Pytester, home: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite whose driver is the fake one."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTEST_MACHINE_DRIVER", "fake")
    pytester.makeconftest(CONFTEST)
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
def run(inner: pytest.Pytester, left: Callable[[], list[Record]], home: Path) -> Run:
    """Run a test module, given as text, in this process; nothing may be left of it."""

    def no_run_is_noted() -> None:
        if noted := [str(path) for path in (home / "runs").glob("[!.]*/**")]:
            raise NotYet(", ".join(noted))

    def run(source: str, *args: str, **outcomes: int) -> pytest.RunResult:
        inner.makepyfile(test_it=source)
        result = inner.runpytest_inprocess(*args)
        result.assert_outcomes(**(outcomes or {"passed": 1}))
        assert left() == []
        # A reaper that comes up while the run removes its directory puts its lock there again, and then removes both.
        wait(no_run_is_noted, "The end of the run's notes", timeout=10 * SLOWNESS)
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
