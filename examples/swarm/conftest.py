"""What the Swarm of the examples serves, and how it tells what it does.

Your own suite would name an image of a registry; these have one that is made in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from docker.types import EndpointSpec

from examples.demo.conftest import busybox, tell
from pytest_machine import Machine

__all__ = ["busybox", "serve", "tell"]


@pytest.fixture
def serve(busybox: Callable[..., str]) -> Callable[..., None]:
    """Return a function that orders a web page from a manager: one container on every machine, on the machine's port."""

    def order(manager: Machine, name: str, *, port: int) -> None:
        manager.docker.services.create(
            "busybox:latest",
            command=["httpd", "-f", "-h", "/www"],
            name=name,
            mode="global",
            # Virtual IPs and the ingress network take IP_VS in the kernel, which not every computer has.
            endpoint_spec=EndpointSpec(
                mode="dnsrr", ports=[{"TargetPort": 80, "PublishedPort": port, "PublishMode": "host"}]
            ),
        )

    return order
