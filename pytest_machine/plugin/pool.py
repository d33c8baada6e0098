"""Which machines are shared where: a `Pool` for each scope, kept on the scope's own node of the collection tree.

The node's finalizers are pytest's own, so that a shared machine goes when pytest says that the scope is over, after
every fixture that could still use it. Equal sets of specs share one lab; what the scope's own fixtures make is in its
own lab, where its factory adds machines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ParamSpec

import pytest

from pytest_machine.errors import BadSpec, CleanupFailed, MachineError
from pytest_machine.kept import because_of
from pytest_machine.model import Id, Spec

from .keeper import Keeper, reported
from .marker import Asked
from .tracking import Node

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


class Pool:
    """The machines of one scope."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._own: Lab | None = None
        self._shared: dict[frozenset[Spec], Lab | MachineError] = {}
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
        """Return the lab with just these machines, made the first time; `own`: for the scope's own fixtures.

        Machines that another test had are reset, unless `resets` says of their name that they are not to be; one that
        cannot be is made anew. Those of the scope's own fixtures never are: what a fixture prepared is there to be
        found. What could not be made once is not tried again in this scope: every test of it says why.
        """
        key = frozenset(specs)
        known = self._shared.get(key)
        if isinstance(known, MachineError):
            raise known
        if known is not None and not own and self._keeper.withdrew(machine.record for machine in known):
            known = None  # it is to stay as it is, for somebody to look at
        if known is not None and not own and not _whole(known, specs):
            self._drop(known)
            known = None
        if known is not None and (known is self._own or self._reset(known, resets or {})):
            if own:
                self._own = self._own or known
            return known
        try:
            found = self._spare(specs, teardown, own=own)
            if found is None:
                found = self.own if own else self._lab()
                self.add(found, specs, teardown)
            if not own:
                for machine in found.machines:
                    machine.note()
        except MachineError as error:
            self._shared[key] = error
            raise
        self._shared[key] = found
        return found

    def _reset(self, lab: Lab, resets: Mapping[str, bool]) -> bool:
        """Make the machines as new; return whether they are of any use."""
        try:
            with lab.resetting(*(each.name for each in lab.machines if resets.get(each.name, True))) as going:
                for machine in going:
                    with self._keeper.journal.span("resetting", [machine.record]):
                        machine.reset()
        except (MachineError, OSError):
            self._drop(lab)
            return False
        return True

    def _drop(self, lab: Lab) -> None:
        """Destroy a lab that is of no more use."""
        self._labs.remove(lab)
        with contextlib.suppress(MachineError):  # then it is tried once more when the session ends
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
                failed += _tried(machine.destroy, kill=True)
            failed += _tried(self._keeper.destroy, lab, kill=everything)
        if failed:
            raise failed[0] if len(failed) == 1 else CleanupFailed("Some machines could not be destroyed.", failed)

    def _lab(self) -> Lab:
        lab = self._keeper.lab()
        self._labs.append(lab)
        return lab


def _whole(lab: Lab, specs: Sequence[Spec]) -> bool:
    """Whether all machines are still there: a test may have destroyed some, by themselves or with the lab."""
    noted = lab.store.names()
    return all(spec.name in lab and spec.name in noted for spec in specs)


def _tried(destroy: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> list[MachineError]:
    try:
        destroy(*args, **kwargs)
    except MachineError as error:
        return [error]
    return []
