"""Presence: whether machines are still there and what they do, as their store and their drivers say now.

A test, another shell, the provider or a hand may end, stop or freeze a machine at any time. Code that holds a machine
asks here instead of remembering.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from . import answers
from .driver import Driver
from .errand import Errand
from .errors import MachineError
from .model import Id, Record, Seen, State
from .store import RECORD
from .support import clock, files

# Seconds that all drivers together get to answer.
_ANSWER = 10.0


def is_forgotten(record: Record) -> bool:
    """Return whether the store no longer has the machine: its directory is gone, or belongs to another machine."""
    try:
        found = files.read_table(record.directory / RECORD, "the record")
    except FileNotFoundError:
        return not record.directory.is_dir()
    except files.UNREADABLE:
        return False  # damage is no proof of an end
    return found.get("id", record.id) != record.id


def look(machines: Iterable[tuple[Driver, Record]], *, timeout: float = _ANSWER) -> dict[Id, Seen]:
    """Return what the drivers see of machines: each driver is asked once, all drivers at the same time.

    A machine whose driver fails or does not answer within `timeout` seconds is `State.ERROR` with the reason.
    """
    # Drivers with equal options are one; they need not be hashable.
    kinds: list[tuple[Driver, list[Record]]] = []
    for driver, record in machines:
        theirs = next((records for known, records in kinds if known == driver), None)
        if theirs is None:
            kinds.append((driver, theirs := []))
        theirs.append(record)
    asked = [(records, Errand(functools.partial(answers.look, driver, records))) for driver, records in kinds]
    deadline = clock.monotonic() + timeout
    found: dict[Id, Seen] = {}
    for records, errand in asked:
        why = f"its driver did not answer within {timeout:g} s"
        if errand.wait(max(0.0, deadline - clock.monotonic())):
            try:
                found |= errand.result()
                why = "its driver does not mention it"
            except Exception as error:  # noqa: BLE001  # a driver of any author: the others' machines count too
                why = error.message if isinstance(error, MachineError) else str(error) or type(error).__name__
        for record in records:
            found.setdefault(record.id, Seen(state=State.ERROR, detail=why))
    return found
