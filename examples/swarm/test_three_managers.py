"""A Swarm of three managers loses its leader, and goes on. Then one of them is cut off from the other two."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_machine import Kill, Lab, Machine, Partition, Swarm, isolate
from pytest_machine.errors import CommandFailed

pytestmark = pytest.mark.machine("a", "b", "c", role="manager")


def test_the_leader_dies_and_the_others_go_on(
    lab: Lab, swarm: Swarm, busybox: Callable[..., str], tell: Callable[[str], None]
) -> None:
    busybox(*swarm.machines)
    order(lab, swarm, "web", port=8080)
    swarm.wait_running("web", timeout=180)
    leader = swarm.leader(timeout=180)
    others = [machine for machine in swarm.managers if machine is not leader]
    tell(f"'web' runs on every machine; '{leader.name}' leads")

    with lab.inject(Kill(leader)):
        for machine in others:
            machine.wait_for(http=":8080/")
        tell(f"'{leader.name}' is dead, and the others serve")

        successor = order(lab, swarm, "news", port=8081)
        tell(f"'{successor.name}' leads")
        assert successor in others
        for machine in others:
            machine.wait_for(http=":8081/")
        tell("it took an order: 'news' runs")

    leader.wait_for(http=":8081/")
    tell(f"'{leader.name}' is back, and runs 'news' too")


def test_one_that_is_cut_off_from_two_takes_no_orders(lab: Lab, swarm: Swarm, tell: Callable[[str], None]) -> None:
    lonely = swarm.leader(timeout=180)
    others = [machine for machine in swarm.managers if machine is not lonely]

    with lab.inject(Partition(isolate(lab, lonely))):
        with pytest.raises(CommandFailed) as refused:
            serve(lonely, "lost", port=8080)
        tell(f"'{lonely.name}', which led, is cut off and takes no orders: {refused.value.result.stderr.strip()}")

        assert order(lab, swarm, "kept", port=8080) in others
        tell("the other two do")

    swarm.wait_ready(timeout=180)
    assert services(lonely) == services(others[0]) == ["kept"]
    tell(f"they are one again, and '{lonely.name}' knows what it has missed")


def order(lab: Lab, swarm: Swarm, name: str, *, port: int) -> Machine:
    """Have whoever leads serve a page, and return who it was: the lead may go to another one before the order comes."""

    def taken() -> Machine:
        leader = swarm.leader(timeout=180)
        if name not in services(leader):
            serve(leader, name, port=port)
        return leader

    return lab.wait_until(taken, "a leader that takes the order", timeout=180)


def serve(manager: Machine, name: str, *, port: int) -> None:
    """Order a web page from a manager: a container on every machine, on the machine's own port."""
    manager.run(
        *("docker", "service", "create", "--detach", "--no-resolve-image", "--name", name, "--mode", "global"),
        # Virtual IPs and the ingress network take IP_VS in the kernel, which not every computer has.
        *("--endpoint-mode", "dnsrr", "--publish", f"mode=host,published={port},target=80"),
        *("busybox", "httpd", "-f", "-h", "/www"),
    )


def services(manager: Machine) -> list[str]:
    """Return the names of the services that a manager knows."""
    return manager.run("docker", "service", "ls", "--format", "{{.Name}}").stdout.split()
