"""What a machine says reaches nothing but eyes: every door, and no look at a machine ends the run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HOSTILE = r"""
from dataclasses import dataclass, replace
from typing import ClassVar
from pytest_machine.errors import CommandFailed, DriverError, WaitTimeout
from pytest_machine.model import Incident, Result, Trouble
from pytest_machine.testing.fake import FakeDriver

EVIL = "evil\x1b[2J\x1b]0;title\x07\x9b31m\u202e\x08\r\x00 end"

def evil(*_):
    raise {error}

@dataclass(frozen=True, kw_only=True)
class Hostile(FakeDriver):
    name: ClassVar[str] = "hostile"
    def look(self, records):
        return {{id_: replace(seen, detail=EVIL) for id_, seen in super().look(records).items()}}
    def console(self, record): {act}
    def incidents(self, record): {incident}
    def changes(self, record): {act}

def pytest_machine_drivers():
    return [FakeDriver, Hostile]
"""
# Whatever moves the cursor, changes the terminal or reorders what is read.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
TESTS = """
import pytest
from pytest_machine.errors import CommandFailed, WaitTimeout
from pytest_machine.model import Result
from conftest import EVIL

pytestmark = pytest.mark.machine(driver="hostile")

def test_assertion(machine):
    assert 0

def test_command(machine):
    result = Result((EVIL,), 1, EVIL, EVIL)
    raise CommandFailed(f"The command '{EVIL}' failed.", result=result, facts={"stderr": EVIL}, hint=EVIL)

def test_wait(machine):
    raise WaitTimeout("It did not come.", facts={"last seen": EVIL})

@pytest.mark.machine(fail_on=["kernel"])
def test_incident(machine): ...

def test_good(machine): ...
"""


def _inner(pytester: pytest.Pytester, *, act: str, incident: str, error: str = "OSError") -> None:
    pytester.makeconftest(HOSTILE.format(act=act, incident=incident, error=error))
    pytester.makepyfile(TESTS)


def _unreadable(text: str) -> list[str]:
    return [line for line in text.splitlines() if CONTROL.search(line)]


@pytest.mark.parametrize("arguments", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_every_door(inner: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    """Sections, incidents, errors, JUnit, artifacts: nothing reaches a terminal as the machine said it."""
    _inner(inner, act="return EVIL", incident="return [Incident(Trouble.KERNEL, EVIL)]")
    result = inner.runpytest_subprocess("--machine-artifacts=art", "--junit-xml=junit.xml", "-rA", *arguments)
    result.assert_outcomes(failed=4, passed=1)
    # What pytest shows of the test's own source is the test's.
    assert _unreadable(result.stdout.str()) == []
    assert "\\x1b[2J" in result.stdout.str()
    for path in [inner.path / "junit.xml", *(inner.path / "art").rglob("*.txt")]:
        assert _unreadable(path.read_text("utf-8")) == [], path
    assert any("evil" in path.read_text("utf-8") for path in (inner.path / "art").rglob("*.txt"))


@pytest.mark.parametrize(
    "error",
    ["RecursionError", "MemoryError", "ValueError(EVIL)", "OSError(28, EVIL)", "KeyError(EVIL)"],
)  # fmt: skip
def test_no_look_ends_the_run(inner: pytest.Pytester, error: str) -> None:
    """Whatever is raised while a machine is looked at is a sentence in the report, and all tests have theirs."""
    _inner(inner, act="evil()", incident="evil()", error=error)
    result = inner.runpytest_subprocess("--machine-artifacts=art")
    result.assert_outcomes(failed=3, passed=2)
    text = result.stdout.str()
    assert "INTERNALERROR" not in text
    assert _unreadable(text) == []
    assert "what befell 'machine': " in text or "what befell 'machine'" in text
    assert error.partition("(")[0] in text


def test_a_machine_without_a_word(tmp_path: Path, inner: pytest.Pytester) -> None:
    """`logs=` of what is not there, and of what raises anything, is said in a file in its place."""
    inner.makeconftest(
        HOSTILE.format(act="return ''", incident="return []", error="OSError")
        + """
import pytest
from pytest_machine.plugin import looking

@pytest.fixture(autouse=True)
def broken(monkeypatch):
    monkeypatch.setattr(looking, "fetch", lambda *_: (_ for _ in ()).throw(RecursionError(EVIL)))
"""
    )
    inner.makepyfile(
        "import pytest\n@pytest.mark.machine(driver='hostile', logs=['/var/log'])\ndef test_it(machine): assert 0"
    )
    result = inner.runpytest_subprocess("--machine-artifacts=art")
    result.assert_outcomes(failed=1)
    (missing,) = (inner.path / "art").rglob("*.missing.txt")
    assert "evil\\x1b[2J" in missing.read_text("utf-8")
