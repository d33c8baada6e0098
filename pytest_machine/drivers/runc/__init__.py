"""Machines as runc containers of this Linux host: a second to make, a tenth to destroy, forty megabytes each.

Each is a whole host as far as a test can see: init, sshd and Docker on an address of its own, over one shared image.
With ``userns`` (the default) its root is nobody outside, and a wrecked or hostile machine harms neither the host nor
its neighbours; what needs a kernel of its own needs another driver.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, NoReturn

from pytest_machine import images, stored
from pytest_machine.errors import DriverError, DriverUnavailable, LimitExceeded, Unsupported, UsageError
from pytest_machine.model import (
    Address,
    DiskTrouble,
    Id,
    Incident,
    Isolation,
    Network,
    Record,
    Seed,
    Seen,
    State,
    Trouble,
)
from pytest_machine.options import option
from pytest_machine.owner import cache_dir
from pytest_machine.stored import Damaged
from pytest_machine.support import front
from pytest_machine.waiting import NotYet, wait

# What one ability alone needs is imported where it begins: whoever asks for an address is in a hurry.
from . import bundle, cgroups, guest, kernel, leases, network, storage
from .command import installed, run
from .life import RUNTIME, Shape, launch, namespaces, plug, process, shut
from .places import Place, damaged, read, tags, write

_PROGRAMS = {
    "runc": "runc",
    "ip": "iproute2",
    "bridge": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "mkfs.ext4": "e2fsprogs",
}


@dataclass(frozen=True, kw_only=True)
class RuncDriver:
    """Makes machines as runc containers."""

    name: ClassVar[str] = "runc"

    image: str | None = option(None, help="Debian suite of the machine image, or a tree's path; default: trixie")
    engine: str | None = option(None, help="version of Docker, such as 26.1, or a static build's path or address")
    subnet: str | None = option(None, kind=network.subnet, help="subnet of the machines' bridge; default: a free one")
    address: str | None = option(None, kind=network.address, help="its address; default: a free one of the subnet")
    memory: int | None = option(None, kind=bundle.memory, help="memory limit, such as 512m; default: half of the host")
    cpus: float | None = option(None, kind=bundle.cores, help="limit in cores, such as 1.5; default: none")
    disk: int | None = option(None, kind=storage.space, help="size of its own disk, such as 4g; default: the host's")
    pids: int = option(8192, help="how many processes and threads it may have")
    userns: bool = option(True, help="root inside is nobody outside; false where the kernel cannot: trusted tests only")

    def __post_init__(self) -> None:
        """Settle on the image, where one has the engine; else `check` says why none has.

        Not here: a driver is also made to destroy a machine whose image or static build has gone since.
        """
        with suppress(UsageError):
            object.__setattr__(self, "image", images.choose(self.image, self.engine))

    @property
    def isolation(self) -> Isolation:
        """What stands between a machine and this host."""
        return Isolation.USER_NAMESPACE if self.userns else Isolation.PRIVILEGED

    def check(self) -> None:
        """Raise `DriverUnavailable` unless machines can be made here, `UsageError` for an image that there is not."""
        images.choose(self.image, self.engine)
        if sys.platform != "linux":
            raise DriverUnavailable("The driver 'runc' needs Linux.", hint="choose another: pytest-machine doctor")
        if os.geteuid() != 0:
            raise DriverUnavailable("The driver 'runc' needs root.", hint=_as_root())
        absent = [program for program in _PROGRAMS if not installed(program)]
        if absent:
            packages = " ".join(sorted({_PROGRAMS[program] for program in absent}))
            raise DriverUnavailable(
                f"The driver 'runc' needs programs that this host lacks: {', '.join(absent)}.",
                hint=f"sudo apt-get install {packages}",
            )
        if "overlay" not in {line.split()[-1] for line in kernel.open_lines("/proc/filesystems")}:
            raise DriverUnavailable("The driver 'runc' needs overlayfs in the kernel.", hint="sudo modprobe overlay")
        images.check(self.image or images.DEFAULT)
        if self.userns:
            _check_user_namespaces()

    def footprint(self) -> int:
        """Return the limit, where there is one; else 128 MiB.

        An idle machine takes some 50 MB (`benchmarks/machines.py`); its containers get as much again.
        """
        return self.memory or 128 << 20

    def fingerprint(self) -> str:
        """Return the image, digest and all."""
        return self._image().name

    def engine_version(self) -> str:
        """Return the short version of Docker in the image, if the image is built."""
        return images.version(self.image or images.DEFAULT, self.engine)

    def reserve(self, record: Record) -> Address:
        """Return the machine's address, given out by this host."""
        Place(record.id).write_tag(record)
        lease = network.reserve(record.id, subnet=self.subnet, address=self.address, apart=bool(record.networks))
        return Address(ip=lease.ip)

    def create(self, record: Record, seed: Seed) -> None:
        """Make the machine and start it."""
        self.reserve(record)
        self._create(record, seed)

    def _create(self, record: Record, seed: Seed, holder: int | None = None) -> None:
        place = Place(record.id)
        lease = leases.ledger().lease(record.id)
        owner = lease.uid if self.userns else 0
        if not place.seeded():
            storage.make(place, disk=self.disk, owner=owner)
            storage.plant(place, {**images.BORN, **guest.files(), **seed.all_files()}, owner=owner)
            if record.preload:
                from . import preload

                preload.plant(place, self._kept(record.preload), owner=owner, userns=self.userns)
            (place.state / "seeded").touch()
        self._launch(record, holder)

    def destroy(self, record: Record) -> None:
        """Remove the machine and all that it had of this host."""
        from concurrent.futures import ThreadPoolExecutor

        place = Place(record.id)
        with ThreadPoolExecutor(max_workers=1) as beside:
            retired = beside.submit(network.retire, record.id)
            shut(place)
            storage.empty(place)
            lowered = retired.result()
        network.unplug(record.id)
        network.release(record.id, lowered=lowered)
        storage.forget(place)

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Return what `/proc` and the ledger say of each machine."""
        book = leases.ledger()
        return {record.id: _seen(record, book) for record in records}

    def find(self) -> Iterable[Record]:
        """Return the records in the tags of this host."""
        return list(tags())

    def find_damaged(self) -> Iterable[Damaged]:
        """Return the machines of this host whose tags cannot be read, or are gone."""
        before = leases.ledger().leases
        there = list(damaged())
        known = {each.id for each in there} | {each.id for each in tags()}
        # A folder that was removed by hand leaves the lease. Looked at before and after: the tag comes before the
        # lease and goes after it.
        left = [id_ for id_ in leases.ledger().leases if id_ in before and id_ not in known]
        return [*there, *(stored.damaged(None, "there is no tag", id=id_, place="its lease") for id_ in left)]

    def note(self, record: Record) -> None:
        """Note every file, process, mount, rule, address and setting of the machine."""
        from . import traces

        place = Place(record.id)
        known = None
        with suppress(OSError, ValueError):
            known = read(place.known)
        place.known.unlink(missing_ok=True)
        write(place.noted, traces.take(place, self._running(record), known=known))

    def changes(self, record: Record) -> Sequence[str]:
        """Return what differs from what was noted."""
        from . import traces

        place = Place(record.id)
        try:
            before = read(place.noted)
            found = traces.differences(before, traces.take(place, self._running(record)))
        except (OSError, ValueError, LimitExceeded) as error:  # more files than are looked at, or a damaged note
            raise DriverError(
                f"What changed on the machine '{record.name}' cannot be told.",
                facts={"reason": error.message if isinstance(error, LimitExceeded) else error},
                hint="machine.note(), before what is to be seen",
            ) from error
        if traces.lasting(dict.fromkeys(found, "")):
            place.unlike.touch()
        return found

    def is_touched(self, record: Record) -> bool:
        """Return whether a file or one of its own processes is not as it was noted."""
        from . import traces

        place = Place(record.id)
        try:
            return traces.is_touched(read(place.noted), place, self._running(record))
        except (OSError, ValueError, LimitExceeded):
            return True

    def lay_again(self, record: Record, seed: Seed) -> None:
        """Empty the machine's layers and boot it over the image again; its lease stays."""
        from concurrent.futures import ThreadPoolExecutor

        from . import traces

        place = Place(record.id)
        known = {}
        # It boots into what it was noted with, unless that is what was found changed: maybe by nobody.
        if not place.unlike.exists():
            with suppress(OSError, ValueError):
                known = traces.lasting(read(place.noted))
        with ExitStack() as stack, ThreadPoolExecutor(max_workers=1) as beside:
            holder = beside.submit(stack.enter_context, namespaces(place, userns=self.userns))

            def prepare() -> None:
                network.put_aside(record.id)
                plug(place, holder.result(), again=True)

            # While it ends, because the kernel is long about its network afterwards, and makes none meanwhile.
            shut(place, meanwhile=prepare)
            with storage.emptied(place):
                self._create(record, seed, holder.result())
                network.clear_aside(record.id)
            if known:
                write(place.known, known)

    def start(self, record: Record) -> None:
        """Start the machine, as it was on its disk."""
        self._launch(record)

    def stop(self, record: Record) -> None:
        """Ask its init to stop Docker and itself, at most ten seconds, then cut."""
        place = Place(record.id)
        pid = process(place)
        if pid is not None:
            cgroups.thaw(record.id)
            # The init gives its services ten seconds of these.
            kernel.terminate(pid, timeout=12)
        shut(place)
        network.unplug(record.id)

    def kill(self, record: Record) -> None:
        """End every process of the machine at once."""
        shut(Place(record.id))
        network.unplug(record.id)

    def pause(self, record: Record) -> None:
        """Freeze every process of the machine."""
        if cgroups.frozen(record.id):
            return
        self._running(record)

        def freeze() -> None:
            try:
                run("runc", "--root", RUNTIME, "pause", record.id)
            except DriverError as error:
                raise NotYet(str(error.facts.get("it said") or error)) from error

        # On cgroup v1 the freezer gives up on processes that are busy ("unable to freeze"), and thaws the others.
        wait(freeze, f"The freezing of '{record.name}'", timeout=10, every=0.05)

    def resume(self, record: Record) -> None:
        """Let them run again."""
        if cgroups.frozen(record.id):
            run("runc", "--root", RUNTIME, "resume", record.id)

    def connect(self, record: Record, network_: Network) -> str:
        """Put the machine on a bridge of the lab's own."""
        if network_.subnet6 and not Path("/proc/net/if_inet6").exists():
            raise Unsupported(
                f"The network '{network_.name}' has IPv6, and this host's kernel has none.",
                hint="boot it without ipv6.disable=1, or leave ipv6= out",
            )
        return network.join(record.id, network_, self._running(record))

    def disconnect(self, record: Record, network_: Network) -> None:
        """Take it off again."""
        network.leave(record.id, network_)

    def remove_network(self, network_: Network) -> None:
        """Remove the bridge."""
        network.drop(network_)

    def find_networks(self) -> Iterable[Network]:
        """Return what the ledger says."""
        return network.networks()

    def has_preload(self, key: str) -> bool:
        """Look into the cache."""
        from pytest_machine import preloads

        return preloads.find(self._kept(key)) is not None

    def keep_preload(self, record: Record, key: str) -> bool:
        """Move the images of a stopped machine's Docker into the cache."""
        from . import preload

        owner = leases.ledger().lease(record.id).uid if self.userns else 0
        return preload.keep(Place(record.id), self._kept(key), owner=owner)

    def console(self, record: Record) -> str:
        """Return the last 64 KiB of what PID 1 printed."""
        return storage.console(Place(record.id))

    def incidents(self, record: Record) -> Sequence[Incident]:
        """Return what this host's kernel tells of the machine, and its core dumps."""
        from . import incidents

        return incidents.found(record)

    def unseen(self, record: Record) -> Mapping[Trouble, str]:  # noqa: ARG002  # the same for all
        """Return what this host does not show."""
        from . import incidents

        return incidents.unseen()

    def trouble_disk(self, record: Record, trouble: DiskTrouble) -> bool:
        """Limit the machine's groups, and have this host refuse to write to the disk's file."""
        from . import disk

        return disk.trouble(Place(record.id), record, trouble)

    def lose_unwritten(self, record: Record) -> None:
        """Stop the disk's file system without writing what it still has in memory."""
        from . import disk

        disk.lose(Place(record.id), record)

    def _launch(self, record: Record, holder: int | None = None) -> None:
        launch(
            Place(record.id),
            Shape(
                hostname=record.name,
                tree=self._image().path,
                userns=self.userns,
                memory=self.memory or _half_of_memory(),
                cpus=self.cpus,
                pids=self.pids,
            ),
            holder,
        )

    def _image(self) -> images.Image:
        return images.ensure(self.image or images.DEFAULT, engine=self.engine)

    def _kept(self, key: str) -> str:
        from . import preload

        return preload.name_of(key, self._image(), userns=self.userns)

    def _running(self, record: Record) -> int:
        pid = process(Place(record.id))
        if pid is None:
            raise DriverError(f"The machine '{record.name}' does not run.", hint="machine.start()")
        return pid


def _half_of_memory() -> int:
    """Return the default limit in bytes: one machine alone never brings its host down."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _seen(record: Record, book: leases.Ledger) -> Seen:
    place = Place(record.id)
    lease = book.leases.get(record.id)
    if not place.state.exists():
        return Seen(state=State.ABSENT)
    if process(place) is not None:
        state = State.PAUSED if cgroups.frozen(record.id) else State.RUNNING
    else:
        state = State.STOPPED if place.seeded() else State.PREPARING
    if lease is None:
        return Seen(state=state, detail="it has no address")
    on, on6 = {}, {}
    for name, ip in lease.links.items():
        if (own := book.bridges[name].of_lab) is not None:
            on[own.name] = ip
            if ip6 := network.address6(book.bridges[name], ip):
                on6[own.name] = ip6
    return Seen(state=state, address=Address(ip=lease.ip), networks=on, networks6=on6)


@cache
def _check_user_namespaces() -> None:
    """Try what a machine needs, once a process: a user namespace, and a mount that is shifted into it."""
    release = os.uname().release
    if tuple(int(part) for part in release.split("-")[0].split(".")[:2]) < (5, 19):
        _refuse_user_namespaces(f"overlayfs takes idmapped layers since Linux 5.19, this is {release}")
    source = _existing(cache_dir())
    try:
        with kernel.namespaces(leases.UID_BASE, leases.UID_COUNT) as holder:
            descriptor = os.open(f"/proc/{holder}/ns/user", os.O_RDONLY)
            try:
                kernel.try_idmapped(source, descriptor)
            finally:
                os.close(descriptor)
    except (OSError, DriverError) as error:
        _refuse_user_namespaces(f"{source}: {error}")


def _existing(folder: Path) -> Path:
    """Return the nearest folder that exists: it is on the file system that the image will be on."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _refuse_user_namespaces(reason: str) -> NoReturn:
    raise DriverUnavailable(
        "This host cannot give a machine a user namespace of its own.",
        facts={"reason": reason},
        hint=front.worded(
            tests="for trusted tests only: @pytest.mark.machine(options={'userns': False})",
            program="for trusted machines only: docker-machine create --driver runc --runc-userns=false NAME",
        ),
    )


def _as_root() -> str:
    """Return the hint to run this program as root: pytest, or the command line."""
    return front.worded(tests=f"sudo {sys.executable} -m pytest ...", program=f"sudo {sys.argv[0]} ...")
