"""Streams that are closed, full, or that nobody reads to the end; stores that cannot be written."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from pytest_machine.model import State

from .conftest import Program

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shell of Unix's closes them")


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def buffering(request: pytest.FixtureRequest, program: Program) -> None:
    """Have the program keep what it shows until it is flushed, as is usual, or not, as it is in many containers."""
    program.environ["PYTHONUNBUFFERED"] = request.param  # empty: as if it was not set


def shell(program: Program, script: str, *argv: str) -> tuple[int, str, str]:
    """Run the program where the script says ``"$@"``."""
    done = subprocess.run(
        ["bash", "-c", script, "bash", *program.argv(*argv)],
        env=program.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("lines", [1, 2, 4, 7])
@pytest.mark.usefixtures("buffering")
def test_whoever_reads_the_first_lines_of_create_leaves_no_half_machine(program: Program, lines: int) -> None:
    """Whole or not at all. The certificates of an authority are two lines more, the first time."""
    program.here("create", "-d", "none", "--url", "tcp://127.0.0.1:9", "first")
    code, shown, error = shell(
        program, f'"$@" | head -n {lines}; exit "${{PIPESTATUS[0]}}"', "create", "-d", "fake", "web"
    )
    assert (len(shown.splitlines()), error) == (lines, "")
    # The last lines may all have been said before `head` is gone.
    assert code == 1 or (lines == 7 and program.store.load("web").ready is not None)
    if "web" in program.store.names():
        assert program.store.load("web").ready is not None
        assert program.left == {"web"}
    else:
        assert program.left == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
@pytest.mark.parametrize("argv", [["create", "-d", "fake", "web"], ["ls"], ["--help"], ["version"]])
@pytest.mark.usefixtures("buffering")
def test_a_full_disk_is_told(program: Program, argv: list[str]) -> None:
    code, _, error = shell(program, '"$@" >/dev/full', *argv)
    assert (code, "No space left on device" in error, "hint: free space there" in error) == (1, True, True)
    assert program.left == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
@pytest.mark.parametrize("argv", [["nix"], ["status", "nix"]])
@pytest.mark.usefixtures("buffering")
def test_where_no_error_can_be_told_the_exit_code_does(program: Program, argv: list[str]) -> None:
    assert shell(program, '"$@" 2>/dev/full', *argv) == (1, "", "")


@pytest.mark.usefixtures("buffering")
def test_without_any_stream(program: Program) -> None:
    """What is opened then must not become one."""
    closed = '"$@" <&- >&- 2>&-'
    assert shell(program, closed, "create", "-d", "fake", "web") == (0, "", "")
    (record,) = program.driver.find()
    assert program.driver.look([record])[record.id].state is State.RUNNING
    assert shell(program, closed, "status", "web") == (0, "", "")
    assert shell(program, closed, "status", "nix") == (1, "", "")
    # Nobody has agreed.
    assert shell(program, closed, "rm", "web") == (0, "", "")
    assert shell(program, '"$@" <&-', "regenerate-certs", "web")[::2] == (1, "EOF\n")
    assert program.left == {"web"}
    assert shell(program, closed, "rm", "-y", "web") == (0, "", "")
    assert program.left == set()


@pytest.mark.parametrize(
    "argv", [["ls"], ["ls", "-q"], ["status", "a"], ["create", "-d", "fake", "a"], ["active"], ["env"]]
)
@pytest.mark.parametrize("below", ["", "store"])
def test_a_store_that_cannot_be_is_told(quick: Program, tmp_path: Path, argv: list[str], below: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / below
    said = quick("-s", str(path), *argv)
    assert (said.code, said.out) == (1, "")
    first, *facts, hint = said.err.splitlines()
    assert first == f"The store '{path}' cannot be used."
    assert facts == ["  reason  Not a directory"]
    assert hint == f"hint: choose another directory, or see what is there: ls -ld {shlex.quote(str(path))}"


def test_a_store_is_its_owners_alone(quick: Program, tmp_path: Path) -> None:
    """What is above it is as directories are."""
    usual = tmp_path / "usual"
    usual.mkdir()
    assert quick("-s", str(tmp_path / "a" / "store"), "create", "-d", "fake", "web").code == 0
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a" / "store")]
    assert modes == [usual.stat().st_mode & 0o777, 0o700]
