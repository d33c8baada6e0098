"""Machines that several processes use in turn: the workers of a run, or one run after another.

A `Shared` lab lies in a store of its own and is known by it alone, so whoever comes first makes it and the others find
it; which worker gets which test does not matter. One test at a time has it: a lock says whose turn it is, and the
kernel lets go of it when a worker dies. What state the lab is in is noted *before* each step, so a death leaves it
either whole or marked as something to begin anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_machine.errors import DriverError, EngineFailed, MachineError, StoreError
from pytest_machine.kept import because_of
from pytest_machine.model import Record, Spec, State
from pytest_machine.store import Store, write
from pytest_machine.support import clock, files
from pytest_machine.support.folders import make_folder

from .waking import awake

if TYPE_CHECKING:
    from pytest_machine.lab import Lab
    from pytest_machine.machine import Machine

    from .keeper import Keeper

# A certificate that ends within the run would end the run's tests with it.
_CERTIFICATE_LEFT = timedelta(days=1)
_POLL = 0.01
_NOTE = "turn.json"


class Shared:
    """One set of machines, as one of the processes that use it in turn sees it."""

    def __init__(self, keeper: Keeper, store: Store, specs: Sequence[Spec], *, owner: str, ttl: float | None) -> None:
        from filelock import FileLock

        self._keeper = keeper
        self.store = store
        self.stays = ttl is not None
        """Whether it is there for later runs."""
        self._specs = list(specs)
        self._owner = owner
        self._ttl = ttl
        self._note = store.path / _NOTE
        make_folder(store.path)
        self._turn = FileLock(store.path / "turn.lock", thread_local=False)
        self._lab: Lab | None = None
        self._known = False  # whether this process has had it before

    def lease(self, teardown: Sequence[str], resets: Mapping[str, bool]) -> Lab | None:
        """Wait for this process's turn and return the lab, made or reset; `release` ends the turn.

        None: it stays as a failed test left it (``--machine-keep``), and there is another one for further tests.

        `resets` says of each machine by name whether it is to be as new. What could not be made is not tried again in
        this run: the other tests, and the other processes, hear why.
        """
        asked = clock.now()
        with self._keeper.ledger.resting():
            self._turn.acquire(poll_interval=_POLL)
        self._keeper.journal.queued(asked)
        if self._keeper.withdrew(self.store.records()):
            self._turn.release()
            return None
        try:
            self._lab = self._found(resets) or self._made(teardown)
        except BaseException:
            self._turn.release()
            raise
        self._known = True
        return self._lab

    def release(self) -> None:
        """End the turn: the next one gets the lab; again: nothing happens."""
        if self._lab is not None:
            self._lab.close()
            self._lab = None
        self._turn.release()

    def _found(self, resets: Mapping[str, bool]) -> Lab | None:
        """Return the lab that is there, fit for the next test; None when there is none, or it is of no more use."""
        note = self._read()
        if note.get("state") == "failed" and note.get("run") == self._keeper.id:
            raise DriverError(str(note.get("message")), facts=dict(note.get("facts") or {}), hint=str(note.get("hint")))  # type: ignore[call-overload]  # we wrote it
        if note.get("state") not in ("ready", "used"):
            return None
        try:
            lab = self._load()
            if lab is None or not (self._known or self._lasts(lab)):
                return None
            for machine in lab.machines:
                if not resets.get(machine.name, True):
                    awake(machine)
            if note["state"] == "used":
                with lab.resetting(*(each.name for each in lab.machines if resets.get(each.name, True))) as going:
                    for machine in going:
                        with self._keeper.journal.span("resetting", [machine.record]):
                            machine.reset()
            if not _answers(lab):
                return None
        except (MachineError, OSError):
            return None
        self._write(state="used", teardown=note.get("teardown"))
        return lab

    def _load(self) -> Lab | None:
        from pytest_machine.lab import Lab

        lab = Lab.load(store=self.store, registry=self._keeper.choice.registry, run=self._owner)
        whole = {machine.name for machine in lab.status()} == {spec.name for spec in self._specs}
        return lab if whole else None

    def _lasts(self, lab: Lab) -> bool:
        """Whether no machine or certificate comes to its end soon."""
        from pytest_machine import certs

        soon = clock.utc() + _CERTIFICATE_LEFT
        return all(
            machine.record.ready is not None
            and (machine.record.expires is None or machine.record.expires > clock.now())
            and certs.expires(machine.record.directory / "server.pem") > soon
            and certs.expires(machine.record.directory / "cert.pem") > soon
            for machine in lab.machines
        )

    def _made(self, teardown: Sequence[str]) -> Lab:
        from pytest_machine.lab import Lab
        from pytest_machine.reaper import note_drivers

        self._write(state="making")
        end(self.store, self._keeper)
        if self.stays:  # whoever removes it one day knows nothing of this suite's conftests
            note_drivers(self.store.path, self._keeper.choice.registry)
        expires = None if self._ttl is None else clock.now() + self._ttl
        lab = Lab(store=self.store, registry=self._keeper.choice.registry, run=self._owner, expires=expires,
                  witness=self._keeper.births)  # fmt: skip
        try:
            self._keeper.create(lab, self._specs)
            for machine in lab.machines:
                machine.note()
        except EngineFailed:
            raise  # such a test is skipped, and the others find out as fast
        except MachineError as error:
            facts = {key: str(value) for key, value in error.facts.items()}
            self._write(state="failed", run=self._keeper.id, message=error.message, facts=facts, hint=error.hint)
            with contextlib.suppress(MachineError):
                lab.destroy(kill=True)
            raise
        self._write(state="used", teardown="kill" if set(teardown) == {"kill"} else "rm")
        return lab

    def _read(self) -> dict[str, object]:
        return read(self.store)

    def _write(self, **note: object) -> None:
        write(self._note, json.dumps(note).encode(), durable=False)


def read(store: Store) -> dict[str, object]:
    """Return what is noted of a shared lab; empty for a lab that is none, or that nobody has made."""
    try:
        return files.read_table(store.path / _NOTE)
    except files.UNREADABLE:
        return {}


def end(store: Store, keeper: Keeper) -> None:
    """Destroy whatever lies in the store, half-made machines too; raises `CleanupFailed`."""
    from pytest_machine.lab import Lab

    if store.names():
        lab = Lab.load(store=store, registry=keeper.choice.registry)
        lab.destroy(kill=read(store).get("teardown") != "rm")


def _answers(lab: Lab) -> bool:
    """Whether every machine runs and its Docker answers."""
    from pytest_machine import engine
    from pytest_machine.waiting import NotYet

    def answers(machine: Machine) -> bool:
        try:
            engine.ping(machine.address, certs=machine.record.directory)
        except (OSError, NotYet, StoreError):
            return False
        return machine.state is State.RUNNING

    return all(map(answers, lab.machines))


class Turns:
    """The shared labs that this process has had its turn at, by what they are made of."""

    def __init__(self, keeper: Keeper, *, ttl: float) -> None:
        self._keeper = keeper
        self._ttl = ttl
        self._known: dict[str, Shared] = {}

    def of_run(self, specs: Sequence[Spec]) -> Shared:
        """Return the lab that all workers of this run share."""
        first = key = f"shared-{_digest(self._keeper, specs)}"
        number = 1
        while self._keeper.withdrew(self._keeper.run.lab_store(key).records()):
            number += 1
            key = f"{first}-{number}"
        if key not in self._known:
            run = self._keeper.run
            self._known[key] = Shared(self._keeper, run.lab_store(key), specs, owner=run.id, ttl=None)
        return self._known[key]

    def of_shelf(self, specs: Sequence[Spec], *, alone: bool) -> Shared:
        """Return the lab that stays for the next run; `alone`: no other worker of this run has it."""
        from pytest_machine.shelf import Shelf

        def withdrawn(store: Store) -> bool:
            return self._keeper.withdrew(store.records())

        key = f"{_digest(self._keeper, specs)}{'-alone' if alone else ''}"
        if key not in self._known or withdrawn(self._known[key].store):
            run = self._keeper.run
            by = self._keeper.worker if alone else ""
            store = Shelf().claim(_digest(self._keeper, specs), run, by=by, withdrawn=withdrawn)
            self._known[key] = Shared(self._keeper, store, specs, owner="", ttl=self._ttl)
        return self._known[key]

    def staying(self) -> dict[str, float]:
        """Return the machines that this process leaves on the shelf, by place, and when their time is over."""
        labs = [shared.store for shared in self._known.values() if shared.stays]
        return {
            label(record): record.expires
            for store in labs
            for record in store.records()
            if record.ready is not None and record.expires is not None and because_of(record) is None
        }

    def clear_shelf(self, *, everything: bool = False) -> None:
        """Destroy what lies on the shelf past its time; or all that no run has, where its memory is wanted."""
        from pytest_machine.owner import state_dir

        if not (state_dir() / "shelf").is_dir():
            return
        from pytest_machine.shelf import Shelf

        shelf = Shelf()
        for store in shelf.free():
            with contextlib.suppress(MachineError, OSError):  # `prune` says what is wrong with it
                going = [record for record in store.records() if everything or _over(record.expires)]
                if going and shelf.take(store, self._keeper.run):
                    end(store, self._keeper)


def label(record: Record) -> str:
    """Return what a machine that stays for later runs is called at the end of a run."""
    return f"{record.name} ({record.store.name})"


def _over(expires: float | None) -> bool:
    return expires is not None and expires < clock.now()


def _digest(keeper: Keeper, specs: Sequence[Spec]) -> str:
    """Return what stands for all that the machines are made of."""
    from importlib.metadata import version

    from pytest_machine.shelf import Shelf

    return Shelf().key([version("pytest-machine"), *sorted(_made_of(keeper, spec) for spec in specs)])


def _made_of(keeper: Keeper, spec: Spec) -> str:
    from pytest_machine import answers
    from pytest_machine.driver import SupportsFingerprint

    driver = keeper.choice.registry.configure(spec)
    fingerprint = answers.fingerprint(driver) if isinstance(driver, SupportsFingerprint) else ""
    # The spec's and not the driver's repr alone: that one leaves out secrets.
    asked = {key: repr(value) for key, value in sorted(spec.options.items())}
    images = [f"{each} {_changed(Path(each))}" for each in spec.preload]
    return json.dumps(
        [spec.name, spec.driver, repr(driver), asked, list(spec.networks), repr(spec.engine), images, fingerprint]
        + ([spec.router, repr(spec.topology)] if spec.router or spec.topology else [])
    )


def _changed(archive: Path) -> float:
    """Return when an archive was last written; 0 for an image that is named."""
    return archive.stat().st_mtime if archive.is_file() else 0.0
