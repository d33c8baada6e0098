"""Which machines are shared where: a `Pool` for each scope, kept on the scope's own node of the collection tree.

The node's finalizers are pytest's own, so that a shared machine goes when pytest says that the scope is over, after
every fixture that could still use it. Equal sets of specs share one lab by ``reuse=``. The scope's own fixtures have
another lab, where the scope's factory adds machines: what they prepare there, no reset takes away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec

import pytest

from pytest_machine.errors import BadSpec, CleanupFailed, MachineError
from pytest_machine.kept import because_of
from pytest_machine.model import Id, Spec

from .keeper import Keeper, reported
from .marker import Asked
from .tracking import Node
from .waking import awake

if TYPE_CHECKING:
    from pytest_machine.lab import Lab
    from pytest_machine.machine import Machine

_POOL = pytest.StashKey["Pool"]()

P = ParamSpec("P")


def scope_node(item: Node, scope: str) -> Node:
    """Return the node at whose end a scope is over; for a function outside of classes, its class is itself."""
    if scope == "never":
        return item
    if scope == "class":
        return item.getparent(pytest.Class) or item
    if scope == "module":
        return item.getparent(pytest.Module) or item.session
    return (item.getparent(pytest.Package) if scope == "package" else None) or item.session


def shared_scope(asked: Sequence[Asked]) -> str:
    """Return the one scope in which a test's machines are shared; raise `BadSpec` when they do not agree."""
    scopes = sorted({str(one.reuse) for one in asked})
    if len(scopes) > 1:
        raise BadSpec(
            "The machines of one test are shared together or not at all.",
            facts={"reuse": " and ".join(scopes)},
            hint="give every machine of the test the same reuse=, or take the shared one from 'module_machine'",
        )
    if len({one.share for one in asked}) > 1:
        raise BadSpec(
            "The machines of one test are shared together or not at all.",
            facts={"share": "run and worker"},
            hint="give every machine of the test the same share=",
        )
    return scopes[0]


@dataclass(frozen=True, slots=True)
class _Lease:
    """The machines that were made for equal sets of specs."""

    lab: Lab
    ids: frozenset[Id]

    def is_whole(self) -> bool:
        """Return whether all of them are still there: a test, or another hand, may have destroyed some."""
        return self.ids <= {machine.id for machine in self.lab.status()}


class Pool:
    """The machines of one scope."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._own: Lab | None = None
        self._leases: dict[tuple[bool, frozenset[Spec]], _Lease | MachineError] = {}
        self._labs: list[Lab] = []
        self._teardown: dict[Id, str] = {}

    @classmethod
    def at(cls, node: Node, keeper: Keeper) -> Pool:
        """Return the node's pool; the first time, see to it that it is closed when pytest tears the node down."""
        if _POOL not in node.stash:
            pool = node.stash[_POOL] = cls(keeper)

            @reported()
            def close() -> None:
                del node.stash[_POOL]
                pool.close()

            node.addfinalizer(close)
        return node.stash[_POOL]

    @classmethod
    def found(cls, node: Node) -> Pool | None:
        """Return the node's pool if it has one."""
        return node.stash.get(_POOL, None)

    @property
    def first(self) -> Machine | None:
        """The first machine of the scope's own lab."""
        return next(iter(self._own.machines), None) if self._own else None

    @property
    def own(self) -> Lab:
        """The lab of the scope's own fixtures and factory."""
        if self._own is None:
            self._own = self._lab()
        return self._own

    def lease(
        self, specs: Sequence[Spec], teardown: Sequence[str], *, own: bool, resets: Mapping[str, bool] | None = None
    ) -> Lab:
        """Return the lab with these machines, made the first time; `own`: for the scope's own fixtures.

        Shared machines that another test had are reset, unless `resets` says of their name that they are not to be; new
        ones replace those that cannot be. The machines of the scope's own fixtures are others, and are never reset: a
        test finds what a fixture prepared. What could not be made is not tried again in this scope: every test of it
        says why.
        """
        key = own, frozenset(specs)
        known = self._leases.get(key)
        if isinstance(known, MachineError):
            raise known
        if known is not None and self._is_fit(known, own=own, resets=resets or {}):
            return known.lab
        try:
            lab = self._spare(specs, teardown, own=own)
            if lab is None:
                lab = self.own if own else self._lab()
                self.add(lab, specs, teardown)
            found = _Lease(lab, frozenset(lab[spec.name].id for spec in specs))
            if not own:
                for machine in lab.machines:
                    machine.note()
        except MachineError as error:
            self._leases[key] = error
            raise
        self._leases[key] = found
        return found.lab

    def _is_fit(self, known: _Lease, *, own: bool, resets: Mapping[str, bool]) -> bool:
        """Return whether the next test can have machines that were made before; drop those that are of no more use."""
        if own:
            return known.is_whole()
        if self._keeper.withdrew(machine.record for machine in known.lab):
            return False  # it is to stay as it is, for somebody to look at
        if known.is_whole() and self._reset(known, resets):
            return True
        self._drop(known.lab)
        return False

    def _reset(self, known: _Lease, resets: Mapping[str, bool]) -> bool:
        """Bring the machines back as they were created; return whether they are of any use."""
        lab = known.lab
        try:
            for machine in lab.machines:
                if machine.id not in known.ids:  # a test has added it
                    lab.remove(machine, kill=True)
                elif not resets.get(machine.name, True):
                    awake(machine)
            with lab.resetting(*(each.name for each in lab.machines if resets.get(each.name, True))) as going:
                for machine in going:
                    with self._keeper.journal.span("resetting", [machine.record]):
                        machine.reset()
        except (MachineError, OSError):
            return False
        return True

    def lose(self, machines: Sequence[Machine]) -> None:
        """Destroy what is left of machines of the scope's own fixtures, so that the fixtures can make new ones."""
        ids = {machine.id for machine in machines}
        for key, lease in list(self._leases.items()):
            if isinstance(lease, _Lease) and key[0] and lease.ids & ids:
                del self._leases[key]
        if self._own is None:
            return
        if {machine.id for machine in self._own} <= ids:
            lab, self._own = self._own, None
            self._drop(lab)
            return
        for machine in self._own.machines:
            if machine.id in ids:
                with contextlib.suppress(MachineError, OSError):  # then the fixture that makes it again says so
                    self._own.remove(machine, kill=True)

    def _drop(self, lab: Lab) -> None:
        """Destroy a lab that is of no more use."""
        self._labs.remove(lab)
        with contextlib.suppress(MachineError, OSError):  # then it is tried once more when the session ends
            self._keeper.destroy(lab, kill=True)

    def _spare(self, specs: Sequence[Spec], teardown: Sequence[str], *, own: bool) -> Lab | None:
        """Return machines that were made in advance, as a lab of this pool."""
        if own and self._own is not None:
            return None
        lab = self._keeper.spares.take(specs)
        if lab is None:
            return None
        self._labs.append(lab)
        self._teardown.update(zip((lab[spec.name].id for spec in specs), teardown, strict=True))
        if own:
            self._own = lab
        return lab

    def add(self, lab: Lab, specs: Sequence[Spec], teardown: Sequence[str]) -> list[Machine]:
        """Make machines in one of this pool's labs and note how each is to go."""
        made = self._keeper.create(lab, specs)
        self._teardown.update(zip((machine.id for machine in made), teardown, strict=True))
        return made

    def close(self) -> None:
        """Destroy all, each lab even if another could not be; raises `CleanupFailed` for those."""
        failed: list[Exception] = []
        for lab in reversed(self._labs):
            living = [machine for machine in lab.machines if because_of(machine.record) is None]
            killed = [machine for machine in living if self._teardown.get(machine.id) == "kill"]
            everything = len(killed) == len(lab.machines)
            for machine in () if everything else killed:
                machine.ended = None  # the others go, too: they need not learn of it
                failed += _tried(machine.destroy, kill=True)
            failed += _tried(self._keeper.destroy, lab, kill=everything)
        if failed:
            raise failed[0] if len(failed) == 1 else CleanupFailed("Some machines could not be destroyed.", failed)

    def _lab(self) -> Lab:
        lab = self._keeper.lab()
        self._labs.append(lab)
        return lab


def _tried(destroy: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> list[MachineError]:
    try:
        destroy(*args, **kwargs)
    except MachineError as error:
        return [error]
    return []
