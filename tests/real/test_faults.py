"""Faults between real machines and their containers: by traffic, processes and disks; before, during and after."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from docker.errors import DockerException, NotFound

from pytest_machine import (
    ClockSkew,
    Corrupt,
    CpuStress,
    Crash,
    Delay,
    DiskError,
    DiskFull,
    DiskSlow,
    DnsFailure,
    Duplicate,
    EngineHang,
    EngineKill,
    EngineRestart,
    Fault,
    Kill,
    Loss,
    MemoryPressure,
    Partition,
    Pause,
    Rate,
    Reorder,
    Restart,
    engine,
    halves,
    isolate,
)
from pytest_machine.errors import BadSpec, UnknownMachine, Unsupported, WaitTimeout
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import State, Value
from pytest_machine.plugins import Registry
from tests.conftest import SLOWNESS, full_only
from tests.real.asked import engine_answers, pid_of, spec

NETWORKS = ("front", "back")


@pytest.fixture(scope="module")
def four(module_lab: Lab, busybox: Callable[..., str]) -> Lab:
    """Four machines on two networks; 'c' is a small one."""
    small: dict[str, Value] = {"memory": "384m", "cpus": 1.0, "disk": "512m"}
    asked = {name: spec(name, networks=NETWORKS) for name in "abcd"}
    asked["c"] = replace(asked["c"], options=small)
    module_lab.create(*asked.values())
    busybox(*module_lab)
    module_lab["c"].run("sync")  # it is to crash
    return module_lab


@pytest.fixture
def broken(four: Lab) -> Iterator[Lab]:
    """The same, and afterwards they are as they were before: whatever the test has done, it has healed."""
    before = [picture(machine) for machine in four]
    yield four
    left = four.faults
    four.heal()
    assert left == []
    unchanged(four, before)


@pytest.fixture
def booted(four: Lab) -> Iterator[Lab]:
    """The same for tests that boot machines, after which Docker's own rules need not be in the order of before."""
    before = [picture(machine, rules="nft list tables | sort") for machine in four]
    yield four
    left = four.faults
    four.heal()
    assert left == []
    unchanged(four, before, rules="nft list tables | sort")


def unchanged(lab: Lab, before: list[dict[str, str]], **rules: str) -> None:
    """See to it that nothing is left in any machine."""
    for machine, then in zip(lab, before, strict=True):
        now = picture(machine, **rules)
        for what in then:
            assert now[what].splitlines() == then[what].splitlines(), f"{what} of '{machine.name}'"


def picture(machine: Machine, *, rules: str = "nft --stateless list ruleset") -> dict[str, str]:
    """Return what a fault could leave behind."""
    scripts = {
        "rules": rules,
        "queues": "tc qdisc show | grep -v -e veth -e docker",
        "links": "ip -br link | sed 's/@.*//' | grep -v -e veth -e docker",
        "mounts": "cut -d' ' -f2,3 /proc/mounts | sort | grep -v -e docker/netns -e overlay2",
        "run": "ls -a /run",
        "processes": "ps -eo args --no-headers | grep -e 'while :' -e 'sleep 9' -e machine-hold | grep -v grep",
        "disk": "ls -a /var/lib/docker",
    }
    return {name: machine.run("sh", "-c", script, check=False).stdout for name, script in scripts.items()}


@contextlib.contextmanager
def pinging(here: Machine, there: str) -> Iterator[Callable[[], list[float]]]:
    """Ping all the time; what is given returns when the answers came, Unix times (all machines have our clock)."""
    argv = [*here.connection.argv, f"timeout 60 ping -n -D -i 0.01 {there}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reader.start()

        def answers() -> list[float]:
            return [float(m[1]) for line in list(lines) if "time=" in line and (m := re.match(r"\[([\d.]+)\]", line))]

        try:
            deadline = time.monotonic() + 10 * SLOWNESS
            while not answers():
                assert time.monotonic() < deadline, "no answer at all"
                time.sleep(0.02)
            yield answers
        finally:
            process.terminate()
            reader.join(10)  # whoever closes a file under its reader makes it raise


def lost(here: Machine, there: str, *, count: int = 300) -> tuple[float, int]:
    """Return which part of pings was not answered, and how many answers came twice."""
    said = here.run("ping", "-n", "-q", "-c", str(count), "-i", "0.002", "-W", "1", there, check=False).stdout
    match = re.search(r"(\d+) packets transmitted, (\d+) received(?:, \+(\d+) duplicates)?", said)
    assert match, said
    return 1 - int(match[2]) / int(match[1]), int(match[3] or 0)


def ip(machine: Machine, network: str = "front") -> str:
    return machine.networks[network].ip


# ----------------------------------------------------------------------------------------------------------- partitions


def test_a_partition_is_in_force_when_the_call_returns(broken: Lab) -> None:
    a, b, c, _ = broken
    broken.inject(Partition).heal()  # whoever is first connects, and asks the machines what they can
    took = []
    for _ in range(3):
        with pinging(a, ip(b)) as answers:
            begun = time.time()
            injection = broken.inject(Partition(["a"], ["b", "c"]))
            in_force = time.time()
            time.sleep(0.3)
            assert answers()[-1] < in_force, "an answer came when it was in force"
            assert broken.reachable("a", "d")
            assert broken.reachable("b", "c")
            assert not broken.reachable(b, a, timeout=0.3)
            assert not broken.reachable(c, a, port=22, timeout=0.3)
            healing = time.time()
            injection.heal()
            healed = time.time()
            after = functools.partial(lambda since: answers()[-1] > since, healed)
            broken.wait_until(after, "An answer after it was healed", timeout=5 * SLOWNESS)
            took.append((in_force - begun, healed - healing))
    print("in force after, healed after (s):", [(round(x, 3), round(y, 3)) for x, y in took])


def test_one_way(broken: Lab) -> None:
    """Only what the one sends is lost: what the other sends still arrives."""
    a, b, _, _ = broken

    def questions(machine: Machine) -> int:
        rows = [r.split() for r in machine.run("cat", "/proc/net/snmp").stdout.splitlines() if r.startswith("Icmp: ")]
        return int(dict(zip(*rows, strict=True))["InEchos"])

    with broken.inject(Partition(["a"], ["b"], one_way=True)):
        before = questions(b), questions(a)
        lost(a, ip(b), count=20)
        lost(b, ip(a), count=20)
        assert questions(b) == before[0], "what 'a' sends arrives"
        assert questions(a) == before[1] + 20, "what 'b' sends does not arrive"
    assert lost(a, ip(b), count=20)[0] == 0


def test_by_port_and_by_network(broken: Lab) -> None:
    with broken.inject(Partition(["a"], ["b"], port=22)):
        assert not broken.reachable("a", "b", port=22, timeout=0.3)
        assert not broken.reachable("b", "a", port=22, timeout=0.3)
        assert broken.reachable("a", "b", port=2376)
        assert broken.reachable("a", "b")
    with broken.inject(Partition(["a"], ["b"], network="back")):
        assert broken.reachable("a", "b", network="front")
        assert not broken.reachable("a", "b", network="back", timeout=0.3)
    assert broken.reachable("a", "b", network="back")
    assert broken.reachable("a", "b", port=22)


def test_topologies(broken: Lab) -> None:
    def open_pairs() -> set[str]:
        pairs = list(itertools.permutations("abcd", 2))
        found: dict[tuple[str, str], bool] = {}

        def ask(pair: tuple[str, str]) -> None:
            found[pair] = broken.reachable(*pair, timeout=1)

        threads = [threading.Thread(target=ask, args=(pair,)) for pair in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {a + b for a, b in pairs if found[a, b]}

    everything = {a + b for a, b in itertools.permutations("abcd", 2)}
    assert open_pairs() == everything
    with broken.inject(Partition(halves(broken))):
        assert open_pairs() == {"ab", "ba", "cd", "dc"}
        with broken.inject(Partition(isolate(broken, "a"))):
            assert open_pairs() == {"cd", "dc"}
    assert open_pairs() == everything


def test_control_gets_through_whatever_is_cut(broken: Lab) -> None:
    with contextlib.ExitStack() as stack:
        for each in (
            Partition(isolate(broken, "a", "b", "c", "d")),
            Loss(1.0, "a"),
            Loss(1.0, "b"),
            Rate("8kbit", "a"),
        ):
            stack.enter_context(broken.inject(each))
        a = broken["a"]
        a.connection.close()
        begun = time.monotonic()
        assert a.run("hostname").stdout == "a\n"
        assert engine_answers(a)
        assert time.monotonic() - begun < 5 * SLOWNESS
        assert not broken.reachable("a", "b", timeout=0.3)


# ----------------------------------------------------------------------------------------------------------- containers


@pytest.fixture(scope="class")
def across(four: Lab) -> Iterator[tuple[Any, Any]]:
    """A container on 'a' and one on 'b', on an overlay network; the second publishes a port of its machine, too."""
    a, b = four["a"], four["b"]
    a.docker.swarm.init(advertise_addr=ip(a), data_path_addr=ip(a))
    token = a.docker.swarm.attrs["JoinTokens"]["Worker"]

    def joined() -> bool:
        if membership(b) == "error":
            b.docker.swarm.leave(force=True)
        if membership(b) == "inactive":
            b.docker.swarm.join(remote_addrs=[ip(a)], join_token=token, advertise_addr=ip(b), data_path_addr=ip(b))
        return membership(b) == "active"

    def started(machine: Machine, name: str, argv: list[str], **options: Any) -> Any:
        with contextlib.suppress(NotFound):  # half made: what it needs of the Swarm had not come to its machine yet
            machine.docker.containers.get(name).remove(force=True)
        return machine.docker.containers.run("busybox", argv, name=name, detach=True, **options)

    def start(*what: Any, **options: Any) -> Any:
        return four.wait_until(lambda: started(*what, **options), "A container", timeout=60 * SLOWNESS)

    four.wait_until(joined, "That 'b' joins", timeout=60 * SLOWNESS)
    a.docker.networks.create("across", driver="overlay", attachable=True)
    echo = ["sh", "-c", "httpd -h /www; while :; do nc -l -p 9000 -e cat; done"]
    there = start(b, "there", echo, network="across", ports={"9000/tcp": 9000, "80/tcp": 8080})
    plain = start(b, "plain", echo, ports={"9000/tcp": 9001, "80/tcp": 8081})
    here = start(a, "here", ["sleep", "1000"], network="across")
    four.wait_until(lambda: asks(here, "http://there/"), "The overlay network", timeout=120)
    yield here, there
    for container in (here, there, plain):
        with contextlib.suppress(NotFound):
            container.remove(force=True)
    b.docker.swarm.leave(force=True)
    a.docker.swarm.leave(force=True)


def membership(machine: Machine) -> str:
    return str(machine.docker.info()["Swarm"]["LocalNodeState"])


@pytest.fixture
def overlaid(four: Lab, across: tuple[Any, Any]) -> Any:
    """The container on 'a', where the other is known.

    A worker that the managers missed for a second may be forgotten, containers and all, until Docker asks for it again.
    """
    four.wait_until(lambda: asks(across[0], "http://there/"), "The overlay network", timeout=120)
    return across[0]


def asks(container: Any, address: str) -> bool:
    """Whether a container gets an answer from there."""
    return bool(container.exec_run(["timeout", "1", "wget", "-q", "-O", "-", address]).exit_code == 0)


class TestContainers:
    def test_traffic_of_containers(self, four: Lab, overlaid: Any) -> None:
        """By VXLAN and by published ports, from a container and from a machine's own processes; each of two faults."""
        here = overlaid
        published = f"{ip(four['b'])}:8081"
        place = published.replace(":", "/")
        web = f"exec 3<>/dev/tcp/{place}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; grep -q hello <&3"
        own = ("timeout", "1", "bash", "-c", web)
        # At once: a Swarm that is cut for long takes its time to come together again.
        asked: dict[str, Callable[[], bool]] = {
            "overlay": lambda: asks(here, "http://there/"),
            "published": lambda: asks(here, f"http://{published}/"),
            "own": lambda: four["a"].run(*own, check=False).returncode == 0,
        }

        def open_ways() -> set[str]:
            with ThreadPoolExecutor() as pool:
                answers = pool.map(lambda ask: ask(), asked.values())
                return {way for way, answer in zip(asked, answers, strict=True) if answer}

        four.wait_until(lambda: open_ways() == {*asked}, "All ways", timeout=60)
        with four.inject(Partition(["a"], ["b"])):
            assert open_ways() == set()
        four.wait_until(lambda: open_ways() == {*asked}, "All ways again", timeout=60)
        del asked["overlay"]
        with four.inject(Loss(1.0, "a", "b", one_way=True)):
            assert open_ways() == set()
        four.wait_until(lambda: open_ways() == {*asked}, "Both ways again", timeout=20 * SLOWNESS)

    def test_delay_of_containers(self, four: Lab, overlaid: Any) -> None:
        """By VXLAN and by published ports; each way once, and a TCP connection takes two of them to ask and be told."""
        here = overlaid
        plain = f"http://{ip(four['b'])}:8081/"
        took = {"there": "for i in 1 2 3 4 5; do ping -c 1 there || exit; done", "plain": f"wget -q -O - {plain}"}

        def seconds(what: str) -> float:
            """How long it takes, done to its end: a name may be forgotten for a moment."""

            def done() -> float:
                begun = time.monotonic()
                assert here.exec_run(["sh", "-c", took[what]]).exit_code == 0
                return time.monotonic() - begun

            return four.wait_until(done, took[what], timeout=60)

        before = {what: min(seconds(what) for _ in range(3)) for what in took}
        # There and back in 0.3 s: past half a second the two engines take each other for dead, and forget names.
        with four.inject(Delay(0.15, "a", "b")):
            assert seconds("there") > 5 * 0.3
            assert 2 * 0.3 < seconds("plain") < before["plain"] + 2 * 0.3 + 5 * SLOWNESS
        four.wait_until(lambda: seconds("there") < 5 * 0.3 and seconds("plain") < 2 * 0.3, "All as before", timeout=120)

    def test_connections_that_are_there_stop_at_once(self, four: Lab, overlaid: Any) -> None:
        """One by the overlay network, one by a published port: both known to every machine's connection tracking."""
        here = overlaid
        for place, where in (("overlay", "there 9000"), ("published", f"{ip(four['b'])} 9001")):
            script = f"(while :; do echo x; sleep 0.02; done) | nc {where} >/tmp/{place}"
            here.exec_run(["sh", "-c", script], detach=True)

        def got() -> list[int]:
            return [len(here.exec_run(["cat", f"/tmp/{place}"]).output) for place in ("overlay", "published")]

        four.wait_until(lambda: min(got()) > 20, "Both connections", timeout=20 * SLOWNESS)
        with four.inject(Partition(["a"], ["b"])):
            time.sleep(0.05 * SLOWNESS)  # what has arrived may not be written yet
            at_once = got()
            time.sleep(0.5)
            assert got() == at_once
        four.wait_until(lambda: all(x > y for x, y in zip(got(), at_once, strict=True)), "Both go on", timeout=120)


# ---------------------------------------------------------------------------------------------- what happens to packets


def test_loss(broken: Lab) -> None:
    a, b, c, _ = broken
    for fault, expected in (
        (Loss(0.3, "a", "b"), 1 - 0.7 * 0.7),
        (Loss(0.3, "a", "b", one_way=True), 0.3),
        (Loss(0.5, "a"), 1 - 0.5 * 0.5),
    ):
        with broken.inject(fault):
            part, twice = lost(a, ip(b), count=600)  # a tenth is five standard deviations
            assert part == pytest.approx(expected, abs=0.1), fault
            assert twice == 0
            assert lost(b, ip(c), count=50)[0] == 0
    assert lost(a, ip(b), count=100) == (0, 0)


def test_duplicate(broken: Lab) -> None:
    a, b, _, _ = broken
    with broken.inject(Duplicate(0.5, "a", "b", one_way=True)):
        part, twice = lost(a, ip(b), count=600)
        assert part == 0
        assert twice / 600 == pytest.approx(0.5, abs=0.12)
    assert lost(a, ip(b), count=50) == (0, 0)


@full_only
@pytest.mark.parametrize("fault", [Rate("4mbit", "a", "b"), Rate(4_000_000, "a")])
def test_rate(broken: Lab, fault: Fault) -> None:
    """Within a fifth of what was asked, over hundreds of packets; to others as fast as before, unless it is for all."""
    a, b, c, _ = broken

    def rate(to: Machine, seconds: float = 2.0) -> float:
        port = {"b": 9100, "c": 9101}[to.name]
        sink = to.docker.containers.run(
            "busybox", ["sh", "-c", f"nc -l -p {port} >/dev/null"], detach=True, network_mode="host"
        )
        try:
            count = f"cat /sys/class/net/{device(to)}/statistics/rx_bytes"
            broken.wait_until(lambda: to.run("sh", "-c", f"ss -ltn | grep -q :{port}", check=False).returncode == 0)
            send = f"timeout {seconds} cat /dev/zero >/dev/tcp/{ip(to)}/{port}"
            before, begun = int(to.run("sh", "-c", count).stdout), time.monotonic()
            a.run("bash", "-c", send, check=False)
            return (int(to.run("sh", "-c", count).stdout) - before) * 8 / (time.monotonic() - begun)
        finally:
            sink.remove(force=True)

    with broken.inject(fault):
        found = rate(b)
        print("asked for 4 Mbit/s, found", found / 1e6)
        assert found == pytest.approx(4e6, rel=0.2)
        other = rate(c, 1.0)
        assert other > 40e6 if "b" in getattr(fault, "between", ()) else other < 6e6
    assert rate(b, 1.0) > 40e6


def device(machine: Machine) -> str:
    said = machine.run("ip", "-o", "addr", "show", "to", ip(machine)).stdout
    return said.split()[1]


def pings(here: Machine, there: str, count: int = 100, interval: str = "0.01") -> tuple[list[float], int]:
    """Return how long each answer took, in seconds, in the order in which they came; and how many overtook others."""
    said = here.run("ping", "-n", "-c", str(count), "-i", interval, "-W", "1", there, check=False).stdout
    found = re.findall(r"icmp_seq=(\d+) .*time=([\d.]+) ms", said)
    numbers = [int(number) for number, _ in found]
    return [float(ms) / 1000 for _, ms in found], sum(b < a for a, b in itertools.pairwise(numbers))


def counters(machine: Machine, *names: str) -> dict[str, int]:
    """Return what a machine's kernel has counted."""
    lines = machine.run("cat", "/proc/net/snmp", "/proc/net/netstat").stdout.splitlines()
    found: dict[str, int] = {}
    for words, values in itertools.pairwise(lines):
        kind, *rest = words.split()
        if values.startswith(kind):
            found |= {kind[:-1] + name: int(value) for name, value in zip(rest, values.split()[1:], strict=True)}
    return {name: found[name] for name in names}


def has_netem(machine: Machine) -> bool:
    try_it = "tc qdisc add dev lo root netem delay 1ms"
    return machine.run("unshare", "--net", "sh", "-c", try_it, check=False).returncode == 0


def test_delay(broken: Lab) -> None:
    """Within a fifth of what was asked, over a hundred packets; to others as before, and afterwards to all."""
    a, b, c, _ = broken
    for fault, expected, count in (
        (Delay(0.1, "a", "b"), 0.2, 100),
        (Delay(0.1, "a", "b", one_way=True), 0.1, 30),
        (Delay(0.05, "a"), 0.1, 30),
    ):
        with broken.inject(fault) as injection:
            times, overtook = pings(a, ip(b), count=count)
            print(f"{fault}: {min(times):.4f} {statistics.median(times):.4f} {max(times):.4f} s")
            assert len(times) == count
            assert statistics.median(times) == pytest.approx(expected, rel=0.2)
            assert min(times) > 0.98 * expected
            assert overtook == 0
            assert ("by a program" in str(injection)) != has_netem(a), "it is said how it is done"
            assert statistics.median(pings(b, ip(c), count=10)[0]) < 0.02
    assert statistics.median(pings(a, ip(b), count=20)[0]) < 0.02


@full_only
def test_jitter_and_stacking(broken: Lab) -> None:
    a, b, _, _ = broken
    with broken.inject(Delay(0.1, "a", "b", jitter=0.05, one_way=True)):
        times, overtook = pings(a, ip(b))
        assert statistics.mean(times) == pytest.approx(0.1, rel=0.2)
        assert 0.04 < min(times) < 0.08
        assert max(times) > 0.12
        assert overtook > 10
        with broken.inject(Delay(0.1, "b")), broken.inject(Loss(0.3, "a", "b", one_way=True)):
            times, _ = pings(a, ip(b))
            assert statistics.mean(times) == pytest.approx(0.3, rel=0.2)
            assert 45 < len(times) < 95
        assert statistics.mean(pings(a, ip(b), count=50)[0]) == pytest.approx(0.1, rel=0.2)
    with broken.inject(Delay(0.1, "a", "b")):
        times, _ = pings(a, f"{link_local(b)}%{device(a)}", count=50)
        assert statistics.median(times) == pytest.approx(0.2, rel=0.2), "IPv6"


def test_reorder(broken: Lab) -> None:
    """Of four hundred packets a fifth overtakes the others, by their numbers."""
    a, b, _, _ = broken
    assert pings(a, ip(b), count=20)[1] == 0
    with broken.inject(Reorder(0.2, "a", "b", delay=0.1, one_way=True)):
        times, overtook = pings(a, ip(b), count=400, interval="0.005")
        at_once = sum(each < 0.09 for each in times)
        assert len(times) == 400
        assert at_once / 400 == pytest.approx(0.2, abs=0.1)
        assert overtook > 30
    assert pings(a, ip(b), count=20)[1] == 0


def test_corrupt(broken: Lab) -> None:
    """What arrives wrong is thrown away for its checksum; TCP sends it again, and in the end all of it is right."""
    a, b, _, _ = broken
    names = ("IcmpInCsumErrors", "TcpInCsumErrors")
    before = counters(b, *names)
    with broken.inject(Corrupt(0.2, "a", "b", one_way=True)):
        assert 1 - len(pings(a, ip(b), count=400, interval="0.005")[0]) / 400 == pytest.approx(0.2, abs=0.1)
    with broken.inject(Corrupt(0.05, "a", "b", one_way=True)):
        assert transfer(a, b, ip(b))
    after = counters(b, *names)
    assert after["IcmpInCsumErrors"] > before["IcmpInCsumErrors"] + 30
    assert after["TcpInCsumErrors"] > before["TcpInCsumErrors"]
    assert lost(a, ip(b), count=50) == (0, 0)
    assert counters(b, *names) == after


def transfer(here: Machine, there: Machine, address: str, port: int = 9200) -> bool:
    """Whether what one sends by TCP is what the other gets: some three hundred packets."""
    listen = f"timeout 60 nc -l -p {port} | sha256sum"
    sink = there.docker.containers.run("busybox", ["sh", "-c", listen], detach=True, network_mode="host")
    try:
        wait = f"until ss -ltn | grep -q :{port}; do sleep 0.05; done"
        there.run("timeout", "20", "sh", "-c", wait)
        send = f"seq 80000 >/run/sent; cat /run/sent >/dev/tcp/{address}/{port}; sha256sum </run/sent; rm /run/sent"
        sent = here.run("timeout", "60", "bash", "-c", send).stdout.split()[0]
        sink.wait(timeout=60)
        return bool(sink.logs().decode().split()[0] == sent)
    finally:
        sink.remove(force=True)


def test_when_the_program_dies_packets_pass(broken: Lab) -> None:
    a, b, _, _ = broken
    if has_netem(a):
        pytest.skip("the kernel has netem")
    with broken.inject(Delay(0.5, "a", "b")):
        assert not broken.reachable("a", "b", timeout=0.3) or min(pings(a, ip(b), count=2)[0]) > 0.9
        for machine in (a, b):
            machine.run("sh", "-c", "kill -KILL $(cat /run/pytest-machine-hold)")
        assert max(pings(a, ip(b), count=20)[0]) < 0.5
    with broken.inject(Delay(0.1, "a", "b")):
        assert min(pings(a, ip(b), count=5)[0]) > 0.19


@full_only
def test_delay_for_the_rest_of_the_world(broken: Lab) -> None:
    """What a machine's containers answer to us comes late, too; we control it as fast as ever."""
    a, b, _, _ = broken
    container = a.docker.containers.run("busybox", ["httpd", "-f"], detach=True, ports={"80/tcp": 9300})

    def connects() -> float:
        begun = time.monotonic()
        socket.create_connection((a.ip, 9300), timeout=10).close()
        return time.monotonic() - begun

    try:
        broken.wait_until(lambda: connects() < 0.2, "The container", timeout=20)
        with broken.inject(Delay(0.1, "a")):
            # There and back; netem meets what leaves alone.
            assert (0.09 if has_netem(a) else 0.19) < connects() < 1.5
            assert a.run("hostname").stdout == "a\n"
        with broken.inject(Delay(0.1, "a", one_way=True)):
            assert 0.09 < connects() < 1.5
            assert statistics.median(pings(a, ip(b), count=20)[0]) == pytest.approx(0.1, rel=0.2)
        assert min(connects() for _ in range(3)) < 0.15
    finally:
        container.remove(force=True)


@full_only
def test_a_kernel_with_neither_is_told(booted: Lab) -> None:
    """Where there is no perl either, it is refused, and nothing is left."""
    a, b, _, _ = booted
    if has_netem(a):
        pytest.skip("the kernel has netem")
    b.run("chmod", "a-x", "/usr/bin/perl")
    try:
        b.restart()
        with pytest.raises(Unsupported, match="netem"):
            booted.inject(Delay(0.1, "a", "b"))
    finally:
        b.run("chmod", "a+x", "/usr/bin/perl")
        b.restart()


def test_link_local_addresses_are_cut(broken: Lab) -> None:
    """The kernel's own (fe80::), and such as a test gives: both ways, for containers too; to others they stay open."""
    a, b, c, _ = broken
    on = device(a)
    address = {m.name: link_local(m) for m in (a, b, c)}
    container = a.docker.containers.run("busybox", ["sleep", "1000"], detach=True, network_mode="host")
    for number, machine in enumerate((a, b, c), 1):
        machine.run("ip", "-6", "address", "add", f"fd00:7074::{number}/64", "dev", device(machine), "nodad")

    def open_ways() -> set[str]:
        asked: dict[str, Callable[[], bool]] = {
            "to b": lambda: bool(pings(a, f"{address['b']}%{on}", count=1)[0]),
            "from b": lambda: bool(pings(b, f"{address['a']}%{device(b)}", count=1)[0]),
            "container": lambda: (
                container.exec_run(["timeout", "3", "ping", "-c", "1", "-W", "1", f"{address['b']}%{on}"]).exit_code
                == 0
            ),
            "global": lambda: bool(pings(a, "fd00:7074::2", count=1)[0]),
            "to c": lambda: bool(pings(a, f"{address['c']}%{on}", count=1)[0]),
        }
        with ThreadPoolExecutor() as pool:
            answers = pool.map(lambda ask: ask(), asked.values())
            return {way for way, answer in zip(asked, answers, strict=True) if answer}

    everything = {"to b", "from b", "container", "global", "to c"}
    try:
        broken.wait_until(lambda: open_ways() == everything, "IPv6", timeout=20 * SLOWNESS)
        with broken.inject(Partition(["a"], ["b"])):
            assert open_ways() == {"to c"}
        broken.wait_until(lambda: open_ways() == everything, "IPv6 again", timeout=20)
    finally:
        container.remove(force=True)
        for number, machine in enumerate((a, b, c), 1):
            machine.run("ip", "-6", "address", "del", f"fd00:7074::{number}/64", "dev", device(machine))


def link_local(machine: Machine) -> str:
    said = machine.run("ip", "-o", "-6", "address", "show", "dev", device(machine), "scope", "link").stdout
    return said.split()[3].partition("/")[0]


# A name server that knows one answer: every name is 192.0.2.7.
_NAME_SERVER = """
use Socket;
socket(S, PF_INET, SOCK_DGRAM, 0) && bind(S, sockaddr_in(53, INADDR_ANY)) or die $!;
while ($from = recv(S, $q, 512, 0)) {
    ($end) = $q =~ /^.{12}((?:[^\\0].*?)?\\0.{4})/s or next;
    $a = unpack("n", substr($end, -4)) == 1 ? "\\xc0\\x0c" . pack("nnNnC4", 1, 1, 1, 4, 192, 0, 2, 7) : "";
    send(S, substr($q, 0, 2) . pack("n5", 0x8180, 1, $a ne "", 0, 0) . $end . $a, 0, $from);
}
"""


def test_no_name_server_answers(broken: Lab) -> None:
    """Neither to the machine's own processes nor to its containers; everything else goes through."""
    a, b, _, _ = broken
    b.put(_NAME_SERVER.encode(), "/run/name-server.pl")
    b.run("sh", "-c", "setsid perl /run/name-server.pl </dev/null >/dev/null 2>&1 &")
    modes = ("bridge", "host")
    run = functools.partial(a.docker.containers.run, "busybox", ["sleep", "1000"], detach=True)
    clients: dict[str, Any] = {mode: run(network_mode=mode) for mode in modes}

    def answered() -> set[str]:
        ask = ["timeout", "2", "busybox", "nslookup", "some.test", ip(b)]
        return {mode for mode, client in clients.items() if b"192.0.2.7" in client.exec_run(ask).output}

    try:
        broken.wait_until(lambda: answered() == {*modes}, "The name server", timeout=20 * SLOWNESS)
        with broken.inject(DnsFailure("a")):
            assert answered() == set()
            assert broken.reachable("a", "b", port=22)
        broken.wait_until(lambda: answered() == {*modes}, "The name server again", timeout=20)
    finally:
        b.run("sh", "-c", "kill $(pgrep -f name-server.pl | head -n 1); rm /run/name-server.pl")
        for client in clients.values():
            client.remove(force=True)


# ------------------------------------------------------------------------------------------------------------ stacking


def test_they_end_in_any_order(broken: Lab) -> None:
    """What is in force after each end is what a fresh injection of the rest would be."""
    faults = [Partition(["a"], ["b"]), Delay(0.01, "a", "c"), Rate("2mbit", "a")]
    a = broken["a"]

    def inside() -> str:
        script = "nft --stateless list ruleset | grep -A40 pytest_machine; tc qdisc show; tc class show dev " + device(
            a
        )
        said = a.run("sh", "-c", f"{script}; ps -eo args | grep '^perl - '; true").stdout
        # The numbers of queues are those that the program before has left free.
        numbers = r"refcnt \d+|direct_packets_stat \d+|(?<=fifo )\w+:|(?<=leaf )\w+:|(?<=queue num )\d+"
        return re.sub(numbers, "", said)

    expected = {}
    for rest in itertools.chain.from_iterable(itertools.combinations(faults, n) for n in (1, 2)):
        with contextlib.ExitStack() as stack:
            for fault in rest:
                stack.enter_context(broken.inject(fault))
            expected[rest] = inside()
    for order in itertools.permutations(range(3)):
        injections = [broken.inject(fault) for fault in faults]
        left = set(range(3))
        for each in order[:-1]:
            injections[each].heal()
            left.remove(each)
            assert inside() == expected[tuple(faults[i] for i in sorted(left))]
        injections[order[-1]].heal()
        assert "pytest_machine" not in inside()


def test_a_partition_outlives_boots_and_pauses(booted: Lab) -> None:
    first = booted.inject(Partition(["a"], ["b"]))
    booted["a"].restart()
    booted["b"].restart()
    assert not booted.reachable("a", "b", timeout=0.3)
    with booted.inject(Pause("a")):
        second = booted.inject(Partition(["a"], ["c"]))
        first.heal()
    assert booted.reachable("a", "b"), "what was healed meanwhile"
    assert not booted.reachable("a", "c", timeout=0.3), "what was injected meanwhile"
    second.heal()


def test_a_partition_outlives_a_reset_and_is_not_what_it_brings_back(lab: Lab) -> None:
    x, _ = lab.create(spec("x"), spec("y"))
    x.note()
    with lab.inject(Partition(["x"], ["y"])):
        x.run("touch", "/etc/mine")
        x.reset()
        assert not lab.reachable("x", "y", timeout=0.3)
    assert lab.reachable("x", "y")
    assert x.changes() == []


# ------------------------------------------------------------------------------------------------- machines and engines


def test_kill_pause_restart(booted: Lab) -> None:
    b = booted["b"]
    with booted.inject(Kill("b")):
        assert b.state is State.STOPPED
        with booted.inject(Kill("b")), booted.inject(Pause("b")):
            assert b.state is State.STOPPED
        assert b.state is State.STOPPED, "one of two that want it off is still in force"
        assert not booted.reachable("a", "b", timeout=0.3)
    assert b.docker.ping()
    assert booted.reachable("a", "b")
    killed = booted.inject(Kill("b"))
    with booted.inject(Pause("b")), booted.inject(Partition(["a"], ["b"])):
        killed.heal()
        assert str(b.state) == "paused", "it boots into what else is in force, and answers nothing"
    assert booted.reachable("a", "b")
    with booted.inject(Pause("b")):
        assert str(b.state) == "paused"
        with pytest.raises((OSError, DockerException)):
            engine.ping(b.address, certs=b.record.directory, timeout=1)
    assert booted.reachable("a", "b")
    before = pid_of(b)
    with booted.inject(Restart("b")):
        assert pid_of(b) != before
        assert b.docker.ping()


def test_engine(four: Lab) -> None:
    d = four["d"]
    container = d.docker.containers.run("busybox", ["sh", "-c", "while :; do date >/now; sleep 0.1; done"], detach=True)
    pid = pid_inside(d)

    def answers() -> bool:
        try:
            return bool(engine_answers(d))
        except (OSError, DockerException):
            return False

    with four.inject(EngineHang("d")):
        with pytest.raises((OSError, DockerException)):
            engine.ping(d.address, certs=d.record.directory, timeout=1)
        assert four.reachable("a", "d")
        state = d.run("ps", "-o", "stat=", "-p", pid).stdout
        assert state.startswith("T")
        with four.inject(EngineHang("d")):
            pass
        assert d.run("ps", "-o", "stat=", "-p", pid).stdout.startswith("T"), "the first one is still in force"
    assert answers()
    container.reload()
    assert container.status == "running"
    assert pid_inside(d) == pid
    with four.inject(EngineKill("d")):
        assert not answers()
        time.sleep(1)
        assert not answers(), "nobody starts it again"
    assert answers()
    assert pid_inside(d) != pid
    kill = four.inject(EngineKill("d"))
    with four.inject(EngineHang("d")):
        kill.heal()
        assert d.run("ps", "-o", "stat=", "-p", pid_inside(d)).stdout.startswith("T"), "it lives, and hangs"
    assert answers()
    pid = pid_inside(d)
    with four.inject(EngineRestart("d")):
        assert answers()
        assert pid_inside(d) != pid
    container.remove(force=True)


def pid_inside(machine: Machine) -> str:
    return machine.run("cat", "/run/docker.pid").stdout.strip()


# ----------------------------------------------------------------------------------------------------------- resources


def test_cpu(broken: Lab) -> None:
    """Four loops beside it on one core: on an idle host it takes five times as long."""
    c = broken["c"]

    def took() -> float:
        script = "s=${EPOCHREALTIME/./}; for ((i = 0; i < 60000; i++)); do :; done; echo $((${EPOCHREALTIME/./} - s))"
        return int(c.run("bash", "-c", script).stdout) / 1e6

    before = min(took() for _ in range(3))
    with broken.inject(CpuStress("c", workers=4)):
        stressed = min(took() for _ in range(2))
    # Whatever else this host does may slow one of the two down, and hardly both.
    after = min(took() for _ in range(3))
    assert stressed > 1.2 * min(before, after)
    assert c.run("pgrep", "-fc", "[w]hile :", check=False).stdout == "0\n"


def test_memory(broken: Lab) -> None:
    """Of 384 MiB, 280 are taken: what takes 150 more is ended by the kernel."""
    c = broken["c"]
    script = "echo 1000 >/proc/self/oom_score_adj; head -c 150M /dev/zero | tail -c 150M >/dev/null"
    assert c.run("sh", "-c", script, check=False).returncode == 0
    with broken.inject(MemoryPressure("c", size="280m")):
        assert c.run("bash", "-o", "pipefail", "-c", script, check=False).returncode != 0
    assert c.run("bash", "-o", "pipefail", "-c", script, check=False).returncode == 0
    assert c.docker.ping()


def test_disk(booted: Lab, busybox: Callable[..., str]) -> None:
    c = booted["c"]

    def free() -> int:
        return int(c.run("sh", "-c", "df -B1 --output=avail /var/lib/docker | tail -1").stdout)

    before = free()

    def as_before() -> bool:
        return abs(free() - before) <= 4 << 20

    write = ("dd", "if=/dev/zero", "of=/var/lib/docker/mine", "bs=1M", "count=1", "status=none")
    with booted.inject(DiskFull("c")):
        assert free() == 0
        result = c.run(*write, check=False)
        assert "No space left" in result.stderr
        with pytest.raises(DockerException, match="no space left"):
            busybox(c)
    booted.wait_until(as_before, "The space, which a file system may give back late", timeout=20)
    with booted.inject(DiskFull("c", leave="20m")):
        assert free() == pytest.approx(20 << 20, abs=2 << 20)
        assert c.run(*write, check=False).returncode == 0
    c.run("rm", "/var/lib/docker/mine")
    with booted.inject(DiskFull("c")):
        c.restart()
        assert free() == 0, "it outlives a boot"
    booted.wait_until(as_before, "The space", timeout=20)


def seconds(machine: Machine, script: str) -> float:
    """Return how long a script took in a machine, without our way there."""
    said = machine.run("bash", "-c", f"s=${{EPOCHREALTIME/./}}; {script}; echo $((${{EPOCHREALTIME/./}} - s))").stdout
    return int(said.split()[-1]) / 1e6


def test_a_slow_disk(booted: Lab) -> None:
    """In the machine and in its containers, for what is written through; of two the slower one holds."""
    c = booted["c"]
    write = "dd if=/dev/zero of={} bs=64k count=8 conv=fsync 2>/dev/null"
    mine = write.format("/srv/slow")
    container = c.docker.containers.run("busybox", ["sleep", "1000"], detach=True)

    def inside() -> float:
        begun = time.monotonic()
        assert container.exec_run(["sh", "-c", write.format("/slow")]).exit_code == 0
        return time.monotonic() - begun

    def quick(what: Callable[[], float]) -> None:
        # Others write to this host's disk as well; but what is still slow never takes less than a second.
        booted.wait_until(lambda: what() < 0.8, "A disk that is not slow", timeout=30 * SLOWNESS)

    try:
        with booted.inject(DiskSlow("512k", "c")):
            took = seconds(c, mine)
            print(f"512 KiB at 512 KiB a second: {took:.2f} s")
            assert 0.8 < took < 10 * SLOWNESS
            assert inside() > 0.8
            with booted.inject(DiskSlow("1m", "c")):
                assert seconds(c, mine) > 0.8
            quick(lambda: seconds(booted["d"], mine))  # only its own
        with booted.inject(DiskSlow("1g", "c", operations=10)):
            each = "dd if=/dev/zero of=/var/lib/docker/slow bs=4k count=10 oflag=direct 2>/dev/null"
            assert seconds(c, each) > 0.8
        quick(lambda: seconds(c, mine))
        quick(inside)
    finally:
        container.remove(force=True)
        for machine in (c, booted["d"]):
            machine.run("rm", "-f", "/srv/slow", "/var/lib/docker/slow")


def test_a_failing_disk(booted: Lab) -> None:
    """What is written fails, what was there is read; first by EIO, then the kernel gives up. Healed, it boots."""
    c, d = booted["c"], booted["d"]
    c.run("sh", "-c", "echo before >/srv/kept && sync /srv/kept")
    write = ("sh", "-c", "echo now >/srv/now && sync /srv/now")
    with booted.inject(DiskError("c")):
        with booted.inject(DiskError("c")), booted.inject(DiskSlow("16m", "c")):
            pass
        result = c.run(*write, check=False)
        assert "Input/output error" in result.stderr
        assert c.run("cat", "/srv/kept").stdout == "before\n"
        assert d.run(*write).returncode == 0, "only its own"
        boot = pid_of(c)
        give_up = ("sh", "-c", "touch /srv/again && sync -f /srv")
        booted.wait_until(lambda: "Read-only file system" in c.run(*give_up, check=False).stderr, timeout=60)
    assert pid_of(c) != boot
    assert c.docker.ping()
    assert c.run(*write).returncode == 0
    assert c.run("cat", "/srv/kept").stdout == "before\n"
    for machine in (c, d):
        machine.run("rm", "-f", "/srv/kept", "/srv/now", "/srv/again")


@full_only
def test_a_failing_disk_does_not_outlive_its_machine(lab: Lab, registry: Registry) -> None:
    """Neither a boot by somebody else, nor its end; another process mends what it finds."""
    x, y = lab.create(*(replace(spec(name), options={"disk": "256m"}) for name in "xy"))
    x.note()
    write = ("sh", "-c", "echo now >/srv/now && sync /srv/now")
    lab.inject(DiskError("x", "y"))
    later = Lab.load(store=lab.store, registry=registry)
    later.heal()
    later.close()
    assert x.run(*write).returncode == 0
    assert y.run(*write).returncode == 0
    lab.heal()
    with lab.inject(DiskError("x")):
        x.restart()
        assert x.run(*write, check=False).returncode != 0, "it outlives a boot while it is in force"
    assert x.run(*write).returncode == 0
    x.run("touch", "/srv/mine")
    lab.inject(DiskError("x", "y"))
    x.reset()
    assert x.run(*write, check=False).returncode != 0, "it outlives a reset while it is in force"
    assert x.run("test", "-e", "/srv/mine", check=False).returncode != 0
    lab.heal()
    assert x.run(*write).returncode == 0
    lab.inject(DiskError("x", "y"))
    lab.remove(y, kill=True)  # which would fail, were its disk still one that nobody can remove


def test_a_crash_loses_what_was_not_written(booted: Lab) -> None:
    c = booted["c"]
    # In Docker's data, too; and one that is longer than what the kernel writes when a file is closed.
    c.run("sh", "-c", "for p in /srv /var/lib/docker; do echo kept >$p/kept && sync -f $p; done")
    c.run("sh", "-c", "for p in /srv /var/lib/docker; do echo lost >$p/lost; seq 100000 >$p/long; done")
    with booted.inject(Crash("c")):
        assert c.state is State.STOPPED
    assert c.docker.ping()
    for place in ("/srv", "/var/lib/docker"):
        assert c.run("cat", f"{place}/kept").stdout == "kept\n"
        for name in ("lost", "long"):
            assert c.run("sh", "-c", f"cat {place}/{name} 2>/dev/null; true").stdout == ""
    assert b"hi" in c.docker.containers.run("busybox", ["echo", "hi"], remove=True), "what it was made with is there"
    c.run("sh", "-c", "rm -f /srv/kept /srv/lost /srv/long; cd /var/lib/docker; rm -f kept lost long")


@pytest.mark.parametrize("fault", [DiskFull("a"), DiskSlow("1m", "a"), DiskError("a"), ClockSkew(60, "a"), Crash("a")])
def test_what_would_be_the_hosts_is_refused(broken: Lab, fault: Fault) -> None:
    before = broken["a"].run("cat", "/proc/uptime", "/proc/sys/kernel/random/boot_id").stdout.split()[-1]
    with pytest.raises(Unsupported, match="hint: "):
        broken.inject(fault)
    assert broken["a"].run("cat", "/proc/sys/kernel/random/boot_id").stdout.split()[-1] == before


# ------------------------------------------------------------------------------------------------------------- healing


def test_another_process_heals(broken: Lab, registry: Registry) -> None:
    """Whoever broke them was killed; the next one who has the machines heals them without knowing of what."""
    before = [picture(machine) for machine in broken]
    for fault in (
        Partition(["a"], ["b"]),
        Delay(0.1, "d"),
        Loss(0.5, "c"),
        CpuStress("c", workers=1),
        MemoryPressure("a", size="16m"),
    ):
        broken.inject(fault)
    later = Lab.load(store=broken.store, registry=registry)
    assert later.faults == []
    later.heal()
    later.close()
    unchanged(broken, before)
    broken.heal()


def test_what_is_in_force_at_a_reset_is_no_part_of_what_it_brings_back(booted: Lab) -> None:
    d = booted["d"]
    d.note()
    for fault in (Partition(["a"], ["d"]), Rate("1mbit", "d"), CpuStress("d", workers=1)):
        booted.inject(fault)
    assert d.changes()
    d.reset()
    assert d.changes()
    booted.heal()
    assert d.changes() == []


def test_a_machine_may_go_while_it_is_broken(lab: Lab) -> None:
    lab.create(*(spec(name) for name in "xyz"))
    with lab.inject(Partition(["x"], ["y", "z"])), lab.inject(Kill("y")), lab.inject(Loss(1.0, "y")):
        lab.remove(lab["y"], kill=True)
        with lab.inject(Loss(0.5, "z")):
            assert not lab.reachable("x", "z", timeout=0.3)
    assert lab.reachable("x", "z")
    with pytest.raises(BadSpec, match="is on a network 'zz'"), lab.inject(Loss(1.0, "x", "z", network="zz")):
        pass
    with pytest.raises(UnknownMachine), lab.inject(Kill("y")):
        pass
    with pytest.raises(UnknownMachine), lab.inject(Partition(["x"], ["y"])):
        pass
    assert lab.faults == []


def test_wait_until(four: Lab) -> None:
    seen = iter([0, 0, 7])
    assert four.wait_until(lambda: next(seen), "A number", timeout=5) == 7

    def never() -> bool:
        assert not "yet"
        return True

    with pytest.raises(WaitTimeout, match="'yet'"):
        four.wait_until(never, "Never", timeout=0.3)


def test_disturb(booted: Lab, rounds: Callable[[int, int], int], capsys: pytest.CaptureFixture[str]) -> None:
    """Random schedules of up to five at once end with everything healed; the same seed does the same."""
    before = [picture(machine, rules="nft list tables | sort") for machine in booted]
    kinds = [
        Partition,
        Pause,
        Kill,
        Loss,
        Rate,
        Delay,
        Reorder,
        Corrupt,
        Duplicate,
        EngineHang,
        EngineKill,
        CpuStress,
        MemoryPressure,
        DnsFailure,
    ]
    for seed in range(rounds(100, 1)):
        with booted.disturb(seed=seed, faults=kinds, every=0.3, stacked=5) as disturbance:
            time.sleep(3)
        assert disturbance.done
        assert booted.faults == []
        assert [machine.state for machine in booted] == [State.RUNNING] * 4
        for machine in booted:
            booted.wait_until(lambda machine=machine: engine_answers(machine), timeout=30 * SLOWNESS)  # type: ignore[misc]
        unchanged(booted, before, rules="nft list tables | sort")
        for here, there in itertools.pairwise("abcda"):
            assert booted.reachable(here, there)
    assert "seed=0" in capsys.readouterr().out
    with booted.disturb(seed=5, faults=[Loss, Duplicate], every=0.2) as first:
        booted.wait_until(lambda: len(first.done) > 1)
    with booted.disturb(seed=5, faults=[Loss, Duplicate], every=0.2) as second:
        booted.wait_until(lambda: len(second.done) > 1)
    assert first.done[:2] == second.done[:2]
