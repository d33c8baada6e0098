"""Bridges, addresses and uid ranges of this host's machines: given out under one lock, given back, never shared.

The ledger (`leases`) says who has what. What is in the kernel is brought in step with it at every call. A bridge comes
with its first machine and goes with its last, and with it all that we changed of the host: its nft table, its two rules
in iptables' FORWARD, IP forwarding.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pytest_machine.errors import BadSpec, DriverError
from pytest_machine.model import Id, Network, Value, names
from pytest_machine.support import clock

from . import cgroups, firewall, kernel
from .command import run
from .frames import Port
from .leases import SLOTS, UID_BASE, UID_COUNT, Bridge, Lease, Ledger, ledger, save, stray_bridges
from .places import locked

# Seconds in which the kernel has removed a dead machine's namespace, and its interfaces with it; 15 ms is usual.
_NAMESPACE_GOES = 0.25

# Private ranges that home routers, clouds' defaults, Docker (172.17 to 172.31, 192.168) and Kubernetes (10.96, 10.244)
# seldom use, tried in order; what the host has a route to is passed over.
_SUBNETS = tuple(f"10.{second}.{third}.0/20" for second in (213, 215, 217, 219) for third in (0, 64, 128, 192))
_LAB_SUBNETS = tuple(f"10.{second}.{third}.0/24" for second in (221, 223, 225, 227) for third in range(256))


def mac(ip: str) -> str:
    """Return the link address of the machine that has `ip`: locally administered, and the same at every boot."""
    return "02:74:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(ip).packed)


def link(id_: Id, index: int) -> str:
    """Return the host's end of a machine's interface."""
    return f"ptm{id_}{index:x}"


def subnet(value: Value) -> str:
    """Return a subnet in which machines have room; raises `ValueError` with the reason."""
    found = ipaddress.IPv4Network(str(value))
    if found.prefixlen > 29:
        raise ValueError("it has no room for machines: /29 is the smallest, as '10.213.0.0/29'")
    return str(found)


def address(value: Value) -> str:
    """Return an address; raises `ValueError` with the reason."""
    return str(ipaddress.IPv4Address(str(value)))


def reserve(id_: Id, *, subnet: str | None, address: str | None, apart: bool = False) -> Lease:
    """Give a machine an address, a uid range and a bridge; again: the same."""
    with locked("ledger"):
        book = ledger()
        if id_ not in book.leases:
            bridge = _bridge_for(book, subnet)
            book.bridges[bridge.name] = bridge
            book.leases[id_] = Lease(id_, *_slot_and_address(book, bridge, address), apart=apart)
            save(book)
        lease = book.leases[id_]
        _raise_bridge(book.bridges[lease.bridge])
        return lease


def _bridge_for(book: Ledger, subnet: str | None) -> Bridge:
    for bridge in book.bridges.values():
        if bridge.network is None and (subnet is None or bridge.subnet == subnet):
            return bridge
    return Bridge(_free_name(book), _free_subnet(book, [subnet] if subnet else _SUBNETS))


def _free_name(book: Ledger) -> str:
    # A bridge that the ledger does not have is left of one that was damaged; its network is not this one's.
    there = stray_bridges(book)
    names = (f"ptm{number}" for number in range(len(book.bridges) + len(there) + 1))
    return next(name for name in names if name not in book.bridges and name not in there)


def _free_subnet(book: Ledger, candidates: Iterable[str]) -> str:
    tried = []
    used = _routes() | {bridge.range for bridge in book.bridges.values()}
    for candidate in candidates:
        wanted = ipaddress.IPv4Network(candidate)
        if not any(wanted.overlaps(other) for other in used):
            return str(wanted)
        tried.append(candidate)
    raise DriverError(
        f"This host already has a route to {names(tried) if len(tried) == 1 else 'every subnet that we know'}.",
        hint="ip route, then choose a free one with the option subnet=, such as '10.99.0.0/24'",
        transient=False,
    )


def _routes() -> set[ipaddress.IPv4Network]:
    found = set()
    for route in json.loads(run("ip", "-json", "-4", "route", "show", "table", "all") or "[]"):
        if route.get("dst", "default") != "default" and route.get("type") not in ("broadcast", "local"):
            found.add(ipaddress.IPv4Network(route["dst"], strict=False))
    return found


def _slot_and_address(book: Ledger, bridge: Bridge, address: str | None) -> tuple[int, str, str]:
    slots = {lease.slot for lease in book.leases.values()}
    taken = book.taken(bridge.name)
    foreign = _subordinate_ranges()
    if address is not None:
        if ipaddress.IPv4Address(address) not in set(bridge.range.hosts()) - {bridge.range[1]}:
            raise BadSpec(
                f"The address '{address}' is not one for a machine on the subnet '{bridge.subnet}'.",
                hint=f"options={{'subnet': ..., 'address': '{bridge.range[2]}'}}",
            )
        if address in taken:
            raise DriverError(f"The address '{address}' belongs to another machine.", hint="leave address= out")
    for slot in range(SLOTS):
        start = UID_BASE + slot * UID_COUNT
        if slot in slots or any(start < last and first < start + UID_COUNT for first, last in foreign):
            continue
        free = address or _free_address(bridge, taken)
        return slot, bridge.name, free
    raise DriverError(f"All {SLOTS} uid ranges of this host are taken.", hint="pytest-machine prune")


def _free_address(bridge: Bridge, taken: set[str]) -> str:
    # The first and last are the network's and broadcast's, the second is the host's.
    for number in range(2, bridge.range.num_addresses - 1):
        if (found := str(bridge.range[number])) not in taken:
            return found
    raise DriverError(f"The subnet '{bridge.subnet}' is full.", hint="pytest-machine prune, or choose a wider subnet=")


def _subordinate_ranges() -> list[tuple[int, int]]:
    """Return the ranges, as first id and the one after the last, that the host's users were given."""
    found = []
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        try:
            lines = path.read_text().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            _, _, numbers = line.partition(":")
            first, _, count = numbers.partition(":")
            if first.isdigit() and count.isdigit():
                found.append((int(first), int(first) + int(count)))
    return found


def _raise_bridge(bridge: Bridge) -> None:
    """Make the bridge. Idempotent."""
    flags = Path(f"/sys/class/net/{bridge.name}/flags")
    if not flags.exists():
        network = bridge.of_lab
        mtu = f"mtu {network.mtu} " if network and network.mtu else ""
        run("ip", "link", "add", *f"{bridge.name} {mtu}type bridge forward_delay 0 mcast_snooping 0".split())
    elif int(flags.read_text(), 16) & kernel.IFF_UP:
        return
    # 1: answer for the addresses of this bridge alone; 8: for none.
    kernel.deafen(bridge.name, arp_ignore=1 if bridge.network is None else 8)
    lines = [f"addr replace {bridge.gateway}/{bridge.range.prefixlen} dev {bridge.name}\n"] * (bridge.network is None)
    run("ip", "-batch", "-", input="".join([*lines, f"link set {bridge.name} up\n"]))


def open_up(name: str, *, again: bool = False) -> None:
    """Put a bridge's rules in force: its machines reach each other and, where the host does, the outside.

    `again`: all that are on it have been so before, so that there is only something to do if the rules are gone.
    """
    if again and firewall.is_open(name):
        return
    with locked("ledger"):
        book = ledger()
        if name not in book.bridges:
            return
        bridge = book.bridges[name]
        network = bridge.of_lab
        ports = _ports(book, name)
        key = (name, network.id if network else "")
        fresh = _opened.get(key, (None, 0.0))[0] == ports and clock.monotonic() - _opened[key][1] < _FRESH
        if fresh and not again:
            return
        if network is not None:
            closed = [each.subnet for each in book.bridges.values() if each.network is None]
            firewall.open_up(name, "", ports, ipv6=bool(network.subnet6), closed=closed)
        elif before := firewall.open_up(name, bridge.subnet, ports):
            book.bridges[name] = replace(bridge, forwarding=before)
            save(book)
        _opened[key] = (ports, clock.monotonic())


_opened: dict[tuple[str, str], tuple[list[Port] | None, float]] = {}
"""For whom this process put a bridge's rules in force last, and when. While they are in the ledger, nobody takes them
away; and of twenty machines that are made at once, the first knows all."""

# Seconds for which rules that were put in force are not looked at again; a firewall's reload may sweep them away.
_FRESH = 1.0


def _ports(book: Ledger, bridge: str) -> list[Port]:
    if book.bridges[bridge].network is not None:
        index = int(bridge.removeprefix("ptm"))
        return [
            Port(link(lease.id, index), mac(ip), ip, given6=address6(book.bridges[bridge], ip), home=lease.ip)
            for lease in book.leases.values()
            if (ip := lease.links.get(bridge))
        ]
    return [
        Port(link(lease.id, 0), mac(lease.ip), lease.ip, lease.apart, book.sealed(lease))
        for lease in book.leases.values()
        if lease.bridge == bridge
    ]


def retire(id_: Id) -> bool:
    """Take down what will take the kernel as long as all the rest, while the machine is being ended.

    That is its interface, or the whole bridge if it is the last on it; then the interface goes with the machine's
    network namespace. Nothing is given back yet: who comes in between finds the bridge in the ledger, and raises it.
    Return whether it was the bridge, for `release`.
    """
    with locked("ledger"):
        book = ledger()
        lease = book.leases.get(id_)
        last = lease and not any(o.bridge == lease.bridge for o in book.leases.values() if o.id != id_)
        if lease and last:
            _lower_bridge(book.bridges[lease.bridge])
    if not last:
        _remove_link(link(id_, 0))
    return bool(last)


def release(id_: Id, *, lowered: bool) -> None:
    """Take back all that a machine had of the host; the last one on a bridge takes the bridge with it.

    `lowered`: it was taken down a moment ago, and that is not done again unless somebody came in between.
    """
    with locked("ledger"):
        book = ledger()
        if (lease := book.leases.pop(id_, None)) is None:
            return
        used = {lease.bridge for lease in book.leases.values()}
        bridge = book.bridges.get(lease.bridge)
        if bridge is not None and bridge.name not in used:
            if not lowered or Path(f"/sys/class/net/{bridge.name}").exists():
                _lower_bridge(bridge)
            del book.bridges[bridge.name]
        elif bridge is not None:
            firewall.guard(bridge.name, _ports(book, bridge.name))
        if not book.leases:
            cgroups.remove_root()
            for stray in stray_bridges(book):
                _remove_link(stray)
        save(book)


def _lower_bridge(bridge: Bridge) -> None:
    """Remove a bridge and every rule that came with it; what is gone already is gone."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=1) as beside:
        # The kernel takes some 50 ms for a bridge, and as long for the rules.
        link_gone = beside.submit(_remove_link, bridge.name)
        firewall.close(bridge.name, bridge.forwarding)
        link_gone.result()


def _remove_link(name: str) -> None:
    path = Path(f"/sys/class/net/{name}")
    if path.exists():
        # It may go with its namespace while we try; only one that stays is an error.
        said = run("ip", "link", "delete", name, check=False)
        if path.exists():
            raise DriverError(f"The interface '{name}' cannot be removed.", facts={"it said": said.strip()})


def plug(lease: Lease, bridge: Bridge, pid: int, *, again: bool = False) -> None:
    """Give the network namespace of `pid` its interface on the bridge, with address and default route.

    `again`: see `open_up`.
    """
    with locked("ledger"):
        _raise_bridge(bridge)
    open_up(bridge.name, again=again)  # before the first frame
    # A namespace begins as its host is: if that forwards, Docker drops nothing that is forwarded. The host does so from
    # its second machine on, and all machines are to be alike.
    forward = "echo 1 >/proc/sys/net/ipv4/ip_forward"
    _connect(link(lease.id, 0), bridge, pid=pid, device="eth0", ip=lease.ip, first=forward)
    if lease.apart:
        # For kernels without nftables for bridges: apart at least from others that are so.
        run("ip", "link", "set", link(lease.id, 0), "type", "bridge_slave", "isolated", "on")


def _connect(end: str, bridge: Bridge, *, pid: int, device: str, ip: str, first: str = "true") -> None:
    network = bridge.of_lab
    mtu = f"mtu {network.mtu} " if network and network.mtu else ""
    # The bridge learns nothing from the machine: its one card is entered by hand, and no frame can move another's.
    run(
        "ip",
        "-batch",
        "-",
        input=f"link add {end} {mtu}type veth peer name {device} {mtu}address {mac(ip)} netns {pid}\n"
        f"link set {end} master {bridge.name}\n"
        f"link set {end} type bridge_slave learning off\n",
    )
    kernel.deafen(end)
    run("bridge", "fdb", "replace", mac(ip), "dev", end, "master", "static")
    kernel.set_up(end)
    first += f"; {_believe_no_router(device)}"
    lines = ["link set lo up", f"addr add {ip}/{bridge.range.prefixlen} dev {device}", f"link set {device} up"]
    if network and (ip6 := address6(bridge, ip)):
        # Nobody else can have it, and its first packets are not to wait until that has been found out.
        lines.append(f"addr add {ip6}/{ipaddress.IPv6Network(network.subnet6).prefixlen} dev {device} nodad")
    if bridge.network is None:
        lines.append(f"route add default via {bridge.gateway}")
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c")
    run(*inside, f"{first}; exec ip -batch -", input="\n".join(lines))


def _believe_no_router(device: str) -> str:
    """Return the command that keeps an interface from believing routers; for kernels without nftables for bridges."""
    settings = "accept_ra autoconf accept_redirects"
    return (
        f"for each in {settings}; do f=/proc/sys/net/ipv6/conf/{device}/$each; [ ! -e $f ] || echo 0 >$f; done"
        f"; echo 0 >/proc/sys/net/ipv4/conf/{device}/accept_redirects"
    )


def unplug(id_: Id) -> None:
    """Remove a machine's interfaces, but give them a moment to go with its network namespace: that is faster."""
    deadline = clock.monotonic() + _NAMESPACE_GOES
    while (left := _links(id_)) and clock.monotonic() < deadline:
        clock.sleep(0.001)
    for name in left:
        _remove_link(name)


def put_aside(id_: Id) -> None:
    """Cut a machine off that is about to end, and have its interfaces' names free; `clear_aside` removes them.

    In a quarter of the time that removing them takes.
    """
    clear_aside(id_)
    for name in _links(id_):
        try:
            # Down: there they are not among those whose senders are looked at, and who boots next has their addresses.
            kernel.set_down(name)
            kernel.rename(name, f"{name}{_ASIDE}")
        except OSError:  # of the 17th interface on, the name is as long as names are; or it went meanwhile
            _remove_link(name)


def clear_aside(id_: Id) -> None:
    """Remove what was put aside."""
    for name in _links(id_):
        if name.endswith(_ASIDE):
            _remove_link(name)


# Behind the number of an interface, which is hexadecimal.
_ASIDE = "o"


def _links(id_: Id) -> list[str]:
    """Return all that carry its name, whatever the ledger says.

    A namespace outlives its processes by minutes where one of them left a connection that cannot be closed any more,
    and would keep the interfaces of labs' networks as long.
    """
    own = link(id_, 0)[:-1]
    return [path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(own)]


def join(id_: Id, network: Network, pid: int) -> str:
    """Put a running machine on a lab's network, made if need be; return its address there."""
    with locked("ledger"):
        book = ledger()
        lease = book.lease(id_)
        before = book.sealed(lease)
        bridge = _lab_bridge(book, network)
        if bridge.name not in lease.links:
            free = _free_address(bridge, book.taken(bridge.name))
            lease = replace(lease, links={**lease.links, bridge.name: free})
            book.bridges[bridge.name] = bridge
            book.leases[id_] = lease
            save(book)
    if book.sealed(lease) != before:
        open_up(lease.bridge)
    return rejoin(lease, bridge, pid)


def address6(bridge: Bridge, ip: str) -> str:
    """Return the IPv6 address of the machine that has `ip` on a bridge: of the same number; empty where it has none."""
    network = bridge.of_lab
    if network is None or not network.subnet6:
        return ""
    return str(ipaddress.IPv6Network(network.subnet6)[int(ipaddress.IPv4Address(ip)) - int(bridge.range[0])])


def rejoin(lease: Lease, bridge: Bridge, pid: int) -> str:
    """Plug a machine into a network that it has an address on, as after a start; return the address."""
    with locked("ledger"):
        _raise_bridge(bridge)
    index = int(bridge.name.removeprefix("ptm"))
    ip = lease.links[bridge.name]
    open_up(bridge.name)  # before the first frame
    if not Path(f"/sys/class/net/{link(lease.id, index)}").exists():
        _connect(link(lease.id, index), bridge, pid=pid, device=f"eth{index}", ip=ip)
    return ip


def leave(id_: Id, network: Network) -> None:
    """Take a machine off a lab's network."""
    with locked("ledger"):
        book = ledger()
        lease = book.leases.get(id_)
        bridge = _bridge_of(book, network.id)
        if lease is None or bridge is None or bridge.name not in lease.links:
            return
        before = book.sealed(lease)
        book.leases[id_] = replace(lease, links={k: v for k, v in lease.links.items() if k != bridge.name})
        save(book)
        _remove_link(link(id_, int(bridge.name.removeprefix("ptm"))))
    if book.sealed(book.leases[id_]) != before:
        open_up(lease.bridge)


def drop(network: Network) -> None:
    """Remove a lab's network, whoever is still on it."""
    with locked("ledger"):
        book = ledger()
        bridge = _bridge_of(book, network.id)
        if bridge is None:
            return
        index = int(bridge.name.removeprefix("ptm"))
        for id_, lease in book.leases.items():
            if bridge.name in lease.links:
                _remove_link(link(id_, index))
                book.leases[id_] = replace(lease, links={k: v for k, v in lease.links.items() if k != bridge.name})
        _lower_bridge(bridge)
        del book.bridges[bridge.name]
        save(book)


def _lab_bridge(book: Ledger, network: Network) -> Bridge:
    existing = _bridge_of(book, network.id)
    if existing is not None:
        return existing
    subnet = _own_subnet(book, network) if network.subnet else _free_subnet(book, _LAB_SUBNETS)
    return Bridge(_free_name(book), subnet, network=network.to_json())


def _own_subnet(book: Ledger, network: Network) -> str:
    """Return the subnet that a lab's network asks for. The host has no address on it, so others may have it too.

    But no machine can be on two that overlap: not on another network of its lab, nor on the one that the host reaches
    it by.
    """
    wanted = ipaddress.IPv4Network(network.subnet)
    for bridge in book.bridges.values():
        other = bridge.of_lab
        if (other is None or other.lab == network.lab) and wanted.overlaps(bridge.range):
            whose = (
                f"the network '{other.name}' of its lab" if other else "the bridge by which this host reaches machines"
            )
            raise DriverError(
                f"The network '{network.name}' cannot have the subnet '{wanted}': it overlaps with that of {whose}.",
                facts={"that one": bridge.subnet},
                hint="choose another: Net(subnet='10.1.0.0/24')",
                transient=False,
            )
    return str(wanted)


def _bridge_of(book: Ledger, id_: Id) -> Bridge | None:
    return next((b for b in book.bridges.values() if b.network and b.network["id"] == id_), None)


def networks() -> list[Network]:
    """Return every lab network of this host."""
    bridges = ledger().bridges.values()
    return [replace(found, subnet=bridge.subnet) for bridge in bridges if (found := bridge.of_lab) is not None]
