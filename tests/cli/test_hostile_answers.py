"""Texts of an engine or a driver reach no terminal unchanged: control and reordering characters are escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_machine.model import Record, Seen, State
from pytest_machine.testing import FakeDriver

from .conftest import Program

HOSTILE = "26\x1b[2J\x1b]8;;http://x\x07\x9b31m\u202e\u2066\x00\x7f\rOK"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
COMMANDS = [
    ("ls",),
    ("ls", "--timeout", "5"),
    ("ls", "-f", "{{.Name}} {{.DockerVersion}} {{.Error}}"),
    ("ls", "-f", "json"),
    ("active",),
    ("status", "web"),
    ("version", "web"),
    ("inspect", "web"),
    ("url", "web"),
    ("env", "web"),
    ("config", "web"),
    ("provision", "web"),
    ("regenerate-certs", "-f", "web"),
    ("start", "web"),
    ("stop", "web"),
    ("restart", "web"),
    ("kill", "web"),
    ("doctor",),
    ("prune", "--dry-run"),
    ("prune", "--dry-run", "--all"),
    ("rm", "--dry-run", "web"),
    ("rm", "-y", "web"),
    ("rm", "-f", "web"),
]


def expect_plain(program: Program, *commands: Sequence[str]) -> None:
    for command in commands:
        said = program(*command, SHELL="/bin/bash")
        for text in (said.out, said.err):
            assert not FORBIDDEN.search(text), (command, text)
            assert "Traceback" not in text, (command, text)


@pytest.fixture
def hostile_engine(quick: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The engine of `web` calls its version so; a NUL cannot be a flag's, so it is written by hand."""
    assert quick("create", "-d", "fake", "web").code == 0
    monkeypatch.setattr("pytest_machine.engine.version", lambda *_, **__: HOSTILE)
    return quick


def test_the_flag_of_a_version_is_shown(quick: Program) -> None:
    made = quick("create", "-d", "fake", "--fake-engine", HOSTILE.replace("\x00", ""), "web")
    assert made.code == 0, made.err
    expect_plain(quick, *COMMANDS)


def test_what_an_engine_says(hostile_engine: Program) -> None:
    expect_plain(hostile_engine, *COMMANDS[:8])


def test_what_a_driver_says(quick: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detail of a state, an error, and what was found at the provider."""
    assert quick("create", "-d", "fake", "web").code == 0
    record = quick.store.load("web")
    monkeypatch.setattr(
        FakeDriver, "look", lambda _, records: {each.id: Seen(state=State.ERROR, detail=HOSTILE) for each in records}
    )
    expect_plain(quick, *COMMANDS[:12])

    def refuses(*_: object) -> None:
        from pytest_machine.errors import DriverError

        raise DriverError(f"The cloud says {HOSTILE}", facts={"detail": HOSTILE}, hint=HOSTILE)

    for method in ("destroy", "start", "stop", "kill", "check", "find"):
        monkeypatch.setattr(FakeDriver, method, refuses)
    expect_plain(quick, *COMMANDS)
    assert isinstance(record, Record)


def test_a_name_of_something_that_is_left(quick: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag at the provider, which anybody there may write, says another name, host and run."""
    assert quick("create", "-d", "fake", "web").code == 0
    found = quick.store.load("web").with_(name=HOSTILE, host=HOSTILE, run=HOSTILE, store=tmp_path / "gone")
    monkeypatch.setattr(FakeDriver, "find", lambda _: [found])
    expect_plain(quick, ("prune", "--dry-run"), ("prune", "--dry-run", "--all"), ("doctor",))
