"""Destroys what a dead owner left: a small process beside every run that makes machines, and `prune` for all the rest.

A run that is killed tears nothing down, so its machines are not its own business alone. The reaper waits until no
process of the run holds a lock any more (`pytest_machine.owner`) and destroys what is left then. Should it die too, the
next run's reaper or the next `prune` finds everything by the drivers' own tags, with or without a store.

What is found is judged in `pytest_machine.verdict`. A driver may hang or raise whatever it likes: it is asked in a
thread of its own, for a bounded time, and the others go on.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from filelock import Timeout

from . import answers, memory, owner, verdict
from .birth import KEY
from .client_environment import uncovered
from .driver import Driver, SupportsAdoption, SupportsDamagedTags, SupportsNetworks
from .errand import Errand
from .errors import CleanupFailed, DriverError, DriverUnavailable, MachineError, StoreError, UsageError
from .kept import Kept
from .machine import Machine
from .model import Id, Network, Record, Value
from .options import configure, from_environment
from .owner import Run, alive, close, orphans, state_dir, stores
from .plugins import Registry
from .shelf import Shelf
from .ssh import hang_up
from .store import Store, write
from .stored import Damaged
from .support import clock, files, parsing, trees
from .support.locks import lock_file
from .support.parsing import Malformed
from .support.text import shell_word, visible
from .verdict import Verdict

# Seconds between two looks at a run's locks: how late the end of a killed run is noticed.
_PULSE = 0.5
# How often what cannot be destroyed is tried again, and after how many seconds, before it is left to `prune`.
_PAUSES = (0.5, 1, 2, 5, 10, 30)
# Seconds that a new reaper has to come up before another is started in its place.
_COMES_UP = 5.0
# Seconds that a run has to itself before its reaper looks for what dead runs have left.
_ALONE = 2.0
# Seconds that a driver has to say what it has, and to destroy one thing; what takes longer is tried again later.
_ASKED = 30.0
_DESTROYED = 120.0
# How many things are destroyed at once.
_AT_ONCE = 16
_DRIVERS, _LOCK, _LOG, _REAPING = "drivers.json", "reaper.lock", "reaper.log", "reaping.lock"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that `prune` came across."""

    kind: str
    """``machine`` or ``network``; ``driver`` or ``run`` for one that could not be asked."""
    name: str
    id: str
    driver: str
    why: str
    """Why it may go, or must stay."""
    doomed: bool
    """Whether it may go."""
    error: str = ""
    """Why it could not be destroyed, or asked; empty when it was, or was not to be."""
    damaged: bool = False
    """Whether its record or tag cannot be read."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a driver that can run here has, or why it did not say."""

    driver: Driver
    machines: tuple[Record, ...] = ()
    networks: tuple[Network, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Task:
    """Something that was found, and what it takes to destroy it."""

    found: Found
    end: Callable[[], None]


def watch(run: Run, *, registry: Registry) -> None:
    """See to it that a reaper waits for the end of `run`; again, or from another of its processes: nothing happens.

    Raises `StoreError` where the run's directory cannot be written to: without its reaper, a run makes no machine.
    """
    try:
        note_drivers(run.directory, registry)
    except OSError as error:
        raise StoreError(
            "The run cannot be noted, so no machine is made.",
            facts={"directory": run.directory, "reason": error.strerror or error},
            hint="free space there, or keep runs elsewhere: PYTEST_MACHINE_HOME=/path",
        ) from error
    tend(run.directory)


def is_watched(run: Run) -> bool:
    """Return whether some process of the run has wanted a machine."""
    return (run.directory / _DRIVERS).exists()


def tend(directory: Path) -> None:
    """Start a run's reaper again if it was killed; nothing happens in a run that never had one. Takes microseconds."""
    if not (directory / _DRIVERS).exists():
        return
    try:
        # Held for a moment: a reaper that lives holds it for its life, one that starts now waits for us.
        with lock_file(directory / _LOCK).acquire(blocking=False):
            if not _just_started(directory / _LOG):
                _start(directory)
    except Timeout:
        return


def _just_started(log: Path) -> bool:
    try:
        return 0 <= clock.now() - log.stat().st_mtime < _COMES_UP
    except FileNotFoundError:
        return False


def _start(directory: Path) -> None:
    # A file without a name, and not the one in the run's directory: a run that ends before its reaper has come up takes
    # the notes with it, and the reaper would not know whom to ask for what earlier runs have left.
    with (directory / _LOG).open("ab") as log, tempfile.TemporaryFile() as notes:
        with contextlib.suppress(*files.UNREADABLE):  # then it knows the drivers that are installed
            notes.write(files.read(directory / _DRIVERS))
        notes.seek(0)
        os.utime(directory / _LOG)
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest_machine.reaper", str(directory)],
            stdin=notes,
            stdout=log,
            stderr=log,
            cwd="/" if os.name != "nt" else None,
            # It may be started anew in the middle of a test, whose machine is no place to look for machines.
            env=uncovered(),
            # Ours to outlive: no terminal's Ctrl-C, no CI's kill of the process group reaches it.
            start_new_session=True,
            creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
        )
    # Nobody waits for it, on purpose; unless it looks as if somebody had, its end as an object is a ResourceWarning.
    process.returncode = 0


def note_drivers(directory: Path, registry: Registry) -> None:
    """Note where the drivers come from that a conftest added: whoever destroys loads none, and must import them."""
    known = {
        name: [cls.__module__, cls.__qualname__, str(getattr(sys.modules.get(cls.__module__), "__file__", "") or "")]
        for name, cls in registry.added().items()
    }
    noted = json.dumps({"drivers": known, "path": sys.path}).encode()
    with contextlib.suppress(*files.UNREADABLE):
        if files.read(directory / _DRIVERS) == noted:
            return
    if (directory / _DRIVERS).is_dir():
        trees.remove(directory / _DRIVERS)
    write(directory / _DRIVERS, noted, durable=False)


def main(directory: Path, notes: bytes) -> None:
    """Wait for the end of the run whose directory this is, then destroy what it left; meanwhile, what others left.

    `notes` say where its drivers come from, as `note_drivers` wrote them. A run that has ended in order by now has left
    nothing, but others may have: they are found as ever.
    """
    registry = _noted_drivers(notes)
    try:
        if directory.is_dir():
            _attend(directory, registry)
    except Timeout:  # two were started at the same moment; one is enough
        return
    except FileNotFoundError:  # the run ended just now
        pass
    except (OSError, StoreError) as error:
        print(f"run '{directory.name}': {_words(error)}", file=sys.stderr, flush=True)
    # Once more, because only the drivers know what was left by a run whose notes are gone.
    Errand(functools.partial(_tidy, registry)).wait(_ASKED + _DESTROYED)


def _attend(directory: Path, registry: Registry) -> None:
    with lock_file(directory / _LOCK).acquire(timeout=2):
        begun = clock.monotonic()
        others: Errand[None] | None = None
        while alive(directory):
            if others is None and clock.monotonic() - begun > _ALONE:
                others = Errand(functools.partial(_tidy, registry))
            if lost := orphans(directory):
                _report(sweep(lost, registry, "the process of the run that used it is dead"))
            clock.sleep(_PULSE)
        for pause in (*_PAUSES, 0):
            if not _report(reap(directory)):
                break
            clock.sleep(pause)


def _tidy(registry: Registry) -> None:
    """Destroy what dead runs left, and what is past its time; never anything that a human should be asked about."""
    _report(prune(registry, by_hand=False))


def _report(found: Iterable[Found]) -> bool:
    """Write to the reaper's log what could not be done; return whether there was any."""
    failed = [each for each in found if each.error]
    for each in failed:
        print(f"{each.kind} '{each.name}' {each.id}: {each.error}", file=sys.stderr, flush=True)
    return bool(failed)


def sweep(kept: Sequence[Store], registry: Registry, why: str, *, timeout: float = 0.0) -> list[Found]:
    """Destroy the machines and networks that are noted in stores, all at once; those kept on purpose stay.

    One that takes longer than `timeout` seconds, or that somebody is still making, has an ``error``; 0 is a reaper's
    patience.
    """
    noted = [record for store in kept for record in store.records()]
    doomed = Verdict(why, doomed=True)
    found = _carried_out(
        [_machine(record, registry, verdict.kept(record) or doomed) for record in noted], timeout=timeout
    )
    staying = {record.lab for record in noted if verdict.kept(record)}
    paths = [store.path for store in kept]
    damaged = _salvaged(kept)
    asked = _ask([*_all_configured(noted, registry), *(_drivers(registry) if damaged else ())])
    found += _carried_out(
        [
            _machine(record, registry, verdict.kept(record) or doomed, driver=each.driver)
            for each in asked
            for record in each.machines
            if any(record.store == store.path and record.name == left.name for store, left in damaged)
        ],
        timeout=timeout,
    )
    tasks = [
        _network(network, each.driver, doomed)
        for each in asked
        for network in each.networks
        if network.store in paths and network.lab not in staying
    ]
    return found + _carried_out(tasks, timeout=timeout)


def _salvaged(kept: Iterable[Store]) -> list[tuple[Store, Damaged]]:
    """Return what is left to know of the machines in stores whose records cannot be read."""
    return [(store, left) for store in kept for name in store.broken() if (left := store.salvaged(name)) is not None]


def reap(
    directory: Path,
    *,
    destroy: bool = True,
    older_than: float = 0.0,
    everything: bool = False,
    known: Sequence[_Asked] = (),
) -> list[Found]:
    """Destroy all that a dead run left, and its directory when nothing of it is left.

    From now on nobody joins the run. Of one that lives, nothing is touched and nothing returned. What was kept
    on purpose stays, unless `everything` goes. `known` is what drivers have said already.
    """
    if not directory.is_dir() or (not close(directory) if destroy else alive(directory)):
        return []

    def judge(thing: Record | Network) -> Verdict:
        why = f"its run '{directory.name}' has ended"
        return verdict.of_run(thing, why, older_than=older_than, everything=everything)

    if not destroy:
        return _left(directory, judge, known, destroy=False)
    try:
        # One at a time: its reaper and a `prune`, or two of these.
        turn = lock_file(directory / _REAPING).acquire(timeout=_ASKED + _DESTROYED, poll_interval=0.02)
    except FileNotFoundError:  # somebody was faster
        return []
    except Timeout:
        return [_silent("run", directory.name, "another process has been clearing it up for minutes")]
    with turn:
        if not close(directory):  # somebody was faster; the run may even have begun anew
            return []
        found = _left(directory, judge, known, destroy=True)
        # What stays keeps its keys; a broken record is a name too.
        if not any(each.error for each in found) and not any(store.names() for store in stores(directory)):
            owner.remove(directory)
    return found


def _left(
    directory: Path, judge: Callable[[Record | Network], Verdict], known: Sequence[_Asked], *, destroy: bool
) -> list[Found]:
    registry = _registry(directory)
    noted = [record for store in stores(directory) for record in store.records()]
    # What it made for later runs stays; but not what it died over.
    noted += Shelf(directory.parent.parent).half_made(directory)
    # Noted ones first; the drivers know besides what a store has lost, or never had.
    found = _carried_out([_machine(record, registry, judge(record)) for record in noted], destroy=destroy)
    done = {record.id for record in noted}
    asked = [*known, *_ask([*_all_configured(noted, registry), *_drivers(registry)], but=known)]
    tasks = []
    for each in asked:
        for record in each.machines:
            if record.store.parent == directory and record.id not in done:
                done.add(record.id)
                tasks.append(_machine(record, registry, judge(record), driver=each.driver))
    damaged = _salvaged(stores(directory))
    tasks += [
        _damaged(left, each.driver, Verdict(f"its run '{directory.name}' has ended", doomed=not noted_by.newer))
        for each in asked
        for left in each.damaged
        for _, noted_by in damaged
        if left.id and left.id == noted_by.id and left.id not in done
    ]
    found += _carried_out(tasks, destroy=destroy)
    staying = {record.lab for record in noted if not judge(record).doomed}
    tasks = []
    for each in asked:
        for network in each.networks:
            if network.store.parent == directory and network.id not in done and network.lab not in staying:
                done.add(network.id)
                tasks.append(_network(network, each.driver, judge(network)))
    found += _carried_out(tasks, destroy=destroy)
    mute = [each for each in asked if each.error and each not in known]
    found += [_silent("driver", each.driver.name, each.error) for each in mute]
    there = {(record.store, record.name) for each in asked for record in each.machines}
    alone = [(store, left) for store, left in _salvaged(stores(directory)) if (store.path, left.name) not in there]
    gone = {each.id for each in found if destroy and each.doomed and not each.error}
    return found + _broken(alone, asked, destroy=destroy, gone=gone)


def _broken(
    damaged: Iterable[tuple[Store, Damaged]],
    asked: Sequence[_Asked],
    *,
    destroy: bool,
    everything: bool = True,
    gone: Collection[str] = (),
) -> list[Found]:
    """Remove records that cannot be read, once nothing outside carries their machine's tags."""
    silent = any(each.error for each in asked)
    without = {left.id for each in asked for left in each.damaged} - set(gone)
    tasks = []
    for store, left in damaged:
        # A tag that is damaged too may be this machine's: without an id on both sides nothing tells.
        doubtful = silent or (left.id in without if left.id else bool(without))
        why = f"its record is damaged ({left.reason})"
        if left.newer:
            why = f"its record is a newer version's: {left.reason}"
        elif not doubtful:
            why += ", and no driver has it"
        doomed = everything and not doubtful and not left.newer
        if not doomed and not left.newer:
            why += f"; docker-machine rm -f {left.name}"
        judged = Found("machine", left.name, left.id, "", why, doomed=doomed, damaged=True)
        tasks.append(_Task(judged, functools.partial(store.remove, left.name)))
    return _carried_out(tasks, destroy=destroy)


def _damaged(left: Damaged, driver: Driver, judged: Verdict) -> _Task:
    """Return what destroys a machine or network of which little more is known than its id."""

    def end() -> None:
        if left.kind == "network":
            assert isinstance(driver, SupportsNetworks)
            driver.remove_network(
                Network(id=Id(left.id), name=left.name or left.id, store=_NOWHERE, host=left.host or "-", created=0.0)
            )
        else:
            driver.destroy(stand_in(left, driver))

    return _Task(Found(left.kind, left.known, left.id, driver.name, judged.why, judged.doomed, damaged=True), end)


_NOWHERE = Path("/nonexistent")


def stand_in(left: Damaged, driver: Driver) -> Record:
    """Return a record by which a driver destroys a machine whose tag is damaged: its id is all that counts."""
    return Record(
        id=Id(left.id),
        name=left.name or f"machine-{left.id}",
        driver=driver.name,
        store=_NOWHERE,
        host=left.host or owner.host_id(),
        created=0.0,
    )


def prune(
    registry: Registry,
    *,
    destroy: bool = True,
    older_than: float = 0.0,
    everything: bool = False,
    by_hand: bool = True,
) -> list[Found]:
    """Find all that belongs to nobody any more, by runs' stores and by drivers' tags, and destroy it.

    `older_than` is in seconds. With `everything`, machines that were made by hand or kept on purpose go too, and those
    that wait for another run; never those of a run that lives. Without `destroy` it is only said
    what would go. Without `by_hand`, what does not belong to a run, and is not past its time, stays. One that cannot be
    destroyed has an ``error`` and does not stop the rest.
    """
    asked = _ask(_drivers(registry))
    found = [_silent("driver", each.driver.name, each.error) for each in asked if each.error]
    for directory in _runs(asked):
        try:
            found += reap(directory, destroy=destroy, older_than=older_than, everything=everything, known=asked)
        except (MachineError, OSError) as error:
            found.append(_silent("run", directory.name, _words(error)))
    done = {each.id for each in found}
    judge = verdict.Judge(older_than=older_than, everything=everything, by_hand=by_hand, now=clock.now())
    tasks = []
    known = _known() if any(each.damaged for each in asked) else {}
    for each in asked:
        tagged = [known[left.id] for left in each.damaged if left.id in known]
        for record in (*each.machines, *tagged):
            if record.id not in done:
                done.add(record.id)
                noted, judged = judge.machine(record)
                tasks.append(_machine(noted, registry, judged, driver=each.driver))
        for left in each.damaged:
            if left.id not in known and (not left.id or left.id not in done):
                done.add(left.id)
                tasks.append(_damaged(left, each.driver, judge.damaged(left)))
    found += _carried_out(tasks, destroy=destroy)
    gone = {each.id for each in found if destroy and each.doomed and not each.error}
    hand = Store(owner.storage_path())
    there = {(record.store, record.name) for each in asked for record in each.machines}
    alone = [(store, left) for store, left in _salvaged([hand]) if (store.path, left.name) not in there]
    found += _broken(alone, asked, destroy=destroy, everything=everything, gone=gone)
    shelved = _salvaged(Shelf().free())
    alone = [(store, left) for store, left in shelved if (store.path, left.name) not in there]
    found += _broken(alone, asked, destroy=destroy, gone=gone)
    found += [_odd(path) for path in hand.strangers()]
    # Networks when the machines on them are gone.
    going = [(each.driver, network) for each in asked for network in each.networks if network.id not in done]
    found += _carried_out(
        [_network(network, driver, judge.network(network)) for driver, network in going], destroy=destroy
    )
    if destroy:
        try:
            memory.tidy(state_dir())
            found += [_silent("shelf", "shelf", why) for why in Shelf().tidy()]
        except (OSError, StoreError) as error:  # what counts is done
            found.append(_silent("notes", str(state_dir()), _words(error)))
    return found


def _odd(path: Path) -> Found:
    why = f"its name is not that of a machine; rm -r -- {shell_word(os.fspath(path))}"
    return Found("directory", visible(path.name, lines=False), "", "", why, doomed=False, damaged=True)


def _known() -> dict[str, Record]:
    """Return the records that the stores of this user have, by id."""
    with contextlib.suppress(OSError):
        runs = [each for directory in sorted((state_dir() / "runs").glob("[!.]*")) for each in stores(directory)]
        kept = [Store(owner.storage_path()), *runs, *Shelf().stores()]
        return {record.id: record for store in kept for record in store.records()}
    return {}


def _runs(asked: Iterable[_Asked]) -> list[Path]:
    """Return the directories of this user's runs, and of those that drivers know to be elsewhere."""
    found: set[Path] = set()
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found |= {path for path in (state_dir() / "runs").iterdir() if path.is_dir()}
    for each in asked:
        things: tuple[Record | Network, ...] = (*each.machines, *each.networks)
        for thing in things:
            if verdict.of_a_run(thing) and os.access(thing.store.parent, os.R_OK | os.W_OK | os.X_OK):
                found.add(thing.store.parent)
    return sorted(found)


def _machine(record: Record, registry: Registry, judged: Verdict, *, driver: Driver | None = None) -> _Task:
    store = Store(record.store)

    def end() -> None:
        chosen = driver or _configured(record, registry)
        hang_up(record.directory / KEY)
        with store.lock(record.name, timeout=_ASKED) if record.name in store.names() else contextlib.nullcontext():
            chosen.destroy(record)
            if record.name in store.names() and _is(record, store):
                store.remove(record.name)

    found = Found("machine", record.name, record.id, record.driver, judged.why, judged.doomed, damaged=judged.damaged)
    return _Task(found, end)


def _is(record: Record, store: Store) -> bool:
    """Return whether a store's record of that name is this one; of a damaged one, unless it has another id."""
    try:
        return store.load(record.name).id == record.id
    except StoreError:
        left = store.salvaged(record.name)
        return left is not None and not left.newer and left.id in ("", record.id)


def _network(network: Network, driver: Driver, judged: Verdict) -> _Task:
    def end() -> None:
        assert isinstance(driver, SupportsNetworks)
        driver.remove_network(network)

    return _Task(Found("network", network.name, network.id, driver.name, judged.why, judged.doomed), end)


def _configured(record: Record, registry: Registry) -> Driver:
    """Return the record's driver as it was when the machine was made, secrets included."""
    store = Store(record.store)
    secret: dict[str, Value] = {}
    with contextlib.suppress(StoreError):  # damaged: most drivers destroy without
        secret = store.secrets(record.name) if record.name in store.names() else {}
    return configure(registry.driver(record.driver), {**record.options, **secret})


def _all_configured(records: Iterable[Record], registry: Registry) -> Iterator[Driver]:
    for record in records:
        # An unknown driver, or an option that it does not take any more: said where its machine is to be destroyed.
        with contextlib.suppress(Exception):
            yield _configured(record, registry)


def _carried_out(tasks: Sequence[_Task], *, destroy: bool = True, timeout: float = 0.0) -> list[Found]:
    """Destroy what is doomed, many at once; return all, with the errors of those that could not be."""
    turn = threading.Semaphore(_AT_ONCE)
    going = [Errand(task.end, turn=turn) if destroy and task.found.doomed else None for task in tasks]
    timeout = timeout or _DESTROYED
    deadline = clock.monotonic() + timeout
    found = []
    for task, errand in zip(tasks, going, strict=True):
        error = _outcome(errand, deadline, timeout) if errand else ""
        found.append(replace(task.found, error=error) if error else task.found)
    return found


def _outcome(errand: Errand[None], deadline: float, timeout: float) -> str:
    if not errand.wait(max(0.0, deadline - clock.monotonic())):
        return f"its driver was still at it after {timeout:.0f} s"
    try:
        errand.result()
    except Exception as error:  # noqa: BLE001  # a stranger's driver may raise anything
        return _words(error)
    return ""


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, MachineError) else f"{type(error).__name__}: {error}"


def _silent(kind: str, name: str, error: str) -> Found:
    return Found(kind, name, "", name if kind == "driver" else "", "it could not be asked", doomed=False, error=error)


def _drivers(registry: Registry) -> Iterator[Driver]:
    for name in registry.names():
        # One that cannot be imported, or not be made without options, has nothing that could be found here.
        with contextlib.suppress(Exception):
            yield registry.driver(name)()


def _as_here(registry: Registry) -> Iterator[Driver]:
    """Return the drivers as this process's environment sets them up."""
    for name in registry.names():
        with contextlib.suppress(Exception):
            kind = registry.driver(name)
            if given := from_environment(kind):
                yield configure(kind, given)


def _ask(drivers: Iterable[Driver], *, but: Sequence[_Asked] = ()) -> list[_Asked]:
    """Ask drivers what they have, all at once; one that cannot run here has nothing here, and is left out."""
    before = [each.driver for each in but]
    different: list[Driver] = []
    for driver in drivers:
        # Machines that were there before us carry no tags: there is nothing to ask.
        if driver not in different and driver not in before and not isinstance(driver, SupportsAdoption):
            different.append(driver)
    going = [(driver, Errand(functools.partial(_answer, driver))) for driver in different]
    deadline = clock.monotonic() + _ASKED
    found = []
    for driver, errand in going:
        if not errand.wait(max(0.0, deadline - clock.monotonic())):
            found.append(_Asked(driver, error=f"it did not answer within {_ASKED:.0f} s"))
            continue
        try:
            found.append(errand.result())
        except DriverUnavailable:
            continue
        except Exception as error:  # noqa: BLE001  # a stranger's driver may raise anything
            found.append(_Asked(driver, error=_words(error)))
    return found


def _answer(driver: Driver) -> _Asked:
    # Options that name what is gone keep nobody from looking: they only keep another such machine from being made.
    with contextlib.suppress(UsageError):
        driver.check()
    networks = answers.find_networks(driver) if isinstance(driver, SupportsNetworks) else ()
    damaged = answers.find_damaged(driver) if isinstance(driver, SupportsDamagedTags) else ()
    return _Asked(driver, answers.find(driver), networks, damaged)


def rescue(wanted: str, store: Store, registry: Registry) -> bool:
    """Destroy a machine whose record or tag is damaged: by its name in a store, or by its id.

    Its driver finds it by its tag; of a machine that no driver has, the record is removed. Return whether there was
    anything; raises `CleanupFailed` or `StoreError` for what stays.
    """
    here, left, asked, tasks = _tagged(wanted, store, registry)
    failed = [each for each in _carried_out(tasks) if each.error]
    if failed:
        raise CleanupFailed(
            f"The machine '{wanted}' could not be destroyed.", [DriverError(each.error) for each in failed]
        )
    if wanted in store.names():
        if not tasks:
            _check_gone(wanted, left, asked, registry)
        store.remove(wanted)
    return here or bool(tasks)


def rescuable(wanted: str, store: Store, registry: Registry) -> list[Found] | None:
    """Return what `rescue` would destroy; None: nothing has that name or id. Raises `StoreError`, too."""
    here, left, asked, tasks = _tagged(wanted, store, registry)
    if here and not tasks:
        _check_gone(wanted, left, asked, registry)
    return [task.found for task in tasks] if here or tasks else None


def _tagged(wanted: str, store: Store, registry: Registry) -> tuple[bool, Damaged | None, list[_Asked], list[_Task]]:
    """Return whether a store has that name, what is left of its record, what drivers said, what is to be destroyed."""
    here = wanted in store.names()
    left = store.salvaged(wanted) if here else None
    ids = {left.id} if left and left.id else set() if here else {wanted}
    asked = list(_ask([*_drivers(registry), *_as_here(registry)]))
    tasks: list[_Task] = []
    for each in asked:
        tasks += [
            _machine(record, registry, Verdict("", doomed=True), driver=each.driver)
            for record in each.machines
            if (here and (record.store, record.name) == (store.path, wanted))
            or (record.id in ids and verdict.is_lost(record))
        ]
        tasks += [
            _damaged(tag, each.driver, Verdict("", doomed=True))
            for tag in each.damaged
            if tag.id and tag.id in ids and tag.kind == "machine"
        ]
    return here, left, asked, tasks


def _check_gone(name: str, left: Damaged | None, asked: Sequence[_Asked], registry: Registry) -> None:
    """Raise `StoreError` unless every driver that could have a machine has said that it has not."""
    facts = {f"driver '{each.driver.name}'": each.error for each in asked if each.error}
    driver = left.driver if left else ""
    if driver and driver not in {each.driver.name for each in asked}:
        adopts = driver in registry.names() and issubclass(registry.driver(driver), SupportsAdoption)
        if not adopts:
            facts[f"driver '{driver}'"] = "it cannot run here"
    if facts:
        raise StoreError(
            f"Whether the machine '{name}' is still there cannot be told.",
            facts=facts,
            hint=f"when it is gone: rm -r -- {shell_word(left.place.rpartition('/')[0]) if left else name}",
        )


def release(kept: Kept) -> None:
    """Destroy a kept machine, and what was kept for its sake; raises `CleanupFailed` when it cannot be destroyed.

    The driver may be one of a conftest that is not loaded here.
    """
    record = kept.record
    # A shared machine that waits for later runs has its drivers noted in its own place.
    directory = record.store if (record.store / _DRIVERS).exists() else record.store.parent
    registry = _registry(directory)
    Machine.load(record.name, store=Store(record.store), registry=registry).destroy()
    driver = registry.driver(record.driver)()
    if isinstance(driver, SupportsNetworks) and not any(
        each.lab == record.lab for each in Store(record.store).records()
    ):
        for network in answers.find_networks(driver):
            if network.lab == record.lab and network.store == record.store:
                driver.remove_network(network)
    if directory != record.store and not alive(directory) and not any(store.names() for store in stores(directory)):
        owner.remove(directory)


def _registry(directory: Path) -> Registry:
    """Return the registry that the run had, its conftests' drivers included where they can be imported."""
    try:
        return _noted_drivers(files.read(directory / _DRIVERS))
    except files.UNREADABLE:
        return Registry()


def _noted_drivers(notes: bytes) -> Registry:
    try:
        noted = parsing.json_table(notes, "the notes")
        given = parsing.table(noted.get("drivers"), "'drivers'").values()
        places = [[_path_text(word) for word in each] for each in given if isinstance(each, list)]
        listed = noted.get("path")
        paths = [_path_text(each) for each in listed] if isinstance(listed, list) else []
    except Malformed:
        return Registry()
    sys.path += [path for path in paths if path not in sys.path]
    return Registry([_Noted([(each[0], each[1], each[2]) for each in places if len(each) == 3])])


def _path_text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise Malformed("a path is not a text")
    return value


class _Noted:
    """Stands for the conftests of a run that is no more."""

    def __init__(self, places: Iterable[tuple[str, str, str]]) -> None:
        self._places = list(places)

    def pytest_machine_drivers(self) -> list[type[Driver]]:
        found = []
        for module, name, file in self._places:
            with contextlib.suppress(Exception):  # whatever stands in a conftest may happen
                found.append(getattr(_module(module, file), name))
        return found


def _module(name: str, file: str) -> ModuleType:
    """Return a module by its name, or by its file: every suite has a module called conftest."""
    with contextlib.suppress(ImportError):
        module = importlib.import_module(name)
        if not file or module.__file__ == file:
            return module
    spec = importlib.util.spec_from_file_location(f"{name}-{file}", file)
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin.buffer.read())
