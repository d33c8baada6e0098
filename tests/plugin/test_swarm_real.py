"""The mark and the fixtures of a Swarm, on real machines."""

from __future__ import annotations

import pytest

from pytest_machine.errors import DriverUnavailable
from pytest_machine.model import Spec
from pytest_machine.plugins import Registry

from .conftest import Run

SHARED = """
import pytest

pytestmark = pytest.mark.machine("a", "b", swarm=True, reuse="session")
seen = []

def nodes(manager):
    return {node.attrs["Description"]["Hostname"]: node.id for node in manager.docker.nodes.list()}

def test_formed_for_whoever_has_the_mark(lab):
    found = nodes(lab["a"])
    assert set(found) == {"a", "b"}
    seen.append(found)
    assert lab.swarm().managers == [lab["a"]]

def test_formed_anew_after_a_reset(swarm, machines):
    assert set(nodes(swarm.manager)) == {"a", "b"}
    assert not set(nodes(swarm.manager).values()) & set(seen[0].values())
    assert swarm.workers == [machines["b"]]
    seen.append(nodes(swarm.manager))

@pytest.mark.machine(reset=False)
def test_found_where_nothing_is_reset(swarm):
    assert nodes(swarm.manager) == seen[1]

@pytest.mark.machine(swarm=False)
def test_none_for_who_wants_none(lab):
    assert {machine.docker.info()["Swarm"]["LocalNodeState"] for machine in lab} == {"inactive"}
"""
SCOPES = """
import pytest

def test_one_machine_that_nobody_marked(swarm, machine):
    assert swarm.manager is machine
    assert swarm.workers == []
    assert machine.docker.services.list() == []

@pytest.fixture(scope="module")
def prepared(module_swarm):
    module_swarm.manager.docker.networks.create("mine", driver="overlay")

def test_of_the_module(prepared, module_swarm, module_lab):
    assert module_swarm.machines == module_lab.machines
    assert "mine" in [each.name for each in module_swarm.manager.docker.networks.list()]

@pytest.mark.machine("x", role="manager")
class TestIt:
    def test_of_the_class(self, class_swarm):
        assert [machine.name for machine in class_swarm.managers] == ["x"]
"""

DECLARED = """
import pytest
from pytest_machine import Net, Role, Topology

LAB = Topology(
    networks={"back": Net(subnet="10.7.0.0/24")},
    roles={"boss": Role(networks=["back"], role="manager"), "hand": Role(networks=["back"], role="worker")},
)

@pytest.mark.machine(topology=LAB)
def test_roles_of_a_topology(swarm):
    assert [machine.name for machine in swarm.machines] == ["boss", "hand"]
    assert swarm.manager.docker.info()["Swarm"]["NodeAddr"] == swarm.manager.networks["back"].ip
    assert len(swarm.nodes()) == 2
"""


@pytest.fixture(autouse=True)
def _runc(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        Registry().configure(Spec(driver="runc")).check()
    except DriverUnavailable as error:
        pytest.skip(str(error))


def test_shared_machines(run: Run) -> None:
    run(SHARED, "--machine-driver=runc", passed=4)


def test_scopes(run: Run) -> None:
    run(SCOPES, "--machine-driver=runc", passed=3)


def test_a_topology(run: Run) -> None:
    run(DECLARED, "--machine-driver=runc", passed=1)
