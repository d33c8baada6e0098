"""Tests that stop or move the clock of their process: machines are made, waited for and destroyed all the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pytest_machine
from tests.plugin.conftest import Run

CLOCKS = {
    "freezegun": ("from freezegun import freeze_time as clock", 'clock("2012-01-14")'),
    "time-machine": ("from time_machine import travel as clock", 'clock("2012-01-14", tick=False)'),
    "future": ("from freezegun import freeze_time as clock", 'clock("2099-01-14")'),
}

# The package as freezegun finds it: every module is there when the clock is stopped.
LOADED = """
import importlib, pkgutil, time
import pytest, pytest_machine
from pytest_machine.errors import WaitTimeout

for module in ("lab", "machine", "reaper", "ssh", "waiting", "certs", "birth"):
    importlib.import_module(f"pytest_machine.{module}")
"""


@pytest.mark.parametrize("kind", CLOCKS)
def test_a_machine_of_a_test_whose_clock_is_stopped(run: Run, kind: str) -> None:
    loaded, call = CLOCKS[kind]
    run(
        LOADED
        + f"""
{loaded}
from datetime import datetime, UTC
from pytest_machine.certs import expires

REAL = time.time()

@pytest.fixture
def stopped():
    with {call}:
        yield

@pytest.mark.filterwarnings("ignore:System time is way off")  # urllib3 says so
def test_it(stopped, machine):
    assert abs(time.time() - REAL) > 1e8
    assert machine.docker.ping()
    assert abs(machine.record.created - REAL) < 600
    assert REAL + 86400 < expires(machine.record.directory / "server.pem").timestamp() < REAL + 40 * 365 * 86400
    begun = time.clock_gettime(time.CLOCK_MONOTONIC)
    with pytest.raises(WaitTimeout):
        machine.wait_for(port=1, timeout=0.3)
    assert 0.3 <= time.clock_gettime(time.CLOCK_MONOTONIC) - begun < 10

def test_later(machine):
    assert machine.docker.ping()
""",
        passed=2,
    )


@pytest.mark.parametrize("kind", ["freezegun", "time-machine"])
def test_a_machine_that_does_not_come_up(run: Run, inner: pytest.Pytester, kind: str) -> None:
    loaded, call = CLOCKS[kind]
    inner.makeconftest(
        """
        from dataclasses import dataclass
        from pytest_machine.testing.fake import FakeDriver

        @dataclass(frozen=True, kw_only=True)
        class Deaf(FakeDriver):
            name = "deaf"

            def create(self, record, seed):
                super().create(record, seed)
                self.kill(record)

            def look(self, records):
                from dataclasses import replace
                from pytest_machine.model import State
                return {id: replace(seen, state=State.RUNNING) for id, seen in super().look(records).items()}

        def pytest_machine_drivers():
            return [FakeDriver, Deaf]
        """
    )
    result = run(
        LOADED
        + f"""
{loaded}

@pytest.fixture
def stopped():
    with {call}:
        yield

@pytest.mark.machine(driver="deaf", timeout=1)
def test_it(stopped, machine): ...
""",
        "--machine-retries=0",
        errors=1,
    )
    result.stdout.fnmatch_lines(["*did not come about within *"])


FAKED = re.compile(r"(?<![\w.])time\.(time|monotonic|perf_counter|sleep)(_ns)?\(|datetime\.(now|utcnow|today)\(")


def test_no_module_uses_a_clock_that_tests_fake() -> None:
    root = Path(pytest_machine.__file__).parent
    found = [
        f"{path.relative_to(root)}: {match[0]}"
        for path in root.rglob("*.py")
        if path.name != "clock.py" or path.parent.name != "support"
        for match in FAKED.finditer(path.read_text("utf-8"))
    ]
    assert found == []
