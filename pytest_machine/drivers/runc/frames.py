"""The nft table of family ``bridge`` that says which frames a machine may send: a list of what is allowed.

A machine sends from its own card alone. It speaks ARP and IPv6's neighbour discovery about its own addresses alone, and
never as a router or a DHCP server. All else that is neither IPv4, IPv6 nor ARP is dropped: tagged frames (802.1Q and
QinQ), spanning tree, LLDP. On a lab's network routers pass on packets from foreign IP addresses, and a test may give
machines further addresses; there no machine speaks for an address that another one was given.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Groups of frames that bridges keep for themselves (IEEE 802.1D): the kernel hands them to the port, past forwarding.
_LINK_LOCAL = "01:80:c2:00:00:00-01:80:c2:00:00:0f"
# IPv6's extension headers but for fragments (RFC 7045). Behind them a router advertisement would not be seen.
_EXTENSIONS = "0, 43, 60, 135, 139, 140"
# Reports of who listens to which group (RFC 2710, 3810).
_REPORTS = "131, 132, 143"


@dataclass(frozen=True, slots=True)
class Port:
    """A machine's end on the host, and what it may send from."""

    interface: str
    mac: str
    ip: str
    apart: bool = False
    """Whether it talks to the host and the outside alone, because other machines reach it by networks of their lab."""
    sealed: bool = False
    """Whether it answers the host and nobody else, because all networks that it is on are isolated."""
    given6: str = ""
    """The IPv6 address that a lab's network gave it."""
    home: str = ""
    """On a lab's network: the address by which the host reaches it elsewhere."""

    @property
    def ip6(self) -> str:
        """The IPv6 address that the kernel makes of its card (RFC 4291)."""
        octets = bytes.fromhex(self.mac.replace(":", ""))
        interface = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
        return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface))

    @property
    def all6(self) -> tuple[str, ...]:
        """Every IPv6 address that it may speak for."""
        return (self.ip6, self.given6) if self.given6 else (self.ip6,)


def honest(bridge: str, ports: Iterable[Port], *, lab: bool = False, closed: Sequence[str] = ()) -> str:
    """Return the table of a bridge with these ports; `lab`: of a lab's network, on which the host hears no frame.

    `closed` are the subnets of this host's other bridges, for which no machine speaks on a lab's network.
    """
    given = list(ports)
    names = ", ".join(f'"{port.interface}"' for port in given)
    cards = ", ".join(f'"{port.interface}" . {port.mac}' for port in given)
    addresses = ", ".join(f'"{port.interface}" . {ip}' for port in given for ip in (port.ip, port.home) if ip)
    addresses6 = ", ".join(f'"{port.interface}" . {ip6}' for port in given for ip6 in port.all6)
    to_own = ", ".join(f'"{port.interface}" : jump errors-{port.interface}' for port in given)
    to_ask = ", ".join(f'"{port.interface}" : jump asks-{port.interface}' for port in given)
    to_tell = ", ".join(f'"{port.interface}" : jump tells-{port.interface}' for port in given)
    apart = ", ".join(f'"{port.interface}"' for port in given if port.apart)
    # Replaced whole, in one transaction: there is never a moment without it, and no element to keep in step.
    return f"""\
table bridge {bridge}
delete table bridge {bridge}
table bridge {bridge} {{
  set ports {{ type ifname; elements = {{ {names} }} }}
  set cards {{ type ifname . ether_addr; elements = {{ {cards} }} }}
  set addresses {{ type ifname . ipv4_addr; elements = {{ {addresses} }} }}
  set addresses6 {{ type ifname . ipv6_addr; elements = {{ {addresses6} }} }}
{_taken(given, closed) if lab else ""}\
{"".join(_of_port(port, lab=lab) for port in given)}\
  chain unknown {{
    {_others(given) if lab else "drop"}
  }}
  chain speaks-arp {{
    arp htype != 1 drop
    arp ptype != ip drop
    arp hlen != 6 drop
    arp plen != 4 drop
    arp operation != {{ request, reply }} drop
    iifname . arp saddr ether != @cards drop
    iifname . arp saddr ip @addresses accept
    {"arp saddr ip != @taken accept" if lab else ""}
    drop
  }}
  chain speaks-ip4 {{
    {"" if lab else "iifname . ip saddr != @addresses drop"}
    icmp type {{ redirect, router-advertisement }} drop
    igmp type membership-query drop
    udp dport 68 drop
    icmp type {{ destination-unreachable, source-quench, time-exceeded, parameter-problem }} iifname vmap {{ {to_own} }}
    accept
  }}
  chain speaks-ip6 {{
    ip6 saddr fe80::/10 iifname . ip6 saddr != @addresses6 drop
    {"" if lab else "ip6 saddr != fe80::/10 ip6 saddr != :: drop"}
    ip6 nexthdr 0 hbh nexthdr icmpv6 icmpv6 type {{ {_REPORTS} }} accept
    ip6 nexthdr {{ {_EXTENSIONS} }} drop
    frag nexthdr {{ {_EXTENSIONS}, 44 }} drop
    frag frag-off != 0 accept
    udp dport 546 drop
    meta l4proto != icmpv6 accept
    icmpv6 type {{ echo-request, echo-reply, {_REPORTS} }} accept
    icmpv6 type {{ 1, 2, 3, 4 }} iifname vmap {{ {to_own} }}
    ip6 nexthdr != icmpv6 drop
    icmpv6 type nd-neighbor-solicit iifname vmap {{ {to_ask} }}
    icmpv6 type nd-neighbor-advert iifname vmap {{ {to_tell} }}
    drop
  }}
  chain honest {{
    type filter hook prerouting priority -300;
    iifname != @ports accept
    iifname . ether saddr != @cards drop
    ether type arp goto speaks-arp
    ether type ip goto speaks-ip4
    ether type ip6 goto speaks-ip6
    drop
  }}
  chain host {{
    type filter hook input priority -300;
    iifname @ports {"" if lab else f"ether daddr {_LINK_LOCAL} "}drop
  }}{_apart(apart)}
}}
"""


def _taken(ports: Sequence[Port], closed: Sequence[str]) -> str:
    """Return the sets of what machines of a lab's network were given."""
    addresses = ", ".join([*(port.ip for port in ports), *closed])
    addresses6 = ", ".join(ip6 for port in ports for ip6 in port.all6)
    return f"""\
  set taken {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {addresses} }} }}
  set taken6 {{ type ipv6_addr; elements = {{ {addresses6} }} }}
"""


def _others(ports: Sequence[Port]) -> str:
    """Return the rules of a lab's network for what is not the sender's: refused where it is another machine's."""
    six = ", ".join(_bits(ip6) for port in ports for ip6 in port.all6)
    four = ", ".join(_bits(port.ip) for port in ports)
    return f"""\
ether type ip @th,192,32 {{ {four} }} drop
    icmpv6 type {{ 1, 2, 3, 4 }} @th,256,128 {{ {six} }} drop
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} @th,64,128 {{ {six} }} drop
    accept"""


def _of_port(port: Port, *, lab: bool) -> str:
    """Return the chains for what a machine says of addresses: errors about its own packets, its questions, its answers.

    An error carries the packet that it is about. A question and an answer carry the sender's card in their only option,
    of 8 bytes, or have none; a question whether an address is free comes from no address.
    """
    card = port.mac.replace(":", "")
    own = [_bits(ip6) for ip6 in port.all6]
    errors6 = "".join(f"    ether type ip6 @th,256,128 {bits} accept\n" for bits in own)
    free = "".join(f"    ip6 saddr :: @th,64,128 {bits} accept\n" for bits in own)
    tells = "".join(f"    @th,64,128 {bits} accept\n" for bits in own)
    return f"""\
  chain errors-{port.interface} {{
    ether type ip @th,192,32 {_bits(port.ip)} accept
{errors6}\
    goto unknown
  }}
  chain asks-{port.interface} {{
{free}\
    ip6 saddr :: goto unknown
    ip6 length != 24 @th,192,64 != 0x0101{card} drop
    iifname . ip6 saddr @addresses6 accept
    {"ip6 saddr != @taken6 accept" if lab else ""}
    drop
  }}
  chain tells-{port.interface} {{
    ip6 length != 24 @th,192,64 != 0x0201{card} drop
{tells}\
    goto unknown
  }}
"""


def _bits(address: str) -> str:
    """Return an address as the number that a packet carries."""
    found = ipaddress.ip_address(address)
    return f"0x{int(found):0{found.max_prefixlen // 4}x}"


def _apart(names: str) -> str:
    if not names:
        return ""
    return f"""
  chain apart {{
    type filter hook forward priority 0;
    iifname {{ {names} }} drop
    oifname {{ {names} }} drop
  }}"""
