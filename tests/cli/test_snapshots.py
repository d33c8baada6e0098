"""``snapshot`` and ``restore``, where the driver can."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_machine.driver import SupportsSnapshots
from pytest_machine.plugins import Registry, another

from .conftest import Program

RESTORE = "python -m pytest_machine restore web"


def etc(program: Program) -> Path:
    return program.driver._home(program.store.load("web").id) / "disk" / "etc"


def test_there_and_back(quick: Program) -> None:
    quick.make("web")
    assert quick("snapshot", "web", "--list").out == ""
    assert quick("snapshot", "web").out == f'Snapshot "default" of "web" is kept: {RESTORE} default\n'
    (etc(quick) / "motd").write_text("new")
    assert quick("snapshot", "web", "later").out == f'Snapshot "later" of "web" is kept: {RESTORE} later\n'
    assert quick("snapshot", "-l", "web").out == "default\nlater\n"
    said = quick("restore", "web")
    assert (said.code, said.out, said.err) == (0, '"web" is as snapshot "default" has it.\n', "")
    assert not (etc(quick) / "motd").exists()
    # It is ready again: its Docker answers.
    assert quick("version", "web").out == "fake\n"
    assert quick("restore", "web", "later").code == 0
    assert (etc(quick) / "motd").read_text() == "new"


def test_of_a_stopped_machine_it_stays_stopped(quick: Program) -> None:
    quick.make("web")
    quick("stop", "web")
    assert quick("snapshot", "web", "off").code == 0
    assert quick("restore", "web", "off").code == 0
    assert quick("status", "web").out == "Stopped\n"


def test_none_of_that_name(quick: Program) -> None:
    quick.make("web")
    said = quick("restore", "web", "nix")
    assert said.code == 1
    assert said.err.startswith("The machine 'web' has no snapshot 'nix'.\n")
    said = quick("restore", "nix")
    assert (said.code, said.err.startswith('Docker machine "nix" does not exist.')) == (2, True)


@pytest.mark.parametrize("name", ["../../disk", ".new", "a b", "-"])
@pytest.mark.parametrize("command", ["snapshot", "restore"])
def test_names_that_are_none(quick: Program, command: str, name: str) -> None:
    quick.make("web")
    said = quick(command, "web", name)
    assert said.code == 2
    assert said.err.startswith(f"A snapshot cannot be called '{name}'.\n")


@pytest.mark.parametrize("argv", [["snapshot", "here"], ["restore", "here"], ["snapshot", "--list", "here"]])
def test_refused_with_those_that_can(quick: Program, argv: list[str]) -> None:
    assert quick("create", "-d", "none", "--url", "tcp://127.0.0.1:1", "here").code == 0
    said = quick(*argv)
    assert said.code == 2
    assert said.err.startswith(
        "The driver 'none' does not have 'snapshots'.\n  drivers that have it  'cloud', 'fake'\n"
    )


def test_that_no_driver_has_them_is_said(quick: Program) -> None:
    """By help and hint, for as long as it is true."""
    registry = Registry()
    kinds = {name: registry.driver(name) for name in registry.names()}
    built_in = {name: kind for name, kind in kinds.items() if kind.__module__.startswith("pytest_machine.drivers.")}
    assert {"runc", "docker", "generic", "none"} <= built_in.keys()
    assert not [name for name, kind in built_in.items() if issubclass(kind, SupportsSnapshots)]
    for command in ("snapshot", "restore"):
        assert "No built-in driver has snapshots yet." in " ".join(quick(command, "--help").out.split())
    assert another([], "snapshots").startswith("no driver has 'snapshots' yet: ")
