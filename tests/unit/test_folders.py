"""Modes of folders and files are exact under any umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_machine import store
from pytest_machine.images import build
from pytest_machine.support.folders import PUBLIC, make_folder


@pytest.fixture(params=[0o000, 0o022, 0o027, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("wanted", [0o700, 0o711, PUBLIC])
def test_a_folder_and_those_above_it(tmp_path: Path, umask: int, wanted: int) -> None:
    tmp_path.chmod(0o750)
    for _ in range(2):
        make_folder(tmp_path / "a" / "b" / "c", wanted)
    assert [mode(tmp_path / each) for each in ("a", "a/b", "a/b/c")] == [wanted] * 3
    assert mode(tmp_path) == 0o750, "one that was there"


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "a")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("wanted", [0o600, 0o644, 0o755])
def test_a_file(tmp_path: Path, umask: int, wanted: int) -> None:
    store.write(tmp_path / "file", b"x", mode=wanted)
    assert mode(tmp_path / "file") == wanted


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_an_image(tmp_path: Path, umask: int) -> None:
    """What is put into an image's tree can be read by every user of a machine."""
    tree = tmp_path / "tree"
    make_folder(tree / "etc", PUBLIC)
    tree.chmod(0o700)
    made = build.recipe("bookworm")
    build.finish(made, tree)
    assert mode(tree) == mode(tree / "etc/docker") == PUBLIC
    assert mode(tree / "etc/machine-id") == 0o644
    for folder in tree.rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            assert mode(folder) == PUBLIC, folder
