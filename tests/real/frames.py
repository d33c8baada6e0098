# ruff: noqa: E501
"""Frames that a hostile machine sends: each a pure function of who is on the network, down to the last byte."""

from __future__ import annotations

import ipaddress
import itertools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Party:
    """A machine on one network."""

    mac: str
    ip: str
    link_local: str
    ip6: str = ""

    @property
    def all6(self) -> tuple[str, ...]:
        return (self.link_local, self.ip6) if self.ip6 else (self.link_local,)


@dataclass(frozen=True)
class Scene:
    """Who sends, against whom, and whom they both know."""

    own: Party
    victim: Party
    third: Party
    gateway: str
    """The host's address on its own bridge."""
    gateway_mac: str


Build = Callable[[Scene], Iterable[bytes]]

IP4, ARP, IP6, TAG, OUTER_TAG = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8
ALL_NODES, ALL_NODES_MAC, EVERYBODY = "ff02::1", "33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff"
BY_FRAGMENT, BY_HOPS, BY_DESTINATION, BY_ROUTE = 44, 0, 60, 43
ECHO = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + b"pytest-machine probe"


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def ethernet(target: str, source: str, kind: int, payload: bytes, *tags: tuple[int, int]) -> bytes:
    """Return a frame, with each tag's type and number."""
    inner = b"".join(struct.pack("!HH", *tag) for tag in tags)
    return (raw(target) + raw(source) + inner + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(source: str, target: str, protocol: int, payload: bytes, *, fragment: int = 0) -> bytes:
    """Return a packet; `fragment`: the header's flags and offset."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, 64, protocol, 0)
    head += packed(source) + packed(target)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def icmp(kind: int, code: int, rest: bytes) -> bytes:
    sum_ = checksum(struct.pack("!BBH", kind, code, 0) + rest)
    return struct.pack("!BBH", kind, code, sum_) + rest


def udp(source: int, target: int, payload: bytes) -> bytes:
    """Return a datagram; without a sum, for which there is a fixed value."""
    return struct.pack("!HHHH", source, target, 8 + len(payload), 0) + payload


def ip6(source: str, target: str, following: int, payload: bytes, hops: int = 255) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), following, hops) + packed(source) + packed(target) + payload


def icmp6(source: str, target: str, kind: int, code: int, rest: bytes) -> bytes:
    body = struct.pack("!BBH", kind, code, 0) + rest
    pseudo = packed(source) + packed(target) + struct.pack("!II", len(body), 58)
    return struct.pack("!BBH", kind, code, checksum(pseudo + body)) + rest


def option(kind: int, mac: str) -> bytes:
    return bytes([kind, 1]) + raw(mac)


def advert(source: str, mac: str, target: str = ALL_NODES) -> bytes:
    """Return what a router says: a default route, a prefix to take an address of, a name server."""
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + packed("2001:db8:bad::")
    server = struct.pack("!BBHI", 25, 3, 0, 3600) + packed("2001:db8:bad::53")
    rest = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + option(1, mac) + prefix + server
    return icmp6(source, target, 134, 0, rest)


def hidden(message: bytes, *, behind: tuple[int, ...]) -> tuple[int, bytes]:
    """Return the first next-header's number, and a message behind extension headers, empty or of one part."""
    following = 58
    for header in reversed(behind):
        fill = (
            struct.pack("!BBHI", following, 0, 0, 7)
            if header == BY_FRAGMENT
            else bytes([following, 0, 1, 4]) + bytes(4)
        )
        if header == BY_ROUTE:
            fill = bytes([following, 0, 4, 0]) + bytes(4)
        message, following = fill + message, header
    return following, message


def ra(
    scene: Scene, *tags: tuple[int, int], source: str = "", to: str = ALL_NODES_MAC, behind: tuple[int, ...] = ()
) -> bytes:
    source = source or scene.own.link_local
    following, message = hidden(advert(source, scene.own.mac), behind=behind)
    return ethernet(to, scene.own.mac, IP6, ip6(source, ALL_NODES, following, message), *tags)


def ra_in_parts(scene: Scene) -> Iterable[bytes]:
    """Yield two fragments, of which the first ends before the message begins."""
    own = scene.own
    message = bytes([58, 0, 1, 4]) + bytes(4) + advert(own.link_local, own.mac)
    for at, more in ((0, 1), (8, 0)):
        part = message[at : at + 8] if more else message[at:]
        yield ethernet(
            ALL_NODES_MAC,
            own.mac,
            IP6,
            ip6(own.link_local, ALL_NODES, BY_FRAGMENT, struct.pack("!BBHI", BY_DESTINATION, 0, at | more, 99) + part),
        )


def neighbour(
    scene: Scene, kind: int, about: str, *, source: str = "", card: str = "", target: str = ALL_NODES, to: str = ALL_NODES_MAC,
    tags: tuple[tuple[int, int], ...] = (),
) -> bytes:  # fmt: skip
    """Return a solicitation (135) or an advertisement (136, which overrides) about an address."""
    source = source or scene.own.link_local
    rest = struct.pack("!I", 0x20000000 if kind == 136 else 0) + packed(about)
    rest += option(2 if kind == 136 else 1, card or scene.own.mac) if source != "::" else b""
    return ethernet(to, scene.own.mac, IP6, ip6(source, target, 58, icmp6(source, target, kind, 0, rest)), *tags)


def claim(
    scene: Scene, operation: int, ip: str, *, card: str = "", asked: str = "", to: str = EVERYBODY,
    tags: tuple[tuple[int, int], ...] = (), source: str = "",
) -> bytes:  # fmt: skip
    """Return an ARP frame that says who has `ip`."""
    body = struct.pack("!HHBBH", 1, IP4, 6, 4, operation) + raw(card or scene.own.mac) + packed(ip)
    return ethernet(to, source or scene.own.mac, ARP, body + bytes(6) + packed(asked or ip), *tags)


def echo(scene: Scene, *, mac: str, ip: str, to: str = EVERYBODY, target: str = "") -> bytes:
    payload = ip4(ip, target or scene.victim.ip, 1, icmp(8, 0, ECHO[4:]))
    return ethernet(to, mac, IP4, payload)


def redirect4(scene: Scene, source: str, *tags: tuple[int, int], fragment: int = 0) -> bytes:
    inner = ip4(scene.victim.ip, "198.51.100.9", 1, icmp(8, 0, bytes(4)))
    said = icmp(5, 1, packed(scene.own.ip) + inner)
    return ethernet(
        scene.victim.mac, scene.own.mac, IP4, ip4(source, scene.victim.ip, 1, said, fragment=fragment), *tags
    )


def smaller4(scene: Scene, victim: str, mac: str, about: str) -> bytes:
    """Return the error that a packet was too large for the way: the kernel asks no socket about an answer to a ping."""
    inner = ip4(victim, about, 1, icmp(0, 0, bytes(4)))
    return ethernet(
        mac, scene.own.mac, IP4, ip4(scene.own.ip, victim, 1, icmp(3, 4, struct.pack("!HH", 0, 600) + inner))
    )


def smaller6(scene: Scene) -> bytes:
    source, target = scene.own.all6[-1], scene.victim.all6[-1]
    about = scene.third.all6[-1]
    inner = ip6(target, about, 58, icmp6(target, about, 129, 0, bytes(4)))
    said = icmp6(source, target, 2, 0, struct.pack("!I", 1280) + inner)
    return ethernet(scene.victim.mac, scene.own.mac, IP6, ip6(source, target, 58, said))


def redirect6(scene: Scene, source: str) -> bytes:
    victim = scene.victim
    rest = bytes(4) + packed(scene.own.link_local) + packed("2001:db8:bad::9") + option(2, scene.own.mac)
    said = icmp6(source, victim.link_local, 137, 0, rest)
    return ethernet(victim.mac, scene.own.mac, IP6, ip6(source, victim.link_local, 58, said))


def dhcp4(scene: Scene, kind: int, to: str = EVERYBODY, *tags: tuple[int, int]) -> bytes:
    fields = (
        struct.pack("!BBBBIHH", 2, 1, 6, 0, 1, 0, 0x8000) + bytes(4) + packed(scene.third.ip) + packed(scene.own.ip)
    )
    fields += bytes(4) + raw(scene.victim.mac).ljust(16, b"\0") + bytes(192)
    options = bytes.fromhex("63825363") + bytes([53, 1, kind, 3, 4]) + packed(scene.own.ip) + b"\xff"
    payload = ip4(scene.own.ip, "255.255.255.255", 17, udp(67, 68, fields + options))
    return ethernet(to, scene.own.mac, IP4, payload, *tags)


def dhcp6(scene: Scene) -> bytes:
    said = udp(547, 546, bytes([7, 0, 0, 1]) + bytes(24))
    target = scene.victim.link_local
    return ethernet(scene.victim.mac, scene.own.mac, IP6, ip6(scene.own.link_local, target, 17, said))


def query4(scene: Scene) -> bytes:
    said = icmp(0x11, 100, bytes(4))
    return ethernet("01:00:5e:00:00:01", scene.own.mac, IP4, ip4(scene.own.ip, "224.0.0.1", 2, said))


def query6(scene: Scene, kind: int) -> bytes:
    source = scene.own.link_local
    alert = bytes([58, 0, 5, 2, 0, 0, 1, 0])
    said = icmp6(source, ALL_NODES, kind, 0, struct.pack("!HH", 1000, 0) + bytes(16))
    return ethernet(ALL_NODES_MAC, scene.own.mac, IP6, ip6(source, ALL_NODES, 0, alert + said, 1))


def lldp(scene: Scene, last: int, mac: str) -> bytes:
    body = bytes([2, 7, 4]) + raw(mac) + bytes([4, 3, 7]) + b"p1" + bytes([6, 2, 0, 120, 0, 0])
    return ethernet(f"01:80:c2:00:00:{last:02x}", mac, 0x88CC, body)


def spanning_tree(mac: str) -> bytes:
    """Return a bridge's claim to be the root, of the highest priority."""
    bpdu = bytes(5) + bytes(2) + raw(mac) + bytes(4) + bytes(2) + raw(mac) + struct.pack("!HHHHH", 0x8001, 0, 20, 2, 15)
    body = b"\x42\x42\x03" + bpdu
    return (raw("01:80:c2:00:00:00") + raw(mac) + struct.pack("!H", len(body)) + body).ljust(60, b"\0")


TAGS = {
    "tagged 0": ((TAG, 0),),
    "tagged 5": ((TAG, 5),),
    "tagged twice": ((OUTER_TAG, 0), (TAG, 0)),
    "tagged by a provider": ((OUTER_TAG, 0),),
}
BEHIND = {
    "behind hop-by-hop": (BY_HOPS,),
    "behind destination options": (BY_DESTINATION,),
    "behind a route": (BY_ROUTE,),
    "as one fragment": (BY_FRAGMENT,),
    "behind hop-by-hop, as one fragment": (BY_HOPS, BY_FRAGMENT),
    "as one fragment, behind options": (BY_FRAGMENT, BY_DESTINATION),
}

ATTACKS: dict[str, Build] = {
    # A router's words.
    "router advertisement": lambda s: [ra(s)],
    "router advertisement from another address": lambda s: [ra(s, source="fe80::1")],
    "router advertisement from the victim's address": lambda s: [ra(s, source=s.victim.link_local)],
    "router advertisement to one": lambda s: [ra(s, to=s.victim.mac)],
    "router advertisement to the host's card": lambda s: [ra(s, to=s.gateway_mac)],
    "router advertisement to all cards": lambda s: [ra(s, to=EVERYBODY)],
    **{
        f"router advertisement to the group {last:02x}": lambda s, last=last: [ra(s, to=f"01:80:c2:00:00:{last:02x}")]  # type: ignore[misc]
        for last in (0x00, 0x02, 0x03, 0x0E)
    },
    **{f"router advertisement {name}": lambda s, tags=tags: [ra(s, *tags)] for name, tags in TAGS.items()},  # type: ignore[misc]
    **{f"router advertisement {name}": lambda s, behind=behind: [ra(s, behind=behind)] for name, behind in BEHIND.items()},  # type: ignore[misc]
    "router advertisement in two fragments": ra_in_parts,
    "router solicitation": lambda s: [
        ethernet(
            "33:33:00:00:00:02", s.own.mac, IP6,
            ip6(s.own.link_local, "ff02::2", 58, icmp6(s.own.link_local, "ff02::2", 133, 0, bytes(4) + option(1, s.third.mac))),
        )
    ],
    "redirect by the gateway's name": lambda s: [redirect4(s, s.gateway)],
    "redirect by a neighbour's name": lambda s: [redirect4(s, s.third.ip)],
    "redirect": lambda s: [redirect4(s, s.own.ip)],
    "redirect, the first of two fragments": lambda s: [redirect4(s, s.own.ip, fragment=0x2000)],
    "redirect, tagged": lambda s: [redirect4(s, s.own.ip, (TAG, 0))],
    "redirect of IPv6": lambda s: [redirect6(s, s.own.link_local)],
    "redirect of IPv6 by a neighbour's name": lambda s: [redirect6(s, s.third.link_local)],
    "router discovery": lambda s: [
        ethernet(EVERYBODY, s.own.mac, IP4, ip4(s.own.ip, "255.255.255.255", 1, icmp(9, 0, bytes([1, 2, 7, 8]) + packed(s.own.ip) + bytes(4))))
    ],
    "too large for the way": lambda s: [smaller4(s, s.victim.ip, s.victim.mac, s.third.ip)],
    "too large for the host's way": lambda s: [smaller4(s, s.gateway, s.gateway_mac, s.third.ip)],
    "too large for the way of IPv6": lambda s: [smaller6(s)],
    # Neighbours of IPv6.
    "advertisement of the victim's address": lambda s: [neighbour(s, 136, a) for a in s.victim.all6],
    "advertisement of a neighbour's address to one": lambda s: [
        neighbour(s, 136, a, target=s.victim.link_local, to=s.victim.mac) for a in s.third.all6
    ],
    "advertisement by a neighbour's name": lambda s: [neighbour(s, 136, a, source=a) for a in s.third.all6],
    "advertisement of another's card": lambda s: [neighbour(s, 136, s.own.link_local, card=s.third.mac)],
    **{
        f"advertisement of a neighbour's address {name}": lambda s, tags=tags: [  # type: ignore[misc]
            neighbour(s, 136, a, tags=tags) for a in s.third.all6
        ]
        for name, tags in TAGS.items()
    },
    "solicitation by a neighbour's name": lambda s: [
        neighbour(s, 135, victim, source=third) for victim, third in zip(s.victim.all6, s.third.all6, strict=True)
    ],
    "solicitation with another's card": lambda s: [neighbour(s, 135, s.victim.link_local, card=s.third.mac)],
    "solicitation whether the victim's address is free": lambda s: [neighbour(s, 135, a, source="::") for a in s.victim.all6],
    # Neighbours of IPv4.
    **{
        f"ARP {kind} of {whose}": lambda s, operation=operation, pick=pick: [claim(s, operation, pick(s), asked=s.victim.ip), claim(s, operation, pick(s))]  # type: ignore[misc]
        for (kind, operation), (whose, pick) in itertools.product(
            {"question": 1, "answer": 2, "reverse answer": 4, "inverse answer": 9}.items(),
            {"a neighbour's address": lambda s: s.third.ip, "the victim's": lambda s: s.victim.ip, "the gateway's": lambda s: s.gateway}.items(),
        )
    },
    "ARP to one": lambda s: [claim(s, 2, s.third.ip, asked=s.victim.ip, to=s.victim.mac)],
    "ARP to the host": lambda s: [claim(s, 1, s.third.ip, asked=s.gateway, to=s.gateway_mac)],
    "ARP with another's card inside": lambda s: [claim(s, 1, s.own.ip, card=s.third.mac, asked=s.victim.ip)],
    "ARP to a group of bridges": lambda s: [claim(s, 1, s.third.ip, asked=s.gateway, to="01:80:c2:00:00:0e")],
    **{
        f"ARP {name}": lambda s, tags=tags: [claim(s, 1, s.third.ip, asked=s.victim.ip, tags=tags)]  # type: ignore[misc]
        for name, tags in TAGS.items()
    },
    # Cards.
    "a neighbour's card": lambda s: [echo(s, mac=s.third.mac, ip=s.own.ip), echo(s, mac=s.third.mac, ip=s.third.ip)],
    "the host's card": lambda s: [echo(s, mac=s.gateway_mac, ip=s.own.ip), claim(s, 1, s.own.ip, source=s.gateway_mac)],
    "a new card": lambda s: [echo(s, mac="02:00:00:00:00:99", ip=s.own.ip)],
    **{
        f"frame to the group of bridges {last:02x}": lambda s, last=last: [lldp(s, last, s.third.mac), lldp(s, last, s.gateway_mac)]  # type: ignore[misc]
        for last in range(16)
    },
    "spanning tree": lambda s: [spanning_tree(s.own.mac), spanning_tree(s.third.mac)],
    "pause": lambda s: [ethernet("01:80:c2:00:00:01", s.third.mac, 0x8808, b"\0\1\xff\xff")],
    # Services and groups.
    "DHCP offer": lambda s: [dhcp4(s, 2)],
    "DHCP acknowledgement to one": lambda s: [dhcp4(s, 5, s.victim.mac)],
    "DHCP acknowledgement, tagged": lambda s: [dhcp4(s, 5, EVERYBODY, (TAG, 0))],
    "DHCP of IPv6": lambda s: [dhcp6(s)],
    "question for groups": lambda s: [query4(s)],
    "question for groups of IPv6": lambda s: [query6(s, 130)],
    "a router for groups of IPv6": lambda s: [query6(s, 151)],
}  # fmt: skip

# What a lab's network lets pass, because routers there pass on packets from others' addresses.
ON_THE_HOSTS_BRIDGE: dict[str, Build] = {
    "a neighbour's address": lambda s: [echo(s, mac=s.own.mac, ip=s.third.ip, to=s.victim.mac)],
    "the gateway's address": lambda s: [echo(s, mac=s.own.mac, ip=s.gateway, to=s.victim.mac)],
}
