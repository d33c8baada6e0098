"""``ssh``, ``scp`` and ``mount``: their words, and what they give OpenSSH's programs. That it works: tests/real."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Program, Said

pytestmark = pytest.mark.skipif(os.name == "nt", reason="scripts are put in the place of OpenSSH's programs")

MUTE = """
import dataclasses
from typing import ClassVar
from pytest_machine.hookspecs import hookimpl

@hookimpl
def pytest_machine_drivers():
    from pytest_machine.testing.fake import FakeDriver

    class Mute(FakeDriver):
        name: ClassVar[str] = "mute"

        def reserve(self, record):
            return dataclasses.replace(super().reserve(record), ssh_port=0)

        def look(self, records):
            def mute(seen):
                return dataclasses.replace(seen, address=dataclasses.replace(seen.address, ssh_port=0))

            return {id: mute(seen) for id, seen in super().look(records).items()}

    return [Mute]
"""
NOT_THERE = (
    'Docker machine "nix" does not exist. Use "docker-machine ls" to list machines. '
    'Use "docker-machine create" to add a new one.\n'
)


@pytest.fixture
def called(program: Program, tmp_path: Path) -> Callable[..., Said]:
    """Call the program where scp and its like only show what they were given, and return 7."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("ssh", "scp", "rsync", "sshfs", "fusermount"):
        (place / name).write_text(
            f"#!{sys.executable}\n"
            "import sys\n"
            "sys.stdout.reconfigure(errors='backslashreplace')\n"
            "print(*sys.argv, sep='\\n')\n"
            "for word in sys.argv:\n"
            "    if word.endswith('ssh_config'): print(open(word, errors='backslashreplace').read())\n"
            "sys.exit(7)\n"
        )
        (place / name).chmod(0o755)

    def call(*argv: str, without: str = "") -> Said:
        if without:
            (place / without).unlink()
        return program(*argv, PATH=str(place))

    return call


def words(said: Said) -> list[str]:
    """Return what a program was given after the configuration."""
    given = said.out.partition("Host ")[0].splitlines()
    return [Path(given[0]).name, *given[given.index("-F") + 2 :]]


def test_scp(program: Program, called: Callable[..., Said]) -> None:
    program.make("Web.1", "db")
    said = called("scp", "-r", "jo@Web.1:a b", "-q", "db:")
    assert said.code == 7
    assert words(said) == ["scp", "-3", "-r", "-q", "--", "jo@Web.1:a b", "db:"]
    assert [line for line in said.out.splitlines() if line.startswith("Host ")] == ["Host Web.1", "Host db"]
    assert "  StrictHostKeyChecking yes\n" in said.out
    given = said.out.splitlines()
    config = Path(given[given.index("-F") + 1])
    assert not config.parent.exists()
    for name in ("Web.1", "db"):
        assert f'  IdentityFile "{program.store.path}/machines/{name}/id_ed25519"\n' in said.out


@pytest.mark.parametrize("name", [b"not \xff UTF-8", "\u00e4 \u20ac".encode()])
@pytest.mark.parametrize("argv", [["scp", "web:a", "b"], ["mount", "web:a", "b"]])
def test_paths_of_any_bytes(
    program: Program, called: Callable[..., Said], tmp_path: Path, argv: list[str], name: bytes
) -> None:
    """What the store's directory is called is what OpenSSH's program reads."""
    path = tmp_path / os.fsdecode(name)
    program.environ["MACHINE_STORAGE_PATH"] = str(path)
    program.make("web")
    said = called(*argv)
    assert said.code == 7, said.err
    key = os.fsencode(path / "machines" / "web" / "id_ed25519").decode("utf-8", "backslashreplace")
    assert f'  IdentityFile "{key}"\n' in said.out + said.err


def test_delta(program: Program, called: Callable[..., Said]) -> None:
    program.make("db")
    said = called("scp", "-d", "-r", "a", "db:a")
    given = said.out.splitlines()
    assert (said.code, Path(given[0]).name) == (7, "rsync")
    assert given[1:3] == ["--progress", "-e"]
    assert given[3].startswith('ssh -F "')
    assert given[4:] == ["-r", "--", "a", "db:a"]
    assert "--progress" not in called("scp", "-d", "-q", "a", "db:a").out
    said = called("scp", "--delta", "db:a", "db:b", without="rsync")
    assert said.code == 7, "ssh's: between machines, no rsync is needed here"


def test_mount(program: Program, called: Callable[..., Said]) -> None:
    program.make("default")
    # What sshfs says is no answer of ours.
    said = called("mount", "/etc", "there")
    assert (said.code, said.out) == (7, "")
    said.out = said.err
    assert words(said) == ["sshfs", "default:/etc", "there"]
    said.out = called("mount", "jo@default:/a b").err
    assert words(said) == ["sshfs", "jo@default:/a b", "/a b"]
    said = called("mount", "-u", "default:/a b")
    assert (said.code, said.out.splitlines()[1:]) == (7, ["-u", "/a b"])


@pytest.mark.parametrize("argv", [["scp", "a"], ["scp", "a", "b", "c"], ["mount"], ["mount", "a", "b", "c"]])
def test_too_few_or_many(program: Program, argv: list[str]) -> None:
    said = program.here(*argv)
    assert (said.code, said.err) == (1, "Improper number of arguments\n")
    assert said.out == program.here(argv[0], "--help").out


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["scp", "a", "jo@nix:b"], f"Error loading host: Error loading host: {NOT_THERE}"),
        (["mount", "-u", "jo@nix:a"], f"error loading host: Error loading host: {NOT_THERE}"),
        (["mount", "/a"], f"error loading host: Error loading host: {NOT_THERE.replace('nix', 'default')}"),
    ],
)
def test_no_such_machine(program: Program, called: Callable[..., Said], argv: list[str], error: str) -> None:
    said = program.here(*argv)
    assert (said.code, said.out, said.err) == (1, "", error)


def test_programs_that_are_not_here(program: Program, called: Callable[..., Said]) -> None:
    program.make("db")
    for argv, lacking, use in (
        (["scp", "-d", "a", "db:"], "rsync", "to use the --delta option"),
        (["scp", "a", "db:"], "scp", "to use the scp feature"),
        (["mount", "db:a"], "sshfs", "to use the mount feature"),
        (["mount", "-u", "db:a"], "fusermount", "to use the unmount option"),
    ):
        if sys.platform == "darwin" and lacking == "fusermount":
            continue  # umount does it there
        said = called(*argv, without=lacking)
        assert (said.code, said.out) == (1, "")
        assert said.err == f"You must have a copy of the {lacking} binary locally {use}\n"
    said = called("ssh", "db", without="ssh")
    assert (said.code, said.out, said.err) == (1, "", "There is no 'ssh' here.\nhint: install OpenSSH's client\n")


def test_one_that_does_not_run(program: Program, called: Callable[..., Said]) -> None:
    program.make("db")
    program.here("stop", "db")
    assert called("ssh", "db").err == 'Error: Cannot run SSH command: Host "db" is not running\n'
    for argv in (["scp", "db:a", "b"], ["mount", "db:a", "b"]):
        said = called(*argv)
        assert (said.code, said.out, said.err) == (1, "", "Host is not running\n")


def test_one_without_ssh(program: Program, called: Callable[..., Said], tmp_path: Path) -> None:
    site = tmp_path / "mute"
    info = site / "mute-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "mute_drivers.py").write_text(MUTE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mute\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest_machine]\nmute = mute_drivers\n")
    program.environ["PYTHONPATH"] += f"{os.pathsep}{site}"
    assert program.here("create", "-d", "mute", "m").code == 0
    reason = 'Host "m" has no SSH: nothing but its Docker is known\nhint: docker-machine env m\n'
    said = called("ssh", "m", "true")
    assert (said.code, said.out, said.err) == (1, "", f"Error: Cannot run SSH command: {reason}")
    for argv in (["scp", "m:a", "b"], ["mount", "m:a", "b"]):
        said = called(*argv)
        assert (said.code, said.out, said.err) == (1, "", reason)
    program.here("rm", "-y", "m")


def test_a_key_that_others_may_read(program: Program, called: Callable[..., Said]) -> None:
    program.make("db")
    key = program.store.load("db").directory / "id_ed25519"
    key.chmod(0o644)
    error = f"permissions 0644 for '{key}' are too open\nhint: chmod 600 {shlex.quote(str(key))}\n"
    assert called("scp", "db:a", "b").err == error
    assert called("ssh", "db").err == f"Error: Cannot run SSH command: {error}"
    # The flag by which Docker Machine takes another way in means nothing here.
    key.chmod(0o600)
    assert called("--native-ssh", "ssh", "db").code == 7
