"""etcd on three hosts keeps every write that it has acknowledged, whatever happens to hosts and network."""

from __future__ import annotations

import itertools
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import requests

from pytest_machine import Fault, Kill, Lab, Machine, Partition, isolate

IMAGE = "databases:1"
pytestmark = pytest.mark.machine("a", "b", "c", preload=["~/.cache/pytest-machine-examples/databases.tar"])


class Etcd:
    """etcd in a container on each machine of a lab, and a client of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.written: dict[str, str] = {}
        """All that was acknowledged."""
        self._numbers = itertools.count()
        self._http = requests.Session()
        self._http.trust_env = False  # a proxy that the environment names would not see the machines

    def start(self) -> None:
        """Start it everywhere and wait until it takes writes."""
        for machine in self.lab:
            options = {
                "name": machine.name,
                "data-dir": "/data",
                "initial-cluster": ",".join(f"{each.name}=http://{each.name}:2380" for each in self.lab),
                "initial-advertise-peer-urls": f"http://{machine.name}:2380",
                "listen-peer-urls": "http://0.0.0.0:2380",
                "advertise-client-urls": f"http://{machine.name}:2379",
                "listen-client-urls": "http://0.0.0.0:2379",
                # Three hosts on one computer: they are not to elect anew whenever it is busy.
                "heartbeat-interval": 150,
                "election-timeout": 1500,
            }
            machine.docker.containers.run(
                IMAGE,
                ["etcd", *(f"--{name}={value}" for name, value in options.items())],
                name="etcd",
                network_mode="host",  # where machines know each other by name
                volumes={"data": {"bind": "/data", "mode": "rw"}},
                restart_policy={"Name": "always"},  # also when the machine boots
                detach=True,
            )
        self.wait_until_all_agree()

    def ask(self, machine: Machine, path: str, **body: Any) -> Any:
        """Return what the member on a machine answers; raises `requests.RequestException`."""
        answer = self._http.post(f"http://{machine.ip}:2379/v3/{path}", json=body, timeout=2)
        answer.raise_for_status()
        return answer.json()

    def write(self, machine: Machine) -> bool:
        """Write a key of its own by one member; return whether that was acknowledged."""
        key = f"{next(self._numbers):06}"
        value = f"by way of {machine.name}"
        try:
            self.ask(machine, "kv/put", key=encode(key), value=encode(value))
        except requests.RequestException:
            return False  # it may have been written all the same, or may yet be: nobody knows
        self.written[key] = value
        return True

    def read(self, machine: Machine) -> dict[str, str]:
        """Return all that the member on a machine has, without asking the others."""
        found = self.ask(machine, "kv/range", key=encode("0"), range_end=encode(":"), serializable=True)
        return {decode(pair["key"]): decode(pair["value"]) for pair in found.get("kvs", ())}

    def leader(self) -> Machine:
        """Return the machine of the member that leads."""
        for machine in self.lab:
            status = self.ask(machine, "maintenance/status")
            if status.get("leader") == status["header"]["member_id"]:
                return machine
        raise AssertionError("nobody leads")

    def wait_until_all_agree(self) -> dict[str, str]:
        """Wait until each member takes a write and all have the same; return what that is."""

        def same() -> dict[str, str]:
            for machine in self.lab:
                assert self.write(machine), f"no write by '{machine.name}'"
            first, *others = [self.read(machine) for machine in self.lab]
            assert all(other == first for other in others), "the members differ"
            return first

        return self.lab.wait_until(same, "etcd, with the same on every member", timeout=120)

    def check(self) -> None:
        """See to it that all agree and nothing that was acknowledged is lost."""
        there = self.wait_until_all_agree()
        lost = {key: value for key, value in self.written.items() if there.get(key) != value}
        assert not lost


def encode(text: str) -> str:
    return b64encode(text.encode()).decode()


def decode(text: str) -> str:
    return b64decode(text).decode()


@pytest.fixture(scope="module")
def etcd(module_lab: Lab) -> Etcd:
    cluster = Etcd(module_lab)
    cluster.start()
    return cluster


FAULTS: dict[str, Callable[[Lab, Machine], Fault]] = {
    "cut off": lambda lab, leader: Partition(isolate(lab, leader)),
    "killed": lambda _, leader: Kill(leader),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_others_go_on_without_their_leader(etcd: Etcd, fault: str) -> None:
    leader = etcd.lab.wait_until(etcd.leader)
    others = [machine for machine in etcd.lab if machine is not leader]
    with etcd.lab.inject(FAULTS[fault](etcd.lab, leader)):
        for machine in others:
            etcd.lab.wait_until(partial(etcd.write, machine), f"a write by '{machine.name}'")
        assert not etcd.write(leader), "a minority must not acknowledge anything"
    etcd.check()


def test_no_acknowledged_write_is_lost(etcd: Etcd) -> None:
    disturb_and_check(etcd, seconds=8)


def disturb_and_check(
    etcd: Etcd,
    *,
    seconds: float,
    faults: Sequence[type[Fault]] = (Partition, Kill),
    seed: int | None = None,
    stacked: int = 1,
) -> None:
    """Write all the time, to one member after the other, while hosts die and the network splits."""
    before, tried = len(etcd.written), 0
    until = time.monotonic() + seconds
    with etcd.lab.disturb(seed=seed, faults=faults, every=2.0, stacked=stacked) as disturbance:
        for machine in itertools.cycle(etcd.lab):
            etcd.write(machine)
            tried += 1
            if time.monotonic() > until:
                break
    acknowledged = len(etcd.written) - before
    print(f"{len(disturbance.done)} faults; {acknowledged} of {tried} writes were acknowledged")
    assert disturbance.done, "nothing went wrong"
    assert acknowledged, "nothing went right"
    etcd.check()
