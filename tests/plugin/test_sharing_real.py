"""Sharing on real machines of the driver `runc`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import DriverUnavailable
from pytest_machine.model import Spec
from pytest_machine.owner import cache_dir
from pytest_machine.plugins import Registry
from tests.conftest import SLOWNESS

CACHE = str(cache_dir())


@pytest.fixture(autouse=True)
def _runc() -> None:
    try:
        Registry().configure(Spec(driver="runc")).check()
    except DriverUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def suite(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite on real machines; nothing may be left of it on the host."""
    monkeypatch.setenv("PYTEST_MACHINE_DRIVER", "runc")
    # Pytester gives the inner run a home of its own, where no image is.
    monkeypatch.setenv("PYTEST_MACHINE_CACHE", CACHE)
    return inner


def left(suite: pytest.Pytester) -> list[str]:
    return sorted(record.name for record in RuncDriver().find() if suite.path.parent in record.store.parents)


SHARED = """
import pathlib, pytest

@pytest.mark.parametrize("x", range(8))
@pytest.mark.machine("web", networks=["front"], reuse="{reuse}")
@pytest.mark.machine("db", networks=["front"], reuse="{reuse}")
def test_it(lab, x):
    web = lab["web"]
    web.run("ping", "-c", "1", "-W", "5", "db")
    assert web.docker.volumes.list() == []
    assert web.run("sh", "-c", "ls /srv/dirt* /tmp/dirt* 2>/dev/null; true").stdout == ""
    web.docker.volumes.create("mine")
    if x % 2:
        web.put(b"", f"/srv/dirt-{{x}}")
        web.run("hostname", "other")
    else:
        assert web.run("hostname").stdout == "web\\n"
    with pathlib.Path("ids").open("a") as file:
        print(web.id, lab["db"].id, file=file)
"""


def ids(suite: pytest.Pytester) -> list[str]:
    return (suite.path / "ids").read_text().splitlines()


def test_two_workers_share_a_lab_that_is_reset(suite: pytest.Pytester) -> None:
    suite.makepyfile(SHARED.format(reuse="session"))
    result = suite.runpytest_subprocess("-n", "2")
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["2 machines made: runc *"])
    assert len(set(ids(suite))) == 1
    assert left(suite) == []


def test_from_one_run_to_the_next(suite: pytest.Pytester) -> None:
    suite.makepyfile(SHARED.format(reuse="runs"))
    try:
        suite.runpytest_subprocess("-k", "0 or 1").assert_outcomes(passed=2, deselected=6)
        suite.runpytest_subprocess("-k", "2 or 3").assert_outcomes(passed=2, deselected=6)
        assert len(set(ids(suite))) == 1
        assert sorted(left(suite)) == ["db", "web"]
    finally:
        driver = RuncDriver()
        for record in driver.find():
            if suite.path.parent in record.store.parents:
                driver.destroy(record)
        for network in driver.find_networks():
            if suite.path.parent in network.store.parents:
                driver.remove_network(network)


def test_spares_are_named_as_they_should(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest, time

        @pytest.mark.parametrize("name", [
            pytest.param(name, marks=pytest.mark.machine(name)) for name in ("one", "two", "three")
        ])
        def test_it(machine, name):
            assert machine.run("hostname").stdout == f"{name}\\n"
            assert machine.run("getent", "hosts", name).stdout.split()[0] == machine.ip
            assert machine.docker.info()["Name"] == name
            time.sleep(1)
        """
    )
    result = suite.runpytest_subprocess("--machine-spares=1")
    result.assert_outcomes(passed=3)
    assert left(suite) == []


def test_two_runs_at_once_never_meet(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal names, equal networks, one host; the second run has a home of its own, as another user would."""
    suite.makepyfile(
        """
        import pytest, time

        @pytest.mark.machine("web", networks=["front"])
        @pytest.mark.machine("db", networks=["front"])
        @pytest.mark.parametrize("x", range(2))
        def test_own(lab, x):
            assert lab["web"].run("hostname").stdout == "web\\n"
            lab["web"].run("ping", "-c", "1", "-W", "5", "db")
            assert lab["db"].docker.volumes.list() == []
            lab["db"].docker.volumes.create("mine")
            time.sleep(1)
        """
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    runs = []
    for home in ("home-a", "home-b"):
        environment = {**os.environ, "PYTEST_MACHINE_HOME": str(suite.path / home)}
        runs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    for run in runs:
        out, _ = run.communicate(timeout=120 * SLOWNESS)
        assert run.returncode == 0, out
        assert "4 machines made" in out
        assert "none is left" in out
    assert left(suite) == []
