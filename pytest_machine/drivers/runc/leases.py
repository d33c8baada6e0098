"""The ledger of this host's machines: who has which address, uid range and bridge.

::

    STATE/ledger.json         what counts
    STATE/copy.ledger.json    the same again, for when the first is damaged

Both have a checksum, so that a damaged byte is seen wherever it is. When neither can be read, the ledger is rebuilt
from the machines' tags and from the kernel's bridges; lab networks are lost then. The next change writes both again.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pytest_machine import store, stored
from pytest_machine.errors import DriverError
from pytest_machine.model import Id, Network
from pytest_machine.support import files, parsing
from pytest_machine.support.parsing import Malformed

from .command import run
from .places import STATE, tags

UID_BASE = 0x70000000
"""Where the uid ranges begin: the first id that neither systemd-nspawn (524288 to 1878982655) nor LXD's default
(1000000 to 1001000000) gives out, by systemd's UIDS-GIDS table. /etc/subuid is looked at besides."""
UID_COUNT = 65536
"""How many ids a machine has."""
SLOTS = 4092
"""How many ranges fit below 2147352576, where systemd's next range begins; a /20 has as many addresses."""

_FIRST, _COPY = "ledger.json", "copy.ledger.json"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_BRIDGE = re.compile(r"ptm[0-9]{1,5}")
# Of a bridge that the kernel has lost, where the machine did not ask for a subnet: those of `network` have this size.
_PREFIX = 20


@dataclass(frozen=True, slots=True)
class Bridge:
    """One bridge of ours."""

    name: str
    subnet: str
    network: dict[str, object] | None = None
    """The lab's network that it is; None for the one that reaches the host and the outside."""
    forwarding: str = ""
    """What ``net.ipv4.ip_forward`` was before we set it; empty if it was on."""

    @classmethod
    def from_json(cls, value: object) -> Bridge:
        """Return the bridge that an entry of the ledger has; raises `Malformed`."""
        data = parsing.table(value, "a bridge")
        network = data.get("network")
        return cls(
            _bridge(data.get("name")),
            str(_ipv4_network(data.get("subnet"), "the subnet of a bridge")),
            None if network is None else Network.from_json(network).to_json(),
            parsing.text(data.get("forwarding", ""), "the forwarding of a bridge", longest=8),
        )

    @property
    def range(self) -> ipaddress.IPv4Network:
        """The subnet, to count with."""
        return ipaddress.IPv4Network(self.subnet)

    @property
    def of_lab(self) -> Network | None:
        """The lab's network that it is, as a value."""
        return Network.from_json(self.network) if self.network is not None else None

    @property
    def gateway(self) -> str:
        """The host's address on it: the first of the subnet."""
        return str(self.range[1])


@dataclass(frozen=True, slots=True)
class Lease:
    """What one machine has of the host."""

    id: Id
    slot: int
    bridge: str
    ip: str
    links: dict[str, str] = field(default_factory=dict)
    """Lab networks' bridges that it sits on → its address there."""
    apart: bool = False
    """Whether it talks to other machines over such networks alone."""

    @classmethod
    def from_json(cls, value: object) -> Lease:
        """Return the lease that an entry of the ledger has; raises `Malformed`."""
        data = parsing.table(value, "a lease")
        links = parsing.table(data.get("links"), "the links of a lease")
        return cls(
            stored.id_(data.get("id")),
            parsing.integer(data.get("slot"), "the slot of a lease", least=0, most=SLOTS - 1),
            _bridge(data.get("bridge")),
            _ipv4(data.get("ip")),
            {_bridge(name): _ipv4(ip) for name, ip in links.items()},
            parsing.boolean(data.get("apart"), "the word 'apart' of a lease"),
        )

    @property
    def uid(self) -> int:
        """The host's id of the machine's root."""
        return UID_BASE + self.slot * UID_COUNT


@dataclass(frozen=True, slots=True)
class Ledger:
    """Who has what."""

    bridges: dict[str, Bridge]
    leases: dict[Id, Lease]

    @classmethod
    def from_json(cls, value: object) -> Ledger:
        """Return the ledger that a file has; raises `Malformed`."""
        data = parsing.table(value, "the ledger")
        if data.pop("checksum", None) != _checksum(data):
            raise Malformed("the checksum of the ledger does not fit its content")
        bridges = [Bridge.from_json(each) for each in parsing.table(data.get("bridges"), "the bridges").values()]
        leases = [Lease.from_json(each) for each in parsing.table(data.get("leases"), "the leases").values()]
        found = cls({each.name: each for each in bridges}, {each.id: each for each in leases})
        for lease in leases:
            for name in (lease.bridge, *lease.links):
                if name not in found.bridges:
                    raise Malformed(f"a lease is on the bridge '{name}', which the ledger does not have")
        return found

    def to_json(self) -> dict[str, object]:
        """Return this as values that `json` can write, with a checksum."""
        data: dict[str, object] = {
            "bridges": {name: asdict(bridge) for name, bridge in self.bridges.items()},
            "leases": {id_: asdict(lease) for id_, lease in self.leases.items()},
        }
        return {**data, "checksum": _checksum(data)}

    def lease(self, id_: Id) -> Lease:
        """Return a machine's lease; raises `DriverError` when it has none."""
        if id_ not in self.leases:
            raise DriverError(
                "The machine has no address on this host any more.", hint="destroy it and create it again"
            )
        return self.leases[id_]

    def sealed(self, lease: Lease) -> bool:
        """Return whether all networks that a machine reaches others by are isolated."""
        on = [self.bridges[name].of_lab for name in lease.links if name in self.bridges]
        return lease.apart and bool(on) and all(each is not None and each.isolated for each in on)

    def taken(self, bridge: str) -> set[str]:
        """Return the addresses that are in use on a bridge."""
        return {lease.ip for lease in self.leases.values() if lease.bridge == bridge} | {
            lease.links[bridge] for lease in self.leases.values() if bridge in lease.links
        }


def ledger() -> Ledger:
    """Return the ledger as it is now, by its copy or rebuilt where it is damaged."""
    for name in (_FIRST, _COPY):
        try:
            return Ledger.from_json(files.read_json(STATE / name, f"'{name}'"))
        except files.UNREADABLE:
            continue
    return _rebuilt()


def save(book: Ledger) -> None:
    """Replace the ledger. One that became shorter needs no space on the disk."""
    content = json.dumps(book.to_json()).encode()
    _write(STATE / _FIRST, content)
    try:
        _write(STATE / _COPY, content)
    except OSError:
        # An old copy would give out addresses twice; without one, the ledger can still be rebuilt.
        (STATE / _COPY).unlink(missing_ok=True)


def stray_bridges(book: Ledger) -> set[str]:
    """Return the kernel's bridges that have our names and are not in the ledger."""
    return {path.parent.name for path in Path("/sys/class/net").glob("ptm*/bridge")} - book.bridges.keys()


def _write(path: Path, content: bytes) -> None:
    try:
        # Not durable: a boot that loses the last second of this file has lost the machines' processes too.
        store.write(path, content, durable=False)
    except IsADirectoryError:
        from pytest_machine.support import trees

        trees.remove(path)
        store.write(path, content, durable=False)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        files.replace_in_place(path, content)


def _checksum(data: Mapping[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(data, sort_keys=True).encode()):08x}"


def _rebuilt() -> Ledger:
    """Return the ledger by the machines' tags and the kernel's bridges; empty where there are no machines."""
    book = Ledger({}, {})
    machines = [record for record in tags() if record.address is not None]
    if not machines:
        return book
    found = parsing.json_value((run("ip", "-json", "-4", "address", "show") or "[]").encode(), "the host's addresses")
    for each in found if isinstance(found, list) else ():
        if _BRIDGE.fullmatch(each.get("ifname", "")) and (own := each.get("addr_info")):
            subnet = ipaddress.IPv4Network(f"{own[0]['local']}/{own[0]['prefixlen']}", strict=False)
            book.bridges[each["ifname"]] = Bridge(each["ifname"], str(subnet))
    for record in machines:
        assert record.address is not None
        try:
            ip = ipaddress.IPv4Address(record.address.ip)
        except ValueError:
            continue
        bridge = next((each for each in book.bridges.values() if ip in each.range), None)
        if bridge is None:
            given = record.options.get("subnet")
            subnet = ipaddress.IPv4Network(str(given) if given else f"{ip}/{_PREFIX}", strict=False)
            names = book.bridges.keys() | stray_bridges(book)
            name = next(name for name in (f"ptm{number}" for number in range(len(names) + 1)) if name not in names)
            bridge = book.bridges[name] = Bridge(name, str(subnet))
        slot = _slot(record.id, {lease.slot for lease in book.leases.values()})
        book.leases[record.id] = Lease(record.id, slot, bridge.name, str(ip), apart=bool(record.networks))
    return book


def _slot(id_: Id, taken: set[int]) -> int:
    """Return the slot of a machine by the group that its folder has; of one without a uid range, a free one."""
    group = (STATE / "machines" / id_).stat().st_gid
    slot, rest = divmod(group - UID_BASE, UID_COUNT)
    if rest == 0 and 0 <= slot < SLOTS:
        return slot
    # From the end: those that are given out next begin at the start.
    return next(slot for slot in range(SLOTS - 1, -1, -1) if slot not in taken)


def _bridge(value: object) -> str:
    name = parsing.text(value, "the name of a bridge", longest=15)
    if not _BRIDGE.fullmatch(name):
        raise Malformed(f"the name of a bridge is '{name}', which is none of ours")
    return name


def _ipv4(value: object) -> str:
    try:
        return str(ipaddress.IPv4Address(parsing.text(value, "an address")))
    except ipaddress.AddressValueError:
        raise Malformed(f"an address is '{value}', which is not IPv4") from None


def _ipv4_network(value: object, what: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(parsing.text(value, what))
    except ValueError as error:
        raise Malformed(f"{what} is no IPv4 network: {error}") from None
