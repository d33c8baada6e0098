"""Topologies on real machines, by packets: names, routes, IPv6, isolation, links, and all of it after boots."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_machine import Duplicate, Kill, Link, Loss, Net, Partition, Role, Topology
from pytest_machine.errors import Unsupported
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Spec, new_id
from pytest_machine.owner import Run
from pytest_machine.plan import pairs
from pytest_machine.plugins import Registry
from tests.conftest import SLOWNESS, alone, full_only
from tests.outside import Outside
from tests.real.asked import on_host
from tests.real.meeting import meeting, owners, reached

# Two sides and a router, IPv6 on all of the way; and a safe, which one of the others can enter.
THREE = Topology(
    networks={
        "front": Net(subnet="10.61.0.0/24", ipv6=True, mtu=1400),
        "back": Net(ipv6="fd61:2::/64"),
        "safe": Net(isolated=True),
    },
    roles={
        "web": Role(count=2, networks=["front"]),
        "gw": Role(networks=["front", "back"], router=True),
        "db": Role(networks=["back", "safe"]),
        "vault": Role(networks=["safe"]),
    },
    links=[Link("web-1", "web-2", loss=0.5), Link("web-2", "db", rate="20mbit")],
)


def specs(topology: Topology) -> list[Spec]:
    return [
        Spec(name=name, driver="runc", networks=own, router=name in topology.routers, topology=topology, timeout=60)
        for name, own in topology.members.items()
    ]


@pytest.fixture
def three(module_lab: Lab) -> Lab:
    """The machines of `THREE`, as they were declared."""
    if not module_lab.machines:
        module_lab.create(*specs(THREE))
    module_lab.heal()
    return module_lab


def ping(here: Machine, *words: str, count: int = 1) -> int:
    """Return how many of some pings were answered."""
    argv = ("ping", "-n", "-c", str(count), "-i", "0.005", "-W", "1", *words)
    said = here.run(*argv, check=False).stdout
    found = re.search(r"(\d+) received", said)
    return int(found[1]) if found else 0


def test_who_should_meet_does_and_nobody_else(three: Lab) -> None:
    """Each pair, by every address, of both kinds; and the names lead to those addresses that are reached."""
    whose = owners(three)
    wanted = pairs(THREE.members, THREE.routers, THREE.open)
    # Half of what passes between the two is lost.
    lossy = {("web-1", "web-2"), ("web-2", "web-1")}
    found = reached(three, wanted - lossy)
    assert {(here, whose[there]) for here, there in found} - lossy == wanted - lossy
    for machine in three:
        lines = machine.run("cat", "/etc/hosts").stdout.splitlines()[2:]
        told = [(address, name) for address, name in (line.split() for line in lines) if "." not in name]
        assert {name for _, name in told} == {b for a, b in wanted if a == machine.name} | {machine.name}
        for address, name in told:
            assert whose[address] == name
            assert (machine.name, address) in found or name == machine.name or (machine.name, name) in lossy
    web, gw, db = three["web-1"], three["gw"], three["db"]
    assert three.reachable("web-1", "db", port=22)
    assert three.reachable("web-1", "db", ipv6=True)
    assert three.reachable("web-1", "gw", ipv6=True, network="front", port=22)
    assert not three.reachable("db", "vault", ipv6=True, timeout=0.3), "the network has no IPv6"
    assert not three.reachable("web-1", "vault", timeout=0.3)
    # By name, and by name and network; through the router, which takes one from the time to live.
    assert web.run("getent", "ahostsv6", "db").stdout.split()[0] == db.networks["back"].ip6
    assert web.run("getent", "ahostsv4", "gw.front").stdout.split()[0] == gw.networks["front"].ip
    assert " ttl=63 " in web.run("ping", "-n", "-c", "1", "-W", "5", "db.back").stdout


def test_containers_go_the_same_ways(three: Lab, busybox: Callable[..., str]) -> None:
    web, db = three["web-1"], three["db"]
    image = busybox(web)
    address = db.networks["back"].ip
    said = web.docker.containers.run(image, ["sh", "-c", f"nc -w 5 {address} 22 </dev/null"], remove=True)
    assert said.startswith(b"SSH-")
    assert b" db.back\n" in web.docker.containers.run(image, ["cat", "/etc/hosts"], network_mode="host", remove=True)


def test_the_largest_packet(three: Lab) -> None:
    """20 bytes of IP, 8 of ICMP: 1400 pass, 1401 do not; the other network takes 1500."""
    web, gw, db = three["web-1"], three["gw"], three["db"]
    front = gw.networks["front"].ip
    assert ping(web, "-M", "do", "-s", "1372", front)
    assert not ping(web, "-M", "do", "-s", "1373", front)
    assert ping(db, "-M", "do", "-s", "1472", gw.networks["back"].ip)


def test_isolated(three: Lab) -> None:
    """Who sits on the safe alone reaches nobody but who shares it, not even by routes of its own; and is reached."""
    vault, web = three["vault"], three["web-1"]
    with Outside() as address:
        script = f"exec 3<>/dev/tcp/{address}/7 && cat <&3"
        ask = ("timeout", "1", "bash", "-c", script)
        assert web.run("timeout", str(5 * SLOWNESS), "bash", "-c", script).stdout == "from outside\n"
        assert vault.run(*ask, check=False).stdout == ""
        # The one that it shares the safe with is no way out.
        db = three["db"].networks["safe"].ip
        for to in (f"{address}/32", "10.61.0.0/24", f"{three['gw'].networks['back'].ip}/32"):
            vault.run("ip", "route", "replace", to, "via", db)
        three["gw"].run(
            "ip", "route", "replace", f"{vault.networks['safe'].ip}/32", "via", three["db"].networks["back"].ip
        )
        assert vault.run(*ask, check=False).stdout == ""
        assert not ping(vault, three["gw"].networks["back"].ip)
        vault.run("ip", "route", "del", f"{address}/32")
    gateway = vault.run("sh", "-c", "ip route show default").stdout.split()[2]
    assert not ping(vault, gateway), "it reaches its host"
    assert ping(web, gateway)
    assert vault.docker.ping()
    assert ping(vault, db)


def test_links_do_what_they_do_at_all_times(three: Lab) -> None:
    """From birth on, under faults and after them, and after boots of either kind; their part is not healed."""
    web, other = three["web-1"], three["web-2"].networks["front"].ip
    clean = three["gw"].networks["front"].ip

    def lossy() -> bool:
        # A quarter passes both ways: of 100, none or 60 is what five standard deviations never see.
        return 0 < ping(web, other, count=100) < 60 and ping(web, clean, count=20) == 20

    ruleset = web.run("nft", "list", "table", "netdev", "pytest_machine").stdout
    assert lossy()
    with three.inject(Partition(["web-1"], ["web-2"])):
        assert ping(web, other, count=20) == 0
        with three.inject(Loss(1.0, "web-1", "gw")):
            assert ping(web, clean, count=5) == 0
    assert lossy()
    assert web.run("nft", "list", "table", "netdev", "pytest_machine").stdout == ruleset
    three.heal()
    assert lossy()
    with three.inject(Kill("web-1", "web-2")):
        pass
    assert lossy()
    web.run("touch", "/etc/touched")
    web.reset()
    assert web.run("test", "-e", "/etc/touched", check=False).returncode == 1
    assert lossy()
    with three.inject(Partition(["web-1"], ["web-2"])):
        assert any(each.startswith("rule ") for each in web.changes()), "so that it is noted anew, rules and all"
        web.reset()
        assert ping(web, other, count=20) == 0
    assert web.changes() == [], "what links do is a part of what it is, and what is injected is not"
    assert lossy()
    # The rate of another, as tc has it: HTB's class of 20 Mbit/s.
    assert "rate 20Mbit ceil 20Mbit" in three["web-2"].run("tc", "class", "show", "dev", device(three["web-2"])).stdout


def device(machine: Machine) -> str:
    """Return the interface of a machine's first network."""
    ip = next(iter(machine.networks.values())).ip
    return machine.run("ip", "-o", "address", "show", "to", ip).stdout.split()[1]


def test_attached_and_detached_while_it_runs(three: Lab) -> None:
    """Names, routes and faults follow, and what is so then is so after a boot and after a reset."""
    web, gw, db = three["web-2"], three["gw"], three["db"]
    link = three.attach("web-2", "back")
    assert three.attach("web-2", "back") == link
    assert web.run("getent", "ahostsv4", "db").stdout.split()[0] == db.networks["back"].ip
    assert " ttl=64 " in web.run("ping", "-n", "-c", "1", "-W", "5", "db.back").stdout, "it is a neighbour now"
    assert db.run("getent", "ahostsv6", "web-2.back").stdout.split()[0] == link.ip6
    with three.inject(Partition(["web-2"], ["db"])):
        assert not three.reachable("web-2", "db", timeout=0.3)
        three.detach("db", "back")
        again = three.attach("db", "back")
        assert not three.reachable("web-2", "db", network="back", timeout=0.3), (
            "at its new address it is cut off as well"
        )
        assert not three.reachable("web-2", "db", network="back", ipv6=True, timeout=0.3)
    assert again.ip == db.networks["back"].ip
    assert three.reachable("web-2", "db", network="back")

    three.detach("web-2", "front")
    three.detach("web-2", "front")
    assert set(web.networks) == {"back"}
    assert three["web-1"].run("getent", "ahostsv4", "web-2").stdout.split()[0] == link.ip, "by the router"

    def reset() -> None:
        web.run("touch", "/etc/touched")
        web.reset()

    for boot in (web.restart, gw.restart, reset):
        boot()
        assert web.networks == {"back": link}
        # By the router, and by a link that loses half of it each way.
        assert ping(three["web-1"], link.ip, count=50) > 0
        # IPv6 is not used before the kernel has asked whether anybody else has the address.
        three.wait_until(lambda: ping(three["web-1"], link.ip6, count=20) > 0, "IPv6 by the router")

    with three.resetting("web-2"):
        pass
    assert set(web.networks) == {"front"}, "it is as it was declared"
    assert three.reachable("web-2", "gw", network="front")
    assert " ttl=63 " in web.run("ping", "-n", "-c", "1", "-W", "5", "db.back").stdout


def test_a_link_that_delays_does_so_or_is_refused(lab: Lab) -> None:
    """Where this host's kernel cannot, the reason is said, and nothing is left of the lab."""
    declared = Topology(
        networks=["front"], roles={"web": Role(count=2, networks=["front"])}, links=[Link("web", "web", delay=0.05)]
    )
    refused: Unsupported | None = None
    try:
        lab.create(*specs(declared))
    except Unsupported as error:
        refused = error
    if refused is not None:
        assert refused.hint
        assert not lab.machines
        return
    said = lab["web-1"].run("ping", "-n", "-c", "5", "-i", "0.2", lab["web-2"].networks["front"].ip).stdout
    fastest = re.search(r"= ([\d.]+)/", said)
    assert fastest
    assert float(fastest[1]) >= 100 * 0.8


def test_labs_with_equal_subnets_live_side_by_side(run: Run, registry: Registry) -> None:
    declared = Topology(
        networks={"front": Net(subnet="10.62.0.0/24", ipv6="fd62::/64")},
        roles={"web": {"count": 2, "networks": ["front"]}},
    )
    with ExitStack() as stack:
        labs = [
            stack.enter_context(Lab(store=run.lab_store(new_id()), registry=registry, run=run.id)) for _ in range(2)
        ]
        for lab in labs:
            lab.create(*specs(declared))
        one, two = labs
        assert [m.networks["front"].ip for m in one] == [m.networks["front"].ip for m in two]
        for lab in labs:
            host_names = {m.run("hostname").stdout for m in lab}
            assert host_names == {"web-1\n", "web-2\n"}
            assert lab.reachable("web-1", "web-2", port=22)
            assert lab.reachable("web-1", "web-2", ipv6=True)
        one["web-2"].kill()
        assert not one.reachable("web-1", "web-2", network="front", timeout=0.3)
        assert two.reachable("web-1", "web-2", network="front")


@pytest.fixture
def strict_firewall(usable: None) -> Iterator[None]:
    """A FORWARD chain of IPv6 that drops and looks at bridges, as newer Dockers leave it; afterwards as it was."""
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables")
    if not shutil.which("ip6tables") or not bridged.exists():
        pytest.skip("this host has no ip6tables, or none that sees bridges")
    was_there = "*filter" in on_host("ip6tables-save")
    policy = on_host("ip6tables", "-S", "FORWARD").splitlines()[0].split()[2]
    called = bridged.read_text()
    on_host("ip6tables", "-P", "FORWARD", "DROP")
    bridged.write_text("1")
    try:
        yield
    finally:
        bridged.write_text(called)
        on_host("ip6tables", "-P", "FORWARD", policy)
        if not was_there:
            subprocess.run(["nft", "delete", "table", "ip6", "filter"], capture_output=True, check=False)


@alone  # the firewall is everybody's on this host
def test_ipv6_beside_a_firewall_that_drops(strict_firewall: None, lab: Lab) -> None:
    declared = Topology(networks={"front": Net(ipv6=True)}, roles={"web": Role(count=2, networks=["front"])})
    lab.create(*specs(declared))
    assert lab.reachable("web-1", "web-2", ipv6=True)


TWENTY = Path(__file__).parents[2] / "benchmarks" / "twenty.toml"


@full_only
def test_twenty_machines_on_five_networks(lab: Lab) -> None:
    """Every pair that should talk does, and no other does: 380 pairs, by every address."""
    declared = Topology.read(TWENTY)
    lab.create(*specs(declared))
    assert len(lab) == 20
    assert len(lab.networks) == 5
    wanted = pairs(declared.members, declared.routers, declared.open)
    assert len(wanted) == 252
    assert meeting(lab, wanted) == wanted


PROPERTIES = {"delay": 0.03, "jitter": 0.01, "loss": 0.2, "rate": "10mbit"}
# Microseconds that it takes to hand 1000 packets of 1200 bytes to the network: some 900,000 at 10 Mbit/s.
SEND = """
begun=${EPOCHREALTIME/./}
perl -MSocket -e 'socket(S, AF_INET, SOCK_DGRAM, 0); my $to = sockaddr_in(9, inet_aton(shift));
send(S, "x" x 1200, 0, $to) for 1 .. 1000' "$1"
echo $((${EPOCHREALTIME/./} - begun))
"""


def test_a_link_has_every_combination_of_properties(lab: Lab) -> None:
    """All fifteen, by packets, and more faults on top; a kernel without netem shares the work among three programs."""
    wanted = [dict(some) for count in range(1, 5) for some in itertools.combinations(PROPERTIES.items(), count)]
    ends = dict(zip(itertools.combinations(["a", "b", "c", "d", "e", "f"], 2), wanted, strict=True))
    declared = Topology(
        networks=["front"],
        roles={name: Role(networks=["front"]) for name in "abcdef"},
        links=[Link(*pair, **properties) for pair, properties in ends.items()],  # type: ignore[arg-type]
    )
    lab.create(*specs(declared))
    for (here, there), properties in ends.items():
        assert not _amiss(lab[here], lab[there].networks["front"].ip, properties), (here, there, properties)
    (both,) = [pair for pair, properties in ends.items() if len(properties) == len(PROPERTIES)]
    address = lab[both[1]].networks["front"].ip
    with lab.inject(Duplicate(0.5, *both)), lab.inject(Loss(0.2, *both)):
        said = lab[both[0]].run("ping", "-n", "-q", "-c", "150", "-i", "0.005", "-W", "1", address, check=False).stdout
        assert re.search(r"received, \+\d+ duplicates", said), said
        others = {name: value for name, value in PROPERTIES.items() if name != "loss"}
        assert not _amiss(lab[both[0]], address, others, strict=False)
    assert not _amiss(lab[both[0]], address, PROPERTIES), "as it was declared, once the faults are healed"


def _amiss(here: Machine, there: str, properties: Mapping[str, object], *, strict: bool = True) -> list[str]:
    """Return what packets do other than declared; `strict`: and what they do besides."""
    said = here.run("ping", "-n", "-c", "150", "-i", "0.005", "-W", "1", there, check=False).stdout
    times = sorted(float(each) for each in re.findall(r"time=([\d.]+)", said))
    # A full queue drops what is sent, which takes no time: seen once in a dozen, so that one of three says nothing.
    tries = sorted(int(here.run("bash", "-c", SEND, "bash", there).stdout) / 1e6 for _ in range(3))
    sent = tries[1 if "rate" in properties else 0]
    lost = 1 - len(times) / 150
    found = {
        "delay": times[0] >= (60 if "jitter" not in properties else 40) * 0.95,
        "jitter": times[-1] - times[0] >= 8 if "jitter" in properties else False,
        "loss": 0.15 < lost < 0.6,
        "rate": sent > 0.3,
    }
    wrong = [name for name in properties if not found[name]]
    if strict:  # a busy computer lets packets wait too, but it loses none
        wrong += [name for name in ("delay", "rate", "loss") if found[name] and name not in properties]
    return [f"{name}: {times[0]}..{times[-1]} ms, {lost:.0%} lost, {sent} s" for name in wrong]
