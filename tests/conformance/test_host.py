"""The host's oracle sees each kind of thing that a local driver can leave, and sees it go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from pytest_machine.testing import census, host_leftovers
from tests.conftest import alone

pytestmark = [
    alone,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="makes links, mounts and rules: needs Linux and root"
    ),
]

NAME = f"ptmtest{os.getpid() % 10000}"


def run(*argv: str) -> None:
    if shutil.which(argv[0]) is None:
        pytest.skip(f"this host has no '{argv[0]}'")
    subprocess.run(argv, check=True, capture_output=True)


@contextmanager
def link(_: Path) -> Iterator[str]:
    run("ip", "link", "add", NAME, "type", "bridge")
    yield "links"
    run("ip", "link", "del", NAME)


@contextmanager
def network_namespace(_: Path) -> Iterator[str]:
    run("ip", "netns", "add", NAME)
    yield "namespaces"
    run("ip", "netns", "del", NAME)


@contextmanager
def nft_table(_: Path) -> Iterator[str]:
    run("nft", "add", "table", "ip", NAME)
    yield "nft rules"
    run("nft", "delete", "table", "ip", NAME)


@contextmanager
def iptables_chain(_: Path) -> Iterator[str]:
    run("iptables-legacy", "-N", NAME)
    yield "iptables rules"
    run("iptables-legacy", "-X", NAME)


@contextmanager
def mount(place: Path) -> Iterator[str]:
    target = place / NAME
    target.mkdir()
    run("mount", "-t", "tmpfs", "none", str(target))
    yield "mounts"
    run("umount", str(target))
    target.rmdir()


@contextmanager
def loop_device(place: Path) -> Iterator[str]:
    disk = place / f"{NAME}.img"
    disk.write_bytes(bytes(1 << 20))
    shown = subprocess.run(["losetup", "--show", "-f", str(disk)], capture_output=True, text=True, check=False)
    if shown.returncode:
        pytest.skip(f"no loop device: {shown.stderr}")
    yield "loop devices"
    run("losetup", "-d", shown.stdout.strip())
    disk.unlink()


@contextmanager
def cgroup(_: Path) -> Iterator[str]:
    top = Path("/sys/fs/cgroup")
    folder = (top if (top / "cgroup.procs").exists() else top / "pids") / NAME
    folder.mkdir()
    yield "cgroups"
    folder.rmdir()


@contextmanager
def process(place: Path) -> Iterator[str]:
    # Through a shell that ends at once: a child of ours is no leftover, one of init's is.
    marker = place / f"{NAME}.stop"
    loop = f"while ! test -e {marker}; do sleep 0.05; done"
    subprocess.run(["/bin/sh", "-c", f"setsid /bin/sh -c '{loop}' >/dev/null 2>&1 &"], check=True)
    yield "processes"
    marker.touch()
    assert eventually(
        lambda: not [line for line in host_leftovers(place) if line.startswith("process") and NAME in line]
    )
    marker.unlink()


@contextmanager
def file(place: Path) -> Iterator[str]:
    path = place / "left"
    path.touch()
    yield "files"
    path.unlink()


THINGS = [link, network_namespace, nft_table, iptables_chain, mount, loop_device, cgroup, process, file]


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__)
def test_seen_and_seen_to_go(thing: Callable[[Path], AbstractContextManager[str]], tmp_path: Path) -> None:
    def ours() -> set[str]:
        return {found for found in host_leftovers(tmp_path) if NAME in found or str(tmp_path) in found}

    before = ours()
    assert ours() == before, "two looks at an idle host differ"
    with thing(tmp_path) as kind:
        assert eventually(lambda: ours() - before), "it is not seen"
        assert ours() == ours(), "two looks at it differ"
        assert census(tmp_path)[kind] >= 1
    assert eventually(lambda: not ours() - before), f"it is gone, and still seen: {ours() - before}"


def eventually(check: Callable[[], object], seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while not check() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(check())


def test_census_counts(tmp_path: Path) -> None:
    """One file more is one more, and what is mounted in a directory is no file of it."""
    (tmp_path / "one").touch()
    (tmp_path / "mounted").mkdir()
    run("mount", "-t", "tmpfs", "none", str(tmp_path / "mounted"))
    try:
        (tmp_path / "mounted" / "inside").touch()
        assert census(tmp_path)["files"] == 2
    finally:
        run("umount", str(tmp_path / "mounted"))
    assert census(tmp_path)["namespaces"] >= 6
