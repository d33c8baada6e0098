"""What can be done with machines that Docker Machine made: they are asked, used, and removed from the store.

``none`` and ``generic`` are our own drivers' too, and asked by those. VirtualBox is asked by its own program. Of any
other driver there is nothing here, and the machine says so where it is listed; what its file tells is still shown.
"""

from __future__ import annotations

import functools
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pytest_machine import answers, engine
from pytest_machine.driver import Driver, SupportsAdoption
from pytest_machine.errand import Errand
from pytest_machine.errors import DriverError, StoreError, Unsupported
from pytest_machine.foreign import CONFIG, Foreign, no_driver
from pytest_machine.machine import Machine
from pytest_machine.model import Address, Id, Isolation, Record, Seed, Seen, State
from pytest_machine.options import configure
from pytest_machine.ssh import SshConnection
from pytest_machine.support import trees
from pytest_machine.waiting import wait

if TYPE_CHECKING:
    from pytest_machine.plugins import Registry

    from .noted import Noted

# Seconds that a machine on this computer has to accept a connection.
_DIAL = 2.0
VBOX = "VBoxManage"
_VBOX_STATES = {
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "saved": State.SAVED,
    "poweroff": State.STOPPED,
    "aborted": State.STOPPED,
    "starting": State.PREPARING,
    "restoring": State.PREPARING,
}


def driver(found: Foreign, registry: Registry) -> Driver:
    """Return what a machine of Docker Machine's is asked by."""
    if found.options:
        return configure(registry.driver(found.kind), found.options)
    if found.kind == VirtualBoxMachines.name:
        return VirtualBoxMachines()
    return UnknownMachines(kind=found.kind)


@dataclass(frozen=True, kw_only=True)
class UnknownMachines:
    """Machines of a driver that is not here. Nothing is known of what they do."""

    name: ClassVar[str] = "unknown"
    kind: str

    @property
    def isolation(self) -> Isolation:
        """Nothing is known of it, so that nothing is promised."""
        return Isolation.PRIVILEGED

    def check(self) -> None:
        """Raise: it makes none."""
        raise DriverError(no_driver(self.kind))

    def create(self, record: Record, seed: Seed) -> None:  # noqa: ARG002  # the protocol's
        """Raise: it makes none."""
        self.check()

    def destroy(self, record: Record) -> None:
        """Raise: who could destroy them is not here."""
        raise DriverError(
            f"The machine '{record.name}' cannot be destroyed from here: {no_driver(self.kind)}",
            hint=f"remove it where it is, then forget it: docker-machine rm -f {record.name}",
        )

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Return that nothing is known."""
        seen = Seen(state=State.ERROR, detail=no_driver(self.kind))
        return {record.id: replace(seen, address=record.address) for record in records}

    def find(self) -> Iterable[Record]:
        """Return none."""
        return ()


@dataclass(frozen=True, kw_only=True)
class VirtualBoxMachines(UnknownMachines):
    """Machines in this computer's VirtualBox, which are called there as they are here."""

    name: ClassVar[str] = "virtualbox"
    kind: str = "virtualbox"

    def look(self, records: Sequence[Record]) -> Mapping[Id, Seen]:
        """Return what VirtualBox says of each; without VirtualBox, whether somebody listens where it was last seen."""
        program = shutil.which(VBOX)
        asked = {record.id: Errand(functools.partial(_vbox, program, record)) for record in records}
        return {each: errand.result() for each, errand in asked.items()}


def _vbox(program: str | None, record: Record) -> Seen:
    if program is None:
        return _dialled(record.address)
    argv = [program, "showvminfo", record.name, "--machinereadable"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        if name == "VMState":
            state = _VBOX_STATES.get(value.strip('"'), State.ERROR)
            detail = f"VirtualBox calls it {value}" if state is State.ERROR else ""
            return Seen(state=state, address=record.address, detail=detail)
    return Seen(state=State.ERROR, address=record.address, detail="machine does not exist")


def _dialled(address: Address | None) -> Seen:
    if address is not None:
        for port in (address.engine_port, address.ssh_port):
            try:
                with socket.create_connection((address.ip, port), timeout=_DIAL):
                    return Seen(state=State.RUNNING, address=address)
            except OSError:
                continue
    missing = f"{VBOX} not found. Make sure VirtualBox is installed and {VBOX} is in the path"
    return Seen(state=State.ERROR, address=address, detail=missing)


class Theirs(Machine):
    """A machine that Docker Machine made: no record of ours is written of it, and its file stays as it is."""

    def __init__(self, noted: Noted) -> None:
        super().__init__(noted.record, driver=noted.driver, store=noted.session.store, registry=noted.session.registry)
        assert noted.foreign is not None
        self.foreign = noted.foreign

    @property
    def address(self) -> Address:
        """How it is reached: as its driver says now, or as it was noted."""
        seen = answers.seen(self.driver, self.record).address
        return seen or super().address

    @property
    def connection(self) -> SshConnection:
        """Its SSH connection, by the key that Docker Machine gave it; the host key that is seen first is the one."""
        with self._lock:
            if self._connection is None:
                address = self.address
                if address.ssh_port == 0:
                    raise Unsupported(f"The machine '{self.name}' has no SSH that we know of.")
                key, known_hosts = self.foreign.key, self.foreign.directory / "known_hosts"
                self._connection = SshConnection(
                    address,
                    key=key or self.foreign.directory / "id_rsa",
                    known_hosts=known_hosts,
                    agent=key is None,
                    trust=not known_hosts.exists(),
                )
            return self._connection

    def destroy(self, *, kill: bool = False) -> None:  # noqa: ARG002  # nothing is running that we would end
        """Remove it from the store, if nothing stays behind that somebody would have to remove."""
        if not isinstance(self.driver, SupportsAdoption):
            self.driver.destroy(self.record)
        self.forget()

    def forget(self) -> None:
        """Remove it from the store, whatever there is of it elsewhere."""
        self._let_go()
        forget(self.foreign.directory.parents[1], self.name)

    def _settle(self, timeout: float) -> None:
        answering = functools.partial(engine.ping, self.address, certs=self.foreign.certificates)
        wait(answering, f"Docker on '{self.name}'", timeout=timeout)


def forget(store: Path, name: str) -> None:
    """Remove the directory of a machine that Docker Machine made; its file last, so that it can be done again."""
    directory = store / "machines" / name
    try:
        for child in directory.iterdir():
            if child.name != CONFIG:
                trees.remove(child)
        (directory / CONFIG).unlink(missing_ok=True)
        directory.rmdir()
    except OSError as error:
        raise StoreError(
            f"The directory of the machine '{name}' cannot be removed.",
            facts={"path": error.filename or directory, "reason": error.strerror or error},
            hint=f"remove what is in the way, then: docker-machine rm -f {name}",
        ) from error
