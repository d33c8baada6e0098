"""Two real runs want one host that existed before them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_machine.waiting import NotYet, wait
from tests.conftest import SLOWNESS

HOSTED = """
from pytest_machine.testing.fake import FakeDriver

class Hosted(FakeDriver):
    name = "hosted"

    def shared_host(self):
        return "192.0.2.1:22"

def pytest_machine_drivers():
    return [FakeDriver, Hosted]
"""
HOLDS = """
import pathlib
from patience import until

def test_holds(machine):
    pathlib.Path("holds").touch()
    until(lambda: pathlib.Path("go").exists(), 300)
"""
BOTH = """
import pathlib, pytest
from patience import until

@pytest.mark.parametrize("number", [1, 2])
def test_both(machine, session_machine, number):
    pathlib.Path(f"{number}.here").touch()
    until(lambda: len(list(pathlib.Path().glob("*.here"))) == 2)
"""
WANTS = "def test_wants(machine): assert machine.docker.ping()"
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]


@pytest.fixture
def suite(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_MACHINE_DRIVER", "hosted")
    inner.makeconftest(HOSTED)
    inner.makepyfile(
        test_holds=HOLDS, test_both=BOTH, test_wants="def test_wants(machine): assert machine.docker.ping()"
    )
    return inner.path


def appears(path: Path) -> None:
    def check() -> None:
        if not path.exists():
            raise NotYet(f"no {path.name}")

    wait(check, f"The file {path.name}", timeout=60 * SLOWNESS)


def test_the_second_waits_for_the_first_and_says_for_which(suite: Path) -> None:
    with subprocess.Popen([*PYTEST, "test_holds.py"], stdout=subprocess.PIPE, text=True) as first:
        try:
            appears(suite / "holds")
            refused = subprocess.run(
                [*PYTEST, "test_wants.py", "--machine-timeout=2"], capture_output=True, text=True, check=False
            )
            assert refused.returncode == 1, refused.stdout
            assert "The host 192.0.2.1:22 is in use by another test run." in refused.stdout
            assert f"(process {first.pid})" in refused.stdout
            with subprocess.Popen([*PYTEST, "test_wants.py"], stdout=subprocess.PIPE, text=True) as second:
                assert second.stdout is not None
                assert any("waiting for the host 192.0.2.1:22, which run" in line for line in second.stdout)
                (suite / "go").touch()
                assert "1 passed" in second.stdout.read()
            assert first.wait(60 * SLOWNESS) == 0
        finally:
            (suite / "go").touch()


def test_the_kernel_releases_the_host_of_a_killed_run(suite: Path) -> None:
    with subprocess.Popen([*PYTEST, "test_holds.py"], stdout=subprocess.DEVNULL) as first:
        appears(suite / "holds")
        first.send_signal(signal.SIGKILL)
    done = subprocess.run([*PYTEST, "test_wants.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_workers_of_one_run_do_not_wait_for_each_other(suite: Path) -> None:  # writes the test
    done = subprocess.run([*PYTEST, "-n2", "test_both.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_create_refuses_a_host_that_a_run_uses(home: Path, tmp_path: Path) -> None:
    from pytest_machine.drivers.generic import GenericDriver
    from pytest_machine.hosts import using

    argv = [sys.executable, "-m", "pytest_machine", "-s", str(tmp_path / "store"), "create", "-d", "generic"]
    host = GenericDriver(ip_address="127.0.0.1", ssh_port=9)
    with using(home, host.shared_host(), run="tests", timeout=0):
        done = subprocess.run(
            [*argv, "--generic-ip-address=127.0.0.1", "--generic-ssh-port=9", "web"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 3
    assert "The host 127.0.0.1:9 is in use by another test run." in done.stderr
    assert "run tests (process" in done.stderr
    assert not (tmp_path / "store" / "machines" / "web").exists()
