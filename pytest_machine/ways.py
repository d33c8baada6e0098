"""What the machines of a lab are told of each other: whom they know by name, and by whom they reach other networks.

Names are in ``/etc/hosts``, of which a container on the machine's own network (``--network host``) gets a copy. Routes
and what a router passes on are gone after a boot, and are told again. All of it is a pure function of where the
machines are; a machine is told only when that has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from . import plan
from .birth import Names
from .machine import Attachment
from .model import Network

# Marks a route as ours, so that those of before are found again: a number that no routing daemon has registered.
_PROTOCOL = "116"
_CHAIN = "PYTEST-MACHINE"

_HOSTS = """\
cat >/etc/.hosts <<'END-OF-HOSTS' && chmod 644 /etc/.hosts || exit
{hosts}END-OF-HOSTS
if cmp -s /etc/.hosts /etc/hosts; then rm /etc/.hosts; else mv /etc/.hosts /etc/hosts; fi || exit
"""
_FLUSH = f"""\
ip -4 route flush proto {_PROTOCOL} 2>/dev/null
ip -6 route flush proto {_PROTOCOL} 2>/dev/null
"""
_FORGET = f"for tables in iptables ip6tables; do $tables -w -F {_CHAIN} 2>/dev/null; done\n"
# Docker drops what is passed on, unless its users' own chain lets it pass; where it has none, nobody drops.
_ROUTER = """\
echo 1 >/proc/sys/net/ipv4/ip_forward || exit
[ ! -e /proc/sys/net/ipv6/conf/all/forwarding ] || echo 1 >/proc/sys/net/ipv6/conf/all/forwarding || exit
"""
_PASS = f"""\
device() {{ set -- $(ip -o address show to "$1"); echo "$2"; }}
pass() {{
  tables=$1
  command -v $tables >/dev/null || return 0
  from=DOCKER-USER
  $tables -w -n -L $from >/dev/null 2>&1 || from=FORWARD
  $tables -w -N {_CHAIN} 2>/dev/null || $tables -w -F {_CHAIN} || return
  $tables -w -C $from -j {_CHAIN} 2>/dev/null || $tables -w -I $from -j {_CHAIN} || return
  for a in $all; do for b in $all; do
    case " $open " in
    *" $a "*) case " $open " in *" $b "*) verdict=$between ;; *) verdict=DROP ;; esac ;;
    *) verdict=DROP ;;
    esac
    [ $a = $b ] || [ -z "$verdict" ] || $tables -w -A {_CHAIN} -i $a -o $b -j $verdict || return
  done; done
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a machine is."""

    links: Mapping[str, Attachment] = field(default_factory=dict)
    """Its place on each of the lab's networks."""
    among: str = ""
    """Its address on its driver's own network, for others that are there too; empty: it reaches others by its lab's."""
    router: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A way to a network that a machine is not on."""

    to: str
    """The network, in CIDR form."""
    via: str
    """The next router's address."""


class Ways:
    """What follows from where all machines of a lab are."""

    def __init__(self, placed: Mapping[str, Placed], networks: Mapping[str, Network]) -> None:
        self._placed = placed
        self._networks = networks
        self._members = {name: tuple(place.links) for name, place in placed.items()}
        self._routers = [name for name, place in placed.items() if place.router]
        self._open = [name for name, network in networks.items() if not network.isolated]
        self._hops = plan.hops(self._members, self._routers, self._open)
        # By IPv6 a way may be another one: all networks on it must have it.
        self._hops6 = plan.hops(self._members, self._routers, [n for n in self._open if networks[n].subnet6])

    def names(self, machine: str) -> Names:
        """Return whom a machine is to know: each under the addresses that it reaches, and ``NAME.NETWORK`` besides."""
        found: list[tuple[str, str]] = []
        for other, place in self._placed.items():
            links = self._reached(machine, other)
            if not links:
                mine = self._placed[machine]
                if place.among and mine.among:
                    found.append((other, place.among))
                continue
            found += [(other, link.ip) for link in links]
            found += [(other, link.ip6) for link in links if self._by_ipv6(machine, link)]
            for link in links:
                addresses = [link.ip, *([link.ip6] if self._by_ipv6(machine, link) else [])]
                found += [(f"{other}.{link.name}", address) for address in addresses]
        return tuple(found)

    def _reached(self, machine: str, other: str) -> list[Attachment]:
        """Return the places of a machine that another one reaches: those that are its own networks first."""
        mine, theirs = self._placed[machine].links, self._placed[other].links
        if other == machine:
            return list(mine.values())
        shared = [theirs[name] for name in mine if name in theirs]
        return shared or [link for name, link in theirs.items() if name in self._hops[machine]]

    def _by_ipv6(self, machine: str, link: Attachment) -> bool:
        return bool(link.ip6) and (link.name in self._members[machine] or link.name in self._hops6[machine])

    def routes(self, machine: str) -> list[Route]:
        """Return by whom a machine reaches the networks that it is not on, in the order of the networks."""
        found = []
        for six, hops in ((False, self._hops), (True, self._hops6)):
            for name, hop in hops[machine].items():
                network, next_ = self._networks[name], self._placed[hop.router].links[hop.network]
                found.append(Route(network.subnet6, next_.ip6) if six else Route(network.subnet, next_.ip))
        return found

    def script(self, machine: str) -> str:
        """Return the shell script that makes a machine's routes, and a router pass on; empty: it has neither."""
        place = self._placed[machine]
        routes = self.routes(machine)
        lines = [
            f"ip -{6 if ':' in r.to else 4} route add {r.to} via {r.via} proto {_PROTOCOL} || exit" for r in routes
        ]
        script = _FLUSH + "".join(f"{line}\n" for line in lines) if lines else ""
        closed = len(place.links) > 1 and not place.links.keys() <= set(self._open)
        if place.router or closed:
            script += _passing(place, self._open)
        return script


def _passing(place: Placed, open_: Collection[str]) -> str:
    """Return the script by which a router passes packets on between its networks, and nobody to an isolated one."""
    every = [f'$(device "{link.ip}")' for link in place.links.values()]
    passing = [f'$(device "{link.ip}")' for name, link in place.links.items() if name in open_]
    return (
        (_ROUTER if place.router else "")
        + _PASS
        + f'all="{" ".join(every)}"\nopen="{" ".join(passing)}"\n'
        # Where nobody is told to route, whoever brings a router of its own is free to.
        + f"between={'ACCEPT' if place.router else ''}\npass iptables && pass ip6tables || exit\n"
    )


def telling(hosts: str | None, script: str, before: str) -> str:
    """Return what a machine is told: its ``/etc/hosts`` if it is another one, and routes in place of those `before`."""
    found = _HOSTS.format(hosts=hosts) if hosts is not None else ""
    for part, undo in ((_FLUSH, _FLUSH), (_PASS, _FORGET)):
        if part in before and part not in script:
            found += undo
    return f"{found}{script}true\n"
