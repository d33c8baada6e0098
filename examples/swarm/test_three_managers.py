"""A Swarm of three managers loses its leader, and goes on. Then one of them is cut off from the other two."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from docker.errors import APIError

from pytest_machine import Kill, Lab, Machine, Partition, Swarm, isolate

pytestmark = pytest.mark.machine("a", "b", "c", role="manager")


def test_the_leader_dies_and_the_others_go_on(
    lab: Lab, swarm: Swarm, busybox: Callable[..., str], serve: Callable[..., None], tell: Callable[[str], None]
) -> None:
    busybox(*swarm.machines)
    serve(swarm.manager, "web", port=8080)
    swarm.wait_running("web")
    leader = swarm.leader()
    others = [machine for machine in swarm.managers if machine is not leader]
    tell(f"'web' runs on every machine; '{leader.name}' leads")

    with lab.inject(Kill(leader)):
        tell(f"'{leader.name}' is dead")
        for machine in others:
            machine.wait_for(http=":8080/")
        tell("the others serve")

        successor = swarm.leader()
        tell(f"'{successor.name}' leads")
        assert successor in others
        serve(successor, "news", port=8081)
        for machine in others:
            machine.wait_for(http=":8081/")
        tell("a new service was ordered, and runs")

    leader.wait_for(http=":8081/")
    tell(f"'{leader.name}' is back, and runs it too")


def test_one_that_is_cut_off_from_two_takes_no_orders(
    lab: Lab, swarm: Swarm, serve: Callable[..., None], tell: Callable[[str], None]
) -> None:
    lonely = swarm.leader()
    majority = [machine for machine in swarm.managers if machine is not lonely]

    with lab.inject(Partition(isolate(lab, lonely))):
        tell(f"'{lonely.name}', which leads, is cut off")
        with pytest.raises(APIError) as refused:
            serve(lonely, "lost", port=8080)
        tell(f"'{lonely.name}' takes no orders: {refused.value.explanation}")

        assert swarm.leader() in majority
        serve(majority[0], "kept", port=8080)
        tell("the other two do")

    swarm.wait_ready()
    tell("they are one again")
    lab.wait_until(lambda: services(lonely) == ["kept"], f"What the others were told, on '{lonely.name}'")


def services(manager: Machine) -> list[str]:
    return [service.name for service in manager.docker.services.list()]
