"""Docker Machine's command table, row by row: what is typed (`golden/*.cmd`), and what is said (`*.golden`).

A line of a `.cmd` is a call, in one store from the first line to the last: variables, words, and ``<<<`` what is typed
when it asks. In a `.golden`, what follows ``$`` is the call, ``!`` standard error, ``=`` an exit code that is not 0;
parentheses say whose help was shown, to the letter.

``PYTEST_MACHINE_GOLDEN=write`` writes them anew; then read what has changed.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from pathlib import Path

import pytest

from pytest_machine.cli import COMMANDS

from .conftest import Program

GOLDEN = Path(__file__).with_name("golden")
WRITE = os.environ.get("PYTEST_MACHINE_GOLDEN") == "write"


class Told:
    """Calls the program, and notes what it said with what changes from run to run taken out."""

    def __init__(self, program: Program, *, whole: bool) -> None:
        self.whole = whole
        self.program = dataclasses.replace(program, name="docker-machine")

    def call(self, line: str) -> str:
        words = shlex.split(re.sub(r"(URL|SWARM)\((\w+)\)", self._url, line))
        typed = ""
        if "<<<" in words:
            place = words.index("<<<")
            typed = f"{' '.join(words[place + 1 :])}\n"
            words = words[:place]
        environ = {}
        while words and re.match(r"\w+=", words[0]):
            name, _, environ[name] = words.pop(0).partition("=")
        said = self.program.here(*words, input=typed, **environ)
        lines = [
            f"$ {line}",
            # How wide columns of help are follows from how long the store's path is.
            *re.sub(r"\t+", "\t", self._short(words, said.out)).splitlines(),
            *(f"! {each}" for each in said.err.splitlines()),
        ]
        if said.code:
            lines.append(f"= {said.code}")
        return "\n".join(map(self._plain, lines))

    def _short(self, words: list[str], out: str) -> str:
        """Return what was said with a name in the place of a help text: those are shown once, and on their own."""
        command = next((word for word in words if word in COMMANDS), "")
        driver = ["-d", "fake"] if command == "create" else []
        if command and not self.whole:
            out = out.replace(self.program.here(command, *driver, "--help").out, f"(help of {command})\n")
        return out.replace(self.program.here("--help").out, "(help of docker-machine)\n")

    def _url(self, found: re.Match[str]) -> str:
        url = self.program.here("url", found[2]).out.strip()
        return url if found[1] == "URL" else f"{url.rpartition(':')[0]}:3376"

    def _plain(self, line: str) -> str:
        line = line.replace(str(self.program.store.path), "STORE")
        for record in self.program.store.records():
            line = line.replace(record.id, "ID")
            if record.driver == "fake" and record.address:
                # As wide as it is, so that columns stay where they are.
                line = re.sub(rf"\b{record.address.engine_port}\b", "PORT#", line)
        line = re.sub(r'"(directory|ResponseTime|Directory)": "[^"]*"', r'"\1": "-"', line)
        return re.sub(r"\d+\.\d+\.\d+[\w.]*, build", "VERSION, build", line)


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.cmd")))
@pytest.mark.skipif(os.name == "nt", reason="paths and errors of the system read otherwise there")
def test_rows(program: Program, name: str) -> None:
    told = Told(program, whole=name == "help")
    lines = (GOLDEN / f"{name}.cmd").read_text("utf-8").splitlines()
    shown = "\n".join(line if line.startswith("#") else told.call(line) for line in lines) + "\n"
    golden = GOLDEN / f"{name}.golden"
    if WRITE:
        golden.write_text(shown, "utf-8")
    assert shown == golden.read_text("utf-8")


def test_every_call_is_golden() -> None:
    assert {path.stem for path in GOLDEN.glob("*.golden")} == {path.stem for path in GOLDEN.glob("*.cmd")}
