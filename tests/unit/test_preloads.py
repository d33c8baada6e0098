"""What is preloaded and how it is kept, without a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_machine import preloads
from pytest_machine.errors import BadSpec, StoreError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_MACHINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("asked", "path"),
    [("busybox:1", False), ("registry.example/a/b:1", False), ("image.tar", True), ("a/image.tar.gz", True),
     ("/x", True), ("./x", True), ("~/x", True)],
)  # fmt: skip
def test_names_and_paths(asked: str, path: bool) -> None:
    assert preloads.is_path(asked) is path
    assert (preloads.absolute(asked, Path("/root")) == asked) is (not path or asked == "/x")


def test_an_archive_is_known_by_its_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one.tar", tmp_path / "other.tar"
    one.write_bytes(b"a")
    other.write_bytes(b"a")
    assert preloads.sources([str(one)])[0].digest == preloads.sources([str(other)])[0].digest
    before = preloads.key(preloads.sources([str(one)]), {})
    assert preloads.key(preloads.sources([str(one)]), {}) == before
    assert preloads.key(preloads.sources([str(one)]), {"storage-driver": "vfs"}) != before
    one.write_bytes(b"b")
    assert preloads.key(preloads.sources([str(one)]), {}) != before
    assert preloads.key(preloads.sources([str(one), str(other)]), {}) == preloads.key(
        preloads.sources([str(other), str(one)]), {}
    )


def test_it_is_read_once(tmp_path: Path, cache: Path) -> None:
    """Half a gigabyte takes a second to read: an archive that nobody has touched is not read again."""
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"a")
    first = preloads.sources([str(archive)])
    (memo,) = (cache / "preloads" / "digests").iterdir()
    memo.write_text(memo.read_text().replace(first[0].digest, "remembered"))
    assert preloads.sources([str(archive)])[0].digest == "remembered"
    os.utime(archive, ns=(1, 1))
    assert preloads.sources([str(archive)]) == first
    memo.write_text("broken")
    assert preloads.sources([str(archive)]) == first
    assert cache.joinpath("preloads").stat().st_mode & 0o077 == 0


def test_no_archive(tmp_path: Path) -> None:
    for wrong in (tmp_path / "absent.tar", tmp_path):
        with pytest.raises(BadSpec, match="cannot be preloaded") as caught:
            preloads.sources([f"{wrong}/" if wrong == tmp_path else str(wrong)])
        assert "docker save" in caught.value.hint


def keep(name: str) -> preloads.Preload:
    def fill(home: Path) -> dict[str, object]:
        (home / "file").write_bytes(b"x" * 5000)
        return {"owner": 7}

    with preloads.making(name):
        return preloads.keep(name, fill)


def test_whole_or_not_at_all(cache: Path) -> None:
    def fail(home: Path) -> dict[str, object]:
        (home / "file").touch()
        raise OSError("no space")

    with preloads.making("k-1"), pytest.raises(OSError, match="no space"):
        preloads.keep("k-1", fail)
    assert preloads.find("k-1") is None
    assert not list(cache.glob("preloads/*.partial"))
    kept = keep("k-1")
    assert preloads.find("k-1") == kept
    assert (kept.facts, kept.size > 5000) == ({"owner": 7}, True)
    assert preloads.preloads() == [kept]
    (kept.path / "preload.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        preloads.find("k-1")


def test_what_a_machine_stands_on_stays(tmp_path: Path) -> None:
    kept = keep("k-1")
    machine = tmp_path / "0123456789"
    machine.mkdir()
    with preloads.gated("k-1"):
        preloads.use(kept, machine)
        preloads.use(kept, machine)
    assert preloads.users(kept) == [machine]
    with pytest.raises(UsageError, match="in use") as caught:
        preloads.remove(kept)
    assert caught.value.facts == {"machines": "0123456789"}
    machine.rmdir()
    assert preloads.users(kept) == []
    preloads.remove(kept)
    preloads.remove(kept)
    assert not kept.path.exists()
    with pytest.raises(StoreError, match="not in the cache any more"), preloads.gated("k-1"):
        pass
