"""A machine's place in the engine: a volume, which is its data directory, and which nobody else can have.

It comes first and goes last, and it carries all that is needed to find the machine and to destroy it. Its name is the
number of the machine's slot, and of all that ask for a volume of one name at once the engine gives one the volume and
the others a volume with that one's labels: so no address is given twice, whoever asks, from whichever computer.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass

from pytest_machine.errors import BadSpec, DriverError, Unsupported
from pytest_machine.model import Address, Record

from . import network, tags
from .outer import Json, Outer

SLOTS = range(2, 4094)
"""Numbers of machines: the first address of a subnet is its router's, and the last is everybody's."""
# Where ports are published: two for each slot, below those that systems give out by themselves (32768, 49152).
_PORTS = 20000

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a machine has of the engine."""

    volume: str
    slot: int
    ip: str
    """Its container's address on the network that all machines are on."""
    address: Address
    """How it is reached from here."""
    labels: tags.Labels


def find(outer: Outer, record: Record) -> Claim | None:
    """Return what a machine has; None when it has nothing."""
    found = outer.volumes(f"{tags.ID}={record.id}", tags.SLOT)
    return _read(found[0]) if found else None


def _read(volume: Json) -> Claim:
    labels: tags.Labels = volume["Labels"]
    address = tags.address(labels)
    assert address is not None, labels  # all that has a slot has one
    return Claim(volume["Name"], int(labels[tags.SLOT]), address.among, address, labels)


def make(outer: Outer, record: Record, *, subnet: str | None, publish: str | None) -> Claim:
    """Return what a machine has, claimed now if it has nothing; its network is there."""
    with outer.lock():
        existing = find(outer, record)
        apart = bool(record.networks)
        if apart and is_podman(outer.api.version()):
            raise Unsupported(
                f"The machine '{record.name}' cannot be on networks of its lab's own in Podman.",
                facts={"why": "Podman does not keep machines apart that are to meet on no network"},
                hint="leave out networks=, or take another driver, or Docker: DOCKER_HOST=unix:///var/run/docker.sock",
            )
        # Of a machine that is there it is looked for too: `docker network prune` takes what no running container is on.
        whole = network.base(outer, apart=apart, subnet=existing.labels[tags.BLOCK] if existing else subnet)
        part = network.half(whole, apart=apart)
        if existing:
            return existing
        at = reach(outer, part, publish)
        taken = {each["Name"] for each in outer.volumes(tags.ID)}
        for slot in SLOTS[: part.num_addresses - 3]:
            name = f"{tags.PREFIX}-{slot}"
            address = address_of(slot, part, at)
            if name in taken or (at and _in_use(address)):
                continue
            made = outer.api.create_volume(name, labels=tags.of_claim(record, slot, address, whole))
            if (made.get("Labels") or {}).get(tags.ID) == record.id:
                return _read(made)
    raise DriverError(f"The subnet '{part}' is full.", hint="docker-machine prune")


def is_podman(version: Json) -> bool:
    """Return whether an engine is Podman, by what it says of its parts."""
    return any("podman" in str(part.get("Name", "")).lower() for part in version.get("Components") or ())


def address_of(slot: int, part: ipaddress.IPv4Network, at: str) -> Address:
    """Return how the machine with a slot is reached: at its own address, or at ports of the address `at`."""
    ip = str(part[slot])
    if not at:
        return Address(ip=ip)
    return Address(ip=at, ssh_port=_PORTS + 2 * slot, engine_port=_PORTS + 2 * slot + 1, inner=ip)


def reach(outer: Outer, part: ipaddress.IPv4Network, publish: str | None) -> str:
    """Return the address at which machines' ports are to be published; empty where their own can be reached.

    They can if the network's router, which is the engine's computer, is this one: a socket can then be bound there. Not
    so with Docker Desktop, a rootless engine, or an engine beside the container that we are in.
    """
    if publish not in (None, "0.0.0.0"):  # noqa: S104  # what a user asks for, not us
        return str(publish)
    if outer.endpoint.is_near:
        if publish is None and _is_ours(str(part[1])):
            return ""
        return _LOOPBACK
    try:
        return str(socket.getaddrinfo(outer.endpoint.host, None, socket.AF_INET)[0][4][0])
    except OSError as error:
        raise DriverError(
            f"The engine's computer '{outer.endpoint.host}' has no address that is known here.",
            facts={"reason": error.strerror or error},
            hint="options={'publish': '192.0.2.7'}, with its address as it is reached from here",
        ) from error


def _is_ours(ip: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.bind((ip, 0))
        return True
    return False


def _in_use(address: Address) -> bool:
    """Whether somebody answers at one of the ports that a machine would get."""
    for port in (address.ssh_port, address.engine_port):
        with contextlib.suppress(OSError):
            socket.create_connection((address.ip, port), timeout=0.5).close()
            return True
    return False


def check_publish(asked: str) -> str:
    """Return an address to publish ports at; raises `BadSpec` when it is none."""
    if not re.fullmatch(r"[0-9.]+", asked):
        raise BadSpec(f"'{asked}' is no IPv4 address to publish ports at.", hint="options={'publish': '0.0.0.0'}")
    return asked
