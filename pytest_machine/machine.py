"""Machine: one machine's life, and what a test holds in its hand."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from . import answers, birth, certs, cleaning, client_environment, engine, service
from .capture import LIMIT, OWN, Capture, Captures
from .connection import AnyBytes, AnyPath, words
from .driver import (
    CAPABILITIES,
    Driver,
    SupportsAdoption,
    SupportsConsole,
    SupportsFootprint,
    SupportsKill,
    SupportsNetworks,
    SupportsPause,
    SupportsPower,
    SupportsReboot,
    SupportsReset,
    SupportsSnapshotNames,
    SupportsSnapshots,
)
from .errand import Errand
from .errors import (
    BadSpec,
    CommandFailed,
    ConnectFailed,
    MachineError,
    MachineOff,
    NotRunning,
    Unsupported,
    UsageError,
)
from .incoming import SECONDS, SIZE
from .model import Address, Id, Network, Record, Result, Seen, Spec, State, meant, names
from .options import configure
from .plugins import Registry, another
from .presence import is_forgotten
from .process import SCRIPT, Process
from .provisioner import COPYING_HERE, Tell
from .service import HostPort
from .ssh import SshConnection
from .store import Store, write
from .support import clock, files
from .waiting import NotYet, wait

if TYPE_CHECKING:
    import docker

    from .compose import Compose

T = TypeVar("T")

# Seconds that running containers get to end by themselves before an orderly `destroy` takes their host away: enough for
# a database to flush, too little to be felt where nothing listens to SIGTERM.
_GRACE = 1.0

# Seconds that Docker gets to come back after it was given other certificates or another release.
_PROVISIONED = 60.0

# Seconds that its Docker gets to answer for the first time before its driver is asked whether the machine runs at all,
# and those that one answer may take.
_FIRST, _ANSWER = 5.0, 60.0

# What the engine held when the machine was noted.
_PRISTINE = "pristine.json"


# What only a shell understands, and what may stand in the name of no program that is meant.
_SYNTAX = re.compile(r"[|&;<>()$`*?\[\]{}~#\n=]")
_SHELLS = re.compile(rf"\s|{_SYNTAX.pattern}")


_OPERATORS = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "<", "2>", "2>&1", "&>"})


def _quiet(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Attachment:
    """A machine's place on one network."""

    name: str
    ip: str
    ip6: str = ""
    """Its IPv6 address; empty where the network has none."""


class Machine:
    """A Docker host. A context manager: it is destroyed at the end of the block.

    Made by `Machine.create`, `Lab.create` or a fixture; `Machine.load` gives one that is noted in a store.
    """

    def __init__(
        self, record: Record, *, driver: Driver, store: Store, registry: Registry, seconds: float = 0.0
    ) -> None:
        self.record = record
        self.driver = driver
        self.seconds = seconds
        """How long it took from the call of `create` until Docker answered."""
        self._store = store
        self._registry = registry
        self._lock = threading.RLock()
        self._connection: SshConnection | None = None
        self._docker: docker.DockerClient | None = None
        self._captures: list[Capture] = []
        self._processes: list[Process] = []
        self._everywhere: tuple[Captures, Path, int] | None = None  # what `capture_all` returned last
        self.equip: Callable[[Machine], None] | None = None
        """Called whenever it has booted here and its Docker answers: its lab gives it routes and what its links do."""
        self.booted: Callable[[Machine], None] | None = None
        """Called after `equip`, and after it was noted where that is due: its lab puts faults in force again."""
        self.resumed: Callable[[Machine], None] | None = None
        """Called when it has been frozen and goes on: its lab tells it what it missed."""
        self.ended: Callable[[Machine], None] | None = None
        """Called when it is destroyed: its lab drops it."""
        self._destroyed = False

    @classmethod
    def create(
        cls,
        spec: Spec,
        *,
        store: Store,
        registry: Registry,
        run: str = "",
        lab: str = "",
        expires: float | None = None,
    ) -> Machine:
        """Make a machine; it is ready when this returns, or nothing is left of it when this raises."""
        begun = clock.monotonic()
        unborn = birth.note(spec, store=store, registry=registry, run=run, lab=lab, expires=expires)
        record = birth.bear(unborn, store=store)
        seconds = clock.monotonic() - begun
        return cls(record, driver=unborn.driver, store=store, registry=registry, seconds=seconds)

    @classmethod
    def load(cls, name: str, *, store: Store, registry: Registry) -> Machine:
        """Return the machine that the store has under that name; raises `UnknownMachine` or `StoreError`."""
        record = store.load(name)
        given = {**record.options, **store.secrets(name)}
        driver = configure(registry.driver(record.driver), given)
        seconds = record.ready - record.created if record.ready else 0.0
        return cls(record, driver=driver, store=store, registry=registry, seconds=seconds)

    def __repr__(self) -> str:
        where = f" at {self.record.address.ip}" if self.record.address else ""
        return f"<Machine '{self.name}' ({self.record.driver}){where}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    # What it is.

    @property
    def name(self) -> str:
        """Its name, which is its host name too."""
        return self.record.name

    @property
    def id(self) -> Id:
        """Its identity, under which its driver knows it."""
        return self.record.id

    @property
    def gone(self) -> bool:
        """Whether it was destroyed, here or elsewhere, as far as this object and the store know. Asks no driver."""
        return self._destroyed or is_forgotten(self.record)

    def forget(self) -> None:
        """Take it for destroyed from now on, because its driver no longer has it."""
        self._destroyed = True
        self._end_captures()
        self._let_go()

    def _must_exist(self) -> None:
        """Raise `NotRunning` at once when it was destroyed; its address may be another machine's by now.

        A driver whose machines live on this host answers within milliseconds, so it is asked each time.
        """
        if self.gone or (isinstance(self.driver, SupportsFootprint) and self._is_absent()):
            raise NotRunning(
                f"The machine '{self.name}' was destroyed.",
                facts={"driver": self.record.driver, "id": self.id},
                hint=f"make another one: machine_factory('{self.name}')",
            )

    def _is_absent(self) -> bool:
        try:
            return self.state is State.ABSENT
        except (MachineError, OSError, LookupError):
            return False  # its driver cannot tell now

    @property
    def state(self) -> State:
        """What it is doing now, by its driver."""
        return answers.seen(self.driver, self.record).state

    @property
    def address(self) -> Address:
        """How it is reached; raises `NotRunning` when it has no address."""
        if self.record.address is None:
            raise NotRunning(f"The machine '{self.name}' has no address.", hint="machine.start()")
        return self.record.address

    @property
    def ip(self) -> str:
        """Its address, as reached from here."""
        return self.address.ip

    @property
    def url(self) -> str:
        """Its engine, as ``DOCKER_HOST`` wants it."""
        return self.address.url

    @property
    def networks(self) -> Mapping[str, Attachment]:
        """Its place on each of the lab's networks: ``machine.networks["front"].ip``."""
        return self.links_of(answers.seen(self.driver, self.record))

    def links_of(self, seen: Seen) -> Mapping[str, Attachment]:
        """Return its place on each network, by what its driver has seen."""
        # As it was asked for, then what came later.
        order = sorted(seen.networks, key=lambda name: [*self.record.networks, name].index(name))
        return {name: Attachment(name, seen.networks[name], seen.networks6.get(name, "")) for name in order}

    @property
    def env(self) -> dict[str, str]:
        """The variables that make ``docker``, Compose, Testcontainers and ``docker.from_env()`` talk to it.

        Where this process's environment names a bundle of authorities (``REQUESTS_CA_BUNDLE`` and its like) or a proxy,
        those variables are here too: with a bundle that has both authorities, and with the machine's address excepted.
        A variable that speaks of another engine (``DOCKER_CONTEXT``, ``DOCKER_API_VERSION`` and more) is empty here,
        which clients take for unset.
        """
        return {name: value or "" for name, value in self._changes(os.environ).items()}

    def env_over(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return an environment for a child process whose Docker clients are to talk to this machine."""
        return client_environment.applied(environ, self._changes(environ))

    def _changes(self, environ: Mapping[str, str]) -> client_environment.Changes:
        self._must_exist()
        return client_environment.changes(self.address, name=self.name, certs=self.record.directory, environ=environ)

    def cover(self) -> client_environment.Cover:
        """Set `env` in this process until the cover is ended."""
        return client_environment.Cover(self._changes(os.environ))

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """Set `env` in this process for a block; afterwards the variables are what they were."""
        with client_environment.covering(self._changes(os.environ)):
            yield

    # What is in it.

    def _client(self) -> docker.DockerClient:
        address, directory = self.address, self.record.directory
        try:
            found = engine.client(address, certs=directory, timeout=_FIRST)
        except OSError as error:
            if off := self._off():
                raise off from error
            if not isinstance(error, TimeoutError):
                raise
            return engine.client(address, certs=directory, timeout=_ANSWER)
        found.api.timeout = int(_ANSWER)
        return found

    @property
    def docker(self) -> docker.DockerClient:
        """A client of its engine: its own certificates, no proxy, an answer within 60 s or an error.

        Raises `NotRunning` when it does not answer because the machine is stopped or paused.
        """
        self._must_exist()
        with self._lock:
            if self._docker is None:
                self._docker = self._client()
            return self._docker

    def _off(self) -> NotRunning | None:
        """Return the error for a machine that does not run; nothing where it does, or its driver cannot tell."""
        try:
            state = self.state
        except (MachineError, OSError):
            return None
        if state in (State.RUNNING, State.PREPARING):
            return None
        if state is State.ABSENT:
            return NotRunning(f"The machine '{self.name}' was destroyed.", facts={"state": state})
        return MachineOff(
            f"The machine '{self.name}' does not run.",
            facts={"state": state},
            hint="machine.resume()" if state is State.PAUSED else "machine.start()",
        )

    def check_running(self) -> None:
        """Raise `NotRunning` at once, with the remedy, when the machine is stopped, paused, saved or destroyed."""
        self._must_exist()
        if off := self._off():
            raise off

    @contextlib.contextmanager
    def _telling_state(self) -> Iterator[None]:
        """Let an error of SSH say so when it is because the machine does not run."""
        try:
            yield
        except ConnectFailed as error:
            if off := self._off():
                if not isinstance(off, MachineOff):
                    raise off from error
                error.facts, error.hint = {**off.facts, **error.facts}, off.hint
            raise

    @property
    def connection(self) -> SshConnection:
        """Its SSH connection: one for all commands, made when the first needs it."""
        self._must_exist()
        with self._lock:
            if self._connection is None:
                if self.address.ssh_port == 0:
                    raise Unsupported(
                        f"The machine '{self.name}' has no SSH that we know of.",
                        hint="its Docker is what there is: machine.docker",
                    )
                # Access that came without a host key, from a machine of Docker Machine's that nobody had logged in to.
                self._connection = birth.connect(self.record, trust=self._foreign_engine())
            return self._connection

    def run(
        self,
        *argv: AnyPath,
        check: bool = True,
        timeout: float | None = None,
        input: str | AnyBytes | None = None,
    ) -> Result:
        """Run a command in the machine, as its login user; see `pytest_machine.connection.Connection.run`.

        Its words are texts or paths, its input text or bytes; raises `UsageError` for anything else.
        """
        with self._telling_state(), _telling_shell(argv):
            return self.connection.run(*argv, check=check, timeout=timeout, input=input)

    def sh(
        self,
        script: str,
        *,
        check: bool = True,
        timeout: float | None = None,
        input: str | AnyBytes | None = None,
    ) -> Result:
        """Run a script with the machine's POSIX shell, ``sh -c``: ``machine.sh("ps ax | grep dockerd")``.

        The return code is the last command's; ``sh`` has no ``pipefail``, so the other commands of a pipe may fail
        unseen. Everything else is as with `run`.
        """
        if not isinstance(script, str):
            raise UsageError(
                "A script is one text.",
                facts={"script": f"{script!r:.100}", "type": type(script).__name__},
                hint='machine.sh("ls -l | wc -l"), or machine.run("ls", "-l")',
            )
        return self.run("sh", "-c", script, check=check, timeout=timeout, input=input)

    def start_process(self, *argv: AnyPath) -> Process:
        """Start a command that goes on in the background, and return a handle: lines, wait, stop, returncode.

        A context manager: ``with machine.start_process("tail", "-F", "/var/log/app.log") as log:``. The command ends
        with the block, with `Process.stop`, with this process, and with the machine. It reads nothing.
        """
        said = words(argv)
        with self._telling_state():
            process = Process(said, self.name, self.connection.start("sh", "-c", SCRIPT, "sh", *said))
        self._processes = [each for each in self._processes if each.returncode is None] + [process]
        return process

    def put(
        self,
        source: AnyPath | AnyBytes,
        target: AnyPath,
        *,
        mode: int = 0o644,
    ) -> None:
        """Write bytes, a local file or a local directory to `target` in the machine; a text is a local path."""
        with self._telling_state():
            self.connection.put(source, target, mode=mode)

    def get(self, source: AnyPath, target: AnyPath, *, size: int = SIZE, timeout: float = SECONDS) -> tuple[str, ...]:
        """Bring a file or directory of the machine home; see `pytest_machine.ssh.SshConnection.get`.

        Return what was left out of a directory and why, a line each: links that lead out of their own directory,
        devices, pipes, names that nobody can print. Raises `TransferFailed` when the machine sends something else, and
        `LimitExceeded` when it is more than `size` bytes (16 GiB) or takes longer than `timeout` seconds (an hour).
        """
        with self._telling_state():
            return self.connection.get(source, target, size=size, timeout=timeout)

    def capture(
        self,
        file: str | os.PathLike[str],
        *,
        network: str | None = None,
        interface: str | None = None,
        only: str = "",
        limit: int = LIMIT,
    ) -> Capture:
        """Capture packets for as long as a block lasts: ``with machine.capture("web.pcap", network="front"): ...``.

        Those of its interface on a network of the lab; without `network`, on the first that it sits on, or on its
        driver's own. `interface` names one instead: ``"docker0"``, ``"lo"``, ``"any"``. `only` says which packets, in
        tcpdump's words: ``"tcp port 80"``. The file has at most `limit` bytes, of the last packets, and is complete
        when the block ends or `Capture.close` returns; what it has before that can be read too. It goes on when the
        machine is started again.

        Raises `Unsupported` where the machine has no SSH or no tcpdump, `BadSpec` for a network that it is not on or
        a filter that is none.
        """
        where = interface or ""
        if interface is None:
            on = self.networks
            if network is not None and network not in on:
                raise BadSpec(
                    f"The machine '{self.name}' is not on a network '{network}'.",
                    facts={"networks": names(on)},
                    hint=f"machine.capture(..., network='{next(iter(on), network)}')",
                )
            network = network or (next(iter(on), "") if self.record.networks else "")
            where = on[network].ip if network else ""
        return self._capture(Path(file), where=where, network=network or "", only=only, limit=limit)

    def _capture(self, file: Path, *, where: str, network: str, only: str = "", limit: int = LIMIT) -> Capture:
        capture = Capture(
            file, lambda: self.connection, machine=self.name, where=where, network=network, only=only, limit=limit
        )
        try:
            capture.start()
        except BaseException:
            capture.close()
            raise
        self._captures.append(capture)
        capture.ended = self._captures.remove
        return capture

    def capture_all(self, directory: Path, *, limit: int = LIMIT) -> Captures:
        """Capture packets on each of the lab's networks and on its driver's own, each into a file of its name.

        A network that it is put on later is captured from then on. Raises what `capture` raises; then nothing is
        captured.
        """
        places = {**{name: link.ip for name, link in self.networks.items()}, OWN: ""}
        found = Captures()
        try:
            for name, where in places.items():
                network = "" if name == OWN else name
                found.append(self._capture(directory / f"{name}.pcap", where=where, network=network, limit=limit))
        except BaseException:
            found.close()
            raise
        self._everywhere = (found, directory, limit)
        return found

    def _capture_too(self, link: Attachment) -> None:
        """Capture on a network, too, that it was put on just now, where all of its networks are."""
        found, directory, limit = self._everywhere or (Captures(), Path(), 0)
        if self._everywhere is None or found.closed:
            return
        with contextlib.suppress(MachineError, OSError):  # then it is not: the network is what was asked for
            if known := next((each for each in found if each.network == link.name), None):
                known.start(link.ip)
            else:
                file = directory / f"{link.name}.pcap"
                found.append(self._capture(file, where=link.ip, network=link.name, limit=limit))

    def _hush(self) -> None:
        """Let captures pause before the machine, or the connection to it, goes away."""
        for capture in list(self._captures):
            capture.pause()

    def _hear_again(self) -> None:
        for capture in list(self._captures):
            with contextlib.suppress(MachineError, OSError):  # its file is what it is until then
                capture.start()

    def console(self) -> str:
        """Return the end of what it printed while it booted and ran; empty where its driver cannot tell."""
        return answers.console(self.driver, self.record) if isinstance(self.driver, SupportsConsole) else ""

    def port(self, container: str | Any, port: int, protocol: str = "tcp") -> HostPort:
        """Return where a container's published port is reached from here.

        `container` is a name, an id or docker-py's container. Published at one address of the machine alone, it is at
        that one. Where this is a loopback address, or the machine is reached by published ports alone, it is forwarded
        over SSH, until the machine is stopped or closed. Raises `NotRunning` when the port is not published,
        `Unsupported` for one that cannot be forwarded: any but TCP's.
        """
        from docker.errors import NotFound

        try:
            return self._published(container, port, protocol)
        except NotFound as error:
            name = container if isinstance(container, str) else str(container.name)
            there = [str(each.name) for each in self.docker.containers.list(all=True)]
            raise UsageError(
                f"There is no container '{name}' on the machine '{self.name}'.",
                facts={"containers": names(there)},
                hint=meant(name, there) or f"machine.docker.containers.run(..., name='{name}', detach=True)",
            ) from error

    def _published(self, container: str | Any, port: int, protocol: str = "tcp") -> HostPort:
        found = self.docker.containers.get(container if isinstance(container, str) else container.id)
        bound = (found.attrs["NetworkSettings"]["Ports"] or {}).get(f"{port}/{protocol}")
        if not bound:
            raise NotRunning(
                f"The container '{found.name}' does not publish port {port}/{protocol}.",
                facts={"state": found.status, "published": names(found.attrs["NetworkSettings"]["Ports"] or {})},
                hint=f"containers.run(..., ports={{'{port}/{protocol}': None}})",
            )
        at, number = service.published(bound)
        return self._reached(number, protocol, at=at)

    def _reached(self, port: int, protocol: str = "tcp", *, at: str = "") -> HostPort:
        """Return where a port of the machine is reached from here; `at` is the one of its addresses that it is at."""
        self._must_exist()
        if not self.address.inner and not service.is_loopback(at):
            return HostPort(at or self.ip, port)
        if protocol != "tcp":
            raise Unsupported(
                f"Port {port}/{protocol} of the machine '{self.name}' cannot be reached from here.",
                facts={"reached": "by forwarding over SSH, which takes TCP alone", "inside": at or self.address.inner},
                hint="reach it from another machine, or from a container on this one",
            )
        return HostPort("127.0.0.1", self.connection.forward(port, host=at or "127.0.0.1"), forwarded=True)

    def wait_for(
        self,
        *,
        http: str | None = None,
        port: int | None = None,
        log: str | None = None,
        container: str | Any = None,
        timeout: float = 60.0,
    ) -> None:
        """Wait until a service answers; raises `WaitTimeout` with what was last seen, `UsageError` for nonsense.

        Raises `NotRunning` at once when the machine does not run at the call.

        `http` is a URL on this machine that must answer below 400, in full or as ``:8080/health``; `port` a TCP port of
        the machine that must accept; `log` a regular expression that `container`'s log must show. With `container`,
        `http` and `port` speak of its ports, wherever they are published.
        """
        page = None if http is None else service.page(http)
        number = None if port is None else service.number(port)
        pattern = service.pattern(log, container)
        if (http, port, log) == (None, None, None):
            raise UsageError("Nothing was said to wait for.", hint="machine.wait_for(port=80)")
        self.check_running()
        if page is not None:
            wait(lambda: service.answers(self._located(page, container)), f"'{http}' on '{self.name}'", timeout=timeout)
        if number is not None:
            where = f"Port {number} of '{self.name}'"
            wait(lambda: service.listens(self._place(number, container)), where, timeout=timeout)
        if pattern is not None:
            what = f"'{log}' in the log of '{getattr(container, 'name', container)}'"
            wait(lambda: service.shows(self._log(container), pattern), what, timeout=timeout, every=0.1)

    def _place(self, port: int, container: str | Any) -> HostPort:
        return self._reached(port) if container is None else self._published(container, port)

    def _located(self, page: tuple[int | None, str], container: str | Any) -> str:
        port, path = page
        return path if port is None else f"http://{self._place(port, container)}{path}"

    def _log(self, container: str | Any) -> str:
        found = self.docker.containers.get(container if isinstance(container, str) else container.id)
        return bytes(found.logs()).decode(errors="replace")

    def compose(self, *files: str | Path, project: str = "", env: Mapping[str, str] | None = None) -> Compose:
        """Return what Compose files describe, for this machine: ``with machine.compose("compose.yaml") as app:``.

        It is up when the block begins, and gone when it ends. `project` is its name, one of its own if you give none;
        `env` further variables for the files. Raises `UsageError` when a file is missing, and, as it comes up, when
        there is no ``docker compose`` on this computer.
        """
        from .compose import Compose

        return Compose(self, [Path(each) for each in files or ("compose.yaml",)], project=project, env=env)

    # What may be done to it.

    def start(self, *, timeout: float = 120.0) -> None:
        """Power it on and wait until its Docker answers."""
        driver = self._can(SupportsPower)
        with self._held():
            driver.start(self.record)
            self._settle(timeout)
        self._tell_booted()

    def stop(self) -> None:
        """Shut it down in order; its disk stays."""
        driver = self._can(SupportsPower)
        with self._held():
            self._hush()
            self._let_go()
            driver.stop(self.record)

    def restart(self, *, timeout: float = 120.0) -> None:
        """Shut it down in order and power it on again, or have it boot again where no more can be done."""
        driver = self.driver
        if isinstance(driver, SupportsReboot) and not isinstance(driver, SupportsPower):
            with self._held():
                before = _boot(self.connection)
                self._hush()
                driver.reboot(self.record)
                self._let_go()
                wait(lambda: _booted(self.connection, before), f"SSH on '{self.name}'", timeout=timeout, longest=5)
                self._settle(timeout)
            self._tell_booted()
            return
        self.stop()
        self.start(timeout=timeout)

    def _tell_booted(self) -> None:
        self._hear_again()
        self._tell(self.equip, self.booted)

    def _tell(self, *hooks: Callable[[Machine], None] | None) -> None:
        for hook in hooks:
            if hook is not None:
                hook(self)

    def kill(self) -> None:
        """Cut its power; its disk stays."""
        driver = self._can(SupportsKill)
        with self._held():
            self._hush()
            self._let_go()
            driver.kill(self.record)

    def pause(self) -> None:
        """Freeze it: it answers nothing until `resume`."""
        driver = self._can(SupportsPause)
        with self._held():
            driver.pause(self.record)

    def resume(self) -> None:
        """Let it go on."""
        driver = self._can(SupportsPause)
        with self._held():
            driver.resume(self.record)
        self._hear_again()  # who was frozen for long was given up
        self._tell(self.resumed)

    def snapshot(self, name: str) -> None:
        """Keep its disk as it is, under a name that `restore` takes; one of that name is replaced."""
        driver = self._can(SupportsSnapshots)
        with self._held():
            driver.snapshot(self.record, name)

    def restore(self, name: str, *, timeout: float = 120.0) -> None:
        """Bring its disk back as it was; one that runs is ready again when this returns."""
        driver = self._can(SupportsSnapshots)
        with self._held():
            self._hush()
            self._let_go()
            driver.restore(self.record, name)
            running = self.state is State.RUNNING
            if running:
                self._settle(timeout)
        if running:
            self._tell_booted()

    def snapshots(self) -> list[str]:
        """Return the names of its snapshots; raises `Unsupported` where the driver cannot tell."""
        driver = self._can(SupportsSnapshots)
        if not isinstance(driver, SupportsSnapshotNames):
            raise Unsupported(
                f"The driver '{self.record.driver}' does not tell which snapshots there are.",
                hint=f"docker-machine restore {self.name} NAME, with the name that it was given",
            )
        return sorted(answers.snapshots(driver, self.record))

    def note(self) -> None:
        """Take the machine as it is for what `reset` brings back. Done by whoever is about to share it."""
        if isinstance(self.driver, SupportsReset):
            # Only there is the engine cleaned on its own; elsewhere the whole disk is brought back.
            host = Errand(functools.partial(self.driver.note, self.record))
            try:
                found = cleaning.inventory(self.address, certs=self.record.directory)
                write(self.record.directory / _PRISTINE, json.dumps(found).encode(), durable=False)
            finally:
                host.wait()  # whoever hears of an error destroys the machine at once
            host.result()
        elif isinstance(self.driver, SupportsSnapshots):
            self.driver.snapshot(self.record, "pristine")

    def reset(self, *, timeout: float = 120.0) -> None:
        """Make it as it was when it was noted, by the cheapest way that is sure; id, name, address and keys stay.

        An untouched host has only its engine cleaned. A touched one is laid again where its driver can, else restored,
        else made anew (and then its address may be another). Raises what `start` raises; then it is of no more use.
        """
        with self._held():
            if isinstance(self.driver, SupportsAdoption):
                raise Unsupported(
                    f"The machine '{self.name}' was there before us: nobody can make it as new.",
                    facts={"driver": self.record.driver},
                    hint="share it as it is: @pytest.mark.machine(reset=False)",
                )
            self._hush()  # nor would it be as new with somebody who listens in it
            if self._is_clean():
                self._hear_again()
                return
            self._make_again()
            self._settle(timeout)
            birth.load(self.record)
        # What its lab gives it, such as routes, is a part of what it is as noted; what a test breaks is not. Whoever
        # breaks it at the same time holds the lab, and waits for the machine: so it is not held here.
        self._tell(self.equip)
        with self._held():
            self.note()
        self._hear_again()
        self._tell(self.booted)

    def _make_again(self) -> None:
        driver = self.driver
        if isinstance(driver, SupportsReset):
            driver.lay_again(self.record, birth.seed(self.record))
            self._let_go()  # while it boots
            return
        self._let_go()
        if isinstance(driver, SupportsSnapshots):
            if isinstance(driver, SupportsPause) and self.state is State.PAUSED:
                driver.resume(self.record)
            driver.restore(self.record, "pristine")
            # It comes back running as it was, and it may have been stopped.
            if isinstance(driver, SupportsPower) and self.state is State.STOPPED:
                driver.start(self.record)
            return
        on = self._on()
        driver.destroy(self.record)
        driver.create(self.record, birth.seed(self.record))
        for network in on:
            self.connect(network)

    def _on(self) -> list[Network]:
        """Return the networks that it is on, as its driver finds them."""
        if not isinstance(self.driver, SupportsNetworks) or not (links := self.networks):
            return []
        lab = [each for each in answers.find_networks(self.driver) if each.lab == self.record.lab]
        return [each for each in lab if each.name in links]

    def provision(self, *, tell: Tell = _quiet) -> list[str]:
        """See to it that it is the Docker host that it is meant to be; return what was changed, in words.

        Its certificates are renewed if they have not long to go. `tell` hears what is about to be done. Raises
        `Unsupported` where that is not ours to do, `ProvisionFailed` with what the machine said.
        """
        with self._provisioning():
            if not certs.lasts(self.record.directory / "server.pem"):
                birth.certify(self.record, self.address, store=self._store)
            return self._registry.provision(self.connection, birth.wanted(self.record, self.driver), tell=tell)

    def regenerate_certs(self, *, tell: Tell = _quiet) -> list[str]:
        """Give it a new server's certificate, and the client's of today; its Docker is restarted for it."""
        with self._provisioning():
            tell(COPYING_HERE)
            birth.certify(self.record, self.address, store=self._store)
            return self._registry.provision(self.connection, birth.wanted(self.record, self.driver), tell=tell)

    def renew(self, *, timeout: float = 120.0) -> bool:
        """Renew what its clients could not use any more; return whether there was anything.

        That is the client's certificate, when a third of its time is left, and the server's, over SSH, when it is over
        or the machine's address is another one now: its Docker is restarted for it, so not before it must be.
        """
        self._must_exist()
        directory = self.record.directory
        renewed = False
        if not certs.lasts(directory / "cert.pem") and not self._foreign_engine():
            certs.Authority.ensure(self._store.certificates, self.record.authority).copy_client(directory)
            renewed = True
        server = directory / "server.pem"
        seen = answers.seen(self.driver, self.record)
        if seen.state is not State.RUNNING or seen.address is None or not server.exists():
            return renewed
        moved = self.record.address is None or self.record.address.ip != seen.address.ip
        if not moved and certs.expires(server) > clock.utc():
            return renewed
        with self._held():
            self._let_go()
            self._settle(timeout)
        return True

    def upgrade(self, *, tell: Tell = _quiet) -> list[str]:
        """Move its Docker to the newest release that its packages offer; return what was changed: maybe nothing."""
        with self._provisioning():
            return self._registry.upgrade(self.connection, birth.wanted(self.record, self.driver), tell=tell)

    def _foreign_engine(self) -> bool:
        """Whether its engine is somebody else's, whose certificates are none of ours."""
        return isinstance(self.driver, SupportsAdoption) and not answers.access(self.driver, self.record).provision

    @contextlib.contextmanager
    def _provisioning(self) -> Iterator[None]:
        if self._foreign_engine():
            raise Unsupported(
                f"The engine of the machine '{self.name}' is somebody else's: it is used as it is.",
                facts={"driver": self.record.driver},
                hint="docker-machine create --driver generic takes a host over, by SSH",
            )
        with self._held():
            yield
            answering = functools.partial(engine.ping, self.address, certs=self.record.directory)
            wait(answering, f"Docker on '{self.name}'", timeout=_PROVISIONED)
            # What was connected knows the certificates of before.
            self._let_go()

    def changes(self) -> list[str]:
        """Return what is not as it was noted on the host, outside of Docker; empty where the driver cannot tell.

        Raises `NotRunning` when it was destroyed, `Unsupported` when it was never noted: `note` says what unchanged is,
        and is called for machines that tests share.
        """
        self._must_exist()
        if not isinstance(self.driver, SupportsReset):
            return []
        if not (self.record.directory / _PRISTINE).exists():
            raise Unsupported(
                f"What changed on the machine '{self.name}' cannot be told: its state was never noted.",
                hint="machine.note() at the beginning, or share it: @pytest.mark.machine(reuse='module')",
            )
        return list(answers.changes(self.driver, self.record))

    def _is_clean(self) -> bool:
        """Whether nothing is left of what was done to it, once its engine is cleaned; in doubt it is not."""
        if not isinstance(self.driver, SupportsReset) or self.state is not State.RUNNING:
            return False
        try:
            pristine = files.read_table(self.record.directory / _PRISTINE)
        except (OSError, ValueError):
            return False
        if answers.is_touched(self.driver, self.record):
            return False
        if not cleaning.clean(self.address, certs=self.record.directory, pristine=pristine):
            return False
        try:
            return not self.changes()
        except MachineError:
            return False  # what cannot be compared is laid again

    def connect(self, network: Network) -> Attachment:
        """Put it on a network of its lab; return its place there."""
        driver = self._can(SupportsNetworks)
        self._must_exist()
        ip = answers.connect(driver, self.record, network)
        ip6 = answers.seen(self.driver, self.record).networks6.get(network.name, "") if network.subnet6 else ""
        link = Attachment(network.name, ip, ip6)
        self._capture_too(link)
        return link

    def disconnect(self, network: Network) -> None:
        """Take it off a network."""
        for capture in list(self._captures):
            capture.flush()  # what has not been read from an interface goes with it
        self._can(SupportsNetworks).disconnect(self.record, network)

    def close(self) -> None:
        """Close the connections to it, and end what is captured; it goes on, and whoever asks gets new ones."""
        self._end_captures()
        self._let_go()

    def _end_captures(self) -> None:
        for process in self._processes:
            process.abandon()
        self._processes.clear()
        for capture in list(self._captures):
            capture.close()

    def destroy(self, *, kill: bool = False) -> None:
        """Destroy it and all that belongs to it; its name is free again, and its lab drops it. Idempotent.

        Running containers get a second to end by themselves, unless it is to be a `kill` or the engine does not answer;
        those of a machine that was there before us go on. Raises `CleanupFailed` when it could not be destroyed; then
        its record stays.
        """
        if self._destroyed:
            return
        self._end_captures()
        ours = self.record.ready is not None and not isinstance(self.driver, SupportsAdoption)
        # One that does not run has no containers, and its address may be another machine's by now.
        if not kill and ours and self.record.address is not None and not self.gone and self._off() is None:
            engine.quiesce(self.record.address, certs=self.record.directory, grace=_GRACE)
        self._let_go()
        birth.end(self.record, self.driver, store=self._store)
        self._destroyed = True
        self._tell(self.ended)

    def _let_go(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._docker is not None:
                self._docker.close()
                self._docker = None

    def _settle(self, timeout: float) -> None:
        deadline = clock.monotonic() + timeout
        self.record = birth.settle(
            self.record, self.driver, store=self._store, registry=self._registry, deadline=deadline
        )

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        self._must_exist()
        with self._store.lock(self.name):
            yield

    def _can(self, ability: Callable[..., T]) -> T:
        need, protocol = next((need, each) for need, each in CAPABILITIES.items() if each is ability)
        if not isinstance(self.driver, protocol):
            having = self._registry.having(need)
            raise Unsupported(
                f"The driver '{self.record.driver}' does not have '{need}'.",
                facts={"drivers that have it": names(having)},
                hint=another(having, need),
            )
        return cast("T", self.driver)


@contextlib.contextmanager
def _telling_shell(argv: Sequence[AnyPath]) -> Iterator[None]:
    """Let the error of a program that was not found say how a shell's words are run."""
    try:
        yield
    except CommandFailed as error:
        program, text = str(argv[0]), " ".join(map(str, argv))
        unknown = error.result.returncode == 127 and _SHELLS.search(program) is not None
        if not error.hint and (unknown or not _OPERATORS.isdisjoint(map(str, argv[1:]))):
            error.hint = f"machine.sh({text!r})"
            with contextlib.suppress(ValueError):  # quotes that are not closed
                if len(argv) == 1 and not _SYNTAX.search(program):
                    error.hint += f", or machine.run({', '.join(map(repr, shlex.split(program)))})"
        raise


def _boot(connection: SshConnection) -> str:
    """Return what is another text after a machine has booted, whether it has a kernel of its own or not."""
    return connection.run("cat", "/proc/sys/kernel/random/boot_id", "/proc/1/stat", timeout=15).stdout


def _booted(connection: SshConnection, before: str) -> None:
    # PID 1 works meanwhile, but began when it began: field 22. Its name (2) may have blanks, so count from behind.
    now = _boot(connection)
    if _marks(now) == _marks(before):
        raise NotYet("it is still up")


def _marks(boot: str) -> tuple[str, str]:
    boot_id, _, stat = boot.partition("\n")
    return boot_id, stat.rpartition(")")[2].split()[19]
