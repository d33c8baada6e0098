"""The image itself, the one in the cache or built now: what a machine will find in it, and what it must not."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_machine import images
from pytest_machine.images import Image, build

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="root builds images"),
]


@pytest.fixture(scope="module")
def image() -> Image:
    return images.ensure()


@pytest.fixture(scope="module")
def tree(image: Image) -> Path:
    return image.path


def test_nothing_that_must_differ_between_machines(tree: Path) -> None:
    assert list((tree / "etc/ssh").glob("ssh_host_*")) == []
    assert (tree / "etc/machine-id").read_bytes() == b""
    assert not os.path.lexists(tree / "etc/resolv.conf")
    assert not os.path.lexists(tree / "etc/hostname")
    assert list((tree / "var/log").iterdir()) == []
    assert list((tree / "var/lib/apt/lists").iterdir()) == []
    assert list((tree / "etc/docker").iterdir()) == []


def test_all_that_a_docker_host_needs(image: Image, tree: Path) -> None:
    recipe = build.recipe(image.suite)
    assert {package for package in recipe.packages if not build.installed(tree, package)} == set()
    assert image.docker == build.installed(tree, "docker.io")
    for program in ("dockerd", "containerd", "docker", "sshd", "iptables", "ip", "sudo", "curl", "bash", "mount"):
        assert shutil.which(program, path=os.pathsep.join(str(tree / d) for d in ("usr/sbin", "usr/bin"))), program


def test_our_files_are_in(tree: Path) -> None:
    init = tree / images.INIT.lstrip("/")
    assert init.stat().st_mode & 0o111 == 0o111
    assert str((tree / "var/lib/boot2docker").readlink()) == "/etc/docker"
    assert stat.S_IMODE((tree / "etc/docker").stat().st_mode) == 0o755
    for link, target in build.LINKS.items():
        assert str((tree / link).readlink()) == target


def test_it_is_roots_and_setuid_bits_are_kept(tree: Path) -> None:
    assert (tree.stat().st_uid, tree.stat().st_gid, stat.S_IMODE(tree.stat().st_mode)) == (0, 0, 0o755)
    assert (tree / "usr/bin/sudo").stat().st_mode & stat.S_ISUID


def test_manuals_are_out_and_licences_are_in(tree: Path) -> None:
    assert not list((tree / "usr/share/man").rglob("*.gz"))
    assert (tree / "usr/share/doc/docker.io/copyright").exists()


def test_its_programs_accept_their_configuration(tree: Path, tmp_path: Path) -> None:
    # In the tree, as a machine would: a word that this release's sshd does not know would keep everybody out.
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    script = """
        mount -t tmpfs run "$0/run" && mkdir "$0/run/sshd" && mount --bind "$1" "$0/mnt" &&
        exec chroot "$0" sshd -T -h /mnt/key
    """
    shown = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, tree, tmp_path], check=False, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    words = set(shown.stdout.splitlines())
    assert {"permitrootlogin without-password", "passwordauthentication no", "usedns no", "maxsessions 500"} <= words
    assert not any("sntrup" in line for line in words if line.startswith("kexalgorithms"))


def test_a_build_that_is_killed_leaves_no_process_and_no_mount(tmp_path: Path) -> None:
    building = subprocess.Popen(
        [sys.executable, "-m", "pytest_machine", "image", "build"],
        env=os.environ | {"PYTEST_MACHINE_CACHE": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with building:
        assert building.stderr is not None
        assert any("unpacking" in line for line in building.stderr)
        assert _children(tmp_path)  # mmdebstrap is at work
        building.kill()
    deadline = time.monotonic() + 10
    while _children(tmp_path):
        assert time.monotonic() < deadline, _children(tmp_path)
        time.sleep(0.05)
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def _children(path: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(process.read_text(errors="replace").replace("\0", " "))
    return [line for line in found if str(path) in line]


def test_init_is_sound_bash(tree: Path) -> None:
    subprocess.run(["chroot", tree, "bash", "-n", images.INIT], check=True)


def test_one_in_use_is_not_removed(image: Image, tmp_path: Path) -> None:
    from pytest_machine.errors import UsageError

    for name in ("upper", "work", "root"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={image.path},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, tmp_path / "root"], check=True)
    try:
        with pytest.raises(UsageError, match="in use by machines"):
            images.remove(image)
    finally:
        subprocess.run(["umount", tmp_path / "root"], check=True)
    assert (image.path / "usr").is_dir()
