"""What happened to every machine of a run, and when: the timeline and the numbers at the end are made of it.

Workers of pytest-xdist write theirs into the run's directory, line by line, so that even one that is killed has told
all; the controller reads them before the directory goes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_machine.support import clock, files, parsing

if TYPE_CHECKING:
    from pytest_machine.model import Record

PHASES = ("creating", "waiting", "resetting", "destroying")
"""What takes time besides tests, in the order of a machine's life."""

# Bytes of one worker's journal.
_LARGEST = 256 << 20


# Seconds.
_MOMENT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One stretch of one machine's life."""

    kind: str
    """One of `PHASES`, or ``test``, ``failed`` (to be made), ``kept``, ``incident``, ``fault``.

    ``queueing`` and ``drawing`` (of a lab; a test's id is its text) are no machine's.
    """
    machine: str
    """Its id; empty while a test waits for its turn at one, or for memory to make one."""
    name: str
    begun: float
    """Unix time, seconds."""
    ended: float
    text: str = ""
    """A test's id, or what was said."""
    worker: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, self.ended - self.begun)


class Journal:
    """The events of this process, or of all workers together."""

    def __init__(self, config: pytest.Config) -> None:
        self.events: list[Event] = []
        self._worker = str(getattr(config, "workerinput", {}).get("workerid", ""))
        self._file: Path | None = None

    def open(self, directory: Path) -> None:
        """Write down what happens from now on where the controller finds it; only a worker needs to."""
        if self._worker:
            self._file = directory / f"journal-{os.getpid()}.jsonl"

    def note(
        self,
        kind: str,
        record: Record,
        begun: float,
        ended: float | None = None,
        *,
        text: str = "",
        detail: Mapping[str, str] | None = None,
    ) -> None:
        """Note an event; without an end, it ends now."""
        self._add(
            Event(
                kind=kind,
                machine=record.id,
                name=record.name,
                begun=begun,
                ended=clock.now() if ended is None else ended,
                text=text,
                worker=self._worker,
                detail={"driver": record.driver, **(detail or {})},
            )
        )

    def queued(self, begun: float) -> None:
        """Note that a test has waited until now for others to let go of what it wants; a moment is not worth a line."""
        if (now := clock.now()) - begun >= _MOMENT:
            self._add(Event(kind="queueing", machine="", name="", begun=begun, ended=now, worker=self._worker))

    def drawn(self, picture: str, *, test: str, outcome: str, shape: str) -> None:
        """Note what a test's lab looked like: SVG. Two of one shape differ by their addresses alone."""
        detail = {"svg": picture, "outcome": outcome, "shape": shape}
        now = clock.now()
        self._add(Event(kind="drawing", machine="", name="", begun=now, ended=now, text=test, detail=detail))

    def _add(self, event: Event) -> None:
        self.events.append(event)
        if self._file is not None:
            with contextlib.suppress(OSError), self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(event)) + "\n")

    @contextlib.contextmanager
    def span(self, kind: str, records: Iterable[Record]) -> Iterator[None]:
        """Note that machines went through a phase for as long as the block lasts, however it ends."""
        going = list(records)
        begun = clock.now()
        try:
            yield
        finally:
            for record in going:
                self.note(kind, record, begun)

    def gather(self, directory: Path) -> None:
        """Take in what workers wrote."""
        for path in sorted(directory.glob("journal-*.jsonl")):
            with contextlib.suppress(*files.UNREADABLE):
                for line in files.read(path, largest=_LARGEST).splitlines():
                    with contextlib.suppress(ValueError, TypeError):  # the last line of one that was killed
                        found = Event(**parsing.json_table(line, "an event"))  # type: ignore[arg-type]  # next
                        parsing.time(found.begun, "'begun'")
                        self.events.append(found)
        self.events.sort(key=lambda event: event.begun)


Stretch = tuple[float, float]
"""From and to, Unix times."""


def times(events: Iterable[Event]) -> dict[str, float]:
    """Return seconds by phase, ``queueing`` if any, and ``tests``.

    Summed over all machines, but each test once however many it uses. What a test waited for its machines is not the
    test's time.
    """
    known = list(events)
    total = dict.fromkeys((*PHASES, "tests"), 0.0)
    tests: dict[tuple[str, str, str], tuple[Event, set[str]]] = {}
    for event in known:
        if event.kind in PHASES:
            total[event.kind] += event.seconds
        elif event.kind == "queueing":
            total[event.kind] = total.get(event.kind, 0.0) + event.seconds
        elif event.kind == "test":
            # A test may be run again, and may get its machines one after the other.
            run = (event.worker, event.text, event.detail.get("run", str(event.begun)))
            first, machines = tests.get(run, (event, set()))
            tests[run] = (min(first, event, key=lambda each: each.begun), machines | {event.machine})
    for event, machines in tests.values():
        total["tests"] += sum(b - a for a, b in pieces(event, (each for each in known if each.machine in machines)))
    return total


def pieces(test: Event, events: Iterable[Event]) -> list[Stretch]:
    """Return what is left of a test's time without the phases among the events: when it really ran."""
    left = [(test.begun, test.ended)]
    for event in events:
        if event.kind in PHASES:
            cut = [((a, min(b, event.begun)), (max(a, event.ended), b)) for a, b in left]
            left = [(a, b) for pair in cut for a, b in pair if b > a]
    return left
