"""The networks that machines are on, in the user's engine, and the addresses that they have there.

::

    pytest-machine          machines reach each other, the outside, and are reached by the engine's computer
    pytest-machine-apart    the same, but machines do not reach each other: those that sit on networks of a lab
    pytest-machine-lab-ID   a lab's network: its machines alone, and no way out

Of a container's networks the one whose name comes first has its way out, so a lab's must come behind those two. A lab's
isolated network is "internal" to Docker. The others are not: on such, Docker lets nothing pass that is from or for
another subnet, and so nothing that a machine passes on for others. The engine's computer has no address on either, but
for IPv6, which Docker cannot be kept from.

A machine has a *slot*, a number that no other machine of the engine has, and in each network the address of that
number. So two networks and any number of a lab's never disagree, and an address is the same after every boot.

Names of networks are not unique to Docker, subnets are; and of two networks that two computers make at once, all agree
that the older one counts.
"""

from __future__ import annotations

import ipaddress
import itertools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pytest_machine.errors import BadSpec, DriverError
from pytest_machine.model import Id, Network
from pytest_machine.support import clock

from . import life, tags
from .outer import Json, Outer, absent, said

OPEN, APART = "pytest-machine", "pytest-machine-apart"

# Neither Docker's own pools (172.17 to 172.31, 192.168) nor those of the other drivers of this package; each is halved.
_BLOCKS = tuple(f"10.{second}.{third}.0/19" for second in (214, 216, 218, 220) for third in (0, 64, 128, 192))
# How often a network that another process creates is looked for, and how many seconds lie between two looks.
_LOOKS, _BETWEEN_LOOKS = 40, 0.05
_LAB_SUBNETS = tuple(f"10.{second}.{third}.0/20" for second in range(222, 254, 2) for third in range(0, 256, 16))
# What Docker says in its several versions, and Podman, when a subnet is taken.
_TAKEN = ("overlap", "already used", "is already in use", "conflicts")


def block(asked: str) -> ipaddress.IPv4Network:
    """Return a block of addresses that was asked for; raises `BadSpec` when it is none, or too small."""
    try:
        found = ipaddress.IPv4Network(asked)
    except ValueError as error:
        raise BadSpec(
            f"'{asked}' is no subnet.", facts={"reason": error}, hint="options={'subnet': '10.214.0.0/19'}"
        ) from error
    if found.prefixlen > 28:
        raise BadSpec(f"The subnet '{asked}' has no room for machines.", hint="options={'subnet': '10.214.0.0/24'}")
    return found


def half(whole: ipaddress.IPv4Network, *, apart: bool) -> ipaddress.IPv4Network:
    """Return the part of a block that one of the two networks has."""
    return list(whole.subnets())[int(apart)]


def base(outer: Outer, *, apart: bool, subnet: str | None) -> ipaddress.IPv4Network:
    """Return the block of addresses of this engine, with the network in it that a machine is to be on.

    Made if it is not there; call it with the engine's lock held.
    """
    name = APART if apart else OPEN
    there = _settled(outer, outer.networks(tags.BLOCK))
    if there:
        whole = block(there[0]["Labels"][tags.BLOCK])
        if subnet is not None and block(subnet) != whole:
            raise DriverError(
                f"The machines of this engine have the subnet '{whole}' already.",
                hint=f"leave subnet= out, or destroy those machines first (docker network inspect {there[0]['Name']})",
            )
        if name not in {each["Name"] for each in there}:
            _make(outer, name, half(whole, apart=apart), {tags.BLOCK: str(whole)}, apart=apart)
        return whole
    for candidate in [subnet] if subnet else _unrouted(outer, _BLOCKS):
        whole = block(candidate)
        if _make(outer, name, half(whole, apart=apart), {tags.BLOCK: str(whole)}, apart=apart):
            # Another computer's process may have been as quick: then the older network counts, for both.
            return block(_first(outer, name)["Labels"][tags.BLOCK])
    raise _none_free(subnet)


def _first(outer: Outer, name: str) -> Json:
    """Return the oldest of the two networks. One that another process creates now appears in the list soon."""
    for _ in range(_LOOKS):
        if there := _settled(outer, outer.networks(tags.BLOCK)):
            return there[0]
        clock.sleep(_BETWEEN_LOOKS)
    raise DriverError(
        f"This engine has a network '{name}' that the driver 'docker' did not create.",
        hint=f"docker network inspect {name}; docker network rm {name}",
    )


def _settled(outer: Outer, found: list[Json]) -> list[Json]:
    """Return those networks that count: of one name the oldest, all of the oldest one's block. The others go."""
    kept: list[Json] = []
    for each in found:
        one_block = not kept or each["Labels"][tags.BLOCK] == kept[0]["Labels"][tags.BLOCK]
        if one_block and each["Name"] not in {other["Name"] for other in kept}:
            kept.append(each)
        else:
            with absent(also=(403, 409)):  # somebody is on it, who came before we looked
                outer.api.remove_network(each["Id"])
    return kept


def _make(
    outer: Outer,
    name: str,
    subnet: ipaddress.IPv4Network,
    labels: tags.Labels,
    *,
    apart: bool = False,
    lab: Network | None = None,
) -> bool:
    """Create a network, unless one of that name is there; return False when its subnet is taken."""
    import docker.errors
    from docker.types import IPAMConfig, IPAMPool

    options = {}
    pools = [IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))]
    if apart:
        options["com.docker.network.bridge.enable_icc"] = "false"
    if lab is not None:
        # The engine's computer has no address on it: it is nobody's neighbour there.
        options["com.docker.network.bridge.inhibit_ipv4"] = "true"
        options["com.docker.network.bridge.enable_ip_masquerade"] = "false"
        if lab.mtu is not None:
            options["com.docker.network.driver.mtu"] = str(lab.mtu)
        if lab.subnet6:
            six = ipaddress.IPv6Network(lab.subnet6)
            pools.append(IPAMPool(subnet=str(six), gateway=str(six[1])))
    try:
        outer.api.create_network(
            name,
            driver="bridge",
            options=options,
            ipam=IPAMConfig(pool_configs=pools),
            labels=labels,
            internal=lab is not None and lab.isolated,
            enable_ipv6=lab is not None and bool(lab.subnet6),
        )
    except docker.errors.APIError as error:
        words = said(error).lower()
        # Before Docker 25, two networks may have one name.
        if error.status_code == 409 and "already exists" in words:
            return True
        if any(word in words for word in _TAKEN):
            return False
        raise
    return True


def _none_free(subnet: str | None) -> DriverError:
    return DriverError(
        f"The subnet '{subnet}' is taken in this engine." if subnet else "This engine has no subnet left that we know.",
        hint="docker network ls, then choose a free one with the option subnet=, such as '10.99.0.0/19'",
    )


def _unrouted(outer: Outer, candidates: Iterable[str]) -> Iterable[str]:
    """Leave out what this computer has a route to already, where the engine's networks will be this computer's.

    Docker does so for subnets that it chooses itself, and not for those that it is given.
    """
    if sys.platform != "linux" or not outer.endpoint.is_near:
        return candidates
    used = routes()
    return [each for each in candidates if not any(ipaddress.IPv4Network(each).overlaps(other) for other in used)]


def routes(table: Path = Path("/proc/net/route")) -> list[ipaddress.IPv4Network]:
    """Return the networks in the kernel's table of routes, but for the default one."""
    try:
        lines = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    # Hexadecimal, in the byte order of the processor; here that is little-endian everywhere.
    numbers = [
        [int.from_bytes(bytes.fromhex(words[at])[::-1], "big") for at in (1, 7)] for words in lines if len(words) > 7
    ]
    return [ipaddress.IPv4Network((to, mask.bit_count())) for to, mask in numbers if mask]


def drop_base(outer: Outer) -> None:
    """Remove the networks of all machines, unless somebody is on them; call it with the engine's lock held."""
    for each in outer.networks(tags.BLOCK):
        with absent(also=(403, 409)):
            outer.api.remove_network(each["Id"])


# ---------------------------------------------------------------------------------------------------- a lab's networks


def name_of(id_: Id) -> str:
    """Return what a lab's network is called in the engine."""
    return f"pytest-machine-lab-{id_}"


def lab(outer: Outer, network: Network) -> Json:
    """Return a lab's network, made if it is not there."""
    with outer.lock():
        if there := outer.networks(f"{tags.NETWORK_ID}={network.id}"):
            return there[0]
        for candidate in [network.subnet] if network.subnet else _unrouted(outer, _LAB_SUBNETS):
            made = replace(network, subnet=candidate)
            subnet = ipaddress.IPv4Network(candidate)
            if _make(outer, name_of(network.id), subnet, tags.of_network(made), lab=made):
                return outer.networks(f"{tags.NETWORK_ID}={network.id}")[0]
    if network.subnet:
        raise DriverError(
            f"The network '{network.name}' cannot have the subnet '{network.subnet}': another one of this engine has"
            " it, or a part of it, and Docker lets no two networks have the same.",
            hint="docker network ls; leave subnet= out, or take the driver 'runc', whose labs may have equal ones",
        )
    raise _none_free("")


def subnet_of(network: Json) -> ipaddress.IPv4Network:
    """Return a network's subnet, as the engine tells of it."""
    return ipaddress.IPv4Network(network["IPAM"]["Config"][0]["Subnet"])


def join(outer: Outer, container: Json, network: Network) -> str:
    """Put a machine's container on a lab's network; return its address there. Again: the same."""
    there = lab(outer, network)
    on = container["NetworkSettings"]["Networks"]
    if there["Name"] in on:
        return addresses(on[there["Name"]])[0]
    subnet = subnet_of(there)
    with outer.lock():
        number = _number(outer, there, subnet, int(container["Labels"][tags.SLOT]), network.name)
        six = str(ipaddress.IPv6Network(network.subnet6)[number]) if network.subnet6 else None
        outer.api.connect_container_to_network(
            container["Id"], there["Id"], ipv4_address=str(subnet[number]), ipv6_address=six
        )
    settle(outer, container["Id"], network)
    return str(subnet[number])


def _number(outer: Outer, there: Json, subnet: ipaddress.IPv4Network, slot: int, name: str) -> int:
    """Return which of a subnet's addresses a machine gets: that of its slot, where it fits, else the first free one."""
    members: list[Json] = outer.api.containers(all=True, filters={"network": there["Id"]})
    taken = {addresses(each["NetworkSettings"]["Networks"][there["Name"]])[0] for each in members}
    # The last is everybody's, the first two are the network's own and a router's.
    last: int = subnet.num_addresses - 1
    for number in itertools.chain([slot], range(2, last)):
        if number < last and str(subnet[number]) not in taken:
            return number
    raise DriverError(
        f"The subnet '{subnet}' of the network '{name}' has no room for one more machine.", hint="give it a wider one"
    )


def addresses(link: Mapping[str, Json]) -> tuple[str, str]:
    """Return a container's addresses on a network, of IPv4 and IPv6, running or not; empty where it has none."""
    asked = link["IPAMConfig"] or {}
    return (
        str(link["IPAddress"] or asked.get("IPv4Address", "")),
        str(link["GlobalIPv6Address"] or asked.get("IPv6Address", "")),
    )


def settle(outer: Outer, container: str, changed: Network) -> None:
    """See to it that a machine has no other way out than it is to have, now that it is on a network or off it."""
    told = outer.api.inspect_container(container)
    on = told["NetworkSettings"]["Networks"]
    theirs = [tags.network(each["Labels"]) for each in outer.networks(tags.NETWORK_ID) if each["Name"] in on]
    lab = [each for each in theirs if each is not None]
    if told["State"]["Running"] and any(each.isolated or each.subnet6 for each in (changed, *lab)):
        closed = APART in on and bool(lab) and all(each.isolated for each in lab)
        life.seal(outer, container, addresses(on[APART])[0] if closed else "")


def leave(outer: Outer, container: Json, network: Network) -> None:
    """Take a machine's container off a lab's network; one that is not on it: nothing happens."""
    name = name_of(network.id)
    if name in container["NetworkSettings"]["Networks"]:
        with absent():
            outer.api.disconnect_container_from_network(container["Id"], name, force=True)
        settle(outer, container["Id"], network)


def drop(outer: Outer, network: Network) -> None:
    """Remove a lab's network, whoever is still on it."""
    for there in outer.networks(f"{tags.NETWORK_ID}={network.id}"):
        for container in outer.api.containers(all=True, filters={"network": there["Id"]}):
            with absent(also=(403,)):
                outer.api.disconnect_container_from_network(container["Id"], there["Id"], force=True)
        with absent():
            outer.api.remove_network(there["Id"])
