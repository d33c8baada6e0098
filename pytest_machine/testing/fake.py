"""`FakeDriver`: machines that are a few files and one small process each, on every system, without root.

For tests of whatever stands on drivers: the core, the plugin, your own code. It has every capability but
``preload`` and ``reset``. A fake machine answers ``GET /_ping``, ``/version``, ``/info`` and ``/containers/json`` of
Docker's API over mutual TLS on 127.0.0.1, with the certificates that it was born with; it runs no container, loads no
image and has no SSH, so `Machine.run` cannot work on it.

All that it knows lies in its ``directory``, so that a fresh process sees the same machines::

    machines/ID.json         the tags: the whole record, written before anything else, removed last
    machines/ID/disk/        the machine's files, as the seed planted them
    machines/ID/snapshots/   copies of it
    machines/ID/created      there when `create` came to its end
    ports/PORT               a hard link to the tags of the machine that has the port: taken in one step, or not at all
    networks/ID.json         a network's tags
    networks/ID/ADDRESS      a hard link to the tags of the machine that has the address there
"""

from __future__ import annotations

import contextlib
import glob
import ipaddress
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pytest_machine import stored
from pytest_machine.errors import DriverError, DriverUnavailable, NotRunning
from pytest_machine.model import Address, Id, Incident, Isolation, Network, Record, Seed, Seen, State, Trouble
from pytest_machine.options import option, size
from pytest_machine.stored import Damaged
from pytest_machine.support import clock, files, parsing, trees
from pytest_machine.support.parsing import Malformed

from . import fake_engine

_HOST = "127.0.0.1"
# Below every system's range for outgoing connections, so that none of those takes the port of a stopped machine.
_PORTS = range(*(int(port) for port in os.environ.get("PYTEST_MACHINE_FAKE_PORTS", "20000-32000").split("-")))
STEPS = ("tags", "port", "disk", "engine")
"""The steps of `FakeDriver.create`, in order: where ``fail_create`` can make it fail."""


def _directory() -> Path:
    given = os.environ.get("PYTEST_MACHINE_FAKES")
    return Path(given) if given else Path(tempfile.gettempdir()) / "pytest-machine-fake"


@dataclass(frozen=True, kw_only=True)
class FakeDriver:
    """Machines of files and one process each; see the module. All that goes wrong on request is an option."""

    name: ClassVar[str] = "fake"

    directory: Path = option(_directory, help="where its machines lie")  # noqa: RUF009  # a field
    image: str = option("fake", help="what the engine's info calls the operating system")
    engine: str = option("", help="what the engine calls its version")
    memory: int = option(512 << 20, kind=size, help="what the engine's info calls the memory, such as 512m")
    delay: float = option(0.0, help="seconds to wait before each step of create")
    fail_create: str = option("", help=f"the step before which create fails: {', '.join(STEPS)}")
    fail_destroy: bool = option(False, help="whether destroy fails before it has done anything")
    weight: int = option(16 << 20, kind=size, help="what it says that it takes of the host's memory, such as 16m")
    unavailable: str = option("", help="why the driver cannot run here; empty: it can")

    @property
    def isolation(self) -> Isolation:
        """None at all."""
        return Isolation.PRIVILEGED

    def check(self) -> None:
        """Raise `DriverUnavailable` when the option ``unavailable`` says so."""
        if self.unavailable:
            raise DriverUnavailable(
                f"The driver '{self.name}' cannot run here.",
                facts={"reason": self.unavailable},
                hint="leave out the option 'unavailable'",
            )

    def footprint(self) -> int:
        """Return the option ``weight``; what one really takes is about 15 MB."""
        return self.weight

    def create(self, record: Record, seed: Seed) -> None:
        """Write the tags, take a port, plant the seed and start the engine."""
        home = self._home(record.id)
        if (home / "created").exists():
            return
        self._step("tags", record)
        self._tag(record)
        self._step("port", record)
        self.reserve(record)
        self._step("disk", record)
        # One that was started by a create that died: a new seed has a new token, which it would not obey.
        self._end(record.id, "kill")
        self._plant(home, record, seed)
        self._step("engine", record)
        self._boot(record.id)
        (home / "created").touch()

    def destroy(self, record: Record) -> None:
        """End the engine and remove the machine's files, the tags last."""
        if self.fail_destroy:
            raise DriverError(f"The machine '{record.name}' was told not to go.", facts={"id": record.id})
        self._end(record.id, "kill")
        _remove(self._home(record.id))
        for link, owner in (*self._links("networks/*"), *self._links("ports")):
            if owner == record.id:
                link.unlink(missing_ok=True)
        tags = self._tags(record.id)
        _remove(tags)
        # Of a creation that was killed while it wrote them.
        for half in tags.parent.glob(f".{tags.name}.*.tmp"):
            half.unlink(missing_ok=True)

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Return state and address of many, reading the directory once."""
        ports = self._ports()
        networks = self._addresses()
        return {record.id: self._seen(record.id, ports.get(record.id), networks) for record in records}

    def find(self) -> Iterable[Record]:
        """Return every machine of the directory."""
        return [record for path in self._glob("machines/*.json") if (record := _read_record(path)) is not None]

    def find_damaged(self) -> Iterable[Damaged]:
        """Return what has tags in the directory that cannot be read; its id is the name of the file."""
        found = [
            _damaged(path, kind, read)
            for kind, read in (("machine", Record.from_json), ("network", Network.from_json))
            for path in self._glob(f"{kind}s/*.json")
        ]
        return [each for each in found if each is not None]

    def reserve(self, record: Record) -> Address:
        """Take a port that nobody has, for the rest of the machine's life."""
        self._tag(record)
        port = self._ports().get(record.id) or self._take_port(record)
        return Address(ip=_HOST, engine_port=port)

    def start(self, record: Record) -> None:
        """Start the engine again, on the same port and disk."""
        self._made(record)
        if self._ask(record.id, "look") is None:
            self._boot(record.id)

    def stop(self, record: Record) -> None:
        """Let the engine end in order."""
        self._made(record)
        self._end(record.id, "stop")

    def kill(self, record: Record) -> None:
        """End the engine at once."""
        self._made(record)
        self._end(record.id, "kill")

    def pause(self, record: Record) -> None:
        """Let the engine answer nobody for a while."""
        self._running(record)
        self._ask(record.id, "pause")

    def resume(self, record: Record) -> None:
        """Let the engine answer again."""
        self._running(record)
        self._ask(record.id, "resume")

    def snapshot(self, record: Record, name: str) -> None:
        """Copy the disk."""
        home = self._made(record)
        kept = home / "snapshots" / name
        new = home / "snapshots" / f".{name}.new"
        _remove(new)
        shutil.copytree(home / "disk", new)
        _remove(kept)
        new.rename(kept)

    def restore(self, record: Record, name: str) -> None:
        """Bring the copy back; a machine that ran runs again."""
        home = self._made(record)
        if not (home / "snapshots" / name).is_dir():
            kept = self.snapshots(record)
            raise DriverError(
                f"The machine '{record.name}' has no snapshot '{name}'.", facts={"snapshots": ", ".join(kept) or "none"}
            )
        ran = self._end(record.id, "stop")
        _remove(home / "disk")
        shutil.copytree(home / "snapshots" / name, home / "disk")
        if ran:
            self._boot(record.id)

    def snapshots(self, record: Record) -> Sequence[str]:
        """Return the names of the copies."""
        return sorted(path.name for path in (self._home(record.id) / "snapshots").glob("[!.]*"))

    def connect(self, record: Record, network: Network) -> str:
        """Give the machine an address on the network. No packet can tell: a fake network carries none."""
        self._running(record)
        place = self.directory / "networks" / network.id
        place.mkdir(parents=True, exist_ok=True)
        _write_once(place.with_suffix(".json"), _network_json(network))
        for link, owner in self._links(f"networks/{network.id}"):
            if owner == record.id:
                return link.name
        for address in list(ipaddress.ip_network(network.subnet or _subnet(network.id)).hosts())[1:]:
            with contextlib.suppress(FileExistsError):
                os.link(self._tags(record.id), place / str(address))
                return str(address)
        raise DriverError(f"The network '{network.name}' is full.", facts={"subnet": network.subnet})

    def disconnect(self, record: Record, network: Network) -> None:
        """Take the address back."""
        for link, owner in self._links(f"networks/{network.id}"):
            if owner == record.id:
                link.unlink(missing_ok=True)

    def remove_network(self, network: Network) -> None:
        """Remove the network's addresses, then its tags."""
        _remove(self.directory / "networks" / network.id)
        _remove(self.directory / "networks" / f"{network.id}.json")

    def find_networks(self) -> Iterable[Network]:
        """Return every network of the directory."""
        return [network for path in self._glob("networks/*.json") if (network := _read_network(path)) is not None]

    def console(self, record: Record) -> str:
        """Return what the engine said."""
        try:
            return (self._home(record.id) / "console.log").read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def incidents(self, record: Record) -> Sequence[Incident]:
        """Return what `befall` noted."""
        try:
            lines = (self._home(record.id) / "incidents").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [Incident(Trouble(kind), text) for kind, _, text in (line.partition(" ") for line in lines)]

    def unseen(self, record: Record) -> Mapping[Trouble, str]:  # noqa: ARG002  # the same for all
        """Return nothing: all that a test lets befall a machine is seen."""
        return {}

    def befall(self, record: Record, incident: Incident) -> None:
        """Let something happen to the machine, for tests of whatever should notice."""
        with (self._home(record.id) / "incidents").open("a", encoding="utf-8") as stream:
            stream.write(f"{incident.kind} {incident.text}\n")

    def _home(self, id: Id) -> Path:
        return self.directory / "machines" / id

    def _tags(self, id: Id) -> Path:
        return self.directory / "machines" / f"{id}.json"

    def _glob(self, pattern: str) -> list[Path]:
        # `Path.glob` raises where another process removes a folder meanwhile.
        return sorted(self.directory / name for name in glob.glob(pattern, root_dir=self.directory))  # noqa: PTH207

    def _links(self, folder: str) -> Iterator[tuple[Path, str]]:
        """Yield the hard links to tags in a folder, and whose they are: damaged ones by what they are linked with."""
        tags: dict[int, str] | None = None
        for path in self._glob(f"{folder}/*"):
            if not path.is_file():
                continue
            if (record := _read_record(path)) is not None:
                yield path, record.id
                continue
            if tags is None:
                tags = dict(_inodes(self._glob("machines/*.json")))
            for inode, _ in _inodes([path]):
                if inode in tags:
                    yield path, tags[inode]

    def _ports(self) -> dict[str, int]:
        return {owner: int(path.name) for path, owner in self._links("ports")}

    def _addresses(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Return (machine, network's name) → its addresses, the second empty where there is no IPv6."""
        return {
            (owner, network.name): (path.name, _address6(network, path.name))
            for network in self.find_networks()
            for path, owner in self._links(f"networks/{network.id}")
        }

    def _seen(self, id: Id, port: int | None, networks: Mapping[tuple[str, str], tuple[str, str]]) -> Seen:
        if not self._tags(id).exists():
            return Seen(state=State.ABSENT)
        if not (self._home(id) / "created").exists():
            return Seen(state=State.PREPARING)
        answer = self._ask(id, "look", port)
        return Seen(
            state=State.STOPPED if answer is None else State(answer),
            address=Address(ip=_HOST, engine_port=port) if port else None,
            networks={name: address for (owner, name), (address, _) in networks.items() if owner == id},
            networks6={name: six for (owner, name), (_, six) in networks.items() if owner == id and six},
        )

    def _step(self, step: str, record: Record) -> None:
        clock.sleep(self.delay)
        if self.fail_create == step:
            raise DriverError(
                f"The machine '{record.name}' was told to fail.",
                facts={"step": step},
                hint="leave out the option 'fail_create'",
            )

    def _tag(self, record: Record) -> None:
        self._tags(record.id).parent.mkdir(parents=True, exist_ok=True)
        _write_once(self._tags(record.id), record.to_json())

    def _take_port(self, record: Record) -> int:
        (self.directory / "ports").mkdir(exist_ok=True)
        for port in random.sample(_PORTS, 200):
            link = self.directory / "ports" / str(port)
            with contextlib.suppress(FileExistsError):
                os.link(self._tags(record.id), link)
                if _is_free(port):
                    return port
                link.unlink()
        raise DriverError("No port is free.", facts={"tried": f"200 of {_PORTS.start}-{_PORTS.stop - 1}"})

    def _plant(self, home: Path, record: Record, seed: Seed) -> None:
        for place, file in seed.all_files().items():
            path = home / "disk" / place.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, file.mode), "wb") as stream:
                stream.write(file.content)
        facts = {
            "id": record.id,
            "name": seed.hostname,
            "memory": self.memory,
            "image": self.image,
            "engine": self.engine,
        }
        (home / "engine.json").write_text(json.dumps({**facts, "token": secrets.token_hex(16)}), "utf-8")

    def _boot(self, id: Id) -> None:
        """Start the engine; it listens when this returns."""
        home, port = self._home(id), self._ports()[id]
        with (home / "console.log").open("ab") as console:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", fake_engine.__file__, str(home), str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                text=True,
                start_new_session=True,
                creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
            )
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            if process.stdout.readline() != "listening\n":
                process.wait()
                said = (home / "console.log").read_text("utf-8", errors="replace").strip().rpartition("\n")[2]
                raise DriverError(f"The engine of the machine '{id}' did not start.", facts={"it said": said})
            process.stdin.write("go\n")
        if sys.platform == "win32":
            process.returncode = 0  # it lives on, and Popen need not warn of that
        else:
            process.wait()  # the child ends at once, its own child is the engine

    def _ask(self, id: Id, order: str, port: int | None = None) -> str | None:
        """Return what the engine answers to an order; None when there is no engine (any more)."""
        port = port or self._ports().get(id)
        try:
            token = json.loads((self._home(id) / "engine.json").read_text("utf-8"))["token"]
            if port is None:
                return None
            with socket.create_connection((_HOST, port), timeout=10) as connection:
                connection.sendall(fake_engine.ORDER + f"{token} {order}\n".encode())
                with connection.makefile() as stream:
                    return stream.readline().strip() or None
        except (ConnectionError, FileNotFoundError, ValueError):
            return None

    def _end(self, id: Id, order: str) -> bool:
        """End the engine; return whether there was one."""
        ran = self._ask(id, "look") is not None
        if ran:
            self._ask(id, order)
        return ran

    def _made(self, record: Record) -> Path:
        home = self._home(record.id)
        if not (home / "created").exists():
            raise DriverError(f"There is no machine '{record.name}'.", facts={"id": record.id})
        return home

    def _running(self, record: Record) -> None:
        if self._ask(record.id, "look") is None:
            raise NotRunning(f"The machine '{record.name}' does not run.", facts={"id": record.id})


def _is_free(port: int) -> bool:
    try:
        with socket.create_server((_HOST, port)):
            return True
    except OSError:
        return False


def _subnet(id: Id) -> str:
    """Return a subnet that follows from the id alone, so that two who make the network at once agree on it."""
    return f"10.{int(id[:2], 16)}.{int(id[2:4], 16)}.0/24"


def _write_once(path: Path, data: Mapping[str, object]) -> None:
    """Write a file unless it is there; it appears with its whole content."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text(json.dumps(data), "utf-8")
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_record(path: Path) -> Record | None:
    try:
        return Record.from_json(files.read_json(path))
    except files.UNREADABLE:
        return None  # just gone, or damaged


def _damaged(path: Path, kind: str, read: Callable[[object], object]) -> Damaged | None:
    data: object = None
    try:
        content = files.read(path, "the tag")
        data = parsing.json_value(content, "the tag")
        read(data)
    except FileNotFoundError:
        return None
    except files.UNREADABLE as error:
        reason = error if isinstance(error, Malformed) else files.reason(error)
        try:
            id_ = str(stored.id_(path.stem))
        except Malformed:
            id_ = ""
        return stored.damaged(data, reason, id=id_, place=str(path), kind=kind)
    return None


def _inodes(paths: Iterable[Path]) -> Iterator[tuple[int, str]]:
    for path in paths:
        with contextlib.suppress(OSError):
            yield path.lstat().st_ino, path.stem


def _network_json(network: Network) -> dict[str, object]:
    return {**network.to_json(), "subnet": network.subnet or _subnet(network.id)}


def _address6(network: Network, address: str) -> str:
    """Return the IPv6 address that has the number of an IPv4 address."""
    if not network.subnet6:
        return ""
    number = int(ipaddress.IPv4Address(address)) - int(ipaddress.IPv4Network(network.subnet)[0])
    return str(ipaddress.IPv6Network(network.subnet6)[number])


def _read_network(path: Path) -> Network | None:
    try:
        return Network.from_json(files.read_json(path))
    except files.UNREADABLE:
        return None


def _remove(tree: Path) -> None:
    trees.remove(tree)
