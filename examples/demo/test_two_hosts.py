"""Two Docker hosts of the test's own form a Swarm, and a container on one reaches a container on the other by name."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pytest_machine import Machine, Swarm
from pytest_machine.errors import CommandFailed


@pytest.mark.machine("a", "b", swarm=True)
def test_containers_reach_each_other_across_two_hosts(
    swarm: Swarm, busybox: Callable[..., str], tell: Callable[[str], None]
) -> None:
    a, b = swarm.machines
    for machine in (a, b):
        tell(f"'{machine.name}' is a Docker host at {machine.url}, made in {machine.seconds:.1f} s")
    image = busybox(a, b)
    tell("they have formed a Swarm")

    a.docker.networks.create("front", driver="overlay", attachable=True)
    a.docker.containers.run(image, ["httpd", "-f", "-h", "/www"], name="web", network="front", detach=True)
    tell("a container 'web' serves a page on 'a', on an overlay network")

    b.docker.containers.run(image, ["sleep", "600"], name="client", network="front", init=True, detach=True)
    page = fetch(b, "client", "http://web/")
    tell(f"a container on 'b' read it: {page!r}")
    assert page == "hello from the other host\n"

    replies = b.run("docker", "exec", "client", "ping", "-c", "3", "-W", "5", "web").stdout
    tell(replies.strip().splitlines()[-1])
    assert "3 packets transmitted, 3 packets received, 0% packet loss" in replies


def fetch(machine: Machine, container: str, url: str) -> str:
    """Return a page as a container on the overlay sees it, once the name has travelled from one host to the other."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return machine.run("docker", "exec", container, "timeout", "2", "wget", "-q", "-O", "-", url).stdout
        except CommandFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
