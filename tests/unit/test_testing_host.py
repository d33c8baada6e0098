"""The oracle for leftovers looks at a host on which other programs create and remove things meanwhile."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_machine.testing import host

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at a Linux host"),
]

Fake = Callable[[str, str], None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Return a function that puts a shell script in the place of a program."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    def make(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


IP = "echo 'Dump was interrupted and may be inconsistent.' >&2"


@pytest.mark.parametrize(
    ("name", "disturbed", "whole", "look"),
    [
        ("ip", f"echo '1: lo: <>'; {IP}", "echo '1: lo: <>'; echo '2: ptm1@if3: <>'", "_links"),
        ("ip", IP, "echo ptm1", "_named_namespaces"),
        ("nft", "echo 'Error: No such file or directory' >&2; exit 1", "printf 'table ip ptm1 {\\n}\\n'", "_nft"),
        ("losetup", "exit 1", "echo '/dev/loop0: [2049]:1 (/ptm1)'", "_loops"),
        ("iptables-nft-save", "exit 1", "printf '*filter\\n-A ptm1\\n'", "_iptables"),
    ],
)
def test_a_disturbed_listing_is_asked_for_again(
    fake: Fake, tmp_path: Path, name: str, disturbed: str, whole: str, look: str
) -> None:
    fake(name, f"[ -e {tmp_path}/asked ] || {{ touch {tmp_path}/asked; {disturbed}; exit; }}\n{whole}")
    assert [text for text in getattr(host, look)() if "ptm1" in text]


def test_a_listing_that_always_fails_is_not_asked_for_without_end(fake: Fake, tmp_path: Path) -> None:
    fake("ip", f"echo >>{tmp_path}/asked; exit 1")
    assert list(host._links()) == []
    assert len((tmp_path / "asked").read_text()) < 10


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="writes to /run: needs root")
def test_a_container_is_seen_while_others_end(fake: Fake) -> None:
    """`runc list` fails when a container ends while it lists."""
    fake("runc", "exit 1")
    root = Path(f"/run/ptm-test-{os.getpid()}")
    try:
        for name in ("stays", "ended"):
            (root / name).mkdir(parents=True)
        (root / "stays" / "state.json").write_text("{}")
        assert [text for text in host._containers() if str(root) in text] == [f"{root} stays"]
    finally:
        shutil.rmtree(root)


def test_trees_that_change_and_deep_ones(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(1500):  # deeper than Python recurses
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    stop = threading.Event()

    def neighbour() -> None:
        while not stop.is_set():
            (tmp_path / "n/e/i").mkdir(parents=True, exist_ok=True)
            shutil.rmtree(tmp_path / "n", ignore_errors=True)
            time.sleep(0.001)

    thread = threading.Thread(target=neighbour)
    thread.start()
    try:
        for _ in range(3):
            assert sum(1 for path in host._files([tmp_path]) if path.name == "d") >= 1500
    finally:
        stop.set()
        thread.join()
        shutil.rmtree(deep, ignore_errors=True) if sys.version_info >= (3, 12) else os.system(f"rm -r {deep}")


def test_links_lead_nowhere_and_mounts_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "root").symlink_to("/")
    assert {path.name for path in host._files([tmp_path])} == {"a", "root"}
