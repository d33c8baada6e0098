"""Scripts and files as a machine's root, run by real shells: Debian's, and the one of small systems."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine import guest as guest_module
from pytest_machine.errors import ProvisionFailed
from pytest_machine.facts import probe
from pytest_machine.guest import Guest, Step, tail
from pytest_machine.model import SeedFile
from pytest_machine.provisioner import Facts

from .local import Local

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="what is run in machines is run by Linux"),
]
SHELLS = [shell for shell in (("sh",), ("busybox", "sh")) if shutil.which(shell[0])]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_module, "_PAUSE", 0.01)


@pytest.fixture(params=SHELLS, ids=" ".join)
def guest(request: pytest.FixtureRequest) -> Guest:
    return Guest(Local(request.param), Facts(os="debian"))


def test_what_differs_is_written_and_told(guest: Guest, tmp_path: Path) -> None:
    a, b, empty = (str(tmp_path / name) for name in ("new/a", "b with a blank", "empty"))
    files = {a: SeedFile(b"one\n"), b: SeedFile(bytes(range(256)), 0o600), empty: SeedFile(b"")}
    assert guest.write(files) == [a, b, empty]
    assert guest.write(files) == []
    assert Path(b).read_bytes() == bytes(range(256))
    assert (Path(a).stat().st_mode & 0o777, Path(b).stat().st_mode & 0o777) == (0o644, 0o600)
    assert guest.write({a: SeedFile(b"one\n", 0o600)}) == [a], "its mode is a part of it"
    assert guest.read([a, b, empty, "/nowhere"])[a] == "one\n"
    assert "/nowhere" not in guest.read([a, "/nowhere"])
    assert guest.read([empty]) == {empty: ""}
    assert guest.remove([a, "/nowhere"]) == [a]
    assert not Path(a).exists()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b with a blank", "empty", "new"], (
        "nothing beside them"
    )


def test_somebody_elses_file_keeps_its_mode(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text("{}")
    path.chmod(0o640)
    assert guest.write({str(path): SeedFile(b"{ }")}, keep=[str(path)]) == [str(path)]
    assert path.stat().st_mode & 0o777 == 0o640
    assert guest.write({str(path): SeedFile(b"{ }")}, keep=[str(path)]) == []
    new = tmp_path / "new"
    guest.write({str(new): SeedFile(b"")}, keep=[str(new)])
    assert new.stat().st_mode & 0o777 == 0o644


def test_a_mark_goes_before_the_first_change(guest: Guest, tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "file"
    changes: list[Callable[[], list[str]]] = [
        lambda: guest.write({str(file): SeedFile(b"x")}, stale=[str(mark)]),
        lambda: guest.remove([str(file)], stale=[str(mark)]),
    ]
    for change in changes:
        mark.touch()
        assert change() == [str(file)]
        assert not mark.exists()
        mark.touch()
        if file.exists():
            assert change() == []
            assert mark.exists()


def test_what_cannot_be_written_is_an_error(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ProvisionFailed, match="writing files failed") as caught:
        guest.write({str(tmp_path / "file/below"): SeedFile(b"x")})
    assert "it said" in caught.value.facts


def test_a_mirror_that_fails_is_asked_again(guest: Guest, tmp_path: Path) -> None:
    script = 'echo x >>"$1"; [ "$(wc -l <"$1")" -ge 3 ] || { echo "E: 503" >&2; exit 1; }\n'
    said: list[str] = []
    guest.do(Step("reading lists", script, (str(tmp_path / "a"),), tries=3), tell=said.append)
    assert said == ["reading lists"]
    with pytest.raises(ProvisionFailed, match="reading lists failed") as caught:
        guest.do(Step("reading lists", script, (str(tmp_path / "b"),), tries=2))
    assert caught.value.facts["it said"] == "E: 503"


@pytest.mark.parametrize(
    "says",
    [
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt-get)",
        "E: Unable to lock directory /var/lib/apt/lists/",
        "dpkg: error: dpkg frontend lock was locked by another process with pid 7",
        "error: failed to init transaction (unable to lock database)",
        "System management is locked by the application with pid 7 (zypper).",
        "ERROR: Unable to lock database: temporary error (try again later)",
    ],
)
def test_a_lock_is_waited_for_however_often(says: str, tmp_path: Path) -> None:
    script = 'echo x >>"$1"; [ "$(wc -l <"$1")" -ge 3 ] || { echo "$2" >&2; exit 100; }\n'
    told: list[str] = []
    Guest(Local(), Facts(os="debian")).do(Step("installing", script, (str(tmp_path / "a"), says)), tell=told.append)
    assert told == ["installing", "waiting for another program, which is at work on the machine's packages"]


def test_a_lock_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_module, "PATIENCE", 0.05)
    with pytest.raises(ProvisionFailed, match="another program kept it from installing") as caught:
        Guest(Local(), Facts(os="debian")).do(Step("installing", "echo E: Could not get lock x; exit 1"))
    assert "Could not get lock" in str(caught.value)


def test_who_is_not_root_asks_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sudo").write_text('#!/bin/sh\n[ "$1" = -n ] && shift && exec env WHO=root "$@"\n')
    (tmp_path / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    step = Step("x", 'echo "${WHO-itself} $1"', ("a b",))
    assert Guest(Local(), Facts(os="debian", root=True)).do(step) == "itself a b\n"
    assert Guest(Local(), Facts(os="debian", root=False)).do(step) == "root a b\n"


def test_what_the_users_own_shell_says_is_nothing_that_a_script_said(tmp_path: Path) -> None:
    (tmp_path / "noisy").write_text('#!/bin/sh\necho Welcome!\nexec sh "$@"\n')
    (tmp_path / "noisy").chmod(0o755)
    connection = Local((str(tmp_path / "noisy"),))
    guest = Guest(connection, Facts(os="debian"))
    file = str(tmp_path / "file")
    assert guest.write({file: SeedFile(b"x")}) == [file]
    assert guest.write({file: SeedFile(b"x")}) == []
    assert guest.read([file]) == {file: "x"}
    assert probe(connection).arch == os.uname().machine


def test_what_it_reads_is_in_no_error() -> None:
    step = Step("fetching", "read -r url; exit 1", input="https://user:secret@example\n")
    with pytest.raises(ProvisionFailed) as caught:
        Guest(Local(), Facts(os="debian")).do(step)
    assert "secret" not in str(caught.value) + repr(step)


def test_the_end_of_what_was_said() -> None:
    assert tail("a\n\n b \nc\n", lines=3) == "b | c"
    assert tail("E: http://user:secret@mirror.example/x and a@b") == "E: http://mirror.example/x and a@b"
    assert tail("x" * 500).startswith("…x")
