"""Trees that somebody else has shaped: deep, wide, full of links, changing while they are looked at."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_machine.errors import LimitExceeded
from pytest_machine.support import trees
from pytest_machine.support.trees import ENDLESS, Limits

resource = pytest.importorskip("resource")  # Unix only, as the walk is


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def nest(top: Path, depth: int, name: str = "d") -> None:
    """Make directories in each other, with a file in the deepest, past the kernel's longest path."""
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)


@contextmanager
def few_descriptors(count: int = 100) -> Iterator[None]:
    """Allow so many descriptors more than are open; the limit is by their numbers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/dev/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, highest + count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("depth", "name"), [(3000, "d"), (40, "n" * 255)])
def test_deep(tmp_path: Path, depth: int, name: str) -> None:
    """Neither recursion, nor descriptors, nor the longest path are a limit."""
    top = tmp_path / "top"
    nest(top, depth, name)
    with few_descriptors():
        folders = [(folder.path, [entry.name for entry in folder.entries]) for folder in trees.walk(top)]
        assert len(folders) == depth + 1
        assert folders[-1] == ("/".join([name] * depth), ["file"])
        assert [folder.path for folder in trees.walk(top, bottom_up=True)][-1] == ""
        trees.remove(top)
    assert not top.exists()


def test_depth_is_no_matter_of_recursion(tmp_path: Path) -> None:
    nest(tmp_path / "top", 200)
    limit = sys.getrecursionlimit()
    frames = len(__import__("inspect").stack())
    sys.setrecursionlimit(frames + 60)
    try:
        trees.remove(tmp_path / "top")
    finally:
        sys.setrecursionlimit(limit)
    assert not (tmp_path / "top").exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Neither at the top, nor on the way to it, nor below it."""
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder" / "precious").write_text("x")
    top = tmp_path / "top"
    (top / "inner").mkdir(parents=True)
    (top / "inner" / "out").symlink_to(outside)
    (top / "loop").symlink_to(".")
    (tmp_path / "link").symlink_to(outside)
    assert [folder.path for folder in trees.walk(top)] == ["", "inner"]
    assert list(trees.walk(tmp_path / "link")) == []
    assert list(trees.walk(top, "inner", "out")) == []
    assert list(trees.walk(tmp_path, "link", "folder")) == []
    # What lies above the names of others may be a link: /proc/PID/root is one.
    assert [folder.path for folder in trees.walk(tmp_path / "link", "folder")] == [""]
    trees.remove(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    trees.remove(top)
    assert not top.exists()
    assert (outside / "folder" / "precious").read_text() == "x"


def test_bottom_up_lets_the_caller_remove(tmp_path: Path) -> None:
    for path in ("a/b/c", "a/d", "e"):
        (tmp_path / "top" / path).mkdir(parents=True)
    order = []
    for folder in trees.walk(tmp_path / "top", bottom_up=True, limits=ENDLESS):
        order.append(folder.path)
        if folder.parent is not None:
            os.rmdir(folder.name, dir_fd=folder.parent.descriptor)
    assert sorted(order) == ["", "a", "a/b", "a/b/c", "a/d", "e"]
    assert order[-1] == ""
    assert order.index("a/b/c") < order.index("a/b") < order.index("a")
    assert list((tmp_path / "top").iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(entries=50), "more than 50 files"),
        (Limits(depth=5), "more than 5 directories in each other"),
        (Limits(seconds=0), "can be looked at in 0 s"),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, said: str) -> None:
    nest(tmp_path / "top", 10)
    for number in range(100):
        (tmp_path / "top" / str(number)).touch()
    before = descriptors()
    with pytest.raises(LimitExceeded, match=said):
        list(trees.walk(tmp_path / "top", limits=limits))
    assert descriptors() == before


def test_a_walk_that_is_left_leaves_no_descriptor(tmp_path: Path) -> None:
    nest(tmp_path / "top", 100)
    before = descriptors()
    with closing(trees.walk(tmp_path / "top")) as walk:
        for _ in range(50):
            next(walk)
    assert descriptors() == before


def test_a_walk_does_not_climb_out_of_a_directory_that_was_moved(tmp_path: Path) -> None:
    """Whoever moves the directory that is looked at does not lead a removal elsewhere."""
    nest(tmp_path / "top", 100)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()

    def move() -> None:
        (tmp_path / "top" / "/".join(["d"] * 20)).rename(tmp_path / "elsewhere" / "d")

    walk = trees.walk(tmp_path / "top")
    while len(next(walk).names) < 90:
        pass
    move()
    with pytest.raises(OSError, match="moved while it was looked at"):
        list(walk)
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_files_are_read_neither_by_links_nor_from_pipes(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    top = tmp_path / "top"
    top.mkdir()
    (top / "file").write_text("one\ntwo\n")
    (top / "link").symlink_to("../secret")
    os.mkfifo(top / "fifo")
    (folder,) = (
        [(folder.lines("file"), folder.read("file", size=2), *(folder.read(each) for each in ("link", "fifo", "none")))]
        for folder in trees.walk(top)
    )
    assert folder == [(["one", "two"], b"on", b"", b"", b"")]


def test_removing_twice_and_what_is_no_directory(tmp_path: Path) -> None:
    trees.remove(tmp_path / "never")
    (tmp_path / "file").touch()
    trees.remove(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    trees.remove(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("/nowhere")
    trees.remove(tmp_path / "dangling")
    assert list(tmp_path.iterdir()) == []


def test_removing_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can go goes, and the error names what cannot."""
    top = tmp_path / "top"
    for path in ("a/keep", "a/other", "b/c/d"):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).touch()
    unlink = os.unlink

    def refuse(name: str, *, dir_fd: int) -> None:
        if name == "keep":
            raise PermissionError(1, "Operation not permitted", name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(PermissionError) as caught:
        trees.remove(top)
    assert caught.value.filename == str(top / "a" / "keep")
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == ["a", "a/keep"]


def test_wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one batch."""
    monkeypatch.setattr(trees, "_BATCH", 10)
    for number in range(55):
        (tmp_path / "top" / f"d{number}" / "x").mkdir(parents=True)
        (tmp_path / "top" / f"f{number}").touch()
    trees.remove(tmp_path / "top")
    assert not (tmp_path / "top").exists()


def test_somebody_else_removes_too(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / "top" / f"d{number}" / "x" / "y").mkdir(parents=True)
    others = [threading.Thread(target=trees.remove, args=[tmp_path / "top"]) for _ in range(3)]
    for each in others:
        each.start()
    trees.remove(tmp_path / "top")
    for each in others:
        each.join()
    assert not (tmp_path / "top").exists()


NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
TREES = st.recursive(st.none(), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=20)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_any_tree(tmp_path: Path, tree: dict[str, object] | None) -> None:
    """A walk sees what `os.walk` sees, in either order; and removing leaves nothing."""
    top = tmp_path / "top"

    def make(path: Path, inner: object) -> None:
        if isinstance(inner, dict):
            path.mkdir()
            for name, each in inner.items():
                make(path / name, each)
        else:
            path.touch()

    make(top, tree)
    known = sorted(os.path.relpath(folder, top) for folder, _, _ in os.walk(top))
    for bottom_up in (False, True):
        seen = [folder.path or "." for folder in trees.walk(top, bottom_up=bottom_up)]
        assert sorted(seen) == known
    trees.remove(top)
    assert not top.exists()
