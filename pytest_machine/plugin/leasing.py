"""From a node's marks to machines that are ready: what the fixtures call."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_machine.errors import BadSpec, EngineFailed
from pytest_machine.kept import because_of

from . import levels, marker, matrix, rooms, tracking
from .keeper import Keeper, reported
from .machines import MachineFactory, Machines
from .marker import Asked, read, single
from .pool import Pool, scope_node, shared_scope
from .tracking import Node

if TYPE_CHECKING:
    from pytest_machine.lab import Lab
    from pytest_machine.machine import Machine
    from pytest_machine.model import Spec
    from pytest_machine.swarm import Swarm


_SHARED = pytest.StashKey["Lab"]()  # the lab that a test shares with others
_GUESTS = pytest.StashKey[list[tuple["Lab", "Machine", bool]]]()  # what it has added there, and whether to kill it


def of_test(item: Node) -> Machines:
    """Return the machines that a test asks for: its own, or those that it shares by ``reuse=``."""
    keeper = rooms.of(item.config).keeper
    with reported():
        asked = [keeper.choice.completed(one) for one in levels.asked(item)]
        scope = shared_scope(asked)
        listed = matrix.run(item).values()
        if scope == "runs" or (scope == "session" and keeper.worker and asked[0].share == "run"):
            found = _turn(keeper, item, asked, listed=listed)
        else:
            found = _lease(keeper, Pool.at(scope_node(item, scope), keeper), asked, own=scope == "never", listed=listed)
        if scope != "never":
            item.stash[_SHARED] = found.lab
        rooms.of(item.config).looking.leased(item, found, asked, found.lab)
        rooms.of(item.config).healing.leased(item, found.lab)
        rooms.of(item.config).environment.show(found[0])
        _form(found, asked)
        return found


def of_scope(node: Node) -> Machines:
    """Return the machines of a wider scope's own lab, and show them to the test that runs."""
    keeper = rooms.of(node.config).keeper
    with reported():
        asked = [keeper.choice.completed(one) for one in levels.asked(node)]
        pool = Pool.at(node, keeper)
        found = _lease(keeper, pool, asked, own=True)
        rooms.of(node.config).upkeep.held(node, pool, found)
        rooms.of(node.config).looking.leased(node, found, asked, found.lab)
        rooms.of(node.config).healing.leased(node, found.lab)
        tracking.of(node.config).use(node)
        _form(found, asked)
    return found


def swarm(node: Node, found: Machines) -> Swarm:
    """Return the Swarm of machines that a test or a scope has: its marks', or one of all of them, formed now."""
    with reported():
        if found.swarm is None:
            _form(found, levels.asked(node), wanted=True)
        assert found.swarm is not None
        return found.swarm


def _form(found: Machines, asked: Sequence[Asked], *, wanted: bool = False) -> None:
    if (roles := marker.swarm(asked, wanted=wanted)) is not None:
        found.swarm = found.lab.swarm(managers=roles.managers, workers=roles.workers)


def factory(node: Node) -> MachineFactory:
    """Return a function that makes machines in the lab of a scope; the scope's first is shown to the test that runs.

    For a test that shares machines it makes them in their lab, so that all know each other, until the test is over.
    """
    keeper = rooms.of(node.config).keeper
    pool = Pool.at(node, keeper)
    if not isinstance(node, pytest.Item):
        tracking.of(node.config).use(node)
    guests: list[tuple[Lab, Machine, bool]] = node.stash.setdefault(_GUESTS, [])
    node.addfinalizer(lambda: _see_off(keeper, guests))

    def make(name: str = "", /, **arguments: object) -> Machine:
        __tracebackhide__ = True
        with reported():
            lab = node.stash.get(_SHARED, None)
            if lab is None:
                lab = pool.own
            asked = _call(node, name, arguments, taken=[machine.name for machine in lab.machines])
            asked = keeper.choice.completed(asked)
            (machine,) = pool.add(lab, keeper.choice.specs([asked]), [str(asked.teardown)])
            if node.stash.get(_SHARED, None) is None:
                rooms.of(node.config).upkeep.held(node, pool, [machine])
            else:
                guests.append((lab, machine, asked.teardown == "kill"))
            rooms.of(node.config).looking.leased(node, [machine], [asked], lab)
        if pool.first is machine:
            rooms.of(node.config).environment.show(machine)
        return machine

    return make


def _lease(
    keeper: Keeper, pool: Pool, asked: Sequence[Asked], *, own: bool, listed: Collection[object] = ()
) -> Machines:
    specs = keeper.choice.specs(asked)
    with _runnable(keeper, specs, listed):
        lab = pool.lease(specs, [str(one.teardown) for one in asked], own=own, resets=_resets(asked))
    return Machines(lab, [lab[spec.name] for spec in specs])


def _turn(keeper: Keeper, item: Node, asked: Sequence[Asked], *, listed: Collection[object]) -> Machines:
    """Return machines that other processes use too: this test has them until it is torn down."""
    specs = keeper.choice.specs(asked)
    lab: Lab | None = None
    while lab is None:
        if asked[0].reuse == "runs":
            shared = keeper.turns.of_shelf(specs, alone=asked[0].share == "worker")
        else:
            shared = keeper.turns.of_run(specs)
        with _runnable(keeper, specs, listed):
            lab = shared.lease([str(one.teardown) for one in asked], _resets(asked))
    item.addfinalizer(shared.release)
    # In the other processes' turn they would be strangers.
    item.addfinalizer(lambda: _see_off(keeper, item.stash.get(_GUESTS, [])))
    return Machines(lab, [lab[spec.name] for spec in specs])


def _see_off(keeper: Keeper, guests: list[tuple[Lab, Machine, bool]]) -> None:
    """Destroy the machines that a test has added to a shared lab, unless they are kept. Idempotent."""
    with reported():
        while guests:
            lab, machine, kill = guests.pop()
            if because_of(machine.record) is None:
                with keeper.journal.span("destroying", [machine.record]):
                    lab.remove(machine, kill=kill)


@contextlib.contextmanager
def _runnable(keeper: Keeper, specs: Sequence[Spec], listed: Collection[object]) -> Iterator[None]:
    """Skip the test when a version of Docker that it has from a list cannot run here."""
    try:
        yield
    except EngineFailed as error:
        if listed:
            keeper.matrix.skip([spec for spec in specs if spec.options.get("engine") in listed], error)
        raise


def _resets(asked: Sequence[Asked]) -> dict[str, bool]:
    return {one.name: one.reset is not False for one in asked}


def _call(node: Node, name: str, arguments: dict[str, object], *, taken: Sequence[str]) -> Asked:
    """Return what a factory's call asks for."""
    for key in sorted({"role", "swarm"} & set(arguments)):
        raise BadSpec(
            f"A machine factory takes no '{key}': a Swarm is of several machines, and each call makes one.",
            hint="make them all, then form it: lab.swarm(managers=['a'])",
        )
    for key in sorted({"count", "reset", "reuse", "share", "topology"} & set(arguments)):
        raise BadSpec(
            f"A machine factory takes no '{key}': each call makes one machine, for as long as the factory's scope.",
            hint="call it once for each machine; module_machine_factory() makes machines that live longer",
        )
    asked = matrix.settled(node, single(levels.machines(node), read((name,) if name else (), arguments)[0]))
    return asked if asked.name else Asked(name=_free(taken)).over(asked)


def _free(taken: Sequence[str]) -> str:
    names = ["machine", *(f"machine-{number}" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)
