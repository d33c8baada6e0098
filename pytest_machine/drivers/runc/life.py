"""Brings a machine to life and takes its life: one boot, from its layers on disk to a running init and back.

Nothing of a boot needs us once it runs. The namespaces and the overlay are held by the machine's own processes and by
no mount of the host, so when its init dies the kernel takes them away; what is left for us is groups and files.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pytest_machine.errors import DriverError
from pytest_machine.support import clock, files

from . import cgroups, kernel, leases, network, storage
from .bundle import Bundle, capabilities
from .places import RUN, Place, let_in, make_passable, write

# Seconds for which what a killed owner has started may still be at a machine's files.
_DYING = 10.0
RUNTIME = RUN / "state"
"""Where runc keeps its own state of our machines: a root of our own, so that nobody else's containers are in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a machine boots with."""

    hostname: str
    tree: Path
    userns: bool
    memory: int | None
    cpus: float | None
    pids: int


def process(place: Place) -> int | None:
    """Return the pid of the machine's init, as the host counts; None when it does not run."""
    try:
        pid = int(files.read(place.pid_file, largest=20))
    except (OSError, ValueError):
        return None
    # The number may be somebody else's by now; only ours is in our group. A zombie is in none.
    mine = f"/{cgroups.ROOT}/{place.id}"
    try:
        return pid if any(mine in line for line in kernel.open_lines(f"/proc/{pid}/cgroup")) else None
    except OSError as error:
        # Root in the machine has moved it deeper into groups than the kernel can name.
        if error.errno != errno.ENAMETOOLONG:
            raise
        return pid


def namespaces(place: Place, *, userns: bool) -> AbstractContextManager[int]:
    """Hold the namespaces of a boot for a while; yields the pid that sits in them."""
    return kernel.namespaces(leases.ledger().lease(place.id).uid if userns else None, leases.UID_COUNT)


def plug(place: Place, holder: int, *, again: bool = False) -> None:
    """Give them the machine's own interface; `again`: the machine has had it before."""
    book = leases.ledger()
    lease = book.lease(place.id)
    network.plug(lease, book.bridges[lease.bridge], holder, again=again)


def launch(place: Place, shape: Shape, holder: int | None = None) -> None:
    """Boot the machine from its layers, in `namespaces` that are there and plugged in already, or else in new ones.

    One that runs already: nothing happens.
    """
    if process(place) is not None:
        return
    if holder is not None:
        _boot(place, shape, holder)
        return
    if place.run.exists():
        shut(place)
        network.unplug(place.id)
    with namespaces(place, userns=shape.userns) as own:
        plug(place, own)
        _boot(place, shape, own)


def _boot(place: Place, shape: Shape, holder: int) -> None:
    from . import preload  # here, because whoever only asks for an address is in a hurry

    lease = leases.ledger().lease(place.id)
    make_passable(place.run)
    let_in(place.run, lease.uid)
    root = _lay(place, shape, holder)
    layers = preload.lay(place, root, owner=lease.uid)
    bundle = Bundle(
        hostname=shape.hostname,
        root=root,
        docker=storage.attach(place) / "docker",
        holder=holder,
        uid=lease.uid if shape.userns else None,
        capabilities=tuple(capabilities(_bounding())),
        group=f"/{cgroups.ROOT}/{place.id}",
        cgroups=cgroups.version(),
        architecture=platform.machine(),
        environment=(f"MACHINE_ADDRESS={lease.ip}", "container=pytest-machine"),
        layers=layers,
        memory=shape.memory,
        cpus=shape.cpus,
        pids=shape.pids,
    )
    write(place.run / "config.json", bundle.config())
    _run(place)
    pid = process(place)
    if pid is None:
        raise DriverError("The machine's init ended at once.", facts={"console": storage.console(place)[-2000:]})
    if shape.userns:
        cgroups.delegate(pid, lease.uid)
    kernel.unmount(root)
    if layers:
        preload.lifted(place)
    book = leases.ledger()
    lease = book.lease(place.id)
    for name in lease.links:
        network.rejoin(lease, book.bridges[name], pid)


def _lay(place: Place, shape: Shape, holder: int) -> Path:
    if not shape.userns:
        return storage.lay(place, shape.tree, userns=None)
    descriptor = os.open(f"/proc/{holder}/ns/user", os.O_RDONLY)
    try:
        return storage.lay(place, shape.tree, userns=descriptor)
    finally:
        os.close(descriptor)


def _bounding() -> int:
    """Return the capabilities that we can hand on: root need not have all of them."""
    line = next(line for line in kernel.open_lines("/proc/self/status") if line.startswith("CapBnd"))
    return int(line.split()[1], 16)


def _run(place: Place) -> None:
    log = place.run / "runc.log"
    # A keyring of its own, runc's default: with ours (`--no-new-keyring`) root in the machine reads our keys.
    argv: Sequence[str | Path] = (
        "runc", "--root", RUNTIME, "--log", log,
        "run", "--detach", "--bundle", place.run, "--pid-file", place.pid_file, place.id,
    )  # fmt: skip
    with storage.console_path(place).open("ab") as console:
        # Detached, the machine's init keeps these as its own: they must be files, not pipes of ours.
        # The folders that runc makes in a machine are the machine's: the caller's umask is not for them.
        started = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console, umask=0o022)
    try:
        # `wait(timeout=)` looks again only every 50 ms.
        if not kernel.await_end(started.pid, timeout=60):
            started.kill()
    except BaseException:  # nobody would be there to undo what it goes on with
        started.kill()
        started.wait()
        raise
    if started.wait() != 0:
        raise DriverError(
            "runc refused to start the machine, or did not within a minute.",
            facts={"exit code": started.returncode, "it said": log.read_text()[-2000:].strip() if log.exists() else ""},
            hint=f"runc --root {RUNTIME} list",
        )


def _end_starters(place: Place) -> None:
    """End a runc that a killed owner has left at work: what it made after us, nobody would find."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")[:-1]
        except OSError:  # it has ended
            continue
        if words and words[0].endswith(b"runc") and b"run" in words and words[-1] == place.id.encode():
            kernel.kill(int(folder.name), timeout=5)


def shut(place: Place, *, meanwhile: Callable[[], object] = lambda: None) -> None:
    """End every process of the machine and remove all that belonged to this boot but its interface; its disk stays.

    Once they are told to end, `meanwhile` is called.

    What `runc delete --force` would do, without it: that fails on a machine with running containers ("device or
    resource busy"), because their groups are children of the machine's.
    """
    if (pid := process(place)) is not None:
        cgroups.thaw(place.id)
        # The end of a PID namespace's init is the end of everything in it.
        kernel.kill(pid, timeout=10, meanwhile=meanwhile)
    else:
        _end_starters(place)
        meanwhile()
    cgroups.remove(place.id)
    storage.keep_console(place)
    storage.detach(place)
    deadline = clock.monotonic() + _DYING
    for folder in (place.run, RUNTIME / place.id):
        while folder.exists():
            try:
                shutil.rmtree(folder)
            except FileNotFoundError:  # a file that somebody else removes
                continue
            except OSError as error:
                # What a killed owner has started may be at it for another moment: a mount, or a file of runc's.
                if error.errno not in (errno.ENOTEMPTY, errno.EBUSY) or clock.monotonic() > deadline:
                    raise
                clock.sleep(0.01)
                cgroups.remove(place.id)
                storage.detach(place)
