"""The fixtures on real machines of the driver `runc`: what fake ones cannot show."""

from __future__ import annotations

import pytest

from pytest_machine.errors import DriverUnavailable
from pytest_machine.model import Spec
from pytest_machine.plugins import Registry

from .conftest import Run

FREE = """
import pytest

def test_own(machine, docker_client, tmp_path):
    assert machine.run("hostname").stdout == "machine\\n"
    assert docker_client.info()["Name"] == "machine"

@pytest.mark.machine("web", networks=["front"])
@pytest.mark.machine("db", networks=["front"])
def test_names(lab):
    lab["web"].run("ping", "-c", "1", "-W", "5", "db")

def test_factory_adds_to_the_lab(machine, machine_factory):
    late = machine_factory("late")
    machine.run("ping", "-c", "1", "-W", "5", "late")
    late.run("ping", "-c", "1", "-W", "5", "machine")

@pytest.fixture(scope="module")
def seeded(module_machine):
    module_machine.put(b"42", "/srv/answer")
    return module_machine

def test_seeded(seeded):
    assert seeded.run("cat", "/srv/answer").stdout == "42"

def test_still_there(module_machine, machine):
    assert module_machine.run("cat", "/srv/answer").stdout == "42"
    assert machine.run("test", "-e", "/srv/answer", check=False).returncode == 1

@pytest.mark.machine(memory="256m", teardown="kill")
def test_memory(machine):
    assert machine.docker.ping()
    assert machine.driver.memory == 256 << 20
"""


@pytest.fixture(autouse=True)
def _runc(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        Registry().configure(Spec(driver="runc")).check()
    except DriverUnavailable as error:
        pytest.skip(str(error))


def test_fixtures(run: Run) -> None:
    result = run(FREE, "--machine-driver=runc", passed=6)
    kind = "runc (user-namespace), image trixie, Docker 26.1"
    result.stdout.fnmatch_lines([f"machine: {kind}", f"8 machines made: {kind}*", "none is left"])
