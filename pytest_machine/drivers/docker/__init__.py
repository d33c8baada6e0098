"""Machines as privileged containers of the user's own Docker engine: for those who have an engine and no root.

All that a machine is lies in that engine, on whatever computer and system it is: a container, a volume, its place on a
network. All that is known of it is in their labels, so that whoever can speak to the engine can find and destroy it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pytest_machine import endpoint, images
from pytest_machine.client_environment import uncovered
from pytest_machine.endpoint import Endpoint
from pytest_machine.errors import DriverError, DriverUnavailable
from pytest_machine.model import Address, Id, Isolation, Network, Record, Seed, Seen, State
from pytest_machine.options import option, size
from pytest_machine.stored import Damaged

from . import claim, image, life, network, note, tags
from .outer import Json, Outer, connect, meet
from .shape import Shape

_STATES = {
    "created": State.PREPARING,
    "running": State.RUNNING,
    "restarting": State.RUNNING,
    "paused": State.PAUSED,
    "exited": State.STOPPED,
    "removing": State.STOPPED,
    "dead": State.ERROR,
    # Podman's own.
    "initialized": State.PREPARING,
    "stopping": State.RUNNING,
    "stopped": State.STOPPED,
}

# Seconds that the image's init gives its services to end, and two more.
_STOP = 12


@dataclass(frozen=True, kw_only=True)
class DockerDriver:
    """Makes machines as containers of the user's Docker engine."""

    name: ClassVar[str] = "docker"

    host: str | None = option(None, help="address of the engine, as DOCKER_HOST has it; default: as docker finds it")
    image: str | None = option(None, help="Debian suite of the machine image, or a tree's path; default: trixie")
    engine: str | None = option(None, help="version of Docker, such as 26.1, or a static build's path or address")
    subnet: str | None = option(None, help="subnet of the machines' networks; default: a free one")
    publish: str | None = option(
        None, help="the engine's IPv4 address to publish a machine's ports at; default: none where its own is reached"
    )
    memory: int | None = option(None, kind=size, help="memory limit, such as 512m; default: half of the engine's")
    cpus: float | None = option(None, help="limit in cores, such as 1.5; default: none")
    pids: int = option(8192, help="how many processes and threads it may have")

    def __post_init__(self) -> None:
        """Settle on the image; `BadSpec` when none has the engine, or an address is none."""
        object.__setattr__(self, "image", images.choose(self.image, self.engine))
        if self.subnet is not None:
            network.block(self.subnet)
        if self.publish is not None:
            claim.check_publish(self.publish)

    @property
    def isolation(self) -> Isolation:
        """Nothing: root in a privileged container can do what root of the engine's computer can."""
        return Isolation.PRIVILEGED

    def check(self) -> None:
        """Raise `DriverUnavailable` unless the engine is there and can hold machines."""
        found = self._endpoint()
        meet(found)
        with connect(found) as outer:
            image.check(outer, self._image(), self.engine)

    def footprint(self) -> int:
        """Return the limit, where there is one, else 128 MiB; nothing for an engine on another computer."""
        return (self.memory or 128 << 20) if self._endpoint().is_near else 0

    def fingerprint(self) -> str:
        """Return the image, digest and all."""
        return image.name_of(self._image(), self.engine)

    def engine_version(self) -> str:
        """Return the short version of Docker in this computer's image, if it has the image."""
        return images.version(self._image(), self.engine)

    def reserve(self, record: Record) -> Address:
        """Return the machine's address, or that at which its ports will be published."""
        with self._making(record) as outer:
            return claim.make(outer, record, subnet=self.subnet, publish=self.publish).address

    def create(self, record: Record, seed: Seed) -> None:
        """Make the machine's container and start it."""
        with self._making(record) as outer:
            there = life.container_of(outer, record)
            if there and there["State"] == "running":
                return
            claimed = claim.make(outer, record, subnet=self.subnet, publish=self.publish)
            if there and there["State"] != "created":
                self._start(outer, record, there)
                return
            if there:  # whoever made it was killed before it was filled
                outer.remove_container(there["Id"])
            memory = self.memory or int(outer.info()["MemTotal"]) // 2
            shape = Shape(
                image=image.provide(outer, self._image(), self.engine),
                volume=claimed.volume,
                network=network.APART if record.networks else network.OPEN,
                address=claimed.address,
                labels=claimed.labels,
                memory=memory,
                cpus=self.cpus,
                pids=self.pids,
                publish=(self.publish or claimed.address.ip) if claimed.address.inner else "",
                # A run's machines know each other by /etc/hosts, and another run's may have the same names.
                alias="" if record.run else record.name,
            )
            life.give_birth(outer, record, shape, {**images.BORN, **seed.all_files()})

    def destroy(self, record: Record) -> None:
        """Remove the machine's container and volume; with the last machine go the networks of all."""
        noted = note.read(record)
        with self._outer(record) as outer:
            life.end(outer, record, settled=noted is not None and not noted.busy)
            with outer.lock():
                if not outer.volumes(tags.ID):
                    network.drop_base(outer)
        if noted is not None:
            with contextlib.suppress(OSError):  # on a full disk; the machine is gone, and so is the note soon
                note.write(record, noted.endpoint, busy=False)

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Return what each engine says of its machines, with one question; two where a lab's networks are."""
        found: dict[Id, Seen] = {}
        asked: dict[Endpoint, list[Record]] = {}
        for record in records:
            asked.setdefault(self._endpoint(record), []).append(record)
        for where, theirs in asked.items():
            try:
                with connect(where) as outer:
                    found |= _seen(outer, theirs)
            except DriverError as error:
                why = f"{error.message} {error.facts.get('reason', '')}".strip()
                found |= {record.id: Seen(state=State.ERROR, detail=why) for record in theirs}
        return found

    def find(self) -> Iterable[Record]:
        """Return the records in the labels of volumes and containers."""
        with connect(self._endpoint()) as outer:
            things = [*outer.volumes(tags.ID), *outer.containers(tags.ID)]
        found = (tags.record(each["Labels"]) for each in things)
        return list({record.id: record for record in found if record is not None}.values())

    def find_damaged(self) -> Iterable[Damaged]:
        """Return what has a machine's or network's label that is damaged, and no other thing of it has a whole one."""
        with connect(self._endpoint()) as outer:
            things = [*outer.volumes(tags.ID), *outer.containers(tags.ID)]
            networks = outer.networks(tags.NETWORK_ID)
        whole = {found.id for each in things if (found := tags.record(each["Labels"])) is not None}
        damaged = [tags.damaged(each["Labels"], _name(each)) for each in (*things, *networks)]
        left = {each.id or each.place: each for each in damaged if each is not None and each.id not in whole}
        return list(left.values())

    def start(self, record: Record) -> None:
        """Start the container."""
        with self._outer(record) as outer:
            there = life.container_of(outer, record)
            if there is None:
                raise DriverError(f"The machine '{record.name}' is not there any more.", hint="docker-machine ls")
            claim.make(outer, record, subnet=self.subnet, publish=self.publish)
            self._start(outer, record, there)

    def _start(self, outer: Outer, record: Record, there: Json) -> None:
        if there["State"] == "paused":
            outer.api.unpause(there["Id"])
        elif there["State"] != "running":
            life.start(outer, record, there["Id"])

    def stop(self, record: Record) -> None:
        """Ask its init to stop Docker and itself, then cut."""
        with self._outer(record) as outer:
            there = life.container_of(outer, record)
            if there and there["State"] == "paused":
                outer.api.unpause(there["Id"])
            if there and there["State"] in ("running", "paused", "restarting"):
                outer.api.stop(there["Id"], timeout=_STOP)

    def kill(self, record: Record) -> None:
        """End every process of the container at once."""
        with self._outer(record) as outer:
            there = life.container_of(outer, record)
            if there and there["State"] in ("running", "paused", "restarting"):
                outer.api.kill(there["Id"])
                # The answer comes before the end.
                outer.api.wait(there["Id"])

    def pause(self, record: Record) -> None:
        """Freeze every process of the container."""
        with self._outer(record) as outer:
            there = life.running(outer, record)
            if there["State"] != "paused":
                outer.api.pause(there["Id"])

    def resume(self, record: Record) -> None:
        """Let them run again."""
        with self._outer(record) as outer:
            there = life.container_of(outer, record)
            if there and there["State"] == "paused":
                outer.api.unpause(there["Id"])

    def connect(self, record: Record, network_: Network) -> str:
        """Put the machine on a network of the lab's own."""
        with self._outer(record) as outer:
            return network.join(outer, life.running(outer, record), network_)

    def disconnect(self, record: Record, network_: Network) -> None:
        """Take it off again."""
        with self._outer(record) as outer:
            if there := life.container_of(outer, record):
                network.leave(outer, there, network_)

    def remove_network(self, network_: Network) -> None:
        """Remove the network from the engine."""
        with connect(self._endpoint()) as outer:
            network.drop(outer, network_)

    def find_networks(self) -> Iterable[Network]:
        """Return the networks in labels."""
        with connect(self._endpoint()) as outer:
            found = [tags.network(each["Labels"]) for each in outer.networks(tags.NETWORK_ID)]
        return [each for each in found if each is not None]

    def images(self) -> Mapping[str, int]:
        """Return the machine images that are in the engine."""
        with connect(self._endpoint()) as outer:
            return image.kept(outer)

    def remove_image(self, name: str) -> None:
        """Remove one from the engine."""
        with connect(self._endpoint()) as outer:
            image.remove(outer, name)

    def console(self, record: Record) -> str:
        """Return the last 64 KiB of what PID 1 printed."""
        with self._outer(record) as outer:
            there = life.container_of(outer, record)
            text = outer.api.logs(there["Id"], tail=2000) if there else b""
        return text[-65536:].decode(errors="replace")

    def _image(self) -> str:
        return self.image or images.DEFAULT

    def _endpoint(self, record: Record | None = None) -> Endpoint:
        """Return the engine that a machine is in, by the note in its directory; else the one that is named now."""
        if record is not None and (noted := note.read(record)):
            return noted.endpoint
        environ = uncovered()
        if self.host is not None:
            return endpoint.at(self.host, environ)
        try:
            return endpoint.named(environ)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DriverUnavailable(
                "The Docker context that was chosen cannot be read.",
                facts={"reason": error},
                hint="docker context use default",
            ) from error

    @contextlib.contextmanager
    def _outer(self, record: Record) -> Iterator[Outer]:
        with connect(self._endpoint(record)) as outer:
            yield outer

    @contextlib.contextmanager
    def _making(self, record: Record) -> Iterator[Outer]:
        where = self._endpoint(record)
        note.write(record, where, busy=True)
        with connect(where) as outer:
            yield outer
        note.write(record, where, busy=False)


def _name(thing: Json) -> str:
    return str(thing.get("Name") or thing.get("Id") or "")


def _seen(outer: Outer, records: Sequence[Record]) -> dict[Id, Seen]:
    there = {each["Labels"][tags.ID]: each for each in outer.containers(tags.ID, tags.SLOT)}
    absent = [record for record in records if record.id not in there]
    claimed = {each["Labels"][tags.ID] for each in outer.volumes(tags.ID)} if absent else set()
    found = {record.id: Seen(state=State.PREPARING if record.id in claimed else State.ABSENT) for record in absent}
    on = [there[record.id] for record in records if record.id in there]
    names = _network_names(outer) if any(len(each["NetworkSettings"]["Networks"]) > 1 for each in on) else {}
    for each in on:
        links = {
            names[name]: network.addresses(link)
            for name, link in each["NetworkSettings"]["Networks"].items()
            if name in names
        }
        found[Id(each["Labels"][tags.ID])] = Seen(
            state=_STATES.get(each["State"], State.ERROR),
            address=tags.address(each["Labels"]),
            networks={name: ip for name, (ip, _) in links.items()},
            networks6={name: ip6 for name, (_, ip6) in links.items() if ip6},
            detail="" if each["State"] in _STATES else f"the engine says '{each['State']}'",
        )
    return found


def _network_names(outer: Outer) -> dict[str, str]:
    """Return the engine's name of each network of a lab → the lab's own."""
    found = ((each["Name"], tags.network(each["Labels"])) for each in outer.networks(tags.NETWORK_ID))
    return {name: theirs.name for name, theirs in found if theirs is not None}
