"""Who is what in a Swarm, and where its members meet: pure functions."""

from __future__ import annotations

import pytest

from pytest_machine.errors import BadSpec
from pytest_machine.roles import Roles, assign, meeting


@pytest.mark.parametrize(
    ("said", "managers", "workers"),
    [
        ({"a": ""}, "a", ""),
        ({"a": "", "b": "", "c": ""}, "a", "b c"),
        ({"a": "manager", "b": "manager", "c": "worker"}, "a b", "c"),
        ({"w": "worker", "m": "manager"}, "m", "w"),
        ({"a": "", "m": "manager", "b": ""}, "m", "a b"),
        ({"w": "worker", "a": "", "b": ""}, "a", "w b"),
    ],
)
def test_assign(said: dict[str, str], managers: str, workers: str) -> None:
    found = assign(said)
    assert found == Roles(tuple(managers.split()), tuple(workers.split()))
    assert sorted(found.members) == sorted(said)


@pytest.mark.parametrize("said", [{}, {"a": "worker"}, {"a": "worker", "b": "worker"}])
def test_somebody_must_be_the_manager(said: dict[str, str]) -> None:
    with pytest.raises(BadSpec, match="A Swarm of workers alone cannot be") as refused:
        assign(said)
    assert "role='manager'" in refused.value.hint


@pytest.mark.parametrize(
    ("networks", "where"),
    [
        ({"a": []}, ""),
        ({"a": [], "b": []}, ""),
        ({"a": ["front"]}, "front"),
        ({"a": ["front", "back"], "b": ["back", "front"]}, "front"),
        ({"a": ["front", "back"], "b": ["side", "back"]}, "back"),
    ],
)
def test_meeting(networks: dict[str, list[str]], where: str) -> None:
    assert meeting(networks) == where


@pytest.mark.parametrize(
    "networks",
    [
        {"a": ["front"], "b": []},
        {"a": [], "b": ["front"]},
        {"a": ["front"], "b": ["back"]},
        {"a": ["x", "y"], "b": ["y", "z"], "c": ["z", "x"]},
    ],
)
def test_no_network_is_shared_by_all(networks: dict[str, list[str]]) -> None:
    with pytest.raises(BadSpec, match="do not share a network") as refused:
        meeting(networks)
    assert set(refused.value.facts) == {f"'{name}' is on" for name in networks}
