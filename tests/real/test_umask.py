"""Whatever the umask of the process is: programs in a machine run for every user, and private files are private."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Spec, new_id
from pytest_machine.owner import Run
from pytest_machine.plugins import Registry
from tests.dockerd import Dockerd
from tests.real import test_docker_driver as by_docker
from tests.real.asked import specs

users_engine, patient, at_home = by_docker.users_engine, by_docker.patient, by_docker.at_home

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


@pytest.fixture(params=[0o000, 0o027, 0o077], ids=["000", "027", "077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


@pytest.fixture
def owned(umask: int, tmp_path: Path) -> Iterator[tuple[Lab, Path]]:
    """A lab of a run whose directories are all made now."""
    root = tmp_path / "some" / "where"
    run = Run.begin(root=root)
    try:
        with Lab(store=run.lab_store(new_id()), registry=Registry(), run=run.id) as lab:
            yield lab, tmp_path / "some"
    finally:
        run.end()


def _for_every_user(machine: Machine) -> None:
    modes = machine.run(
        "stat", "-c", "%a", "/", "/etc", "/usr", "/run", "/dev", "/dev/shm", "/etc/passwd"
    ).stdout.split()
    assert modes == ["755", "755", "755", "755", "755", "1777", "644"]
    assert (
        machine.run(*NOBODY, "sh", "-c", "ls / >/dev/null && getent hosts localhost >/dev/null && id -u").stdout
        == "65534\n"
    )
    assert machine.run(*NOBODY, "cat", "/etc/resolv.conf", "/etc/hosts").returncode == 0
    assert machine.run(*NOBODY, "ls", "/root", "/var/lib/docker", check=False).returncode != 0


def _private(root: Path) -> None:
    """Nothing that was made here is open to others, and keys are their owner's alone."""
    files = 0
    for path in (root, *root.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_dir() and not path.is_symlink():
            assert mode & 0o022 == 0, f"{path} is {mode:o}"
            assert mode & 0o700 == 0o700, f"{path} is {mode:o}"
        elif path.is_file() and ("key" in path.name or path.name in ("id_rsa", "id_ed25519", "secrets")):
            files += 1
            if not path.name.endswith(".pub"):
                assert mode == 0o600, f"{path} is {mode:o}"
    assert files > 2


@pytest.mark.usefixtures("usable")
def test_a_machine_of_runc(umask: int, owned: tuple[Lab, Path], busybox: Callable[..., str]) -> None:
    lab, root = owned
    plain, disk, direct = lab.create(*specs("plain"), *specs("disk", disk="300m"), *specs("direct", userns=False))
    for machine in (plain, disk, direct):
        _for_every_user(machine)
    image = busybox(disk)
    assert disk.docker.containers.run(image, ["echo", "hello"], user="1000", remove=True) == b"hello\n"
    _private(root)
    state = Path("/var/lib/pytest-machine/runc")
    for machine in (plain, disk, direct):
        home = state / "machines" / machine.id
        assert stat.S_IMODE(home.stat().st_mode) == 0o710
        assert stat.S_IMODE((home / "tag.json").stat().st_mode) == 0o600
        if machine is disk:
            assert stat.S_IMODE((home / "disk.img").stat().st_mode) == 0o600
    disk.restart()
    _for_every_user(disk)
    plain.reset()
    _for_every_user(plain)


def test_a_machine_of_docker(umask: int, at_home: Dockerd, owned: tuple[Lab, Path]) -> None:
    lab, root = owned
    (machine,) = lab.create(by_docker.spec("web", host=at_home.url))
    _for_every_user(machine)
    _private(root)
    lab.destroy()


def test_images_for_machines(umask: int, owned: tuple[Lab, Path], busybox: Callable[..., str], tmp_path: Path) -> None:
    """A machine that is born with images runs containers of them."""
    lab, _ = owned
    (source,) = lab.create(*specs("source"))
    image = busybox(source)
    archive = tmp_path / "busybox.tar"
    archive.write_bytes(b"".join(source.docker.images.get(image).save(named=True)))
    (born,) = lab.create(Spec(name="born", driver="runc", preload=(str(archive),), timeout=60))
    assert born.docker.containers.run(image, ["echo", "here"], remove=True) == b"here\n"
