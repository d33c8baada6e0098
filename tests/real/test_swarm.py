"""Docker's Swarm on real machines: formed, found again, used across hosts, left, and begun anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ContainerError

from pytest_machine import images
from pytest_machine.errors import BadSpec, DriverError, UnknownMachine, Unsupported, WaitTimeout
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Spec
from pytest_machine.store import Store
from pytest_machine.swarm import Swarm
from pytest_machine.waiting import NotYet, wait
from tests.conftest import SLOWNESS, full_only
from tests.real.asked import spec

STACK = """
services:
  web:
    image: busybox:latest
    command: sh -c 'hostname >/www/index.html; exec httpd -f -h /www'
    networks: [front]
    ports: [{target: 80, published: 8080, mode: host}]
    stop_signal: SIGKILL
    deploy: {mode: global, endpoint_mode: dnsrr}
  idle:
    image: busybox:latest
    command: sleep 1000
    stop_signal: SIGKILL
    networks: [front]
    deploy: {replicas: 2, endpoint_mode: dnsrr}
networks:
  front: {driver: overlay, attachable: true}
"""


@pytest.fixture(scope="module")
def hosts(module_lab: Lab, busybox: Callable[..., str]) -> Lab:
    """Three hosts that share the network 'inside', and one beside them."""
    module_lab.create(
        spec("a", networks=("inside",)),
        spec("b", networks=("outside", "inside")),
        spec("c", networks=("inside",)),
        spec("beside", networks=("outside",)),
    )
    busybox(*module_lab)
    for machine in module_lab:
        machine.note()
    return module_lab


@pytest.fixture
def swarm(hosts: Lab) -> Swarm:
    """The first three as a Swarm; formed by the first test that asks, and found by the others."""
    return hosts.swarm(managers=["a"], workers=["b", "c"], timeout=60 * SLOWNESS)


def state(machine: Machine) -> str:
    return str(machine.docker.info()["Swarm"]["LocalNodeState"])


def test_it_is_formed_on_the_network_that_all_share(hosts: Lab, swarm: Swarm) -> None:
    assert [each.name for each in swarm.managers] == ["a"]
    assert [each.name for each in swarm.workers] == ["b", "c"]
    assert swarm.leader() is swarm.manager is hosts["a"]
    # By Docker's own word, not ours.
    nodes = {node.attrs["Description"]["Hostname"]: node.attrs for node in swarm.manager.docker.nodes.list()}
    assert {name: node["Spec"]["Role"] for name, node in nodes.items()} == {
        "a": "manager",
        "b": "worker",
        "c": "worker",
    }
    assert {name: node["Status"]["Addr"] for name, node in nodes.items()} == {
        name: hosts[name].networks["inside"].ip for name in "abc"
    }
    assert {node["Status"]["State"] for node in nodes.values()} == {"ready"}
    assert state(hosts["beside"]) == "inactive"
    seen = swarm.nodes()
    assert [(node.name, node.role, node.leader, node.well) for node in seen] == [
        ("a", "manager", True, True),
        ("b", "worker", False, True),
        ("c", "worker", False, True),
    ]
    assert {node.id for node in seen} == {node["ID"] for node in nodes.values()}


def test_it_is_found_again(hosts: Lab, swarm: Swarm) -> None:
    """By the same words, by none, and by who knows nothing but the store."""
    before = {node.id for node in swarm.nodes()}
    assert {node.id for node in hosts.swarm().nodes()} == before
    with_others = Lab.load(store=hosts.store, registry=hosts.registry)
    try:
        again = with_others.swarm()
        assert repr(again) == repr(swarm)
        assert {node.id for node in again.nodes()} == before
    finally:
        with_others.close()


def test_containers_reach_each_other_across_hosts_also_after_a_restart(hosts: Lab, swarm: Swarm) -> None:
    network = swarm.manager.docker.networks.create("across", driver="overlay", attachable=True)
    serve = ["sh", "-c", "hostname >/www/index.html; exec httpd -f -h /www"]
    hosts["b"].docker.containers.run(
        "busybox", serve, name="web", hostname="on-b", network="across", detach=True,
        restart_policy={"Name": "always"}, stop_signal="SIGKILL",
    )  # fmt: skip
    before = vxlan_packets(hosts["b"], hosts["c"])
    assert page(hosts["c"], "http://web/") == "on-b"
    # The page came from nowhere but the other host, in VXLAN's packets between the two.
    assert vxlan_packets(hosts["b"], hosts["c"]) > before
    ids = {node.id for node in swarm.nodes()}
    hosts["b"].restart()
    swarm.wait_ready(timeout=60 * SLOWNESS)
    assert {node.id for node in swarm.nodes()} == ids
    assert page(hosts["c"], "http://web/") == "on-b"
    hosts["b"].docker.containers.get("web").remove(force=True)
    wait(network.remove, "The end of the network", timeout=30 * SLOWNESS)


def vxlan_packets(*machines: Machine) -> int:
    """Return how many packets these machines' kernels have put into VXLAN, in whatever namespace Docker keeps it."""
    script = "for n in /run/docker/netns/*; do nsenter --net=$n cat /proc/net/dev; done 2>/dev/null | grep vxlan; true"
    lines = [line for machine in machines for line in machine.run("sh", "-c", script).stdout.splitlines()]
    # name: received bytes, packets and six more; sent bytes, packets, ...
    return sum(int(line.partition(":")[2].split()[9]) for line in lines)


def page(machine: Machine, url: str) -> str:
    """Return what a container on a machine reads over the overlay, once the name has come to it."""

    def read() -> str:
        argv = ["timeout", "5", "wget", "-q", "-O", "-", url]
        try:
            return str(machine.docker.containers.run("busybox", argv, network="across", remove=True).decode().strip())
        except ContainerError as error:
            raise NotYet(str(error)) from error

    return wait(read, f"The page {url} on '{machine.name}'", timeout=90)


def docker(machine: Machine, *argv: str) -> str:
    """Run the user's own client, or the one of the machine's image."""
    client = shutil.which("docker") or str(images.ensure().path / "usr/bin/docker")
    done = subprocess.run(
        [client, *argv], env={**os.environ, **machine.env}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_docker_stack_deploy(hosts: Lab, swarm: Swarm, tmp_path: Path) -> None:
    """The user's own command, twice; the page is read on every host, and by name in the overlay network."""
    (tmp_path / "stack.yaml").write_text(f'version: "3.8"\n{STACK}')
    for _ in range(2):  # the second changes nothing
        docker(swarm.manager, "stack", "deploy", "--resolve-image=never", "-c", str(tmp_path / "stack.yaml"), "app")
        swarm.wait_running(timeout=60 * SLOWNESS)

    def running() -> bool:
        found = docker(swarm.manager, "service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}").splitlines()
        assert sorted(found) == ["app_idle replicated 2/2", "app_web global 3/3"]
        return True

    hosts.wait_until(running)
    for machine in swarm.machines:
        machine.wait_for(http=":8080/")
    idle = next(
        each
        for machine in swarm.machines
        for each in machine.docker.containers.list(filters={"label": "com.docker.swarm.service.name=app_idle"})
    )
    hosts.wait_until(lambda: reads(idle, "http://web/"), "The page by the service's name")
    docker(swarm.manager, "stack", "rm", "app")


def reads(container: Any, url: str) -> bool:
    return bool(container.exec_run(["timeout", "3", "wget", "-q", "-O", "-", url]).exit_code == 0)


def test_a_virtual_ip(hosts: Lab, swarm: Swarm) -> None:
    """What most services are reached by, where the kernel can."""
    if not Path("/proc/net/ip_vs").exists():  # a Swarm's ingress network has the kernel load it, if it has it
        pytest.skip("this kernel has no IP_VS, which virtual IPs of services take: sudo modprobe ip_vs")
    network = swarm.manager.docker.networks.create("virtual", driver="overlay", attachable=True)
    docker(
        swarm.manager, "service", "create", "--detach", "--no-resolve-image", "--name", "web",
        "--network", "virtual", "--replicas", "2", "busybox", "httpd", "-f", "-h", "/www",
    )  # fmt: skip
    swarm.wait_running("web", timeout=60 * SLOWNESS)
    client = hosts["c"].docker.containers.run("busybox", ["sleep", "1000"], network="virtual", detach=True)
    hosts.wait_until(lambda: reads(client, "http://web/"), "The page by a virtual IP")
    client.remove(force=True)
    docker(swarm.manager, "service", "rm", "web")
    wait(network.remove, "The end of the network", timeout=30 * SLOWNESS)


def test_what_does_not_run_is_told_with_its_reason(hosts: Lab, swarm: Swarm) -> None:
    with pytest.raises(WaitTimeout, match="there is no service 'nobody'"):
        swarm.wait_running("nobody", timeout=0.2)
    docker(swarm.manager, "service", "create", "--detach", "--no-resolve-image", "--name", "bad", "missing:1")

    def reason() -> str:
        with pytest.raises(WaitTimeout, match="'bad' runs 0 of 1") as refused:
            swarm.wait_running("bad", timeout=0.1)
        return str(refused.value)

    try:
        hosts.wait_until(lambda: "'bad' runs 0 of 1 (No such image: missing:1" in reason(), "The task's own words")
    finally:
        docker(swarm.manager, "service", "rm", "bad")


def test_who_is_none_of_it(hosts: Lab, swarm: Swarm, tmp_path: Path) -> None:
    with pytest.raises(UnknownMachine, match="'beside'"):
        swarm.nodes(seen_by="beside")
    with pytest.raises(DriverError, match="The machine 'b' could not tell who is in the Swarm") as refused:
        swarm.nodes(seen_by="b")
    assert "not a swarm manager" in str(refused.value.facts["reason"])
    with pytest.raises(BadSpec, match="do not share a network"):
        hosts.swarm(managers=["a"], workers=["beside"])
    with pytest.raises(BadSpec, match="A Swarm of workers alone"):
        hosts.swarm(workers=["a"])
    assert state(hosts["a"]) == "active"
    # One that somebody else made may be in a Swarm of theirs: this one's engine, as a stranger knows it.
    certs = str(hosts["c"].record.directory)
    theirs = Spec(name="theirs", driver="none", options={"url": hosts["c"].url, "certs": certs})
    with (
        Machine.create(theirs, store=Store(tmp_path), registry=hosts.registry) as machine,
        pytest.raises(Unsupported, match="'theirs' was there before us and is in a Swarm, which is not ours"),
    ):
        Swarm([machine]).form()
    assert state(hosts["c"]) == "active"


def test_other_roles_a_reset_and_the_end(hosts: Lab, swarm: Swarm) -> None:
    """Whoever asks for another Swarm gets it; a reset ends it, and not by Docker's own goodbyes; so does `leave`."""
    before = {node.id for node in swarm.nodes()}
    other = hosts.swarm(managers=["b", "c"], workers=["a"], timeout=60 * SLOWNESS)
    assert {node.name: node.role for node in other.nodes()} == {"b": "manager", "c": "manager", "a": "worker"}
    assert not before & {node.id for node in other.nodes()}
    assert other.manager is hosts["b"]

    engine = hosts["c"].docker.info()["ID"]
    for name in "bc":  # the second is a manager without a majority by then, which answers nothing for 20 s
        hosts[name].reset()
        assert state(hosts[name]) == "inactive"
    assert hosts["c"].docker.info()["ID"] != engine, "it was laid again"
    assert state(hosts["a"]) == "active"

    other.leave()
    other.leave()
    assert {state(machine) for machine in hosts} == {"inactive"}
    own = {"bridge", "host", "none", "docker_gwbridge"}
    hosts.wait_until(lambda: {each.name for each in hosts["a"].docker.networks.list()} <= own, "The overlays' end")
    with pytest.raises(DriverError, match="takes no orders now"):
        other.nodes()

    # One without others is as clean by Docker's own leave.
    engine = hosts["c"].docker.info()["ID"]
    assert [node.name for node in hosts.swarm(managers=["c"], workers=[], timeout=60 * SLOWNESS).nodes()] == ["c"]
    hosts["c"].reset()
    assert (state(hosts["c"]), hosts["c"].docker.info()["ID"]) == ("inactive", engine)


@full_only
def test_many_times_in_a_row(hosts: Lab) -> None:
    """All join at once, managers too."""
    times = []
    for _ in range(20):
        begun = time.monotonic()
        swarm = hosts.swarm(managers=["a", "b", "c"], workers=[])
        times.append(time.monotonic() - begun)
        assert [(node.role, node.well) for node in swarm.nodes()] == [("manager", True)] * 3
        swarm.leave()
    print(f"{max(times):.1f} s at most")
