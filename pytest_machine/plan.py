"""Topology: the machines and networks of a lab, declared as one value; and what follows from it without a machine.

What is wrong with it can be said when tests are collected, because all of it is pure: which machines there are, whether
a subnet has room for them, by which routers they reach each other. `check` says it; nothing else here raises for values
that make no sense, so that a declaration in a module is no error before a test wants it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from .errors import BadSpec
from .model import Id, check_name, names
from .support.given import read_text

Members = Mapping[str, Sequence[str]]
"""Machine → the networks that it sits on."""

# What every Docker takes for its own first network (`docker0`), unless its option "bip" says otherwise.
_DOCKERS = ipaddress.IPv4Network("172.17.0.0/16")
# Linux takes less, but no TCP works well with it; more no virtual Ethernet of Linux takes. IPv6 wants 1280 (RFC 8200).
_MTU, _MTU6, _MTU_MOST = 576, 1280, 65535
# Addresses of a subnet that no machine gets: the network's own, one that Docker keeps for a router, and everybody's.
_RESERVED = 3
_UNITS = {"": 1, "bit": 1, "kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}


def bits(rate: str | int) -> int:
    """Return bits a second: ``"1mbit"``, or a number; raises `BadSpec`."""
    match = re.fullmatch(r"([\d.]+)\s*([a-z]*)", str(rate).lower())
    try:
        found = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    except (KeyError, ValueError):
        found = 0
    if found < 8_000:  # a packet of full size would take seconds
        raise BadSpec(f"A rate cannot be '{rate}'.", hint="bits a second, from 8kbit: '512kbit', '1mbit', '1gbit'")
    return found


def check_network(name: str) -> str:
    """Return `name` if a network may be called so, which is as a machine may; raise `BadSpec` otherwise."""
    try:
        return check_name(name)
    except BadSpec as error:
        raise BadSpec(
            f"A network cannot be called '{name}'.", facts=error.facts, hint="choose a name such as 'front'"
        ) from error


def ula(id_: Id) -> str:
    """Return the IPv6 subnet that nobody else has of a network: its id is the forty random bits that RFC 4193 wants."""
    return f"fd{id_[:2]}:{id_[2:6]}:{id_[6:]}::/64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A network of a `Topology`."""

    subnet: str = ""
    """IPv4, in CIDR form: ``"10.1.0.0/24"``. Two labs may have the same. Empty: a free one."""
    ipv6: bool | str = False
    """Whether its machines have IPv6 addresses too; or the subnet of those: ``"fd00:1::/64"``."""
    mtu: int | None = None
    """Bytes of the largest packet, 576 to 65535, with IPv6 from 1280; None: the driver's, which is 1500."""
    isolated: bool = False
    """Whether nothing leads out of it: who sits on such alone reaches neither the outside nor other networks."""


@dataclass(frozen=True, init=False)
class Role:
    """Machines of one kind: ``Role(count=2, networks=["front"], memory="1g")``.

    Besides those below it takes every argument of the mark that describes a machine: ``driver=``, ``image=``, ...
    One machine is called as the role is, several have numbers: ``web-1``, ``web-2``.
    """

    count: int
    networks: tuple[str, ...]
    router: bool
    """Whether others reach networks by it that they are not on: it passes on what is not for itself."""
    arguments: Mapping[str, object]

    def __init__(
        self, *, count: int = 1, networks: Sequence[str] = (), router: bool = False, **arguments: object
    ) -> None:
        given = (networks,) if isinstance(networks, str) else networks
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "networks", tuple(given) if isinstance(given, list | tuple) else given)
        object.__setattr__(self, "router", router)
        object.__setattr__(self, "arguments", dict(arguments))

    def __hash__(self) -> int:
        return hash((self.count, self.networks, self.router, tuple(sorted(self.arguments))))


@dataclass(frozen=True, init=False)
class Link:
    """What packets between two go through at all times: ``Link("web", "db", delay=0.02, rate="10mbit")``.

    The ends are machines or roles; a role and itself: all of its machines. Both ways, unless `one_way`.
    """

    between: tuple[str, str]
    network: str | None
    """On one network alone; None: on whichever they meet."""
    delay: float
    """Seconds that a packet takes longer, each way."""
    jitter: float
    """Seconds more or less."""
    loss: float
    """Which part of the packets is lost, each way: 0.01 is one in a hundred."""
    rate: str | int | None
    """Bits a second, each way: ``"10mbit"``; None: as fast as it goes."""
    one_way: bool
    """Whether it is only what the first sends to the second."""

    def __init__(
        self,
        *between: str,
        network: str | None = None,
        delay: float = 0.0,
        jitter: float = 0.0,
        loss: float = 0.0,
        rate: str | int | None = None,
        one_way: bool = False,
    ) -> None:
        for name, value in (
            ("between", between), ("network", network), ("delay", delay), ("jitter", jitter), ("loss", loss),
            ("rate", rate), ("one_way", one_way),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return " and ".join(f"'{each}'" for each in self.between)


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """A `Link`, for one sender and one receiver."""

    sender: str
    receiver: str
    network: str | None = None
    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    rate: int = 0
    """Bits a second; 0: as fast as it goes."""


@dataclass(frozen=True, slots=True)
class Hop:
    """The next router on the way to a network."""

    network: str
    """Where both are."""
    router: str
    """The machine."""


@dataclass(frozen=True, init=False)
class Topology:
    """Machines, their networks and the links between them: ``Topology(networks={...}, roles={...}, links=[...])``.

    Declared once and used by many tests: ``@pytest.mark.machine(topology=...)``. `Topology.read` reads one from a file.
    Where a value of another kind says all there is to say, it will do: a table for a `Net`, `Role` or `Link`.
    """

    networks: Mapping[str, Net]
    roles: Mapping[str, Role]
    links: tuple[Link, ...]
    place: str = field(compare=False)
    """The file that it was read from, for errors; empty: none."""

    def __init__(
        self,
        *,
        networks: Mapping[str, Net | Mapping[str, Any]] | Iterable[str] = (),
        roles: Mapping[str, Role | Mapping[str, Any]],
        links: Iterable[Link | Mapping[str, Any]] = (),
        place: str = "",
    ) -> None:
        given = networks if isinstance(networks, Mapping) else {name: Net() for name in networks}
        object.__setattr__(self, "place", place)
        object.__setattr__(self, "networks", {k: self._made(Net, "networks", k, v) for k, v in given.items()})
        object.__setattr__(self, "roles", {k: self._made(Role, "roles", k, v) for k, v in roles.items()})
        made = (self._made(Link, "links", str(number), link) for number, link in enumerate(links, 1))
        object.__setattr__(self, "links", tuple(made))

    def __hash__(self) -> int:
        return hash((tuple(self.networks), tuple(self.roles), len(self.links)))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Return the topology that a TOML file declares; raises `BadSpec` when it is none. See `check` for the rest."""
        import tomllib

        place = Path(path)
        try:
            data = tomllib.loads(read_text(place, "it"))
        except OSError as error:
            raise BadSpec(
                f"The topology '{place}' cannot be read.",
                facts={"reason": error.strerror or error},
                hint="write its path as seen from the test's folder, or from pytest's rootdir",
            ) from error
        except (ValueError, RecursionError) as error:  # TOML's own, and what is no UTF-8
            raise BadSpec(
                f"The topology '{place}' is no TOML.", facts={"reason": error}, hint="[networks.front], [roles.web]"
            ) from error
        return cls.from_json(data, place=str(path))

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, place: str = "") -> Self:
        """Return the topology in tables, as TOML and JSON have them; raises `BadSpec`."""
        facts = {"file": place} if place else {}
        for key, kind in data.items():
            if key not in ("networks", "roles", "links"):
                raise BadSpec(
                    f"A topology has no '{key}'.", facts=facts, hint="it has [networks.NAME], [roles.NAME], [[links]]"
                )
            wanted = list if key == "links" else Mapping
            if not isinstance(kind, wanted):
                how = "[[links]]" if key == "links" else f"[{key}.NAME]"
                raise BadSpec(f"'{key}' of a topology is not as it should be.", facts=facts, hint=f"write {how}")
        return cls(
            networks=data.get("networks", {}), roles=data.get("roles", {}), links=data.get("links", ()), place=place
        )

    def to_json(self) -> dict[str, object]:
        """Return this as values that `json` can write, without what only the making of machines needs."""
        return {
            "networks": {
                name: {f.name: getattr(net, f.name) for f in fields(Net)} for name, net in self.networks.items()
            },
            "roles": {
                name: {"count": role.count, "networks": list(role.networks), "router": role.router}
                for name, role in self.roles.items()
            },
            "links": [{f.name: getattr(link, f.name) for f in fields(Link)} for link in self.links],
        }

    def _made(self, kind: type, table: str, name: str, given: object) -> object:
        """Return a value of a kind, made of a table if it is none; raises `BadSpec` for words that nobody knows."""
        if isinstance(given, kind):
            return given
        where = f"links[{name}]" if table == "links" else f"{table}.{name}"
        if not isinstance(given, Mapping):
            raise self._bad(f"'{where}' of a topology is no table.", {}, f"write [{table}.{name}]")
        said = dict(given)
        if kind is not Role:
            known = [f.name for f in fields(kind)]
            for key in said.keys() - set(known):
                raise self._bad(f"'{where}' of a topology has no '{key}'.", {"known": names(known)}, "take it out")
        between = said.pop("between", ()) if kind is Link else ()
        if not isinstance(between, list | tuple):
            between = (between,)
        return kind(*between, **said)

    # What follows from it.

    @property
    def members(self) -> dict[str, tuple[str, ...]]:
        """Its machines in order, and the networks of each."""
        return {name: role.networks for role_name, role in self.roles.items() for name in self.of_role(role_name)}

    @property
    def routers(self) -> tuple[str, ...]:
        """Those of its machines that pass on what is not for themselves."""
        return tuple(name for each, role in self.roles.items() if role.router for name in self.of_role(each))

    @property
    def open(self) -> tuple[str, ...]:
        """Its networks that are not isolated."""
        return tuple(name for name, net in self.networks.items() if not net.isolated)

    def of_role(self, name: str) -> list[str]:
        """Return the names of a role's machines."""
        role = self.roles[name]
        return [name] if role.count == 1 else [f"{name}-{number}" for number in range(1, role.count + 1)]

    def impairments(self, members: Iterable[str] | None = None) -> list[Impairment]:
        """Return what the links do, for each sender and receiver among these machines; None: its own."""
        known = list(self.members if members is None else members)
        found = []
        for link in self.links:
            rate = bits(link.rate) if link.rate is not None else 0
            for sender, receiver in self._ends(link):
                if sender in known and receiver in known:
                    ways = [(sender, receiver)] if link.one_way else [(sender, receiver), (receiver, sender)]
                    found += [
                        Impairment(sender=a, receiver=b, network=link.network, delay=float(link.delay),
                                   jitter=float(link.jitter), loss=float(link.loss), rate=rate)
                        for a, b in ways
                    ]  # fmt: skip
        # A role and itself: each pair is met from both of its ends.
        return list(dict.fromkeys(found))

    def _ends(self, link: Link) -> Iterator[tuple[str, str]]:
        first, second = ([each] if each not in self.roles else self.of_role(each) for each in link.between)
        for a in first:
            yield from ((a, b) for b in second if a != b)

    # What can be wrong with it.

    def check(self, members: Members | None = None, routers: Collection[str] | None = None) -> None:
        """Raise `BadSpec` when it cannot be made: a sentence, and what to do.

        `members` and `routers` are the lab's machines where it has others than these: marks can add some.
        """
        self._check_roles()
        for name, net in self.networks.items():
            self._check_net(name, net)
        self._check_overlaps()
        there = self.members if members is None else members
        routing = self.routers if routers is None else routers
        for name, own in there.items():
            for each in own:
                if each not in self.networks:
                    raise self._bad(
                        f"The machine '{name}' is to sit on the network '{each}', and there is none.",
                        {"networks": names(self.networks)},
                        f"declare it: [networks.{each}], or Topology(networks={{'{each}': Net()}})",
                    )
        self._check_room(there)
        check_routers(there, routing, {name for name, net in self.networks.items() if net.isolated}, self.place)
        ways = hops(there, routing, self.open)
        for link in self.links:
            self._check_link(link, there, ways)

    def _check_roles(self) -> None:
        if not self.roles:
            raise self._bad("A topology without machines is none.", {}, "Topology(roles={'web': Role()})")
        found: dict[str, str] = {}
        for name, role in self.roles.items():
            count: object = role.count
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise self._bad(f"The role '{name}' cannot have count={count!r}.", {}, "a whole number, 1 or more")
            if not isinstance(role.networks, tuple) or not all(isinstance(each, str) for each in role.networks):
                raise self._bad(f"The networks of the role '{name}' are no list of names.", {}, "networks = ['front']")
            if len(set(role.networks)) < len(role.networks):
                raise self._bad(f"The role '{name}' names a network twice.", {}, "name each once")
            if not isinstance(role.router, bool):
                raise self._bad(f"The role '{name}' cannot have router={role.router!r}.", {}, "True or False")
            for machine in self.of_role(name):
                check_name(machine)
                if machine in found:
                    raise self._bad(
                        f"Two roles have a machine '{machine}'.",
                        {"roles": f"'{found[machine]}' and '{name}'"},
                        "give one of them another name",
                    )
                found[machine] = name

    def _check_net(self, name: str, net: Net) -> None:
        check_network(name)
        self._subnet(name, net)
        self._subnet6(name, net)
        for key in ("isolated",):
            if not isinstance(getattr(net, key), bool):
                raise self._bad(f"The network '{name}' cannot have {key}={net.isolated!r}.", {}, "True or False")
        least = _MTU6 if net.ipv6 else _MTU
        mtu: object = net.mtu
        if mtu is None:
            return
        if not isinstance(mtu, int) or isinstance(mtu, bool) or not least <= mtu <= _MTU_MOST:
            why = "IPv6 takes 1280 bytes at least" if net.ipv6 and isinstance(mtu, int) and mtu >= _MTU else ""
            raise self._bad(
                f"The network '{name}' cannot have an MTU of {mtu!r}.",
                {"reason": why} if why else {},
                f"bytes, {least} to {_MTU_MOST}: mtu=1400",
            )

    def _subnet(self, name: str, net: Net) -> ipaddress.IPv4Network | None:
        if net.subnet == "":
            return None
        try:
            found = ipaddress.IPv4Network(net.subnet)
        except ValueError as error:
            raise self._no_subnet(name, net.subnet, error, "'10.1.0.0/24'") from error
        if (
            found.is_loopback
            or found.is_multicast
            or found.is_link_local
            or found.is_unspecified
            or not found.prefixlen
        ):
            raise self._no_subnet(name, net.subnet, "it is not for machines", "'10.1.0.0/24'")
        return found

    def _subnet6(self, name: str, net: Net) -> ipaddress.IPv6Network | None:
        if isinstance(net.ipv6, bool):
            return None
        try:
            found = ipaddress.IPv6Network(net.ipv6)
        except ValueError as error:
            raise self._no_subnet(name, net.ipv6, error, "True, or 'fd00:1::/64'") from error
        if found.is_loopback or found.is_multicast or found.is_link_local or not found.prefixlen:
            raise self._no_subnet(name, net.ipv6, "it is not for machines", "'fd00:1::/64'")
        return found

    def _no_subnet(self, name: str, given: object, reason: object, example: str) -> BadSpec:
        return self._bad(f"The network '{name}' cannot have the subnet {given!r}.", {"reason": reason}, example)

    def _check_overlaps(self) -> None:
        for pick in (self._subnet, self._subnet6):
            known: dict[str, Any] = {}
            for name, net in self.networks.items():
                found = pick(name, net)
                if found is None:
                    continue
                for other, theirs in known.items():
                    if found.overlaps(theirs):
                        raise self._bad(
                            f"The networks '{other}' and '{name}' overlap.",
                            {other: theirs, name: found},
                            "give one of them another subnet; two labs may have the same, two networks of one may not",
                        )
                if found.version == 4 and found.overlaps(_DOCKERS) and not self._bips(name):
                    raise self._bad(
                        f"The subnet of the network '{name}' is that of Docker's own network in its machines.",
                        {name: found, "docker0": _DOCKERS},
                        "choose another, such as '10.1.0.0/24', or move Docker's: engine_options={'bip': ...}",
                    )
                known[name] = found

    def _bips(self, network: str) -> bool:
        """Whether the Dockers of all machines on a network have been told another subnet for their own."""
        options = [role.arguments.get("engine_options") for role in self.roles.values() if network in role.networks]
        return all(isinstance(each, Mapping) and "bip" in each for each in options)

    def _check_room(self, members: Members) -> None:
        for name, net in self.networks.items():
            count = sum(name in own for own in members.values())
            for found in (self._subnet(name, net), self._subnet6(name, net)):
                if found is not None and found.num_addresses - _RESERVED < count:
                    raise self._bad(
                        f"The subnet of the network '{name}' is too small for its machines.",
                        {
                            "subnet": found,
                            "it has room for": max(0, found.num_addresses - _RESERVED),
                            "machines": count,
                        },
                        f"give it a wider one, such as '{found.network_address}/{_prefix(found, count)}'",
                    )

    def _check_link(self, link: Link, members: Members, ways: Mapping[str, Mapping[str, Hop]]) -> None:
        if len(link.between) != 2:
            raise self._bad(
                f"A link has two ends, and one has {len(link.between)}.", {}, "Link('web', 'db', loss=0.01)"
            )
        for end in link.between:
            if end not in self.roles and end not in members:
                raise self._bad(
                    f"The link between {link} has an end that is no machine and no role: '{end}'.",
                    {"roles": names(self.roles), "machines": names(members)},
                    "name one of those",
                )
        if link.network is not None and link.network not in self.networks:
            raise self._bad(
                f"The link between {link} is to be on the network '{link.network}', and there is none.",
                {"networks": names(self.networks)},
                "name one of those, or leave network= out",
            )
        self._check_values(link)
        pairs = [pair for pair in self._ends(link) if set(pair) <= set(members)]
        if not pairs:
            raise self._bad(f"The link between {link} has one end.", {}, "a link is between two machines")
        for a, b in pairs:
            if link.network is not None and not all(link.network in members[each] for each in (a, b)):
                raise self._bad(
                    f"The link between {link} is to be on the network '{link.network}', and not both are on it.",
                    {f"networks of '{each}'": names(members[each]) for each in (a, b)},
                    f"put both on it: networks=['{link.network}']",
                )
            if not meet(a, b, members, ways):
                raise self._bad(
                    f"There is a link between '{a}' and '{b}', and no way: they share no network, and no router leads"
                    " from one to the other.",
                    {f"networks of '{each}'": names(members[each]) for each in (a, b)},
                    "put both on one network, or give a machine that is on both of theirs router=True",
                )

    def _check_values(self, link: Link) -> None:
        for key, most in (("delay", 3600), ("jitter", 3600), ("loss", 1)):
            value = getattr(link, key)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
                unit = "a part of all packets: 0.01" if key == "loss" else "seconds: 0.02"
                raise self._bad(f"The link between {link} cannot have {key}={value!r}.", {}, unit)
        if not isinstance(link.one_way, bool):
            raise self._bad(f"The link between {link} cannot have one_way={link.one_way!r}.", {}, "True or False")
        if link.rate is not None:
            try:
                bits(link.rate)
            except BadSpec as error:
                raise self._bad(f"The link between {link} cannot have rate={link.rate!r}.", {}, error.hint) from error
        if not (link.delay or link.jitter or link.loss or link.rate):
            raise self._bad(f"The link between {link} does nothing.", {}, "delay=0.02, loss=0.01 or rate='10mbit'")

    def _bad(self, sentence: str, facts: Mapping[str, object], hint: str) -> BadSpec:
        return _refused(sentence, facts, hint, self.place)


def _refused(sentence: str, facts: Mapping[str, object], hint: str, place: str) -> BadSpec:
    return BadSpec(sentence, facts={**facts, **({"file": place} if place else {})}, hint=hint)


def _prefix(subnet: ipaddress.IPv4Network | ipaddress.IPv6Network, count: int) -> int:
    """Return the length of a prefix that leaves room for so many machines."""
    return subnet.max_prefixlen - (count + _RESERVED - 1).bit_length()


def check_routers(members: Members, routers: Collection[str], isolated: Collection[str], place: str = "") -> None:
    """Raise `BadSpec` for a router that has nothing to route between: two networks that are not isolated."""
    for name in routers:
        own = members.get(name, ())
        if len(set(own) - set(isolated)) < 2:
            facts = {"its networks": names(own)} | ({"isolated": names(isolated)} if set(own) & set(isolated) else {})
            raise _refused(
                f"The machine '{name}' is to route, and sits on fewer than two networks that lead anywhere.",
                facts,
                "put it on two that are not isolated: networks=['front', 'back']",
                place,
            )


# ------------------------------------------------------------------------------------------------ who reaches whom, how


def hops(members: Members, routers: Collection[str], open_: Collection[str]) -> dict[str, dict[str, Hop]]:
    """Return for each machine by which router it reaches each network that it is not on: machine → network → `Hop`.

    By the fewest routers; of several ways that are equally short, the one whose networks and routers come first. Only
    networks in `open_` are passed through, begun from or reached.
    """
    on: dict[str, list[str]] = {}
    for name, own in members.items():
        if name in routers:
            for network in own:
                on.setdefault(network, []).append(name)
    found: dict[str, dict[str, Hop]] = {}
    for name, own in members.items():
        first: dict[str, Hop | None] = {network: None for network in own if network in open_}
        waiting = deque(first)
        while waiting:
            network = waiting.popleft()
            for router in on.get(network, ()):
                if router == name:
                    continue
                for beyond in members[router]:
                    if beyond not in first and beyond in open_:
                        first[beyond] = first[network] or Hop(network, router)
                        waiting.append(beyond)
        found[name] = {network: hop for network, hop in first.items() if hop is not None}
    return found


def meet(a: str, b: str, members: Members, ways: Mapping[str, Mapping[str, Hop]]) -> bool:
    """Whether two machines reach each other over the lab's networks: they share one, or a router leads there.

    Machines that sit on none share their driver's own.
    """
    if not members[a] and not members[b]:
        return True
    return bool(set(members[a]) & set(members[b])) or any(network in ways[a] for network in members[b])


def pairs(members: Members, routers: Collection[str], open_: Collection[str]) -> frozenset[tuple[str, str]]:
    """Return every (sender, receiver) that reach each other; all others do not."""
    ways = hops(members, routers, open_)
    return frozenset((a, b) for a in members for b in members if a != b and meet(a, b, members, ways))
