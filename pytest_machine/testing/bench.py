"""The bench that `DriverSuite` tests drivers on: machines to be, probes of them, and the oracle after every test."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from pytest_machine.certs import Authority
from pytest_machine.driver import CAPABILITIES, Driver, SupportsNetworks, SupportsReserve
from pytest_machine.engine import ping
from pytest_machine.errors import DriverUnavailable, MachineError
from pytest_machine.model import Address, Network, Record, Seed, SeedFile, Seen, Value, names, new_id
from pytest_machine.options import configure
from pytest_machine.ssh import SshConnection, new_key, pin
from pytest_machine.support import clock
from pytest_machine.waiting import NotYet, wait

from .process import Elsewhere

T = TypeVar("T")

# What `find` must rebuild: who it is, whose it is, how to reach its driver again, and when a stranger may destroy it.
TAGS = ("id", "name", "driver", "options", "store", "host", "run", "lab", "expires")
NETWORK_TAGS = ("id", "name", "store", "host", "run", "lab", "subnet6", "mtu", "isolated")


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """A machine under test: its record and seed, and what its owner holds."""

    record: Record
    seed: Seed = field(repr=False)
    key: Path
    """The private login key."""
    certs: Path
    """A client's ca.pem, cert.pem and key.pem. The server's are in the seed where the driver reserves addresses."""

    @property
    def id(self) -> str:
        """The machine's id."""
        return self.record.id


Make = Callable[..., Specimen]
"""What the fixture `specimen` gives: ``make(name="", *, store="store", reserve=True, networks=())``."""
MakeNetwork = Callable[..., Network]
"""What the fixture `network` gives: ``make(name)``, and by keyword what it is to be like: ``subnet=``, ``mtu=``..."""


class Bench:
    """What the tests of `DriverSuite` stand on; its docstring says what a subclass gives and may change."""

    driver_class: ClassVar[type]
    options: ClassVar[Mapping[str, Value]] = {}
    """The driver's options."""
    many: ClassVar[int] = 10
    """How many machines "many at once" are."""
    ready_seconds: ClassVar[float] = 60.0
    """Within how many seconds a machine that was created, started, resumed or restored must answer."""
    settle_seconds: ClassVar[float] = 3.0
    """For how many seconds after `destroy` the outside may still be tidying up: a kernel lets go in its own time."""
    kill_at: ClassVar[Sequence[float]] = (0.0, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.97)
    """When a process is killed in the middle of `create`: fractions of the time that a whole one takes."""
    shared: ClassVar[bool] = False
    """Whether others make machines of this kind here at the same time. Then the oracle is weaker: only what bears the
    id of one of the test's own machines or networks counts as left."""
    equal_subnets: ClassVar[bool] = True
    """Whether networks may have equal subnets. If not, the driver must refuse the second one by a `DriverError`."""
    has_engine: ClassVar[bool] = True
    """Whether its machines have a Docker daemon, from their image or by provisioning; no test can use them without."""
    required: ClassVar[bool] = False
    """Whether a driver that cannot run here is a failure, not a skip."""

    # -- what a subclass gives --

    def leftovers(self) -> set[str]:
        """Return what there is of the driver's machines in the world, seen without the driver."""
        raise NotImplementedError(f"{type(self).__name__} must have a method leftovers(): see DriverSuite")

    def write(self, machine: Specimen, text: str) -> None:
        """Put `text` into a file on the machine's disk, so that `read` finds it."""
        with self.ssh(machine) as connection:
            connection.put(text.encode(), "conformance")
            # A power cut may take what has not reached the disk; that is no driver's fault.
            connection.run("sync")

    def read(self, machine: Specimen) -> str | None:
        """Return what `write` wrote; None when it is not there."""
        with self.ssh(machine) as connection:
            result = connection.run("cat", "conformance", check=False)
        if result.returncode == 255:
            raise NotYet(result.stderr)
        return result.stdout if result.returncode == 0 else None

    def answers(self, machine: Specimen) -> bool:
        """Return whether the machine is awake, within some seconds."""
        try:
            if isinstance(self.driver(), SupportsReserve):
                ping(self.address(machine), certs=machine.certs, timeout=2)
            else:
                with self.ssh(machine) as connection:
                    connection.run("true", timeout=5)
        except (NotYet, OSError, MachineError):
            return False
        return True

    def mtu(self, machine: Specimen, address: str) -> int:
        """Return the largest packet of the interface that has an address, in bytes."""
        with self.ssh(machine) as connection:
            links = json.loads(connection.run("ip", "-json", "address", "show", "to", address).stdout)
        return int(next(link["mtu"] for link in links if link))

    def reaches_outside(self, machine: Specimen) -> bool:  # noqa: ARG002  # a subclass's is asked of one
        """Return whether a packet of the machine comes through to somebody beyond its host, and an answer back."""
        pytest.skip(f"{type(self).__name__} does not say how to reach the outside: see Bench.reaches_outside")

    def damage(self, machine: Specimen) -> None:  # noqa: ARG002  # a subclass damages one
        """Damage the tags of the machine at the provider, so that no record can be rebuilt from them."""
        pytest.skip(f"{type(self).__name__} does not say how tags are damaged: see Bench.damage")

    # -- what a subclass can use --

    def driver(self) -> Driver:
        """Return a new instance of the driver with the suite's options: it remembers nothing, so any will do."""
        made: Driver = configure(self.driver_class, self.options)
        return made

    def seen(self, machine: Specimen) -> Seen:
        """Return what the driver sees of one machine."""
        return self.driver().look([machine.record])[machine.record.id]

    def address(self, machine: Specimen) -> Address:
        """Return the machine's address, as the driver sees it."""
        found = self.seen(machine).address
        if found is None:
            raise NotYet(f"look() sees no address of '{machine.record.name}'")
        return found

    @contextlib.contextmanager
    def ssh(self, machine: Specimen) -> Iterator[SshConnection]:
        """Connect to the machine, holding it to the host key that it was born with."""
        address = self.address(machine)
        known_hosts = machine.key.with_name("known_hosts")
        pin(known_hosts, address, machine.seed.host_key_public)
        connection = SshConnection(address, key=machine.key, known_hosts=known_hosts, control=False)
        try:
            yield connection
        finally:
            connection.close()

    def create(self, machine: Specimen) -> Specimen:
        """Create the machine and wait until it answers."""
        self.driver().create(machine.record, machine.seed)
        self.wait_for_answer(machine)
        return machine

    def wait_for_answer(self, machine: Specimen) -> None:
        """Wait until the machine is awake."""

        def check() -> None:
            if not self.answers(machine):
                raise NotYet(f"no answer; look() says {self.seen(machine)}")

        wait(check, f"An answer of the machine '{machine.record.name}'", timeout=self.ready_seconds)

    def elsewhere(self, method: str, *arguments: object) -> object:
        """Return what a method of the driver gives in a fresh process."""
        with Elsewhere(self.driver(), method, *arguments) as process:
            process.go()
            return process.result(timeout=self.ready_seconds)

    def read_soon(self, machine: Specimen) -> str | None:
        """Read as soon as the machine lets us: SSH may come up after Docker."""
        return wait(lambda: self.read(machine), "The machine's file", timeout=self.ready_seconds)

    def expect_left(self, before: set[str], after_what: str) -> None:
        """Fail unless the oracle comes to see nothing but what it saw before."""
        until = clock.monotonic() + self.settle_seconds
        while (left := self._mine(self.leftovers() - before)) and clock.monotonic() < until:
            clock.sleep(0.1)
        if left:
            shown = "\n".join(f"  {thing}" for thing in sorted(left)[:40])
            pytest.fail(
                f"{after_what}, {len(left)} things are left that were not there before:\n{shown}", pytrace=False
            )

    def _mine(self, things: set[str]) -> set[str]:
        return {thing for thing in things if not self.shared or any(identity in thing for identity in self.own)}

    # -- fixtures --

    @pytest.fixture(autouse=True)
    def _runs_here(self) -> None:
        try:
            self.driver().check()
        except DriverUnavailable as error:
            if self.required:
                raise
            pytest.skip(f"the driver '{self.driver_class.name}' cannot run here: {error}")  # type: ignore[attr-defined]

    @pytest.fixture(autouse=True)
    def _nothing_left(self, _runs_here: None) -> Iterator[None]:
        """Compare what the oracle sees before and after each test: nothing may be left, nothing of others be gone."""
        self.own: set[str] = set()
        before = self.leftovers()
        yield
        self.expect_left(before, "After the test and the destruction of its machines")
        gone = self._mine(before - self.leftovers())
        assert not gone, f"The test took away what was not its own: {names(sorted(gone))}"

    @pytest.fixture
    def specimen(self, _nothing_left: None, tmp_path: Path) -> Iterator[Make]:
        """Return a maker of machines to be: their record is noted, nothing of them exists. Destroyed at the end."""
        made: list[Specimen] = []
        authority = Authority.ensure(tmp_path / "authority")

        def make(
            name: str = "", *, store: str = "store", reserve: bool = True, networks: Sequence[str] = ()
        ) -> Specimen:
            identity = new_id()
            record = Record(
                id=identity,
                name=name or f"m-{identity}",
                driver=self.driver_class.name,  # type: ignore[attr-defined]
                options={key: value for key, value in self.options.items() if value is not None},
                store=tmp_path / store,
                host=socket.gethostname(),
                run=f"run-{secrets.token_hex(3)}",
                lab="conformance",
                networks=tuple(networks),
                created=clock.now(),
                expires=clock.now() + 3600,
            )
            record.directory.mkdir(parents=True)
            private, public = new_key("conformance")
            key = record.directory / "id_ed25519"
            key.touch(mode=0o600)
            key.write_text(private, "utf-8")
            host_key, host_key_public = new_key(record.name)
            # Before anything is made: a reservation counts as a trace of the machine.
            machine = Specimen(
                record=record,
                seed=Seed(
                    hostname=record.name, authorized_key=public, host_key=host_key, host_key_public=host_key_public
                ),
                key=key,
                certs=record.directory,
            )
            made.append(machine)
            self.own.add(machine.id)
            driver = self.driver()
            if reserve and isinstance(driver, SupportsReserve):
                address = driver.reserve(record)
                machine = _certified(machine, address, authority)
                made[-1] = machine
            return machine

        yield make
        errors = [error for machine in made if (error := self._destroy(machine)) is not None]
        if errors:
            raise ExceptionGroup("destroy() failed at the end of the test", errors)

    def _destroy(self, machine: Specimen) -> Exception | None:
        try:
            self.driver().destroy(machine.record)
        except Exception as error:  # noqa: BLE001  # whatever it is, the other machines must go too
            return error
        return None

    @pytest.fixture
    def network(self, _nothing_left: None, tmp_path: Path) -> Iterator[MakeNetwork]:
        """Return a maker of networks to be; removed at the end."""
        made: list[Network] = []

        def make(name: str, **changes: Any) -> Network:
            made.append(
                Network(
                    id=new_id(),
                    name=name,
                    store=tmp_path / "store",
                    host=socket.gethostname(),
                    run="run-net",
                    created=clock.now(),
                    **{"lab": "conformance", **changes},
                )
            )
            self.own.add(made[-1].id)
            return made[-1]

        yield make
        driver = self.driver()
        for network in made:
            if isinstance(driver, SupportsNetworks):
                driver.remove_network(network)

    def capable(self, protocol: type[T]) -> T:
        """Return the driver if it has a capability; skip the test by its name otherwise."""
        driver = self.driver()
        if not isinstance(driver, protocol):
            word = next(word for word, known in CAPABILITIES.items() if known is protocol)
            pytest.skip(f"the driver '{driver.name}' does not claim '{word}' ({protocol.__name__})")
        return driver


def _certified(machine: Specimen, address: Address, authority: Authority) -> Specimen:
    """Return the machine with certificates for its address in its seed, and a client's beside its record."""
    pair = authority.issue_server(name=machine.record.name, hosts=[address.ip])
    authority.copy_client(machine.certs)
    files = {
        "/etc/docker/ca.pem": SeedFile(authority.ca),
        "/etc/docker/server.pem": SeedFile(pair.cert),
        "/etc/docker/server-key.pem": SeedFile(pair.key, 0o600),
    }
    seed = machine.seed
    return Specimen(
        record=machine.record.with_(address=address),
        seed=Seed(
            hostname=seed.hostname,
            authorized_key=seed.authorized_key,
            host_key=seed.host_key,
            host_key_public=seed.host_key_public,
            files=files,
        ),
        key=machine.key,
        certs=machine.certs,
    )


def expect_equal(found: object, wanted: object, tags: Sequence[str]) -> None:
    """Fail unless what was rebuilt from tags is what was tagged."""
    lost = [
        f"  {tag}: {getattr(found, tag)!r} instead of {getattr(wanted, tag)!r}"
        for tag in tags
        if getattr(found, tag) != getattr(wanted, tag)
    ]
    assert not lost, "rebuilt from its tags, it differs:\n" + "\n".join(lost)
