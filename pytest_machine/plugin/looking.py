"""What is left to look at when a test has failed: sections of its report, files, machines that stay.

Everything is taken while the machines exist, in the moment in which pytest makes the report; a test that passes pays
for nothing but the question whether something befell its machines.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_machine import answers, engine, kept
from pytest_machine.driver import SupportsIncidents
from pytest_machine.errors import Unsupported
from pytest_machine.model import Incident
from pytest_machine.store import write
from pytest_machine.support import clock, files
from pytest_machine.support.text import visible

from . import usage, used
from .artifacts import Artifacts, place
from .findings import of
from .journal import Journal
from .packets import Packets
from .pictures import Pictures
from .settings import Settings
from .sight import guarded

if TYPE_CHECKING:
    from pytest_machine.lab import Lab
    from pytest_machine.machine import Machine
    from pytest_machine.model import Id

    from .evidence import Evidence
    from .marker import Asked
    from .tracking import Node

_SHOWN = 4000
"""Characters of one part in a report; its end is kept."""
_ALL_SHOWN = 24000
"""Characters of one machine's parts in a report."""
_TITLE = "machines when the test failed (all of it: --machine-artifacts=DIR)"


class Looking:
    """Looks at the machines of tests."""

    def __init__(self, config: pytest.Config, settings: Settings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._test = ""
        self._had: dict[Id, used.Use] = {}  # what the running test used, also when it is gone since
        self._unlooked: list[str] = []
        self._unborn: list[tuple[str, Evidence]] = []  # what to call the try, what was seen of it
        self.artifacts = Artifacts(config, settings.artifacts)
        self.packets = Packets(config, settings.pcap, self.artifacts)
        self._pictures = Pictures(journal, self.artifacts, for_page=settings.timeline is not None)

    @property
    def unseen(self) -> list[str]:
        """What could not be looked at or kept, and why: lines for the end of the run."""
        return [
            *(f"no packets of '{name}': {why}" for name, why in self.packets.refused.items()),
            *(f"no file '{path}': {why}" for path, why in self.artifacts.refused.items()),
            *dict.fromkeys(self._unlooked),
        ]

    @contextlib.contextmanager
    def _noting(self, what: str) -> Generator[None, None, None]:
        """Guard a look that has no report of its own: the end of the run names what failed."""
        found: list[tuple[str, str]] = []
        with guarded(what, found):
            yield
        self._unlooked += [text for _, text in found]

    # What the fixtures tell.

    def leased(self, node: Node, machines: Sequence[Machine], asked: Sequence[Asked], lab: Lab) -> None:
        """Note that a test or a scope has machines of a lab, and what it wants of them in the end."""
        used.note(node, machines, asked, lab)
        for machine in machines:
            engine_version(machine)  # a test may leave no engine to ask
        for machine, one in zip(machines, asked, strict=True):
            if one.fail_on:
                _check_sight(machine, one.fail_on)
            if one.logs:
                # Behind it, so before it: the machine goes by a finalizer that was added earlier.
                node.addfinalizer(functools.partial(self._bring_home, node, machine, one.logs))
        if self._test:
            self.packets.begin(machines)

    def got(self, node: Node) -> None:
        """Capture packets of a wider scope's machines, which the running test has got."""
        self.packets.begin(use.machine for use in used.by(node))
        self._had |= {use.machine.id: use for use in used.by(node) if not use.machine.gone}

    def could_not_be_made(self, evidence: Evidence, why: str) -> None:
        """Take what was seen of a machine that is gone now; the report of the test gets it if that fails for it."""
        before = sum(each.machine == evidence.machine for _, each in self._unborn)
        self._unborn.append((f"machine '{evidence.machine}', try {before + 1}", evidence))
        for title, text in {"why": why, **evidence.parts}.items():
            self.artifacts.write(self._test or "no test", evidence.machine, f"try {before + 1} {title}", text)

    # What pytest tells.

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Note which machines the test used, and for how long."""
        self._test = item.nodeid
        self._unborn.clear()
        self._had.clear()
        begun = clock.now()
        try:
            return (yield)
        finally:
            self._test = ""
            outcome = item.stash.get(_OUTCOME, "passed")
            # Here too when Ctrl-C ended it: before anybody tears down what it had.
            with self._noting("packets"):
                self.packets.settle(item.nodeid, failed=outcome == "failed" or item.stash.get(_TORN, False))
            detail = {"outcome": outcome, "run": f"{begun:.6f}"}
            # A wider scope's machines go in the teardown of the scope's last test, which used them all the same.
            for use in (self._had | {use.machine.id: use for use in used.of(item)}).values():
                since = max(begun, use.since)
                with self._noting(f"the timeline of '{use.machine.name}'"):
                    self._journal.note("test", use.machine.record, since, text=item.nodeid, detail=detail)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """End the captures, before the machines go or somebody else has them."""
        self._had |= {use.machine.id: use for use in used.of(item)}
        with self._noting("packets"):
            self.packets.stop()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put all that can be seen into the report of a test that failed, and let it fail for what it named."""
        report = yield
        if call.when == "teardown":
            item.stash[_TORN] = report.failed
            return report
        uses = used.of(item)
        if call.when == "call" or report.failed:
            with guarded("what the test ran on", report.sections):
                self._properties(item, report, uses)
            self._judge(item, report, uses)
        if report.failed:
            item.stash[_OUTCOME] = "failed"
            for use in uses if self._settings.keep == "failed" else ():
                with guarded(f"keeping '{use.machine.name}'", report.sections):
                    kept.keep(use.machine.record, f"{item.nodeid} failed")
            error = call.excinfo.value if call.excinfo is not None else None
            machines = [use.machine for use in uses]
            shown: list[tuple[str, str]] = []
            packets: list[tuple[str, str]] = []
            # First, because it ends the captures: the evidence shows the machine's processes without ours.
            with guarded("packets", report.sections):
                packets += self.packets.sections(item.nodeid)
            with guarded("evidence", report.sections):
                shown += self._looked_at(item, machines)
            with guarded("the drawing of the lab", report.sections):
                shown += self._pictures.failed(item, uses, error)
            self._unborn.clear()
            if error is None or not usage.is_wrong(error):
                report.sections += shown
            report.sections += packets
        elif call.when == "call" and report.passed:
            with guarded("the drawing of the lab", report.sections):
                self._pictures.passed(item, uses)
        elif report.skipped:
            item.stash[_OUTCOME] = "skipped"
        return report

    def _properties(self, item: pytest.Item, report: pytest.TestReport, uses: Sequence[used.Use]) -> None:
        """Say what the test ran on, for JUnit's XML and whoever else reads properties."""
        for use in uses:
            machine = use.machine
            found = {
                "driver": machine.record.driver,
                "image": str(getattr(machine.driver, "image", "")),
                "engine": engine_version(machine),
                "seconds": f"{machine.seconds:.2f}",
            }
            new = {f"machine.{machine.name}.{name}": value for name, value in found.items() if value}
            # A test has several reports when it has subtests or is run again: each property is there once.
            others = [each for each in item.user_properties if each[0] not in new]
            item.user_properties[:] = [*others, *new.items()]
        report.user_properties = list(item.user_properties)

    def _judge(self, item: pytest.Item, report: pytest.TestReport, uses: Sequence[used.Use]) -> None:
        """Show what befell the machines, and fail the test for what its mark names."""
        fatal = []
        for use in uses:
            with guarded(f"what befell '{use.machine.name}'", report.sections):
                befell = fresh_incidents(use.machine)
                self._show_incidents(item, report, use.machine, befell)
                named = [each for each in befell if each.kind in (use.asked.fail_on or ())]
                fatal += [f"'{use.machine.name}': {each.kind}: {each.text}" for each in named]
        if fatal and report.passed:
            report.outcome = "failed"
            report.longrepr = "\n".join(
                [
                    "The test passed, but something befell its machines that fail_on= names.",
                    *(f"  {each}" for each in fatal),
                    "hint: look into it: --machine-keep=failed; if it may happen, leave it out of fail_on=",
                ]
            )

    def _show_incidents(
        self, item: pytest.Item, report: pytest.TestReport, machine: Machine, befell: Sequence[Incident]
    ) -> None:
        if not befell:
            return
        lines = [f"{incident.kind}: {incident.text}" for incident in befell]
        report.sections.append((f"machine '{machine.name}': incidents", "\n".join(lines)))
        if self.artifacts.asked:
            self.artifacts.write(item.nodeid, machine.name, "incidents", "\n".join(lines))
        for line in lines:
            self._journal.note("incident", machine.record, clock.now(), text=line)

    def _looked_at(self, item: pytest.Item, machines: Sequence[Machine]) -> list[tuple[str, str]]:
        """Return the sections of a failed test about its machines; write everything to the files."""
        from .evidence import gather

        found: list[tuple[str, str]] = []
        for what, evidence in self._unborn:
            found += tried(evidence, what)
        if not machines:
            return found
        with ThreadPoolExecutor(max_workers=len(machines), thread_name_prefix="evidence") as pool:
            seen = list(pool.map(lambda machine: gather(machine.record, machine.driver), machines))
        lines, odd = [], []
        for machine, evidence in zip(machines, seen, strict=True):
            findings = of(evidence.parts, ready=machine.record.ready)
            lines.append(f"machine '{machine.name}': {findings.line}")
            odd += sections(findings.odd, f"machine '{machine.name}'")
            if self.artifacts.asked:
                for title, text in evidence.parts.items():
                    self.artifacts.write(item.nodeid, evidence.machine, title, text)
        return [*found, (_TITLE, "\n".join(lines)), *odd]

    def _bring_home(self, node: Node, machine: Machine, logs: Sequence[str]) -> None:
        """Fetch files and directories; a file in its place names what cannot be fetched, or was left out."""
        with self._noting(f"logs= of '{machine.name}'"), self.artifacts.attempt():
            directory = self.artifacts.directory(node.nodeid, machine.name)
            for source in logs:
                target = directory / place(source.strip("/"))
                try:
                    left = fetch(machine, source, target)
                except Exception as error:  # noqa: BLE001  # the machine may be the reason of any, and others follow
                    _say_beside(target, "missing", visible(str(error) or type(error).__name__))
                else:
                    if left:
                        _say_beside(target, "left-out", "\n".join(left))


def _say_beside(target: Path, what: str, text: str) -> None:
    target.with_name(f"{target.name}.{what}.txt").write_text(f"{text}\n", "utf-8")


_OUTCOME = pytest.StashKey[str]()
_TORN = pytest.StashKey[bool]()  # whether its teardown failed
_SEEN = "incidents.txt"


LOG_SIZE = 1 << 30
"""Bytes of one file or directory of ``logs=``."""
LOG_SECONDS = 120.0
"""How long one may take: it is part of a test's teardown."""


def fetch(machine: Machine, source: str, target: Path) -> Sequence[str]:
    """Bring one file or directory home; return what was left out, a line each."""
    if machine.run("test", "-d", source, check=False, timeout=15).returncode == 0:
        target.mkdir(parents=True, exist_ok=True)
    return machine.get(source, target, size=LOG_SIZE, timeout=LOG_SECONDS)


def tried(evidence: Evidence, what: str) -> list[tuple[str, str]]:
    """Return a report's sections on a machine that could not be made."""
    findings = of(evidence.parts, ready=None)
    parts = dict(findings.odd)
    if console := evidence.parts.get("console"):
        parts["console"] = visible(console)
    return [(what, findings.line), *sections(parts.items(), what)]


def sections(parts: Iterable[tuple[str, str]], what: str) -> list[tuple[str, str]]:
    """Return a report's sections on `what`, bounded."""
    found = []
    room = _ALL_SHOWN
    for title, text in parts:
        if room <= 0:
            break
        limit = min(_SHOWN, room)
        whole = text.strip("\n")
        shown = whole if len(whole) <= limit else f"… (its end; --machine-artifacts=DIR has it all)\n{whole[-limit:]}"
        room -= len(shown)
        found.append((f"{what}: {title}", shown))
    return found


def fresh_incidents(machine: Machine) -> list[Incident]:
    """Return the incidents of a machine since the last call, in whatever process that was; texts are safe to print."""
    if not isinstance(machine.driver, SupportsIncidents) or not machine.record.directory.exists():
        return []
    found = [replace(each, text=visible(each.text)) for each in answers.incidents(machine.driver, machine.record)]
    if not found:
        return []
    note = machine.record.directory / _SEEN
    known: list[str] = []
    with contextlib.suppress(*files.UNREADABLE):  # absent, or damaged: they are shown again
        known = files.read_text(note).splitlines()
    new = [each for each in dict.fromkeys(found) if _line(each) not in known]
    if new:
        with contextlib.suppress(OSError):
            write(note, "\n".join([*known, *map(_line, new)]).encode(), durable=False)
    return new


def _line(incident: Incident) -> str:
    return f"{incident.kind} {' '.join(incident.text.split())}"


def _check_sight(machine: Machine, wanted: frozenset[str]) -> None:
    """Raise `Unsupported` when a mark relies on hearing of something that cannot be seen here."""
    if not isinstance(machine.driver, SupportsIncidents):  # it was chosen for having it
        return
    for trouble, why in answers.unseen(machine.driver, machine.record).items():
        if trouble in wanted:
            raise Unsupported(
                f"A test wants to fail on '{trouble}', which cannot be seen here.",
                facts={"machine": machine.name, "driver": machine.record.driver, "reason": why},
                hint=f"leave '{trouble}' out of fail_on=, or run it on another host",
            )


def engine_version(machine: Machine) -> str:
    """Return the version of the machine's engine, asked when it was new; empty when it does not say."""
    note = machine.record.directory / "engine-version.txt"
    with contextlib.suppress(*files.UNREADABLE):
        return files.read_text(note, largest=1000)
    found = engine.version(machine.address, certs=machine.record.directory) if machine.record.address else ""
    with contextlib.suppress(OSError):
        write(note, found.encode(), durable=False)
    return found
