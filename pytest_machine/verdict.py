"""Why a machine or network that was found may be destroyed, or must stay.

Nothing here destroys anything, and every answer is a sentence that `prune` prints. When in doubt, it stays.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from filelock import FileLock, Timeout

from . import shelf
from .errors import StoreError, UnknownMachine
from .kept import because_of
from .model import Network, Record
from .owner import alive, host_id
from .store import Store
from .stored import Damaged
from .support import clock

# Seconds for which a machine without a lock may still be on its way: between its record and its creation.
_NEWBORN = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a thing may go, and why."""

    why: str
    doomed: bool
    damaged: bool = False
    """Whether its record or tag cannot be read."""


def kept(record: Record, *, everything: bool = False) -> Verdict | None:
    """Return the verdict on a machine that was kept on purpose, by the note in its directory; None for any other."""
    because = because_of(record)
    if because is None:
        return None
    return Verdict("it was kept on purpose" + (f": {because}" if because else ""), doomed=everything)


def of_a_run(thing: Record | Network) -> bool:
    """Return whether it is one of this host's runs' own, and goes with it."""
    return thing.host == host_id() and bool(thing.run) and thing.store.parent.name == thing.run


def of_run(thing: Record | Network, why: str, *, older_than: float = 0.0, everything: bool = False) -> Verdict:
    """Return the verdict on what a dead run has left."""
    if isinstance(thing, Record) and (noted := kept(thing, everything=everything)):
        return noted
    return _old_enough(thing, Verdict(why, doomed=True), older_than=older_than, now=clock.now())


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judges what drivers found by their tags."""

    older_than: float
    """Seconds: what was made later stays."""
    everything: bool
    """Whether machines made by hand, kept on purpose, and those that wait for another run go too."""
    by_hand: bool
    """Whether a human asks; else only what belongs to a dead run goes, and what is past its time."""
    now: float

    def machine(self, tagged: Record) -> tuple[Record, Verdict]:
        """Return the machine's record, its store's if there is one, and the verdict."""
        if tagged.host != host_id():
            return tagged, self._of_stranger(tagged)
        try:
            record = _current(tagged)
            judged = self._verdict(record or tagged, noted=record is not None)
        except PermissionError:
            return tagged, Verdict("it belongs to another user, and only that one's 'prune' may judge it", doomed=False)
        except StoreError:
            return tagged, self._damaged(tagged)
        return record or tagged, _old_enough(record or tagged, judged, older_than=self.older_than, now=self.now)

    def damaged(self, found: Damaged) -> Verdict:
        """Return the verdict on a machine or network whose tag is damaged, and which no store of this user knows."""
        if found.host and found.host != host_id():
            return Verdict(f"another host made it ('{found.host}')", doomed=False)
        if not found.id:
            return Verdict(f"its tag is damaged ({found.reason}), and no id is known; see {found.place}", doomed=False)
        if found.newer:
            return Verdict(f"its tag is a newer version's: {found.reason}", doomed=False)
        remedy = f"docker-machine rm -f {found.id}" if found.kind == "machine" else "pytest-machine prune --all"
        return Verdict(f"its tag is damaged ({found.reason}); {remedy}", doomed=self.everything)

    def _damaged(self, tagged: Record) -> Verdict:
        """Return the verdict on a machine whose tag is whole, and whose record is damaged."""
        left = Store(tagged.store).salvaged(tagged.name)
        if left is not None and left.newer:
            return Verdict(f"its record is a newer version's: {left.reason}", doomed=False, damaged=True)
        if living := _living_run(tagged):
            return Verdict(f"its run '{living}' lives", doomed=False)
        if judged := kept(tagged, everything=self.everything):
            return judged
        if tagged.expires is not None and tagged.expires < self.now:
            return Verdict("its time is over", doomed=True)
        reason = left.reason if left else "it changes just now"
        return Verdict(
            f"its record is damaged ({reason}); docker-machine rm -f {tagged.id}", doomed=self.everything, damaged=True
        )

    def network(self, network: Network) -> Verdict:
        """Return the verdict on a network of a lab."""
        if network.host != host_id():
            return Verdict(f"another host made it ('{network.host}')", doomed=False)
        try:
            living = _living_run(network)
        except PermissionError:
            return Verdict("it belongs to another user", doomed=False)
        if living:
            return Verdict(f"its run '{living}' lives", doomed=False)
        if any(record.lab == network.lab for record in Store(network.store).records()):
            return Verdict("machines on it are still there", doomed=False)
        return _old_enough(network, Verdict(_ended(network), doomed=True), older_than=self.older_than, now=self.now)

    def _of_stranger(self, record: Record) -> Verdict:
        if record.expires is not None and record.expires < self.now:
            return Verdict("its time is over", doomed=True)
        return Verdict(f"another host made it ('{record.host}')", doomed=False)

    def _verdict(self, record: Record, *, noted: bool) -> Verdict:
        if living := _living_run(record):
            return Verdict(f"its run '{living}' lives", doomed=False)
        if judged := kept(record, everything=self.everything):
            return judged
        if of_a_run(record):
            return Verdict(_ended(record), doomed=True)
        if record.expires is not None and record.expires < self.now:
            return Verdict("its time is over", doomed=True)
        if not noted:
            return Verdict("no store knows it any more", doomed=self.by_hand)
        if record.ready is None:
            return self._unready(record)
        if record.expires is not None:
            until = time.strftime("%H:%M", time.localtime(record.expires))
            return Verdict(f"kept for later runs until {until}", doomed=self.everything)
        return Verdict("it was made by hand", doomed=self.everything)

    def _unready(self, record: Record) -> Verdict:
        if _at_work(record):
            return Verdict("it is being made", doomed=False)
        if abs(age := self.now - record.created) < _NEWBORN:
            return Verdict(f"its creation began only {max(age, 0):.0f} s ago", doomed=False)
        return Verdict("its creation was broken off", doomed=self.by_hand)


def is_lost(tagged: Record) -> bool:
    """Return whether a machine's own store has no record of it that can be read, and no living run has it."""
    with contextlib.suppress(PermissionError):
        if _living_run(tagged):
            return False
        try:
            return _current(tagged) is None
        except StoreError:
            return True
    return False


def _old_enough(thing: Record | Network, judged: Verdict, *, older_than: float, now: float) -> Verdict:
    # What was made in the future, by a clock that was set back since, counts as made now.
    if judged.doomed and max(now - thing.created, 0.0) < older_than:
        return Verdict(f"{judged.why}, but it is younger than --older-than says", doomed=False)
    return judged


def _ended(thing: Record | Network) -> str:
    if not thing.run:
        return "no machine of its lab is left"
    return f"its run '{thing.run}' has ended" + ("" if thing.store.parent.is_dir() else ", and its store is gone")


def _current(record: Record) -> Record | None:
    """Return what the record's own store says of that machine now; None when it knows it no more."""
    store = Store(record.store)
    if record.name not in store.names():
        return None
    try:
        found = store.load(record.name)
    except UnknownMachine:  # removed just now
        return None
    return found if found.id == record.id else None


def _living_run(thing: Record | Network) -> str:
    """Return the run that has it and lives: the one whose store it is in, or that has claimed it; else nothing."""
    if of_a_run(thing) and alive(thing.store.parent):
        return thing.store.parent.name
    return shelf.user(thing.store)


def _at_work(record: Record) -> bool:
    """Return whether some process holds the machine's lock, as it does while it makes it."""
    lock = record.store / "locks" / f"{record.name}.lock"
    if not lock.is_file():
        return False
    try:
        with FileLock(lock).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return False
