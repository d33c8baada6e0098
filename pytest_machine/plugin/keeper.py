"""What this process of a pytest run made, and that nothing of it is left: the run, its labs, the tally, SIGTERM.

Fixtures cannot own machines alone: pytest runs none of their teardown at SIGTERM. So the run itself
(`pytest_machine.owner`) owns all, from the first machine on; what is still there when the session ends is destroyed
here, and what outlives this process by the reaper. Nothing is imported or begun before the first machine is asked for.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from pytest_machine import kept
from pytest_machine.errors import MachineError, StoreError, refused
from pytest_machine.model import Id, Record, Spec, new_id
from pytest_machine.support import clock, reasons

from .choice import Choice
from .hosts import Hosts
from .matrix import Matrix
from .notices import Notices
from .spares import Spares
from .turns import Turns

if TYPE_CHECKING:
    from pytest_machine.kept import Kept
    from pytest_machine.lab import Lab
    from pytest_machine.machine import Machine
    from pytest_machine.memory import Ledger
    from pytest_machine.owner import Run
    from pytest_machine.store import Store

    from .births import Births
    from .heartbeat import Heartbeat
    from .journal import Journal

_WORKER_INPUT = "pytest_machine_run"
_CONTROLLER_INPUT = "pytest_machine_controller"

# Seconds that what is left at the very end gets to be destroyed while the user looks on.
_PATIENCE = 4.0

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: pytest ends as at Ctrl-C, which tears down what is set up."""


@dataclass(slots=True)
class Tally:
    """What one process, or all of a run's together, made."""

    seconds: list[float] = field(default_factory=list)
    """Of each machine that became ready: from the call to ready."""
    failed: int = 0
    adopted: int = 0
    """Hosts that existed before the run and were used by it."""
    kinds: list[str] = field(default_factory=list)
    """How the machines are called in the header: ``runc (user-namespace), image trixie, Docker 26.1``."""
    left: list[str] = field(default_factory=list)
    """Names of machines that could not be destroyed."""
    stay: dict[str, float] = field(default_factory=dict)
    """Machines that stay for later runs, and until when."""
    unseen: list[str] = field(default_factory=list)
    """What could not be looked at or kept, and why."""

    def add(self, other: Tally) -> None:
        """Count the other's as well."""
        self.seconds += other.seconds
        self.failed += other.failed
        self.adopted += other.adopted
        self.kinds += [kind for kind in other.kinds if kind not in self.kinds]
        self.stay |= other.stay
        self.unseen += [line for line in other.unseen if line not in self.unseen]


class Keeper:
    """Makes and destroys labs for the fixtures; knows every one that is alive."""

    def __init__(
        self, config: pytest.Config, choice: Choice, births: Births, journal: Journal, *, keep_all: bool
    ) -> None:
        given = getattr(config, "workerinput", {})
        self.id = str(given.get(_WORKER_INPUT) or new_id())
        """The run's, the same in the controller and all workers of pytest-xdist."""
        self.worker = str(given.get("workerid", ""))
        """Which of pytest-xdist's workers this is; empty: none."""
        self.choice = choice
        self.matrix = Matrix(self.boot)
        self.spares = Spares(self, choice.settings.spares)
        self.turns = Turns(self, ttl=choice.settings.ttl)
        self.notices = Notices(config, self)
        self.hosts = Hosts(self)
        self._ledger: Ledger | None = None
        self.tally = Tally()
        self.births = births
        self.journal = journal
        self._keep_all = keep_all
        self._run: Run | None = None
        self._labs: list[Lab] = []
        self._controller = str(given.get(_CONTROLLER_INPUT, ""))
        self._heartbeat: Heartbeat | None = None
        self.kept: list[Kept] = []
        """What stays of this run, once it has finished."""
        self._restore: Callable[[], None] = lambda: None
        self._tidied = False
        self._terminated = False
        self._ending = False
        self._controls = False
        """Whether this is the controller of pytest-xdist, which makes no machine itself."""

    @property
    def begun(self) -> bool:
        """Whether this process made anything, or was about to."""
        return self._run is not None

    @property
    def run(self) -> Run:
        """The run, begun now if it was not."""
        return self._begin()

    @property
    def directory(self) -> Path:
        """The run's directory; asking for it makes this process one of the run's owners, and no more."""
        return self._join().directory

    @property
    def ledger(self) -> Ledger:
        """What machines take of this host's memory; whoever asks first runs a test now."""
        if self._ledger is None:
            from pytest_machine.memory import Ledger
            from pytest_machine.owner import state_dir

            self._ledger = Ledger(state_dir(), self.choice.settings.memory_cap)
            self._ledger.work()
        return self._ledger

    def lab(self) -> Lab:
        """Return a new, empty lab of this run; the first begins the run."""
        from pytest_machine.lab import Lab

        run = self._begin()
        # A store for each: two tests, or two workers, may well have machines of one name.
        lab = Lab(
            store=run.lab_store(new_id(), mine=True), registry=self.choice.registry, run=run.id, witness=self.births
        )
        self._labs.append(lab)
        return lab

    def create(self, lab: Lab, specs: Sequence[Spec]) -> list[Machine]:
        """Make machines, all at once, and count them; all of them or none. Where memory is short, wait for it first."""
        from pytest_machine.driver import SupportsAdoption

        try:
            self.hosts.take(lab, specs)
            with self.admitted(lab, specs):
                made = self.births.create(lab, specs)
        except MachineError:
            self.tally.failed += len(specs)
            raise
        created = [machine for machine in made if not isinstance(machine.driver, SupportsAdoption)]
        self.tally.seconds += [machine.seconds for machine in created]
        self.tally.adopted += len(made) - len(created)
        names = {machine.name for machine in created}
        for kind in map(self.kind, [spec for spec in specs if spec.name in names]):  # now, when the image is there
            if kind not in self.tally.kinds:
                self.tally.kinds.append(kind)
        for machine in made if self._keep_all else ():
            kept.keep(machine.record, "--machine-keep=always")
        return made

    def boot(self, spec: Spec) -> None:
        """Make a machine and destroy it again, to see whether it can be made; it counts as none."""
        lab = self.lab()
        try:
            with self.admitted(lab, [spec]):
                lab.create(spec)
        finally:
            self.destroy(lab, kill=True)

    @contextlib.contextmanager
    def admitted(self, lab: Lab, specs: Sequence[Spec]) -> Iterator[None]:
        """Wait until this host has memory for machines of a lab; say so when it takes long."""
        if not (footprints := self.footprints(specs)):
            yield
            return
        cleared: list[bool] = []

        def make_room() -> None:
            """Give up what nobody uses at the moment: the shelf once, spares whenever there are some."""
            self.spares.give_up()
            if not cleared:
                cleared.append(True)
                self.turns.clear_shelf(everything=True)

        asked = clock.now()
        with self.ledger.admitted(footprints, lab.store.path, tell=self.notices.say, waiting=make_room):
            self.journal.queued(asked)
            yield

    def footprints(self, specs: Sequence[Spec]) -> dict[str, int]:
        """Return how many bytes of this host's memory each machine takes; those that live elsewhere take none."""
        from pytest_machine import answers
        from pytest_machine.driver import SupportsFootprint

        drivers = {spec.name: self.choice.registry.configure(spec) for spec in specs}
        local = {name: driver for name, driver in drivers.items() if isinstance(driver, SupportsFootprint)}
        return {name: answers.footprint(driver) for name, driver in local.items()}

    def forget(self, lab: Lab) -> None:
        """Know nothing more of a lab in which nothing was made."""
        self._labs.remove(lab)
        self.hosts.release(lab)

    def kind(self, spec: Spec) -> str:
        """Return the description of such a machine in the header: driver, isolation, image and version of Docker."""
        from pytest_machine import answers
        from pytest_machine.driver import SupportsEngineVersion

        driver = self.choice.registry.configure(spec)
        image, engine = getattr(driver, "image", ""), getattr(driver, "engine", "")
        if isinstance(driver, SupportsEngineVersion):
            engine = answers.engine_version(driver) or "unknown"
        said = [f"{driver.name} ({answers.isolation(driver)})", *([f"image {image}"] if image else [])]
        return ", ".join([*said, f"Docker {engine}"] if engine else said)

    def destroy(self, lab: Lab, *, kill: bool = False) -> None:
        """Destroy a lab, or let it live on; one that cannot be destroyed is tried once more when the session ends."""
        if not self.lets_live(lab):
            with self.journal.span("destroying", [machine.record for machine in lab]):
                lab.destroy(kill=kill)
        self._labs.remove(lab)
        self.hosts.release(lab)

    def withdrew(self, records: Iterable[Record]) -> bool:
        """Return whether no further test should have these machines, because one stays as a failed test left it."""
        return not self._keep_all and any(kept.because_of(record) is not None for record in records)

    def lets_live(self, lab: Lab) -> bool:
        """Return whether a machine of the lab is kept on purpose; then all of it lives on, and the lab lets go."""
        reasons = [why for machine in lab if (why := kept.because_of(machine.record)) is not None]
        if not reasons:
            return False
        for machine in lab:
            kept.keep(machine.record, reasons[0])
            self.journal.note("kept", machine.record, clock.now(), text=reasons[0])
        lab.release()
        return True

    def finish(self) -> None:
        """Destroy what is left and let go of the run; again: nothing happens.

        Ctrl-C here leaves the rest to the run's reaper, which comes as soon as this process lets go.
        """
        run = self._run
        if run is None:
            return
        try:
            self.spares.stop()
            self.tally.stay = self.turns.staying()
            self._run = None
            for lab in self._labs[::-1]:
                with contextlib.suppress(MachineError):  # what could not be destroyed is in the store: see below
                    self.destroy(lab, kill=True)
            if not self.worker:  # a worker's store is the other workers' too
                self._sweep(run)
                self.journal.gather(run.directory)
                self.kept = kept.among([*run.stores, *self._shelved(run)])
                known = {event.machine for event in self.journal.events if event.kind == "kept"}
                for each in self.kept:
                    if each.record.id not in known:  # what several processes shared, none of them has let go of
                        self.journal.note("kept", each.record, clock.now(), text=each.because)
        finally:
            self._run = None
            self._labs.clear()
            self.hosts.release_all()
            if self._heartbeat:
                self._heartbeat.stop()
            if self._ledger is not None:
                self._ledger.rest()
            with contextlib.suppress(MachineError, OSError):  # the kernel lets go of its lock all the same
                run.end()
            if not self.worker:
                self._tidy()
            self._restore()

    @staticmethod
    def _shelved(run: Run) -> list[Store]:
        from pytest_machine.shelf import Shelf

        return Shelf().stores(run.directory)

    @staticmethod
    def _tidy() -> None:
        """Clear the notes of memory up, as the reaper does; it may be dead, and nothing else was left for it."""
        from pytest_machine import memory
        from pytest_machine.owner import state_dir

        with contextlib.suppress(OSError):
            memory.tidy(state_dir())

    def _sweep(self, run: Run) -> None:
        from pytest_machine import reaper

        records = {record.id: record for store in run.stores for record in store.records()}
        if any(store.names() for store in run.stores):
            begun = clock.now()
            # What takes longer, or is being made by somebody who does not let go, is left to the reaper.
            found = reaper.sweep(run.stores, self.choice.registry, "the run has ended", timeout=_PATIENCE)
            self.tally.left += [each.name for each in found if each.kind == "machine" and each.error]
            for each in found:
                if each.id in records and each.doomed and not each.error:
                    self.journal.note("destroying", records[Id(each.id)], begun)

    def _begin(self) -> Run:
        from pytest_machine import reaper

        run = self._join()
        reaper.watch(run, registry=self.choice.registry)
        if not self._tidied:  # not the same as having joined: whoever notes something has done that before
            self._tidied = True
            self.turns.clear_shelf()
        return run

    def _join(self) -> Run:
        if self._run is None:
            from pytest_machine.owner import Run

            from .heartbeat import Heartbeat, interrupt_main

            self.catch()
            try:
                self._run = Run.begin(self.id)
                self.journal.open(self._run.directory)
                self.births.progress.open(self._run.directory)
            except OSError as error:
                raise StoreError(
                    "The run cannot be noted, so no machine is made.",
                    facts={"file": error.filename, "reason": error.strerror or error},
                    hint="free space there, or keep runs elsewhere: PYTEST_MACHINE_HOME=/path"
                    if error.errno in _FULL
                    else reasons.hint(error),
                ) from error

            def end() -> None:
                if not self._ending:
                    interrupt_main(signal.SIGTERM)

            self._heartbeat = Heartbeat(self._run, controller=self._controller, end=end)
        return self._run

    def catch(self) -> None:
        """End the session in order at SIGTERM from now on; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGTERM)
        if before is signal.SIG_IGN:  # whoever started us wants it so
            return

        def terminated(number: int, frame: FrameType | None) -> None:
            if self._controls and not self._made_any:
                # Nobody has asked for a machine: then it is none of our business.
                signal.signal(signal.SIGTERM, before)
                signal.raise_signal(signal.SIGTERM)
                return
            if callable(before):
                before(number, frame)
            first = not self._terminated
            self._terminated = True
            # A second one, or one that comes late, must not interrupt the teardown that has begun.
            if first and not self._ending:
                raise Terminated("SIGTERM")

        signal.signal(signal.SIGTERM, terminated)

        def restore() -> None:
            if signal.getsignal(signal.SIGTERM) is terminated:
                signal.signal(signal.SIGTERM, before)
            self._restore = lambda: None

        self._restore = restore

    @property
    def _made_any(self) -> bool:
        from pytest_machine import reaper

        return self._run is not None and reaper.is_watched(self._run)

    def tell(self, node: object) -> None:
        """Tell a worker of pytest-xdist which run it belongs to, and own that run too.

        A worker may crash and another take its place; if nobody owned the run in between, its reaper would come.
        """
        given = node.workerinput  # type: ignore[attr-defined]  # xdist's WorkerController
        given[_WORKER_INPUT] = self.id
        self._controls = True
        with contextlib.suppress(OSError, MachineError):  # the workers will say it, if they want machines at all
            given[_CONTROLLER_INPUT] = self._join().owner
        if self._run is not None:
            self.notices.listen()
            self.births.progress.listen()

    def pytest_keyboard_interrupt(self) -> None:
        """Ctrl-C, SIGTERM or `pytest.exit`: tell the workers, which hear of it from nobody else in time."""
        self._ending = True
        if self._controls and self._run is not None and self._made_any:
            self._run.call_off()

    @pytest.hookimpl(tryfirst=True, specname="pytest_sessionfinish")
    def begin_to_end(self) -> None:
        """Note that what comes now is teardown."""
        self._ending = True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        """Be busy while a test runs: what it holds will be free at its end, so that others may wait for it."""
        if self._ledger is not None:
            self._ledger.work()
        try:
            return (yield)
        finally:
            if self._ledger is not None:
                self._ledger.rest()

    # Behind pytest's own, which tears fixtures down, and xdist's, which ends the workers.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Leave nothing; a session that SIGTERM ended says so by its exit code, as a shell would."""
        self.finish()
        if self._terminated:
            session.exitstatus = 128 + signal.SIGTERM

    def pytest_unconfigure(self) -> None:
        """Leave nothing either where the session never came to its end."""
        self.finish()
        self._restore()


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn our errors into failures with the message and no traceback: what is wrong is not in the test's code."""
    try:
        yield
    except MachineError as error:
        raise _failure(error, error) from None
    except OSError as error:
        if error.errno is None:
            raise
        if error.errno not in _FULL:
            raise _failure(refused(error), error) from None
        told = StoreError(
            f"The machine cannot be used: {error.strerror}.",
            facts={"file": error.filename} if error.filename else {},
            hint="free space there, or keep runs elsewhere: PYTEST_MACHINE_HOME=/path",
        )
        raise _failure(told, error) from None


def _failure(told: MachineError, error: Exception) -> BaseException:
    return pytest.fail.Exception("\n".join([str(told), *getattr(error, "__notes__", ())]), pytrace=False)
