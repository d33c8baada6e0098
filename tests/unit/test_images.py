"""Images: the cache holds whole ones only, made once; the builder here is a stand-in, tests/real has a real one."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from pytest_machine import images
from pytest_machine.errors import DriverError, DriverUnavailable, StoreError, UsageError
from pytest_machine.images import Progress, _mounted, _users, build
from pytest_machine.images.build import Recipe
from tests.conftest import SLOWNESS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_MACHINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def quick(recipe: Recipe, tree: Path, progress: Progress) -> None:
    """Make a tree of one file and note that it was made."""
    progress("making it", 0.5, 0.0)
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * 5000)
    time.sleep(0.2)
    with (tree.parents[1] / "made").open("a") as made:
        made.write(recipe.name + "\n")


def failing(recipe: Recipe, tree: Path, progress: Progress) -> None:
    tree.mkdir()
    raise DriverError("The mirror is gone.")


def endless(recipe: Recipe, tree: Path, progress: Progress) -> None:
    tree.mkdir()
    time.sleep(60)


def ask(path: Path) -> None:
    image = images.ensure(builder=quick)
    path.write_text(f"{image.path} {(image.path / 'file').stat().st_size}")


def test_it_is_built_once_and_found_afterwards(cache: Path) -> None:
    heard: list[tuple[str, float]] = []
    first = images.ensure("trixie", builder=quick, progress=lambda what, done, _: heard.append((what, done)))
    assert first.path == cache / first.name / "tree"
    assert first.size >= 5000
    assert heard == [("making it", 0.5), ("the image is ready", 1.0)]
    assert images.ensure("trixie", builder=failing) == first
    assert images.images() == [first]
    assert images.current(first)
    assert not images.current(dataclasses.replace(first, digest="0" * 12))


def test_finding_it_costs_next_to_nothing() -> None:
    images.ensure(builder=quick)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        images.ensure()
        times.append(time.perf_counter() - began)
    assert sorted(times)[10] < 0.005 * SLOWNESS


@pytest.mark.real
def test_ten_processes_at_once_build_once(cache: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=ask, args=(tmp_path / str(n),)) for n in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 10
    assert len((cache / "made").read_text().splitlines()) == 1
    assert len({(tmp_path / str(n)).read_text() for n in range(10)}) == 1


@pytest.mark.real
def test_a_builder_that_was_killed_leaves_nothing_half(cache: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=images.ensure, kwargs={"builder": endless})
    process.start()
    deadline = time.monotonic() + 30
    while not list(cache.glob("*.partial/tree")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert images.images() == []
    image = images.ensure(builder=quick)
    assert (image.path / "file").exists()
    assert not list(cache.glob("*.partial"))


def test_a_build_that_fails_leaves_nothing(cache: Path) -> None:
    with pytest.raises(DriverError, match="mirror is gone"):
        images.ensure(builder=failing)
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_remove_is_final_and_again_is_nothing(cache: Path) -> None:
    image = images.ensure(builder=quick)
    images.remove(image)
    images.remove(image)
    assert images.images() == []
    assert not image.path.parent.exists()
    assert not list(cache.glob("*.partial"))


def test_a_broken_one_says_how_to_mend_it(cache: Path) -> None:
    image = images.ensure(builder=quick)
    (image.path.parent / "image.json").write_text("{")
    with pytest.raises(StoreError, match=r"is broken(.|\n)*hint: rm -r"):
        images.ensure()


def test_a_tree_of_yours(tmp_path: Path) -> None:
    tree = tmp_path / "mine"
    (tree / "usr/sbin").mkdir(parents=True)
    with pytest.raises(UsageError, match="no machine image"):
        images.ensure(str(tree))
    (tree / images.INIT.lstrip("/")).write_text("#!/bin/sh\n")
    assert images.ensure(str(tree)).path == tree
    images.check(str(tree))
    with pytest.raises(UsageError, match="not in the cache"):
        images.remove(images.ensure(str(tree)))
    assert tree.exists()


def test_no_such_suite() -> None:
    with pytest.raises(UsageError, match=r"'potato'(.|\n)*'bookworm', 'trixie', 'sid'"):
        images.ensure("potato")


@pytest.mark.parametrize(
    "line",
    [
        # An idmapped view of the tree, which is how a machine sees it.
        "36 25 254:0 /root/.cache/pm/images/bookworm-1/tree /run/m/lower rw - ext4 /dev/vda rw",
        # The cache is on a file system of its own: the root is a path within that.
        "36 25 254:0 /pm/images/bookworm-1/tree /run/m/lower rw - ext4 /dev/vdb rw",
        "37 25 0:40 / /run/m/lower rw - overlay o rw,lowerdir=/root/.cache/pm/images/bookworm-1/tree,upperdir=/u",
    ],
)
def test_who_uses_a_tree(line: str) -> None:
    tree = Path("/root/.cache/pm/images/bookworm-1/tree")
    assert _mounted(tree, line) == {"/run/m/lower"}
    assert _mounted(tree.parents[1] / "bookworm-2/tree", line) == set()


def test_a_neighbour_that_ends_hides_no_user(tmp_path: Path) -> None:
    """Of the processes of one mount namespace some end while they are looked at; names of mounts are any bytes."""
    tree = Path("/root/.cache/pm/images/trixie-1/tree")
    for pid in range(1, 6):
        (tmp_path / f"{pid}/ns").mkdir(parents=True)
        if pid > 1:
            (tmp_path / f"{pid}/ns/mnt").hardlink_to(tmp_path / "1/ns/mnt")
        else:
            (tmp_path / "1/ns/mnt").touch()
    for living in range(1, 6):
        info = tmp_path / f"{living}/mountinfo"
        info.write_bytes(b"36 25 254:0 /images/trixie-1/tree /run/m\xff/lower rw - ext4 /dev/vda rw\n")
        assert _users(tree, tmp_path) == {"/run/m\ufffd/lower"}
        info.unlink()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe)])
def test_whatever_changes_changes_the_digest(field: str) -> None:
    recipe = build.recipe("bookworm")
    changed: dict[str, object] = {
        "suite": "trixie",
        "arch": "riscv64",
        "packages": (*recipe.packages, "vim"),
        "excluded": (),
        "included": (),
        "links": {},
        "files": dict(recipe.files) | {"init": (*recipe.files["init"][:2], "#!/bin/sh\n")},
        "components": ("main", "contrib"),
        "version": recipe.version + 1,
    }
    assert dataclasses.replace(recipe, **{field: changed[field]}).digest != recipe.digest  # type: ignore[arg-type]
    assert build.recipe("bookworm").digest == recipe.digest


def test_offline_builds_nothing_and_reads_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_MACHINE_CACHE", str(tmp_path))
    monkeypatch.setenv("PYTEST_MACHINE_OFFLINE", "1")
    with pytest.raises(DriverUnavailable, match="The machine image 'trixie' is not on this computer"):
        images.ensure("trixie")
    with (
        pytest.raises(DriverUnavailable, match="static build of Docker"),
        images.engines.archive("https://example.org/docker.tgz", tmp_path, lambda *_: None),
    ):
        raise AssertionError
    monkeypatch.setenv("PYTEST_MACHINE_OFFLINE", "no")
    assert images.ensure("trixie", builder=lambda made, tree, tell: tree.mkdir()).suite == "trixie"
    monkeypatch.setenv("PYTEST_MACHINE_OFFLINE", "1")
    assert images.ensure("trixie").suite == "trixie"
