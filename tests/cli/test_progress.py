"""A live line for who sits at a terminal; for others nothing is other than it was."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from .conftest import Program
from .terminal import at_terminal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there is no pty")

WORDS = [
    *(
        "Running pre-create checks...",
        "Creating machine...",
        "Copying certs to the local",
        "Copying certs to the remote",
    ),
    *("Setting Docker configuration", "Waiting for machine", "Checking connection to Docker...", "Docker is up"),
]


def create(program: Program, *flags: str, redirect: str = "", **environ: str) -> tuple[str, int]:
    words = " ".join(program.argv("create", "-d", "fake", *flags, "web"))
    return at_terminal(["sh", "-c", f"exec {words} {redirect}"], environ={**program.environ, **environ})


def test_it_is_drawn_and_vanishes(program: Program) -> None:
    shown, code = create(program, "--fake-delay=0.8", TERM="xterm-256color")
    assert code == 0
    assert re.search(r"web: creating, \d s", shown)
    assert "\x1b[3" in shown, "there are colours"
    left = screen(shown)
    assert [line[: len(word)] for line, word in zip(left[2:], WORDS, strict=False)] == WORDS
    assert not [line for line in left if "web: " in line]


def screen(shown: str) -> list[str]:
    """Return the lines that a terminal has at the end, as far as it is spoken to here."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", shown):
        if piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\r":
            column = 0
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif up := re.fullmatch(r"\x1b\[(\d*)A", piece):
            row -= int(up[1] or 1)
        elif not piece.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return lines


def test_without_colours_and_with_the_words_elsewhere(program: Program, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown, code = create(program, "--fake-delay=0.8", redirect=f">'{out}'", TERM="xterm-256color", NO_COLOR="1")
    assert code == 0
    assert "web: creating" in shown
    assert not re.search(r"\x1b\[[0-9;]*m", shown.replace("\x1b[0m", ""))
    lines = out.read_text().splitlines()[2:]
    assert [line[: len(word)] for line, word in zip(lines, WORDS, strict=False)] == WORDS


@pytest.mark.parametrize(
    ("flags", "redirect", "environ"),
    [
        (["--fake-delay=0.4"], "", {"TERM": "dumb"}),
        (["--fake-delay=0.4"], "2>&1 | cat", {"TERM": "xterm"}),
    ],
    ids=["dumb", "pipe"],
)
def test_nothing_is_drawn(program: Program, flags: list[str], redirect: str, environ: dict[str, str]) -> None:
    shown, code = create(program, *flags, redirect=redirect, **environ)
    assert code == 0
    assert "\x1b" not in shown
    assert [line[: len(word)] for line, word in zip(shown.splitlines()[2:], WORDS, strict=False)] == WORDS


def test_nothing_is_drawn_of_what_is_soon_over(program: Program) -> None:
    patient = "import pytest_machine.cli.progress as p; p._PATIENCE = 60.0; from pytest_machine.cli import main; main()"
    argv = [sys.executable, "-c", patient, "create", "-d", "fake", "web"]
    shown, code = at_terminal(argv, environ={**program.environ, "TERM": "xterm"})
    assert code == 0
    assert "\x1b" not in shown
    assert "Docker is up" in shown


def test_several_and_an_error(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "machines.toml"
    file.write_text('[machines.node]\ncount = 2\ndriver = "fake"\noptions = { delay = 0.5, fail_create = "engine" }\n')
    shown, code = at_terminal(
        program.argv("up", "-f", str(file)), environ={**program.environ, "TERM": "xterm", "PYTHONWARNINGS": "error"}
    )
    assert code == 1
    assert "node-1: creating" in shown
    assert "node-2: creating" in shown
    assert shown.rstrip().endswith("hint: leave out the option 'fail_create'")
    assert "Traceback" not in shown
