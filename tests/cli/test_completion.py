"""What shells show when the tabulator is pressed: the answers, and real shells that ask for them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine.plugins import Registry

from .conftest import Program
from .terminal import at_terminal

ASKED = "docker-machine "


@pytest.fixture
def asked(quick: Program) -> Callable[[str], list[str]]:
    """Return a function that asks for the end of a line, as zsh and fish do."""

    def ask(line: str) -> list[str]:
        words = shlex.split(line)
        if line.endswith(" "):
            words.append("")
        said = quick("completion", "--at", str(len(words) - 1), "--", *words)
        assert (said.code, said.err) == (0, "")
        return said.out.splitlines()

    return ask


class TestAnswers:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("st", ["start", "status", "stop"]),
            ("-s /tmp --debug sto", ["stop"]),
            ("--storage-path=/tmp sto", ["stop"]),
            ("nix ", []),
            ("help sta", ["start", "status"]),
            ("help start ", []),
            ("completion ", ["bash", "fish", "zsh"]),
            ("env --shell f", ["fish"]),
            ("env --shell=f", ["--shell=fish"]),
            ("image b", ["build"]),
            ("create -d fa", ["fake"]),
            ("create --driver=cl", ["--driver=cloud"]),
            ("create --driver cloud --cloud-k", ["--cloud-key"]),
            ("create -d=cloud -cloud-k", ["-cloud-key"]),
            ("create -d nix --fake", []),
            ("create --engine-env ", []),
            ("create ", []),
            ("rm -y --f", ["--force"]),
            ("ls -q ", []),
        ],
    )
    def test_without_machines(self, asked: Callable[[str], list[str]], line: str, words: list[str]) -> None:
        assert asked(ASKED + line) == ["words", *words]

    @pytest.mark.parametrize("line", ["import ", "export web -o ", "export --output=", "-s ", "ssh web "])
    def test_files_are_the_shell_s_business(self, asked: Callable[[str], list[str]], line: str) -> None:
        assert asked(ASKED + line) == ["files"]

    def test_machines(self, quick: Program, asked: Callable[[str], list[str]], tmp_path: Path) -> None:
        for name in ("web", "web2", "db"):
            home = quick.store.path / "machines" / name
            home.mkdir(parents=True)
            (home / "pytest-machine.json").write_text("{")  # even a broken one has a name
        assert asked(f"{ASKED}rm ") == ["words", "db", "web", "web2"]
        assert asked(f"{ASKED}rm web -f ") == ["words", "db", "web2"]
        assert asked(f"{ASKED}ip we") == ["words", "web", "web2"]
        assert asked(f"{ASKED}url web ") == ["words"]
        assert asked(f"{ASKED}export w") == ["words", "web", "web2"]
        assert asked(f"{ASKED}restore web ") == ["words"]
        assert asked(f"{ASKED}env --shell fish d") == ["words", "db"]
        assert asked(f"pytest-machine -s {tmp_path} ip ") == ["words"]

    def test_every_command_answers(self, quick: Program, asked: Callable[[str], list[str]]) -> None:
        for name in asked(ASKED)[1:]:
            assert asked(f"{ASKED}{name} --he") == ["words", "--help"]

    def test_as_bash_splits_words(self, quick: Program) -> None:
        def ask(*words: str) -> str:
            return quick("completion", "--at", str(len(words) - 1), "--", "docker-machine", *words[1:]).out

        every = sorted([*Registry().names(), "cloud", "fake"])
        assert ask("", "create", "--driver", "=", "fa") == "words\nfake\n"
        assert ask("", "create", "--driver", "=") == "words\n" + "".join(f"{name}\n" for name in every)
        assert ask("", "create", "--driver", "=", "cloud", "--cloud-k") == "words\n--cloud-key\n"


@pytest.mark.parametrize("argv", [[], ["ksh"], ["bash", "zsh"]])
def test_no_such_shell(quick: Program, argv: list[str]) -> None:
    said = quick("completion", *argv)
    assert said.code == 2
    assert "shells  bash, zsh, fish" in said.err


START = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
READY = {
    "bash": 'eval "$(docker-machine completion bash)"; echo rea""dy',
    "zsh": 'autoload -Uz compinit; compinit -u -d ./dump; eval "$(docker-machine completion zsh)"; echo rea""dy',
    "fish": 'docker-machine completion fish | source; echo rea""dy',
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has none of these shells")
@pytest.mark.parametrize(
    ("shell", "name"),
    [("bash", "docker-machine"), ("bash", "pytest-machine"), ("zsh", "pytest-machine"), ("fish", "docker-machine")],
)
def test_in_a_real_shell(program: Program, tmp_path: Path, shell: str, name: str) -> None:
    """Somebody types half of it, and the shell hands the whole to the program."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    home = program.store.path / "machines" / "websites"
    home.mkdir(parents=True)
    (home / "pytest-machine.json").write_text("{}")
    place = tmp_path / "bin"
    place.mkdir()
    said = tmp_path / "said"
    for each in ("docker-machine", "pytest-machine"):
        (place / each).write_text(
            f'#!/bin/sh\nif [ "$1" = completion ]; then exec {sys.executable} -m pytest_machine "$@"; fi\n'
            f'printf "%s|" "${{0##*/}}" "$@" >"{said}"\n'
        )
        (place / each).chmod(0o755)
    environ = {**program.environ, "PATH": f"{place}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "xterm"}
    (tmp_path / "picture.access").touch()
    dialogue = ["", f"cd '{tmp_path}'", "", READY[shell], "ready", f"{name} create --driver=clou\t--cloud-ke\tx"]
    dialogue += ["", f"cp '{said}' '{said}1'", "", f"{name} expor\t-o pict\t--forc\twebs\t", "", "exit"]
    shown, _ = at_terminal(START[shell], dialogue, environ=environ)
    assert (tmp_path / "said1").read_text() == f"{name}|create|--driver=cloud|--cloud-key|x|", shown
    assert said.read_text() == f"{name}|export|-o|picture.access|--force|websites|", shown
