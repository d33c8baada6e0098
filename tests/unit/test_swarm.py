"""What Docker says of a Swarm, read: its nodes, its services, its refusals."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_machine.swarm import _node, _progress, _reason

MANAGER: dict[str, Any] = {
    "ID": "m1",
    "Spec": {"Role": "manager", "Availability": "active"},
    "Description": {"Hostname": "host-1"},
    "Status": {"State": "ready", "Addr": "10.0.0.2"},
    "ManagerStatus": {"Leader": True, "Reachability": "reachable", "Addr": "10.0.0.2:2377"},
}
WORKER: dict[str, Any] = {
    "ID": "w1",
    "Spec": {"Role": "worker", "Availability": "drain"},
    "Description": {"Hostname": "host-2"},
    "Status": {"State": "unknown", "Addr": "0.0.0.0"},
}


def test_a_manager() -> None:
    node = _node(MANAGER, {"m1": "a"})
    assert (node.name, node.id, node.role, node.state) == ("a", "m1", "manager", "ready")
    assert node.leader
    assert node.well
    assert str(node) == "'a' (manager) is ready"


def test_a_manager_that_is_not_heard() -> None:
    """One that is cut off runs its tasks still: it is ready, and of no use as a manager."""
    node = _node({**MANAGER, "ManagerStatus": {"Reachability": "unreachable", "Addr": "10.0.0.2:2377"}}, {})
    assert node.name == "host-1"
    assert not node.leader
    assert not node.well
    assert str(node) == "'host-1' (manager) is ready, and not heard by the others"


def test_a_worker() -> None:
    """It is unknown for a moment, when there is a new leader."""
    node = _node(WORKER, {"m1": "a"})
    assert (node.name, node.role, node.availability, node.well) == ("host-2", "worker", "drain", False)
    assert _node({**WORKER, "Status": {"State": "ready"}}, {}).well


def service(mode: dict[str, Any], has: int, wants: int, update: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {
        "Spec": {"Name": "web", "Mode": mode},
        "ServiceStatus": {"RunningTasks": has, "DesiredTasks": wants},
    }
    return {**found, "UpdateStatus": {"State": update}} if update else found


THREE = {"Replicated": {"Replicas": 3}}


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        (service(THREE, 3, 3), ""),
        (service(THREE, 2, 3), "'web' runs 2 of 3"),
        (service(THREE, 4, 3), "'web' runs 4 of 3"),
        (service(THREE, 0, 0), "'web' runs 0 of 3"),  # ordered, and not yet thought about
        (service({"Replicated": {"Replicas": 0}}, 0, 0), ""),
        (service({"Global": {}}, 2, 2), ""),
        (service({"Global": {}}, 1, 2), "'web' runs 1 of 2"),
        (service(THREE, 3, 3, "completed"), ""),
        (service(THREE, 3, 3, "updating"), "'web' is updating"),
        (service(THREE, 3, 3, "rollback_started"), "'web' is rollback_started"),
        (service({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}}, 0, 1), ""),
    ],
)
def test_what_a_service_lacks(said: dict[str, Any], lacks: str) -> None:
    assert _progress(said) == lacks


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ValueError('GET /nodes: 503 {"message":"This node is not a swarm manager."}'),
            "This node is not a swarm manager.",
        ),
        (ValueError('POST /swarm/join: 400 {"message":"say \\"please\\""}'), 'say "please"'),
        (ConnectionRefusedError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_why_it_was_refused(error: Exception, reason: str) -> None:
    assert _reason(error) == reason
