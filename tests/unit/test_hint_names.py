"""Hints name only commands, flags, marker arguments and capabilities that exist."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import pytest_machine
from pytest_machine.cli import main
from pytest_machine.driver import NEEDS
from pytest_machine.drivers import runc
from pytest_machine.errors import DriverUnavailable
from pytest_machine.plugin.marker import ARGUMENTS

PACKAGE = Path(pytest_machine.__file__).parent


def _texts(node: ast.expr) -> Iterator[str]:
    """Yield each text that an expression may become; a value in it is written as VALUE."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
    else:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from _texts(child)


def hints() -> list[tuple[str, str]]:
    """Return the hints of the package: file and line, text."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                where = f"{path.relative_to(PACKAGE).as_posix()}:{node.value.lineno}"
                found += [(where, text) for text in _texts(node.value)]
    return found


HINTS = hints()
COMMAND = re.compile(r"\b(?:docker|pytest)-machine ((?:-s \S+ )?[a-z][\w-]*(?: [^,;:)]*)?)")


def test_hints_are_found() -> None:
    assert len(HINTS) > 250
    assert sum(bool(COMMAND.search(text)) for _, text in HINTS) > 50


@pytest.mark.parametrize(("where", "text"), [(w, t) for w, t in HINTS if COMMAND.search(t)])
def test_commands_and_their_flags_exist(where: str, text: str) -> None:
    for said in COMMAND.findall(text):
        words = re.sub(r"^-s \S+ ", "", said).replace("VALUE", " ").split()
        context = click.Context(main)
        command = main.get_command(context, words[0])
        assert command is not None, f"{where}: no command '{words[0]}'"
        if isinstance(command, click.Group) and len(words) > 1 and words[1].isalpha():
            command = command.get_command(context, words[1])
            assert command is not None, f"{where}: no command '{words[0]} {words[1]}'"
        if words[0] in ("ssh", "create", "up"):  # another program's flags, or those of drivers
            continue
        flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        missing = {word for word in words if re.fullmatch(r"--[a-z-]+", word)} - flags
        assert not missing, f"{where}: '{words[0]}' has no {missing}"


@pytest.mark.parametrize(("where", "text"), [(w, t) for w, t in HINTS if "mark.machine(" in t])
def test_marker_arguments_exist(where: str, text: str) -> None:
    for inside in re.findall(r"mark\.machine\(([^)]*)\)", text):
        assert {*re.findall(r"\b([a-z_]+)=", inside)} <= {*ARGUMENTS}, where
        for needs in re.findall(r"needs=\[([^\]]*)\]", inside):
            assert {*re.findall(r"'([\w-]+)'", needs)} <= {*NEEDS}, where


def test_the_command_lines_hints_speak_of_no_marks_and_fixtures() -> None:
    wrong = re.compile(r"pytest\.mark|machine_factory|module_machine|\blab\.|needs=")
    assert not [(where, text) for where, text in HINTS if where.startswith("cli/") and wrong.search(text)]


@pytest.mark.parametrize("tests", [True, False])
def test_the_hint_about_user_namespaces_is_the_front_ends(tests: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not tests:
        monkeypatch.delitem(sys.modules, "pytest")
    with pytest.raises(DriverUnavailable) as caught:
        runc._refuse_user_namespaces("the kernel has none")
    assert ("pytest.mark" in caught.value.hint) == tests
    assert ("docker-machine create --driver runc --runc-userns=false" in caught.value.hint) != tests
