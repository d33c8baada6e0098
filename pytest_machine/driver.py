"""The contract between the core and whatever makes machines: five methods, and small protocols for the rest.

Eighteen methods were what a driver cost Docker Machine, and every one of them had to be answered by drivers that could
not. Here a driver answers five questions; what only some can do is a protocol of its own, and the core asks
``isinstance``. There is no base class and no method that only says "unsupported".

A driver is a frozen dataclass whose fields are its options (see `pytest_machine.options`). It remembers nothing: all
that it needs to know of a machine is in the `Record` or in the tags that it put on whatever it made. It is also made
of a record's options to destroy a machine, long after files and images that they name are gone: what depends on the
world is for `Driver.check` to refuse, not for the making of the driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from .model import Access, Address, DiskTrouble, Id, Incident, Isolation, Network, Record, Seed, Seen, Trouble
from .stored import Damaged

__all__ = [
    "CAPABILITIES",
    "NEEDS",
    "Access",
    "Address",
    "Damaged",
    "DiskTrouble",
    "Driver",
    "Id",
    "Incident",
    "Isolation",
    "Network",
    "Record",
    "Seed",
    "Seen",
    "SupportsAdoption",
    "SupportsConsole",
    "SupportsDamagedTags",
    "SupportsDisk",
    "SupportsEngineVersion",
    "SupportsFingerprint",
    "SupportsFootprint",
    "SupportsImages",
    "SupportsIncidents",
    "SupportsKill",
    "SupportsNetworks",
    "SupportsPause",
    "SupportsPower",
    "SupportsPreload",
    "SupportsReboot",
    "SupportsReserve",
    "SupportsReset",
    "SupportsSharedHost",
    "SupportsSnapshotNames",
    "SupportsSnapshots",
    "Trouble",
    "missing",
]


class Driver(Protocol):
    """Makes machines and destroys them.

    Every method raises `DriverError` when the outside world refuses. All are called from several threads at once.
    """

    name: ClassVar[str]

    @property
    def isolation(self) -> Isolation:
        """What stands between a machine made with these options and its host."""
        ...

    def check(self) -> None:
        """Raise `DriverUnavailable`, with the remedy as hint, unless machines can be made here and now. Cheap.

        Raises `UsageError` or `BadSpec` for options that name what there is not.
        """
        ...

    def create(self, record: Record, seed: Seed) -> None:
        """Make the machine; it is powered on when this returns. Called again for the same record: nothing more happens.

        May take minutes, and may die at any point: everything that it makes carries the record's tags from the first
        moment on, so that `destroy` and `find` reach it.
        """
        ...

    def destroy(self, record: Record) -> None:
        """Remove every trace of the machine, half-made ones too. Again, or never made: nothing happens."""
        ...

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Return state and address of many machines, with one question to the provider where it can be asked so.

        One that is not there is `State.ABSENT`; one that cannot be asked about is `State.ERROR` with a detail.
        """
        ...

    def find(self) -> Iterable[Record]:
        """Return all that carries our tags on this provider, rebuilt from them, without any store.

        Half-made machines are among them. Other hosts' and users' machines too: the caller reads ``host`` and ``run``.
        One whose tags are damaged is left out (`SupportsDamagedTags`).
        """
        ...


@runtime_checkable
class SupportsDamagedTags(Protocol):
    """Tags at the provider can be damaged: a file, a label that is cut off. No test can need it."""

    def find_damaged(self) -> Iterable[Damaged]:
        """Return every machine and network that carries our tags, and whose tags `find` cannot rebuild.

        Each with the `Id` that its place at the provider has, by which `destroy` reaches it: that takes a record of
        which only the id is known then. One without an id is reported with its place, and left to people.
        """
        ...


@runtime_checkable
class SupportsReserve(Protocol):
    """The address can be known before the machine is made, so certificates can be planted at its birth."""

    def reserve(self, record: Record) -> Address:
        """Return the machine's future address; again: the same. `destroy` gives it back."""
        ...


@runtime_checkable
class SupportsPower(Protocol):
    """The machine can be shut down in order and started again, keeping its disk and, if reserved, its address."""

    def start(self, record: Record) -> None:
        """Power on; a running machine: nothing happens."""
        ...

    def stop(self, record: Record) -> None:
        """Shut down in order, by force if that takes too long; a stopped machine: nothing happens."""
        ...


@runtime_checkable
class SupportsReboot(Protocol):
    """The machine can only be told to boot again: who could power it on is somebody else. No test can need it."""

    def reboot(self, record: Record) -> None:
        """Have it boot again; it is on its way down when this returns, and what ran is gone."""
        ...


@runtime_checkable
class SupportsKill(Protocol):
    """The machine's power can be cut."""

    def kill(self, record: Record) -> None:
        """Cut the power at once, keeping the disk; a stopped machine: nothing happens."""
        ...


@runtime_checkable
class SupportsPause(Protocol):
    """The machine can be frozen: it keeps its memory and answers nothing."""

    def pause(self, record: Record) -> None:
        """Freeze; a paused machine: nothing happens."""
        ...

    def resume(self, record: Record) -> None:
        """Go on; a running machine: nothing happens."""
        ...


@runtime_checkable
class SupportsSnapshots(Protocol):
    """The machine's disk can be noted and brought back."""

    def snapshot(self, record: Record, name: str) -> None:
        """Keep the machine's disk as it is under `name`, replacing one of that name."""
        ...

    def restore(self, record: Record, name: str) -> None:
        """Bring the disk back as it was, running as it was."""
        ...


@runtime_checkable
class SupportsSnapshotNames(Protocol):
    """A machine's snapshots can be listed. No test can need it."""

    def snapshots(self, record: Record) -> Sequence[str]:
        """Return the names under which `SupportsSnapshots.snapshot` kept the machine's disk; none: an empty list."""
        ...


@runtime_checkable
class SupportsReset(Protocol):
    """What a test did to the machine outside of its Docker can be seen, and undone without making another machine."""

    def note(self, record: Record) -> None:
        """Note the running machine as it is: this is what untouched looks like from now on."""
        ...

    def changes(self, record: Record) -> Sequence[str]:
        """Return what is not as it was noted, outside of Docker's own data; sorted, in words for people."""
        ...

    def is_touched(self, record: Record) -> bool:
        """Whether it shows at a glance that the host is not as it was noted, whatever its Docker holds; in doubt not.

        Asked before Docker is cleaned, which is in vain on a host that is laid again anyway; `changes` has the last
        word.
        """
        ...

    def lay_again(self, record: Record, seed: Seed) -> None:
        """Throw away all that the machine ever wrote and power it on as it was born: address, seed, networks."""
        ...


@runtime_checkable
class SupportsNetworks(Protocol):
    """Machines can sit on further networks, which nothing else reaches.

    A machine whose record names networks reaches other machines over such alone, from its birth on; the outside it
    reaches as its host does, unless all networks that it is on are isolated. Networks of two labs may have equal
    subnets. A driver that cannot give one its `subnet`, `subnet6` or `mtu` raises `Unsupported` or `DriverError`.
    """

    def connect(self, record: Record, network: Network) -> str:
        """Put the running machine on the network, made if it is not there; return its address. Again: the same.

        The IPv4 address; that of IPv6, where the network has it, is in `Seen.networks6`. Both outlive a boot.
        """
        ...

    def disconnect(self, record: Record, network: Network) -> None:
        """Take the machine off the network; one that is not on it: nothing happens."""
        ...

    def remove_network(self, network: Network) -> None:
        """Remove every trace of the network, half-made too. Again, or never made: nothing happens."""
        ...

    def find_networks(self) -> Iterable[Network]:
        """Return every network that carries our tags, rebuilt from them, without any store; with its real subnet."""
        ...


@runtime_checkable
class SupportsConsole(Protocol):
    """What the machine printed while it booted and ran can be read from outside."""

    def console(self, record: Record) -> str:
        """Return the last part of the console, as text; empty when there is none."""
        ...


@runtime_checkable
class SupportsPreload(Protocol):
    """Docker images can lie once on the host and be in machines from their birth, without being loaded again.

    `Driver.create` gives a machine whose ``record.preload`` is a key the images that are kept under that key. No
    machine may be able to change another's. A driver without this has the images loaded into each machine, over
    Docker's API.
    """

    def has_preload(self, key: str) -> bool:
        """Return whether images are kept under `key` for machines with these options."""
        ...

    def keep_preload(self, record: Record, key: str) -> bool:
        """Keep the images of a machine that was stopped in order; it is destroyed afterwards.

        Return whether they could be kept: an engine may store them in a way that the driver does not know.
        """
        ...


@runtime_checkable
class SupportsAdoption(Protocol):
    """The machines were there before us: `create` takes one over and `destroy` lets it go. No test can need it.

    They carry no tags, so `find` sees none; they are not born with a seed, and nobody can make them as new.
    """

    def access(self, record: Record) -> Access:
        """Return how the machine is entered; raises `DriverError` when what that takes is not there. Cheap."""
        ...


@runtime_checkable
class SupportsSharedHost(Protocol):
    """The host existed before the run and other runs may want it: one run uses it at a time. No test can need it."""

    def shared_host(self) -> str:
        """Return what is the same for all names of the host, such as ``192.0.2.1:22``."""
        ...


@runtime_checkable
class SupportsFootprint(Protocol):
    """The machine lives on this host and takes of its memory, so that only so many fit. No test can need it."""

    def footprint(self) -> int:
        """Return how many bytes of this host's memory one machine with these options is expected to take."""
        ...


@runtime_checkable
class SupportsFingerprint(Protocol):
    """What a machine is made of can change while its options stay. No test can need it."""

    def fingerprint(self) -> str:
        """Return a text that is another one when a machine made now would be made of something else. Cheap."""
        ...


@runtime_checkable
class SupportsEngineVersion(Protocol):
    """The version of Docker in a machine is known before one is made. No test can need it."""

    def engine_version(self) -> str:
        """Return it in short, such as ``26.1``; empty where only a machine can tell it. Cheap, and makes nothing."""
        ...


@runtime_checkable
class SupportsImages(Protocol):
    """Machine images lie elsewhere than in this host's cache, for instance in an engine. No test can need it."""

    def images(self) -> Mapping[str, int]:
        """Return those that are there by name, as `pytest_machine.images` calls them, with their bytes."""
        ...

    def remove_image(self, name: str) -> None:
        """Remove one; again is nothing. Raises `UsageError` when a machine is made of it."""
        ...


@runtime_checkable
class SupportsDisk(Protocol):
    """A machine that has a disk of its own can have trouble with it, made from outside. No test can need it.

    Both raise `Unsupported` for a machine that has none, and where this host cannot do it.
    """

    def trouble_disk(self, record: Record, trouble: DiskTrouble) -> bool:
        """Put exactly this trouble in force at the machine's disk; none of it outlives a boot, or `Driver.destroy`.

        Return whether its file system can be relied on: one whose disk has failed cannot, until the next boot.
        """
        ...

    def lose_unwritten(self, record: Record) -> None:
        """Lose what the running machine has not yet written to its disk for sure, now; until it boots, all fails."""
        ...


@runtime_checkable
class SupportsIncidents(Protocol):
    """What the kernel did to the machine's processes, and what went wrong in the kernel, can be told."""

    def incidents(self, record: Record) -> Sequence[Incident]:
        """Return all that is known since the machine was made; each stays equal from one call to the next. Cheap."""
        ...

    def unseen(self, record: Record) -> Mapping[Trouble, str]:
        """Return what cannot be seen here, and why: nobody should rely on hearing of it."""
        ...


CAPABILITIES: Mapping[str, type] = {
    "reserve": SupportsReserve,
    "power": SupportsPower,
    "kill": SupportsKill,
    "pause": SupportsPause,
    "snapshots": SupportsSnapshots,
    "reset": SupportsReset,
    "networks": SupportsNetworks,
    "console": SupportsConsole,
    "preload": SupportsPreload,
    "incidents": SupportsIncidents,
}
"""Name in ``needs=`` → protocol."""

NEEDS: frozenset[str] = frozenset(CAPABILITIES) | frozenset(Isolation)
"""Every word that ``needs=`` takes."""


def missing(driver: Driver, needs: Iterable[str]) -> list[str]:
    """Return those of `needs` that `driver` does not have, in order."""
    from . import answers  # it asks the protocols of this module

    return [
        need
        for need in sorted(needs)
        if not (
            isinstance(driver, CAPABILITIES[need])
            if need in CAPABILITIES
            else need in frozenset(Isolation) and answers.isolation(driver).includes(Isolation(need))
        )
    ]
