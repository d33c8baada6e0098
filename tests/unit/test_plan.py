"""Topologies: what is wrong with one, and who reaches whom by whom, for every set of machines and networks."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_machine import Link, Net, Role, Topology
from pytest_machine.errors import BadSpec
from pytest_machine.model import Id
from pytest_machine.plan import Hop, Impairment, Members, bits, hops, meet, pairs, ula

NETWORKS = [f"n{number}" for number in range(6)]
NETS = st.lists(st.sampled_from(NETWORKS), max_size=3, unique=True).map(tuple)
MEMBERS = st.dictionaries(st.sampled_from([f"m{number}" for number in range(8)]), NETS, min_size=1)


@st.composite
def labs(draw: st.DrawFn) -> tuple[Members, set[str], list[str]]:
    members = draw(MEMBERS)
    routers = draw(st.sets(st.sampled_from(sorted(members))))
    closed = draw(st.sets(st.sampled_from(NETWORKS), max_size=2))
    return members, routers, [name for name in NETWORKS if name not in closed]


def walk(
    machine: str, to: str, members: Members, routers: set[str], ways: dict[str, dict[str, Hop]], open_: list[str]
) -> list[str]:
    """Follow each router's own route, as a packet does; return whom it has met."""
    met, at = [machine], machine
    while to not in members[at]:
        hop = ways[at][to]
        assert hop.network in members[at]
        assert hop.network in members[hop.router]
        assert hop.network in open_
        assert hop.router in routers
        at = hop.router
        assert at not in met, "it goes in circles"
        met.append(at)
    return met


@settings(deadline=None)
@given(labs())
def test_each_way_arrives_by_routers_alone_and_is_the_shortest(lab: tuple[Members, set[str], list[str]]) -> None:
    members, routers, open_ = lab
    ways = hops(members, routers, open_)
    for machine, found in ways.items():
        assert not set(found) & set(members[machine]), "a way to where it is"
        distance = distances(machine, members, routers, open_)
        assert set(found) == set(distance) - set(members[machine])
        for network in found:
            assert network in open_
            assert len(walk(machine, network, members, routers, ways, open_)) == distance[network] + 1


def distances(machine: str, members: Members, routers: set[str], open_: list[str]) -> dict[str, int]:
    """Return how many routers are between a machine and each network that it reaches: by brute force."""
    known = {network: 0 for network in members[machine] if network in open_}
    while True:
        new = {
            beyond: 1 + min(known[near] for near in set(members[router]) & set(known))
            for router in routers - {machine}
            if set(members[router]) & set(known)
            for beyond in members[router]
            if beyond in open_
        }
        better = {name: far for name, far in new.items() if far < known.get(name, 99)}
        if not better:
            return known
        known |= better


@settings(deadline=None)
@given(labs())
def test_who_reaches_whom_is_the_same_both_ways(lab: tuple[Members, set[str], list[str]]) -> None:
    found = pairs(*lab)
    assert {(b, a) for a, b in found} == found
    members, _, open_ = lab
    for a, b in found:
        shared = set(members[a]) & set(members[b])
        by_driver = not members[a] and not members[b]
        assert shared or by_driver or (set(members[a]) & set(open_) and set(members[b]) & set(open_))


@settings(deadline=None)
@given(labs())
def test_without_routers_it_is_who_shares_a_network(lab: tuple[Members, set[str], list[str]]) -> None:
    members, _, open_ = lab
    ways = hops(members, (), open_)
    assert not any(ways.values())
    for a in members:
        for b in members:
            shared = bool(set(members[a]) & set(members[b])) or not (members[a] or members[b])
            assert meet(a, b, members, ways) == shared


def test_of_two_ways_the_first_counts() -> None:
    members = {"a": ("x",), "r2": ("x", "y"), "r1": ("x", "y"), "b": ("y",)}
    assert hops(members, ["r1", "r2"], ["x", "y"])["a"] == {"y": Hop("x", "r2")}


# ---------------------------------------------------------------------------------------------------------- the value


def lab(**changes: Any) -> Topology:
    return Topology(
        **{
            "networks": {"front": Net(subnet="10.1.0.0/24", ipv6=True), "back": {"mtu": 1400}},
            "roles": {
                "web": Role(count=2, networks=["front"], memory="1g"),
                "gw": Role(networks=["front", "back"], router=True),
                "db": {"networks": ["back"]},
            },
            "links": [Link("web", "db", delay=0.02, rate="10mbit")],
            **changes,
        }
    )


def test_its_machines() -> None:
    found = lab()
    found.check()
    assert found.members == {"web-1": ("front",), "web-2": ("front",), "gw": ("front", "back"), "db": ("back",)}
    assert found.routers == ("gw",)
    assert found.roles["web"].arguments == {"memory": "1g"}
    assert found.open == ("front", "back")


def test_links_are_of_machines_both_ways() -> None:
    declared = lab(links=[Link("web", "db", delay=0.02, rate="10mbit"), Link("web", "web", loss=0.5, one_way=True)])
    declared.check()
    one = Impairment(sender="web-1", receiver="db", delay=0.02, rate=10_000_000)
    found = declared.impairments()
    assert len(found) == 6
    assert found[0] == one
    assert {(each.sender, each.receiver) for each in found if each.loss} == {("web-1", "web-2"), ("web-2", "web-1")}
    assert declared.impairments(["web-1", "db"]) == [one, Impairment(
        sender="db", receiver="web-1", delay=0.02, rate=10_000_000
    )]  # fmt: skip


def test_it_survives_the_way_through_a_file() -> None:
    declared = lab()
    again = Topology.from_json(json.loads(json.dumps(declared.to_json())))
    again.check()
    assert again.members == declared.members
    assert again.networks == declared.networks
    assert again.links == declared.links
    assert again.routers == declared.routers


TOML = """
[networks.front]
subnet = "10.1.0.0/24"
ipv6 = "fd00:1::/64"
[networks.back]
isolated = true
[roles.web]
count = 2
networks = ["front"]
memory = "1g"
[roles.db]
networks = ["front", "back"]
[[links]]
between = ["web", "db"]
loss = 0.01
"""


def test_it_is_read_from_toml(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(TOML)
    found = Topology.read(tmp_path / "lab.toml")
    found.check()
    assert found == Topology(
        networks={"front": Net(subnet="10.1.0.0/24", ipv6="fd00:1::/64"), "back": Net(isolated=True)},
        roles={"web": Role(count=2, networks=["front"], memory="1g"), "db": Role(networks=["front", "back"])},
        links=[Link("web", "db", loss=0.01)],
    )
    assert hash(found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[networks", "is no TOML"),
        ("[network.front]", "has no 'network'"),
        ("networks = 3", "'networks' of a topology is not as it should be"),
        ("[networks]\nfront = 3", "'networks.front' of a topology is no table"),
        ("[networks.front]\nsubnett = '10.1.0.0/24'", "'networks.front' of a topology has no 'subnett'"),
        ("[roles.web]\n[[links]]\nbetween = 'web'\nlos = 1", r"'links\[1\]' of a topology has no 'los'"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "lab.toml").write_text(text)
    with pytest.raises(BadSpec, match=says) as caught:
        Topology.read(tmp_path / "lab.toml")
    assert caught.value.hint
    with pytest.raises(BadSpec, match="cannot be read"):
        Topology.read(tmp_path / "none.toml")


WRONG: list[tuple[Callable[[], Topology], str]] = [
    (lambda: lab(roles={}), "without machines"),
    (lambda: lab(roles={"web": Role(count=0)}, links=[]), "'web' cannot have count=0"),
    (lambda: lab(roles={"web": {"count": "2"}}, links=[]), "'web' cannot have count='2'"),
    (lambda: lab(roles={"web": Role(networks=["frnt"])}, links=[]), "'web' is to sit on the network 'frnt'"),
    (lambda: lab(roles={"web": Role(networks=["back", "back"])}, links=[]), "names a network twice"),
    (lambda: lab(roles={"a": Role(count=2), "a-1": Role()}, links=[]), "Two roles have a machine 'a-1'"),
    (lambda: lab(roles={"a b": Role()}, links=[]), "A machine cannot be called 'a b'"),
    (lambda: lab(networks={"a b": Net()}), "A network cannot be called 'a b'"),
    (lambda: lab(networks={"front": Net(subnet="10.1.0.1/24"), "back": Net()}), "cannot have the subnet '10.1.0.1/24'"),
    (lambda: lab(networks={"front": Net(subnet="127.0.0.0/24"), "back": Net()}), "not for machines"),
    (lambda: lab(networks={"front": Net(ipv6="10.1.0.0/24"), "back": Net()}), "cannot have the subnet '10.1.0.0/24'"),
    (lambda: lab(networks={"front": Net(mtu=500), "back": Net()}), "cannot have an MTU of 500"),
    (lambda: lab(networks={"front": Net(mtu=1000, ipv6=True), "back": Net()}), "IPv6 takes 1280"),
    (lambda: lab(networks={"front": Net(mtu=70000), "back": Net()}), "cannot have an MTU of 70000"),
    (lambda: lab(networks={"front": Net(isolated="yes"), "back": Net()}), "cannot have isolated='yes'"),  # type: ignore[arg-type]
    (
        lambda: lab(networks={"front": Net(subnet="10.1.0.0/16"), "back": Net(subnet="10.1.5.0/24")}),
        "'front' and 'back' overlap",
    ),
    (
        lambda: lab(networks={"front": Net(ipv6="fd00::/48"), "back": Net(ipv6="fd00:0:0:1::/64")}),
        "'front' and 'back' overlap",
    ),
    (lambda: lab(networks={"front": Net(subnet="172.17.1.0/24"), "back": Net()}), "that of Docker's own network"),
    (lambda: lab(networks={"front": Net(subnet="10.1.0.0/30"), "back": Net()}), "too small for its machines"),
    (lambda: lab(networks={"front": Net(isolated=True), "back": Net()}), "'gw' is to route, and sits on fewer"),
    (lambda: lab(links=[Link("web", "dbb", loss=0.1)]), "no machine and no role: 'dbb'"),
    (lambda: lab(links=[Link("web", loss=0.1)]), "has two ends, and one has 1"),
    (lambda: lab(links=[Link("db", "db", loss=0.1)]), "has one end"),
    (lambda: lab(links=[Link("web", "db")]), "does nothing"),
    (lambda: lab(links=[Link("web", "db", loss=1.5)]), "cannot have loss=1.5"),
    (lambda: lab(links=[Link("web", "db", delay=-1)]), "cannot have delay=-1"),
    (lambda: lab(links=[Link("web", "db", rate="fast")]), "cannot have rate='fast'"),
    (lambda: lab(links=[Link("web", "db", loss=0.1, network="side")]), "network 'side', and there is none"),
    (lambda: lab(links=[Link("web", "db", loss=0.1, network="back")]), "not both are on it"),
    (
        lambda: lab(
            roles={"web": Role(networks=["front"]), "db": Role(networks=["back"])}, links=[Link("web", "db", loss=0.1)]
        ),
        "no way: they share no network, and no router",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "says"), WRONG, ids=[says for _, says in WRONG])
def test_what_cannot_be_is_said_in_a_sentence(make: Callable[[], Topology], says: str) -> None:
    declared = make()  # no error before somebody wants it
    with pytest.raises(BadSpec, match=says) as caught:
        declared.check()
    assert caught.value.hint
    assert caught.value.message.endswith(".")


def test_machines_that_marks_add_count_too() -> None:
    small = Topology(networks={"front": Net(subnet="10.1.0.0/29")}, roles={"web": Role(count=5, networks=["front"])})
    small.check()
    with pytest.raises(BadSpec, match="too small"):
        small.check({**small.members, "one-more": ("front",)})


def test_dockers_own_network_may_be_elsewhere() -> None:
    web = Role(networks=["front"], engine_options={"bip": "192.168.7.1/24"})
    Topology(networks={"front": Net(subnet="172.17.1.0/24")}, roles={"web": web}).check()


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(20, 30))
def test_a_wider_subnet_that_is_proposed_is_wide_enough(count: int, prefix: int) -> None:
    def declared(subnet: str) -> Topology:
        return Topology(networks={"n": Net(subnet=subnet)}, roles={"m": Role(count=count, networks=["n"])})

    try:
        declared(f"10.64.0.0/{prefix}").check()
    except BadSpec as error:
        assert 2 ** (32 - prefix) - 3 < count
        proposed = error.hint.split("'")[1]
        assert ipaddress.IPv4Network(proposed).prefixlen < prefix
        declared(proposed).check()
    else:
        assert 2 ** (32 - prefix) - 3 >= count


@settings(deadline=None)
@given(st.integers(0, 2**40 - 1))
def test_ipv6_subnets_are_one_to_one_with_ids(number: int) -> None:
    found = ipaddress.IPv6Network(ula(Id(f"{number:010x}")))
    assert found.is_private
    assert found.prefixlen == 64
    assert int(found.network_address) >> 80 == 0xFD << 40 | number


@pytest.mark.parametrize(
    ("rate", "wanted"), [("1mbit", 10**6), ("512kbit", 512_000), (9000, 9000), ("1.5gbit", 15 * 10**8)]
)
def test_rates(rate: str | int, wanted: int) -> None:
    assert bits(rate) == wanted
