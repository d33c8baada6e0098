"""How a machine's disk is slowed down: what is written into its control groups, of either version."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_machine.drivers.runc import cgroups
from pytest_machine.model import Id

ID = Id("0123456789")
OLD = ("read_bps", "write_bps", "read_iops", "write_iops")


def tree(folder: Path, files: list[str]) -> list[Path]:
    """Make the groups of a machine and of two containers in it, as the kernel shows them."""
    mine = folder / cgroups.ROOT / ID
    groups = [mine, mine / "docker" / "1", mine / "docker" / "2"]
    for group in (folder, *groups, mine / "docker"):
        group.mkdir(parents=True, exist_ok=True)
        for name in files:
            (group / name).write_text("")
    return groups


def shown_as(folder: Path, *controllers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = (cgroups.Hierarchy(frozenset(controllers), "/", folder),)
    monkeypatch.setattr(cgroups, "hierarchies", lambda: there)


def test_version_two_takes_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own group limits all below it."""
    groups = tree(tmp_path, ["io.max"])
    shown_as(tmp_path, "", monkeypatch=monkeypatch)
    assert cgroups.limit_disk(ID, "7:3", rate=1 << 20, operations=0)
    assert [(group / "io.max").read_text() for group in groups] == [
        "7:3 rbps=1048576 wbps=1048576 riops=max wiops=max",
        "",
        "",
    ]
    assert (tmp_path / "io.max").read_text() == ""
    cgroups.limit_disk(ID, "7:3", rate=0, operations=0)
    assert (groups[0] / "io.max").read_text() == "7:3 rbps=max wbps=max riops=max wiops=max"


def test_version_one_takes_every_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None limits what is below it; and nothing above the machine's own is touched."""
    files = [f"blkio.throttle.{name}_device" for name in OLD]
    groups = tree(tmp_path, files)
    shown_as(tmp_path, "blkio", monkeypatch=monkeypatch)
    assert cgroups.limit_disk(ID, "7:3", rate=1 << 20, operations=20)
    for group in groups:
        assert [(group / name).read_text() for name in files] == ["7:3 1048576"] * 2 + ["7:3 20"] * 2
    assert {(tmp_path / name).read_text() for name in files} == {""}
    cgroups.limit_disk(ID, "7:3", rate=0, operations=0)
    assert {(group / name).read_text() for group in groups for name in files} == {"7:3 0"}


def test_groups_that_limit_nothing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, [])
    shown_as(tmp_path, "", monkeypatch=monkeypatch)
    assert not cgroups.limit_disk(ID, "7:3", rate=1 << 20, operations=0)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
