"""Whom machines know and by whom they reach others: what holds wherever they are; and the scripts that tell them."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_machine.machine import Attachment
from pytest_machine.model import Id, Network
from pytest_machine.plan import pairs
from pytest_machine.ways import Placed, Route, Ways, telling

RENDERED = Path(__file__).parents[1] / "rendered"
NETWORKS = {
    name: Network(
        id=Id(f"{number:010x}"), name=name, store=Path("/s"), host="h", created=1.0, subnet=f"10.1.{number}.0/24",
        subnet6=f"fd00:{number}::/64" if number % 2 else "", isolated=number == 4,
    )
    for number, name in enumerate(("n0", "n1", "n2", "n3", "n4"))
}  # fmt: skip


@st.composite
def places(draw: st.DrawFn) -> dict[str, Placed]:
    found = {}
    for number in range(draw(st.integers(1, 7))):
        links = {}
        for name in draw(st.lists(st.sampled_from(sorted(NETWORKS)), max_size=3, unique=True)):
            network = NETWORKS[name]
            six = str(ipaddress.IPv6Network(network.subnet6)[number + 2]) if network.subnet6 else ""
            links[name] = Attachment(name, str(ipaddress.IPv4Network(network.subnet)[number + 2]), six)
        among = "" if links else f"10.213.0.{number + 2}"
        found[f"m{number}"] = Placed(links=links, among=among, router=draw(st.booleans()))
    return found


@settings(deadline=None)
@given(places())
def test_who_meets_is_known_by_addresses_that_are_reached(placed: dict[str, Placed]) -> None:
    ways = Ways(placed, NETWORKS)
    members = {name: tuple(place.links) for name, place in placed.items()}
    routers = [name for name, place in placed.items() if place.router]
    wanted = pairs(members, routers, [name for name in NETWORKS if not NETWORKS[name].isolated])
    for machine, place in placed.items():
        told = ways.names(machine)
        plain = [(name, address) for name, address in told if "." not in name]
        assert {(machine, name) for name, _ in plain if name != machine} == {
            each for each in wanted if each[0] == machine
        }
        near = [ipaddress.ip_network(subnet) for subnet in subnets(place)]
        far = [ipaddress.ip_network(route.to) for route in ways.routes(machine)]
        assert not set(near) & set(far)
        for name, address in plain:
            at = ipaddress.ip_address(address)
            if placed[name].among != address:
                assert any(at in network for network in (*near, *far)), f"'{machine}' has no way to {address}"
        for name, address in told:
            if "." in name:
                other, network = name.split(".")
                link = placed[other].links[network]
                assert address in (link.ip, link.ip6)


def subnets(place: Placed) -> list[str]:
    return [each for name in place.links for each in (NETWORKS[name].subnet, NETWORKS[name].subnet6) if each]


@settings(deadline=None)
@given(places())
def test_the_next_router_is_a_neighbour(placed: dict[str, Placed]) -> None:
    ways = Ways(placed, NETWORKS)
    addresses = {
        address: name
        for name, place in placed.items()
        for link in place.links.values()
        for address in (link.ip, link.ip6)
    }
    for machine, place in placed.items():
        for route in ways.routes(machine):
            at = ipaddress.ip_address(route.via)
            assert any(at in ipaddress.ip_network(subnet) for subnet in subnets(place))
            assert placed[addresses[route.via]].router
            assert addresses[route.via] != machine
            assert at.version == ipaddress.ip_network(route.to).version


def by_hand() -> Ways:
    def link(name: str, number: int) -> Attachment:
        six = f"fd00:{name[1]}::{number}" if NETWORKS[name].subnet6 else ""
        return Attachment(name, f"10.1.{name[1]}.{number}", six)

    return Ways(
        {
            "web": Placed(links={"n1": link("n1", 2)}),
            "gw": Placed(links={"n1": link("n1", 3), "n3": link("n3", 3), "n4": link("n4", 3)}, router=True),
            "db": Placed(links={"n3": link("n3", 4), "n4": link("n4", 4)}),
            "plain": Placed(among="10.213.0.9"),
        },
        NETWORKS,
    )


def test_routes_of_both_kinds() -> None:
    assert by_hand().routes("web") == [Route("10.1.3.0/24", "10.1.1.3"), Route("fd00:3::/64", "fd00:1::3")]
    assert by_hand().routes("gw") == []


def test_names_by_kind_and_network() -> None:
    ways = by_hand()
    assert ways.names("plain") == (("plain", "10.213.0.9"),)
    assert [each for each in ways.names("web") if each[0].startswith("db")] == [
        ("db", "10.1.3.4"),
        ("db", "fd00:3::4"),
        ("db.n3", "10.1.3.4"),
        ("db.n3", "fd00:3::4"),
    ]


@pytest.mark.parametrize("machine", ["web", "gw", "db", "plain"])
def test_scripts(machine: str) -> None:
    """PYTEST_MACHINE_GOLDEN=write makes the files anew, to be read before they are committed."""
    text = by_hand().script(machine)
    path = RENDERED / f"ways-{machine}.sh"
    if os.environ.get("PYTEST_MACHINE_GOLDEN") == "write":
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


def test_who_has_no_routes_any_more_is_told_to_forget_them() -> None:
    script = by_hand().script("web")
    assert telling(None, "", "") == "true\n"
    assert "route flush" in telling(None, "", script)
    assert "route add" not in telling(None, "", script)
    assert telling(None, script, script).count("route flush") == 2
    passing = by_hand().script("gw")
    assert "-F PYTEST-MACHINE 2>" in telling(None, script, passing)
    assert "-A PYTEST-MACHINE" not in telling(None, script, passing)
    assert "127.0.0.1 localhost" in telling("127.0.0.1 localhost\n", "", "")
