"""Which machines a test uses: its own, those that it shares, and those of wider scopes' fixtures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_machine.support import clock

from . import tracking
from .marker import Asked
from .tracking import Node

if TYPE_CHECKING:
    from pytest_machine.lab import Lab
    from pytest_machine.machine import Machine
    from pytest_machine.model import Id

_USED = pytest.StashKey[dict["Id", "Use"]]()


@dataclass(frozen=True, slots=True)
class Use:
    """A machine, and what the mark asked for that led to it."""

    machine: Machine
    asked: Asked
    since: float
    """Since when: Unix time, seconds. What a test waited for it before is not its time."""
    lab: Lab | None = None


def note(node: Node, machines: Iterable[Machine], asked: Iterable[Asked], lab: Lab | None = None) -> None:
    """Note that a test, or a wider scope's fixtures, got these machines of a lab."""
    known = node.stash.setdefault(_USED, {})
    now = clock.now()
    for machine, one in zip(machines, asked, strict=True):
        known[machine.id] = Use(machine, one, now, lab)


def by(node: Node) -> list[Use]:
    """Return the machines that a test, or a wider scope's fixtures, got by themselves."""
    known: dict[Id, Use] | None = node.stash.get(_USED, None)
    return list((known or {}).values())


def of(item: pytest.Item) -> list[Use]:
    """Return the machines that a test uses, in the order in which it got them, widest scope first."""
    found: dict[Id, Use] = {}
    for node in [*tracking.nodes(item), item]:
        # An earlier test's end of a shared machine is no affair of this one's.
        found |= {use.machine.id: use for use in by(node) if node is item or not use.machine.gone}
    return list(found.values())
