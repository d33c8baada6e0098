from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from pytest_machine.support import files, locks, parsing
from pytest_machine.support.parsing import Malformed

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)


def bound(path: Path) -> None:
    os.chdir(path.parent)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)


@posix
@pytest.mark.parametrize(
    ("make", "word"),
    [
        (os.mkfifo, "FIFO"),
        (os.mkdir, "directory"),
        (sparse, "3221225472 bytes"),
        (lambda path: path.symlink_to("/etc/passwd"), "symbolic link"),
        (lambda path: path.symlink_to("nowhere"), "symbolic link"),
        (bound, "socket"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], object], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state.json"
    make(path)
    begun = time.monotonic()
    for read in (files.read, files.read_text, files.read_json, files.read_table):
        with pytest.raises(Malformed, match=word):
            read(path, "the note")
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"a": NaN}', b"[" * 100_000, b'{"a":' * 5000])
def test_a_table_is_a_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(Malformed, match="the note"):
        files.read_table(tmp_path / "f", "the note")


def test_absent_files_are_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "f")
    (tmp_path / "f").write_bytes(b'{"a": 1}')
    assert files.read_table(tmp_path / "f") == {"a": 1}
    with pytest.raises(NotADirectoryError):
        files.read(tmp_path / "f" / "g")


def test_a_file_is_overwritten_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    inode = path.stat().st_ino
    files.replace_in_place(path, b"abc")
    assert (path.read_bytes(), path.stat().st_ino) == (b"abc", inode)
    with pytest.raises(OSError, match="space"):
        files.replace_in_place(path, b"0123456789")
    assert path.read_bytes() == b"abc"


def test_a_directory_in_place_of_a_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    (path / "full").mkdir(parents=True)
    with locks.lock_file(path).acquire(timeout=1):
        assert path.is_file()
    held = tmp_path / "x.lock"
    held.mkdir()
    assert not locks.is_held(held)
    held.rmdir()
    with FileLock(held):
        assert locks.is_held(held)
    assert not locks.is_held(held)


@pytest.mark.parametrize("number", [10**400, -(10**400), float("inf"), float("-inf"), float("nan"), True, "1"])
def test_numbers(number: object) -> None:
    with pytest.raises(Malformed):
        parsing.number(number, "it", least=0, most=10)
    with pytest.raises(Malformed):
        parsing.time(number, "it")


def nested(depth: int) -> object:
    found: object = 1
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize("value", ["\ud800", "a\0b", nested(40), nested(5000), {"a": float("nan")}, {1: 2}, b""])
def test_what_json_does_not_have(value: object) -> None:
    with pytest.raises(Malformed):
        parsing.plain(value, "it")


def test_plain_values() -> None:
    value = {"a": [1, 2.5, None, True, "ä\n"], "b": {"c": ["d"]}}
    assert parsing.plain(value, "it") == value


@pytest.mark.parametrize("value", ["", "a", "./a", "/a\nb", "/\x1b", "/a\0", "/\ud800", "/" + "a" * 5000, 3, None])
def test_what_is_no_path(value: object) -> None:
    with pytest.raises(Malformed):
        parsing.path(value, "it")


@pytest.mark.parametrize("value", ["/", "/a b/ä", "C:\\Users\\jo", os.fsdecode(b"/tmp/\xff")])
def test_paths(value: str) -> None:
    assert parsing.path(value, "it") == Path(value)


@pytest.mark.parametrize(
    "value", ["fe80::1%a b", "fe80::1%", 'fe80::1%"x', "1.2.3", "300.1.1.1", "-x", "a b", "", "a\n"]
)
def test_what_is_no_host(value: str) -> None:
    with pytest.raises(Malformed):
        parsing.host(value)
