"""Run pytest; then run the tests that failed once more, alone.

    python scripts/twice.py ARGUMENT... [--then ARGUMENT...]

Runs pytest once for each list of arguments, from the current directory. A busy computer can fail a test that waits:
so, when all that went wrong is tests that failed, those run again in one process, with nothing beside them. A test
that passes only then is named at the end, with the log of the first run: it has a fault, and the fault is to be fixed.
A crashed worker, an error of collection and an internal error have no second try.

As a plugin of those runs (`-p scripts.twice`), this module writes what happened to a file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

_OPTION = "--outcome-file"
_PHASES = ("setup", "call", "teardown")
# A test's outcome is the worst of its reports.
_ORDER = ("passed", "skipped", "failed")
_INTERRUPTED = "the run was interrupted"


# ---------------------------------------------------------------------------------------------------------- the plugin


class Outcome:
    """Collect what a run's tests did, and what else went wrong; write it when pytest has done all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests: dict[str, str] = {}
        self._faults: list[str] = []
        self._write("pytest ended before its end")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a report; pytest-xdist gives the test at which a worker crashed one of no phase."""
        if report.when not in _PHASES:
            self._faults.append(f"a worker crashed in {report.nodeid}")
        before = self._tests.get(report.nodeid, "passed")
        self._tests[report.nodeid] = max(before, report.outcome, key=_ORDER.index)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Take an error of collection."""
        if report.failed:
            self._faults.append(f"{report.nodeid or 'the collection'} could not be collected")

    def pytest_keyboard_interrupt(self) -> None:
        """Take Ctrl-C, SIGTERM or `pytest.exit`."""
        self._faults.append(_INTERRUPTED)

    def pytest_internalerror(self) -> None:
        """Take an error of pytest or a plugin."""
        self._faults.append("pytest had an internal error")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, error: object) -> None:
        """Take a worker that ended too early."""
        if error:
            self._faults.append("a worker crashed")

    def pytest_unconfigure(self) -> None:
        """Write all."""
        self._write()

    def _write(self, *faults: str) -> None:
        self._path.write_text(json.dumps({"tests": self._tests, "faults": [*self._faults, *faults]}), "utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the file."""
    parser.addoption(_OPTION, help="write the outcome of every test to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Collect outcomes where there is a file for them, in the process that knows all: no worker of pytest-xdist."""
    path = config.getoption(_OPTION)
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcome(Path(path)))


# ------------------------------------------------------------------------------------------------------------ the runs


def main(words: Sequence[str]) -> int:
    """Run pytest for each list of arguments, then what failed; return the exit status."""
    directory = Path(tempfile.mkdtemp(prefix="pytest-machine-tests-"))
    log = directory / "first.log"
    tests: dict[str, str] = {}
    faults: list[str] = []
    status = 0
    for arguments in _lists(words):
        code, found = _run(arguments, directory / "outcome.json", log)
        tests |= found["tests"]
        faults += found["faults"]
        if code not in (0, 1):
            faults.append(f"pytest ended with exit status {code}")
        status = max(status, code)
        if _INTERRUPTED in faults or code > 128:
            break
    failed = sorted(test for test, outcome in tests.items() if outcome == "failed")
    if status and not failed and not faults:
        faults.append(f"pytest ended with exit status {status}, and no test failed")
    if faults:
        _say("no second try", dict.fromkeys(faults), log)
        return status or 1
    if not failed:
        shutil.rmtree(directory)
        print(_total(tests))
        return 0
    print(f"\n{len(failed)} failed. Once more, alone:", flush=True)
    code, found = _run(failed, directory / "outcome.json", directory / "second.log")
    again = [test for test in failed if code not in (0, 1) or found["tests"].get(test) != "passed"]
    late = [test for test in failed if test not in again]
    tests |= dict.fromkeys(late, "passed")
    if again:
        _say("failed twice", again, log)
    if late:
        _say("PASSED ONLY THE SECOND TIME", late, log)
        print("Each of these has a fault: it depends on how busy this computer is, or on what runs beside it. Fix it.")
    print(f"{_total(tests)}, {len(late)} only the second time")
    return 1 if again else 0


def _lists(words: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for word in words:
        if word == "--then":
            found.append([])
        else:
            found[-1].append(word)
    return found


def _run(arguments: Sequence[str], outcome: Path, log: Path) -> tuple[int, dict[str, Any]]:
    """Run pytest; show what it prints, and append it to the log. Return its exit status and what the plugin wrote."""
    outcome.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-p", "scripts.twice", f"{_OPTION}={outcome}"]
    argv += [f"--color={'yes' if sys.stdout.isatty() else 'auto'}", *arguments]
    with (
        log.open("ab") as kept,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        assert process.stdout is not None
        # pytest tears down what it has made, and this process follows it to its end. A terminal sends Ctrl-C to both.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            kept.write(piece)
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        code = process.wait()
    code = 128 - code if code < 0 else code  # by a signal: as a shell has it
    try:
        return code, json.loads(outcome.read_text("utf-8"))
    except (OSError, ValueError):
        return code or 1, {"tests": {}, "faults": ["pytest ended without a word of its tests"]}


def _total(tests: dict[str, str]) -> str:
    counts = Counter(tests.values())
    return ", ".join(f"{counts[each]} {each}" for each in ("failed", "passed", "skipped") if counts[each]) or "no tests"


def _say(what: str, lines: Sequence[str] | dict[str, None], log: Path) -> None:
    print(f"\n{f' {what} '.center(100, '!')}", *lines, f"the first log: {log}", sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
