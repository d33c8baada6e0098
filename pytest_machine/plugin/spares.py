"""Warm spares: machines for the tests that come next, made in the background while this one runs.

A machine is named at its birth: host name, ``/etc/hosts`` and certificates all say it. So a spare is made for the very
specs of a test that was collected, its name among them, and whoever asks for equal ones may have it. Nothing in it is
ever renamed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_machine.errors import MachineError
from pytest_machine.model import Spec

from . import levels
from .fixtures import TEST, uses_machine

if TYPE_CHECKING:
    from pytest_machine.lab import Lab

    from .keeper import Keeper

# How often the maker looks whether somebody waits for the memory that its spares take, in seconds.
_PULSE = 1.0


@dataclass(frozen=True, slots=True)
class _Spare:
    key: frozenset[Spec]
    lab: Lab


class Spares:
    """Keeps up to `count` machines ready for the tests that come; none are made before a first test had its own."""

    def __init__(self, keeper: Keeper, count: int) -> None:
        self._keeper = keeper
        self._count = count
        self._items: list[pytest.Item] = []
        self._places: dict[pytest.Item, int] = {}
        self._wanted: list[Sequence[Spec]] = []
        self._ready: list[_Spare] = []
        self._making: frozenset[Spec] | None = None
        self._hopeless: set[frozenset[Spec]] = set()
        self._changed = threading.Condition()
        self._maker: threading.Thread | None = None
        self._stopped = False

    def take(self, specs: Sequence[Spec]) -> Lab | None:
        """Return a lab of just these machines, pristine and alive, if there is one or one is being made."""
        key = frozenset(specs)
        with self._changed:
            # Whoever asks is the first of those that want it; nobody need make another one for that.
            asked = next((wanted for wanted in self._wanted if frozenset(wanted) == key), None)
            if asked is not None:
                self._wanted.remove(asked)
            while True:
                found = next((spare for spare in self._ready if spare.key == key), None)
                if found is not None:
                    self._ready.remove(found)
                    break
                if self._making != key:
                    return None
                self._changed.wait()
        if _fit(found.lab, len(specs)):
            self._keeper.tally.seconds += [machine.seconds for machine in found.lab.machines]
            return found.lab
        self._drop([found])
        return self.take(specs)

    def give_up(self) -> None:
        """Destroy the spares that are ready: their memory is wanted more elsewhere."""
        with self._changed:
            going, self._ready = self._ready, []
        self._drop(going)

    def stop(self) -> None:
        """Make no more; when this returns nothing is being made. What is left belongs to the keeper, as all does."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._maker is not None:
            self._maker.join()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Learn what is coming, in which order."""
        self._items = list(session.items)
        self._places = {item: place for place, item in enumerate(self._items)}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Make the next ones, now that this test has its own."""
        if not self._count or self._stopped or not self._keeper.begun or item not in self._places:
            return
        wanted = self._next(self._places[item] + 1)
        with self._changed:
            self._wanted = wanted
            self._changed.notify_all()
        if self._maker is None and wanted:
            self._maker = threading.Thread(target=self._make, name="machine-spares", daemon=True)
            self._maker.start()

    def _next(self, place: int) -> list[Sequence[Spec]]:
        """Return what the tests from a place on want, as far as it comes to no more than `count` machines."""
        found: list[Sequence[Spec]] = []
        total = 0
        for item in self._items[place:]:
            specs = self._specs(item)
            total += len(specs)
            if total > self._count:
                break
            if specs:
                found.append(specs)
        return found

    def _specs(self, item: pytest.Item) -> Sequence[Spec]:
        """Return the machines that a test will have made for itself alone; none if it has none, or they are wrong."""
        if not uses_machine(item) or TEST.isdisjoint(item.fixturenames) or item.get_closest_marker("skip"):  # type: ignore[attr-defined]  # `uses_machine`
            return ()
        from pytest_machine.driver import SupportsSharedHost

        from .pool import shared_scope

        choice = self._keeper.choice
        try:
            asked = [choice.completed(one) for one in levels.asked(item)]
            specs = [choice.spec(one) for one in asked] if shared_scope(asked) == "never" else []
            # A host that exists cannot be prepared while another test, or another run, uses it.
            driver = choice.registry.driver
            return () if any(issubclass(driver(spec.driver), SupportsSharedHost) for spec in specs) else specs
        except MachineError:
            return ()  # the test will say it

    def _make(self) -> None:
        """Make what is wanted and not there, one after the other, until `stop`."""
        while True:
            with self._changed:
                while not (self._stopped or (missing := self._missing())):
                    self._changed.wait(_PULSE if self._ready else None)
                    if self._ready and self._keeper.ledger.anybody_waits():
                        going, self._ready, self._wanted = self._ready, [], []
                        self._drop(going)
                if self._stopped:
                    return
                key = frozenset(missing)
                surplus = self._surplus()
                self._making = key
            self._drop(surplus)
            try:
                made = self._made(missing, key)
            except Exception:  # noqa: BLE001  # a full disk, say: who waits for this one must not wait for ever
                self._hopeless.add(key)
                made = None
            with self._changed:
                self._making = None
                if made is None:
                    self._wanted = []  # until the next test
                else:
                    self._ready.append(_Spare(key, made))
                self._changed.notify_all()

    def _made(self, specs: Sequence[Spec], key: frozenset[Spec]) -> Lab | None:
        """Return the machines, or None: no memory is left for them, or they cannot be made."""
        lab = self._keeper.lab()
        try:
            with self._keeper.ledger.spare(self._keeper.footprints(specs), lab.store.path) as there_is:
                if there_is:
                    lab.create(*specs)
                    return lab
        except MachineError:
            self._hopeless.add(key)  # the test that wants them tries itself, and says it
        self._keeper.forget(lab)
        return None

    def _missing(self) -> Sequence[Spec]:
        """Return the first that is wanted and neither there nor hopeless."""
        there = [spare.key for spare in self._ready]
        for specs in self._wanted:
            key = frozenset(specs)
            if key in there:
                there.remove(key)
            elif key not in self._hopeless:
                return specs
        return ()

    def _surplus(self) -> list[_Spare]:
        """Take out what nobody wants any more, as far as its place is wanted."""
        wanted = [frozenset(specs) for specs in self._wanted]
        going = []
        for spare in list(self._ready):
            if spare.key in wanted:
                wanted.remove(spare.key)
            else:
                self._ready.remove(spare)
                going.append(spare)
        return going

    def _drop(self, spares: Sequence[_Spare]) -> None:
        for spare in spares:
            try:
                self._keeper.destroy(spare.lab, kill=True)
            except MachineError:
                continue  # it is tried once more when the session ends


def _fit(lab: Lab, count: int) -> bool:
    """Return whether all of its machines, so many, are there and answer: it has stood there for a while."""
    from pytest_machine import engine
    from pytest_machine.waiting import NotYet

    try:
        seen = lab.status()
        for machine in seen:
            engine.ping(machine.address, certs=machine.record.directory)
    except (MachineError, OSError, NotYet):
        return False
    return len(seen) == count
