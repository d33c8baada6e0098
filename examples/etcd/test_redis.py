"""Redis, which replicates after it has answered, loses writes that it has acknowledged: the counter-example to etcd."""

from __future__ import annotations

import socket
from typing import Self

import pytest

from pytest_machine import Lab, Machine, Partition

IMAGE = "databases:1"
pytestmark = pytest.mark.machine("a", "b", preload=["~/.cache/pytest-machine-examples/databases.tar"])


class Redis:
    """Redis in a container on a machine, and a client of it."""

    def __init__(self, machine: Machine, options: str = "") -> None:
        machine.docker.containers.run(
            IMAGE,
            f"redis-server --dir /data --appendonly yes --protected-mode no --repl-diskless-sync-delay 0 {options}",
            name="redis",
            network_mode="host",  # where machines know each other by name
            volumes={"data": {"bind": "/data", "mode": "rw"}},
            detach=True,
        )
        machine.wait_for(port=6379)
        # One connection for all: WAIT speaks of what was written by the same.
        with socket.create_connection((machine.ip, 6379), timeout=60) as connection:
            self._stream = connection.makefile("rw")  # lives on when the socket's own name for it is closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def ask(self, command: str) -> str:
        """Return the one line that Redis answers."""
        print(command, file=self._stream, flush=True)
        return self._stream.readline().strip()

    def write(self, keys: range) -> list[int]:
        """Write some keys; return those whose writing was acknowledged."""
        return [key for key in keys if self.ask(f"SET key:{key} {key}") == "+OK"]

    def has(self, keys: list[int]) -> list[int]:
        """Return which of these keys are there."""
        return [key for key in keys if self.ask(f"EXISTS key:{key}") == ":1"]


def test_acknowledged_writes_are_lost(lab: Lab) -> None:
    with Redis(lab["a"]) as a, Redis(lab["b"], "--replicaof a 6379") as b:
        before = a.write(range(50))
        lab.wait_until(lambda: a.ask("WAIT 1 1000") == ":1", "the replica to have all of that")

        with lab.inject(Partition(["a"], ["b"])):
            meanwhile = a.write(range(50, 100))
            assert meanwhile == list(range(50, 100)), "the primary acknowledges what nobody but itself has"
            assert a.ask("WAIT 1 500") == ":0", "and would say so, were it asked"
            # Whoever looks from the replica's side takes the primary for dead.
            assert b.ask("REPLICAOF NO ONE") == "+OK"
            after = b.write(range(100, 150))

        assert a.ask("REPLICAOF b 6379") == "+OK"
        lab.wait_until(lambda: b.ask("WAIT 1 1000") == ":1", "the old primary to follow")
        for redis in (a, b):
            assert redis.has(before) == before
            assert redis.has(after) == after
            assert redis.has(meanwhile) == [], "fifty acknowledged writes are gone"
