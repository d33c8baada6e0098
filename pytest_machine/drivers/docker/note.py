"""What is noted of a machine in its own directory: the engine that it is in, and whether it is being made.

The environment may name another engine tomorrow. And an engine goes on with what a process asked for that was killed
meanwhile: as long as the note says that somebody was at it, more may come.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pytest_machine import store
from pytest_machine.endpoint import Endpoint
from pytest_machine.model import Record
from pytest_machine.support import files, parsing

_FILE = "docker-engine.json"


@dataclass(frozen=True, slots=True)
class Note:
    """What was noted."""

    endpoint: Endpoint
    busy: bool
    """Whether somebody makes it now, or was killed while they did."""


def read(record: Record) -> Note | None:
    """Return what is noted of a machine; None when nothing is, or its store is gone."""
    try:
        found = files.read_table(record.directory / _FILE, "the note")
        given = parsing.table(found.get("endpoint"), "'endpoint'")
        return Note(
            Endpoint(
                parsing.text(given.get("url"), "'url'"),
                parsing.text(given.get("certs", ""), "'certs'"),
                parsing.boolean(given.get("verify", True), "'verify'"),
            ),
            parsing.boolean(found.get("busy"), "'busy'"),
        )
    except files.UNREADABLE:
        return None


def write(record: Record, endpoint: Endpoint, *, busy: bool) -> None:
    """Note it."""
    noted = {"endpoint": asdict(endpoint), "busy": busy}
    store.write(record.directory / _FILE, json.dumps(noted).encode(), durable=False)
