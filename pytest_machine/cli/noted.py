"""Machines that the command line has noted: found by name, asked, and worked on, several at once."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pytest_machine import answers
from pytest_machine.errors import BadSpec, MachineError, UnknownMachine
from pytest_machine.model import Address, Record, State
from pytest_machine.options import configure, from_environment, options

from .command import Failed, Misnamed, Session
from .progress import Progress
from .progress import say as told

if TYPE_CHECKING:
    from pytest_machine.driver import Driver
    from pytest_machine.errand import Errand
    from pytest_machine.foreign import Foreign
    from pytest_machine.machine import Machine
    from pytest_machine.model import Seen, Value

T = TypeVar("T")

DEFAULT = "default"
"""The machine that is meant where none is named."""
NOT_RUNNING = "Host is not running"
_AT_ONCE = 32

# Docker Machine's words. It has none for a machine that is gone.
WORDS = {
    State.ABSENT: "Error",
    State.PREPARING: "Starting",
    State.RUNNING: "Running",
    State.STOPPED: "Stopped",
    State.PAUSED: "Paused",
    State.SAVED: "Saved",
    State.ERROR: "Error",
}


@dataclass(frozen=True)
class Noted:
    """A machine as its record and its driver know it: all that `ip` and its like need, and soon at hand."""

    record: Record
    driver: Driver
    session: Session
    foreign: Foreign | None = None
    """What Docker Machine noted of it, if that made it."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def certificates(self) -> Path:
        """The directory of what a client of its Docker needs."""
        return self.foreign.certificates if self.foreign else self.record.directory

    @functools.cached_property
    def config(self) -> Mapping[str, Any]:
        """What `inspect` shows of it."""
        from .config import config

        return self.foreign.shown if self.foreign else config(self.record)

    @property
    def options(self) -> Mapping[str, Any]:
        """What its configuration has of Docker and of the classic Swarm."""
        found: Mapping[str, Any] = self.config["HostOptions"]
        return found

    @property
    def engine(self) -> Mapping[str, Any]:
        """What its configuration has of Docker."""
        return self.options.get("EngineOptions") or {}

    @property
    def swarm(self) -> Mapping[str, Any]:
        """What its configuration has of the classic Swarm."""
        return self.options.get("SwarmOptions") or {}

    def swarm_url(self, address: Address) -> str:
        """Return where the classic Swarm's master is reached that it is said to be."""
        host, _, _ = address.url.rpartition(":")
        return f"{host}:{str(self.swarm.get('Host') or '').rpartition(':')[2]}"

    @property
    def imported(self) -> bool:
        """Whether somebody else made it, so that it is only forgotten here."""
        from pytest_machine.drivers.imported import ImportedDriver

        return isinstance(self.driver, ImportedDriver)

    def machine(self) -> Machine:
        """Return the machine to do something with; its connections are closed when the program ends."""
        machine = self._machine()
        self.session.closing.callback(machine.close)
        return machine

    def _machine(self) -> Machine:
        if self.foreign is not None:
            from .foreign import Theirs

            return Theirs(self)
        from pytest_machine.machine import Machine

        return Machine(self.record, driver=self.driver, store=self.session.store, registry=self.session.registry)


def load(session: Session, name: str, *, given: Mapping[str, Value] | None = None) -> Noted:
    """Return the machine of that name.

    A creation that was killed early has noted no secrets yet: those `given`, or in the environment, do then.
    """
    store = session.store
    try:
        record = store.load(name)
    except (UnknownMachine, BadSpec) as error:
        if not (store.path / "machines" / name).is_dir():  # most are ours, or not at all
            raise _missing(name) from error
        return _theirs(session, name)
    kind = session.registry.driver(record.driver)
    offered = {**from_environment(kind), **(given or {})}
    known = options(kind) if offered else {}
    secret = {key: value for key, value in offered.items() if key in known and known[key].secret}
    try:
        driver = configure(kind, {**secret, **record.options, **store.secrets(name)})
    except UnknownMachine as error:  # removed just now
        raise _missing(name) from error
    return Noted(record, driver, session)


def _theirs(session: Session, name: str) -> Noted:
    """Return a machine that Docker Machine made."""
    from pytest_machine.foreign import load as read

    from .foreign import driver

    try:
        found = read(session.store.path, name)
    except UnknownMachine as error:
        raise _missing(name) from error
    return Noted(found.record, driver(found, session.registry), session, found)


def _missing(name: str) -> Misnamed:
    return Misnamed(
        f'Docker machine "{name}" does not exist. Use "docker-machine ls" to list machines. '
        'Use "docker-machine create" to add a new one.'
    )


def names(session: Session) -> list[str]:
    """Return the names of all machines, Docker Machine's too, readable or not; ``web-2`` before ``web-10``."""
    from pytest_machine.foreign import names as theirs

    return sorted([*session.store.names(), *theirs(session.store.path)], key=natural)


def natural(name: str) -> tuple[list[str | int], str]:
    """Return what to sort names by: capitals and small letters alike, digits by the number that they are."""
    # `split` with a group yields text, digits, text, …: like is always compared with like.
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())], name


def several(session: Session, names: Sequence[str]) -> list[Noted]:
    """Return the machines of those names, or the default one; when one cannot be read, none is."""
    found: list[Noted] = []
    errors: list[MachineError] = []
    for name in dict.fromkeys(names or (_default(session),)):
        try:
            found.append(load(session, name))
        except MachineError as error:
            errors.append(error)
    if errors:
        kind = Misnamed if all(isinstance(error, Misnamed) for error in errors) else Failed
        raise kind("\n".join(map(str, errors)))
    return found


def one(session: Session, names: Sequence[str]) -> Noted:
    """Return the machine of that name, or the default one."""
    if len(names) > 1:
        raise Misnamed("Error: Expected one machine name as an argument")
    return load(session, names[0] if names else _default(session))


def _default(session: Session) -> str:
    if DEFAULT not in names(session):
        raise Misnamed(f'Error: No machine name(s) specified and no "{DEFAULT}" machine exists')
    return DEFAULT


def look(machine: Noted) -> Seen:
    """Return what its driver sees of it now."""
    return answers.seen(machine.driver, machine.record)


def current(machine: Noted) -> Noted:
    """Return the machine with the address that its driver gives it now; a new one is noted, its host key under it."""
    if machine.foreign is not None:
        return machine
    try:
        address = look(machine).address
    except Exception:  # noqa: BLE001  # a stranger's driver may raise anything; what is noted has to do then
        return machine
    if address is None or address == machine.record.address:
        return machine
    from pytest_machine.birth import moved

    return replace(machine, record=moved(machine.record, address, store=machine.session.store))


def running(machine: Noted) -> Address:
    """Return where a machine is reached that runs; raises in Docker Machine's words for any other."""
    seen = look(machine)
    address = seen.address or machine.record.address
    if machine.foreign is not None and seen.state is State.ERROR and not machine.foreign.asked:
        raise Failed(seen.detail)  # nobody here knows whether it runs
    if seen.state is not State.RUNNING or address is None:
        raise Failed(NOT_RUNNING)
    return address


def together(machines: Sequence[Noted], work: Callable[[Noted], T]) -> list[T]:
    """Do something with each, all at once; return what came of it in their order, or raise all that went wrong."""
    from pytest_machine.errand import Errand

    what = str(click.get_current_context().info_name)
    with Progress() as progress:
        if len(machines) == 1:
            with progress.step(machines[0].name, what):
                return [work(machines[0])]

        def seen(machine: Noted) -> T:
            with progress.step(machine.name, what):
                return work(machine)

        turn = threading.Semaphore(_AT_ONCE)
        return _results([Errand(functools.partial(seen, machine), turn=turn) for machine in machines])


def _results(going: Sequence[Errand[T]]) -> list[T]:
    done: list[T] = []
    errors: list[str] = []
    for errand in going:
        try:
            done.append(errand.result())
        except Exception as error:  # noqa: BLE001  # a stranger's driver may raise anything; the others are done first
            errors.append(words(error))
    if errors:
        raise Failed("\n".join(errors))
    return done


def words(error: BaseException) -> str:
    """Return what an error says."""
    return str(error) if isinstance(error, MachineError) else f"{type(error).__name__}: {error}"


def say(text: str) -> None:
    """Tell how it goes. In one piece, because several may talk at once."""
    told(text)
