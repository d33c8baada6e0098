"""What a run says of its machines: which kind, before the tests; how many, how long and what is left, at its end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_machine.errors import MachineError

from . import levels
from .fixtures import uses_machine
from .journal import Journal, times
from .keeper import Keeper, Tally
from .looking import Looking
from .turns import label

if TYPE_CHECKING:
    from pytest_machine.kept import Kept

_WORKER_OUTPUT = "pytest_machine"
_LONG = 10.0
"""Seconds spent on machines, beside the tests, from which on a run says where the time went."""


class Report:
    """The line before the tests and the section behind them, of one process or of all workers together."""

    def __init__(
        self, config: pytest.Config, keeper: Keeper, looking: Looking, journal: Journal, timeline: Path | None
    ) -> None:
        self._config = config
        self._keeper = keeper
        self._looking = looking
        self._journal = journal
        self._timeline = timeline
        self._no_page = ""  # why there is none
        self._tally = Tally()

    def pytest_report_collectionfinish(self, items: list[pytest.Item]) -> list[str]:
        """Name drivers, isolation and images, once it is known that a test wants a machine.

        pytest's header proper comes before the collection: a run without machines should not pay for drivers.
        """
        kinds: list[str] = []
        for item in filter(uses_machine, items):
            try:
                found = [self._keeper.kind(self._keeper.choice.spec(one)) for one in levels.asked(item)]
            except MachineError as error:
                found = [error.message]
            kinds += found
        return [f"machine: {kind}" for kind in dict.fromkeys(kinds)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object, error: object) -> None:
        """Count what a worker of pytest-xdist made; one that crashed says nothing."""
        output = getattr(node, "workeroutput", {})
        if _WORKER_OUTPUT in output and not error:
            self._tally.add(Tally(**output[_WORKER_OUTPUT]))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say how many machines were made, how long they took, and that none is left."""
        tally = Tally()
        tally.add(self._tally)
        tally.add(self._keeper.tally)
        tally.add(Tally(unseen=self._looking.unseen))
        left = self._keeper.tally.left
        if not (
            tally.seconds or tally.adopted or tally.failed or tally.stay or tally.unseen or left or self._keeper.kept
        ):
            return
        terminalreporter.section("machines")
        for line in summary(tally, left, self._keeper.kept):
            terminalreporter.write_line(line)
        for line in (*self._details(), *tally.unseen, *self._places()):
            terminalreporter.write_line(line)

    def _details(self) -> Iterator[str]:
        """Yield where the time went, if it was long or ``-v`` asks for it, and what befell machines."""
        events = self._journal.events
        spent = {name: seconds for name, seconds in times(events).items() if seconds >= 0.05}
        machines = sum(seconds for name, seconds in spent.items() if name != "tests")
        if spent and (machines >= _LONG or self._config.get_verbosity() > 0):
            yield "time: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent.items())
        for event in events:
            if event.kind == "failed":
                yield f"failed try: '{event.name}': {event.text}"
            elif event.kind == "incident":
                yield f"'{event.name}': {event.text}"

    def _places(self) -> Iterator[str]:
        if top := self._looking.artifacts.written:
            yield f"files of machines: {top}"
        if self._timeline:
            yield f"timeline: {self._no_page or self._timeline}"

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self) -> Generator[None]:
        """Tell the controller, where there is one; otherwise draw the timeline when the last machine is gone."""
        output = getattr(self._config, "workeroutput", None)
        try:
            return (yield)
        finally:
            if output is not None:
                self._keeper.tally.unseen += self._looking.unseen
                output[_WORKER_OUTPUT] = asdict(self._keeper.tally)
            elif self._timeline:
                from .timeline import page

                try:
                    self._timeline.parent.mkdir(parents=True, exist_ok=True)
                    self._timeline.write_text(page(self._journal.events), "utf-8")
                except OSError as error:  # the tests have their results all the same
                    self._no_page = f"'{self._timeline}' could not be written: {error.strerror or error}"


def summary(tally: Tally, left: list[str], kept: Sequence[Kept] = ()) -> list[str]:
    """Return the lines of the section."""
    lines: list[str] = []
    if count := len(tally.seconds):
        kinds = "; ".join(tally.kinds)
        if count == 1:
            lines.append(f"1 machine made: {kinds}; ready after {tally.seconds[0]:.1f} s")
        else:
            lines.append(f"{count} machines made: {kinds}")
            median, longest = statistics.median(tally.seconds), max(tally.seconds)
            lines.append(f"ready after {median:.1f} s (median), {longest:.1f} s (longest)")
    if tally.adopted:
        lines.append(f"{tally.adopted} existing host{'' if tally.adopted == 1 else 's'} used")
    if tally.failed:
        lines.append(f"{tally.failed} could not be made")
    if left:
        lines.append(f"{len(left)} left: {', '.join(left)}")
        lines.append("hint: pytest-machine prune")
    for each in kept:
        lines.append(f"kept: '{each.record.name}' ({each.record.driver} {each.record.id}): {each.because}")
        lines += [f"  {command}" for command in (each.ssh, each.docker, each.remove) if command]
    # A worker that had it before the test that failed on another does not know that it is kept.
    stay = {name: until for name, until in tally.stay.items() if name not in {label(each.record) for each in kept}}
    if stay:
        until = time.strftime("%H:%M", time.localtime(min(stay.values())))
        lines.append(f"{len(stay)} stays for later runs: {', '.join(stay)}, until {until}")
        lines.append("hint: pytest-machine prune --all removes it now, with all that was kept or made by hand")
    if not (left or kept):
        lines.append("nothing else is left" if stay else "none is left")
    return lines
