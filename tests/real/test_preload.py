"""Machines that are born with images: the images are whole, a machine's own, and nobody else's to change."""

from __future__ import annotations

import contextlib
import io
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import docker.errors
import pytest

from benchmarks import archives
from examples.demo.conftest import busybox_archive
from pytest_machine import engine, images, preloads
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import BadSpec, DriverError, MachineError, UsageError
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Address, Engine, Spec, Value, new_id
from pytest_machine.plugins import Registry
from pytest_machine.store import Store
from pytest_machine.waiting import NotYet, wait

from .asked import on_host

pytestmark = pytest.mark.real
NAME = "preloaded:1"
SECRET = b"the original bytes\n"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An image that nobody else has: programs, files of another owner, and a layer that takes some away."""
    mark = new_id().encode()
    kept = archives.layer({"kept/file": SECRET, "kept/mark": mark, "www/new": b"x"}, owner=33, mode=0o4755)
    gone = archives.layer({"www/.wh.index.html": b"", "last": b"last\n"})
    path = archives.write(
        tmp_path_factory.mktemp("archive") / "image.tar", NAME, [busybox_archive(), kept, gone], packed=True
    )
    before = {kept.name for kept in preloads.preloads()}
    yield path
    for made in preloads.preloads():
        if made.name not in before:
            with contextlib.suppress(UsageError):  # another test's, which is at it now
                preloads.remove(made)


def born(archive: Path, *, setting: Engine | None = None, name: str = "", **options: Value) -> Spec:
    return Spec(
        name=name, driver="runc", options=options, preload=(str(archive),), engine=setting or Engine(), timeout=60
    )


def names_in_layers(saved: Path) -> list[list[str]]:
    """Return what is in each layer of an archive, of Docker's older layout or OCI's."""
    found = []
    with tarfile.open(saved) as whole:
        for entry in filter(tarfile.TarInfo.isfile, whole):
            content = whole.extractfile(entry)
            with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=content) as layer:
                found.append(layer.getnames())
    return found


def sh(machine: Machine, script: str, image: str = NAME) -> str:
    return bytes(machine.docker.containers.run(image, ["sh", "-c", script], remove=True)).decode()


@pytest.mark.parametrize("suite", images.SUITES)
def test_all_that_docker_does_with_images(suite: str, archive: Path, lab: Lab, tmp_path: Path) -> None:
    """On each engine: run, commit, build upon, save, load again, remove, and all of it after a restart."""
    (machine,) = lab.create(born(archive, image=suite))
    client = machine.docker
    assert client.info()["Driver"] == "overlay2"

    assert sh(machine, "cat /kept/file; ls /www").split() == [*SECRET.decode().split(), "new"]
    assert " 33 " in sh(machine, "ls -ln /kept/file"), "owners are the image's"
    assert "-rwsr-xr-x" in sh(machine, "ls -ln /kept/file"), "and so are modes"

    container = client.containers.run(NAME, ["sh", "-c", "echo changed > /kept/file; rm /last"], detach=True)
    container.wait()
    container.commit("committed", "1")
    container.remove()
    assert sh(machine, "cat /kept/file; ls /", "committed:1").split()[0] == "changed"
    assert sh(machine, "cat /kept/file") == SECRET.decode()

    client.images.build(fileobj=io.BytesIO(f"FROM {NAME}\nRUN rm /kept/file".encode()), tag="built:1", rm=True)
    assert "file" not in sh(machine, "ls /kept", "built:1").split()

    saved = tmp_path / "saved.tar"
    with saved.open("wb") as file:
        for chunk in client.images.get(NAME).save(named=NAME):
            file.write(chunk)
    layers = names_in_layers(saved)
    assert any("kept/file" in names for names in layers), layers
    assert any("www/.wh.index.html" in names for names in layers), layers

    machine.restart()
    client = machine.docker
    assert sh(machine, "cat /kept/file") == SECRET.decode()
    for name in ("built:1", "committed:1", NAME):
        client.images.remove(name)
    assert client.images.list() == []
    with pytest.raises(docker.errors.ImageNotFound):
        machine.docker.api.create_container(NAME, ["true"])
    machine.restart()
    assert machine.docker.images.list() == []

    machine.docker.images.load(saved.read_bytes())
    assert sh(machine, "cat /kept/file; ls /www").split() == [*SECRET.decode().split(), "new"]
    (other,) = lab.create(born(archive, image=suite))
    assert sh(other, "cat /kept/file") == SECRET.decode(), "another machine's images are still there"


def test_it_is_loaded_once(archive: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.create(born(archive))
    loaded: list[object] = []
    monkeypatch.setattr(engine, "load", lambda *_, **__: loaded.append(1))
    made = lab.create(*[born(archive)] * 3)
    assert not loaded
    assert {sh(machine, "cat /last") for machine in made} == {"last\n"}
    assert len({machine.docker.info()["ID"] for machine in made}) == 3, "an engine's id is its own"


def test_root_in_a_machine_cannot_change_what_others_have(archive: Path, lab: Lab) -> None:
    """With all that root in there can do: write, remount, mount over, unmount, bind, new namespaces, chmod, xattrs."""
    hostile, victim = lab.create(born(archive), born(archive))
    diff = hostile.run(
        "sh", "-c", "dirname $(dirname $(find /var/lib/docker/overlay2/*/diff/kept/file))"
    ).stdout.strip()
    attacks = [
        "echo evil > kept/file", "rm -f kept/file", "chmod 777 kept/file", "chown 0:0 kept/file", "touch evil",
        "mv kept gone", "ln kept/file linked", "truncate -s 0 kept/file", "sed -i s/original/evil/ kept/file",
        "mount -o remount,rw .", "mount -o remount,bind,rw .", "mount -o bind,remount,rw,dev,suid . .",
        "mkdir -p /mnt/a; mount --bind . /mnt/a && mount -o remount,bind,rw /mnt/a && echo evil > /mnt/a/kept/file",
        "unshare -Urm sh -c 'mount -o remount,bind,rw . && echo evil > kept/file'",
        "unshare -m sh -c 'mount --make-rprivate / && mount -o remount,bind,rw . && echo evil > kept/file'",
        "cd /proc/1/root; echo evil > .{diff}/kept/file",
        "mkdir -p /mnt/u /mnt/w; mount -t overlay o -o lowerdir=.,upperdir=.,workdir=/mnt/w /mnt/u",
        "echo evil > /mnt/u/kept/file",
        "setfattr -n user.evil -v 1 kept/file", "chattr +i kept/file",
    ]  # fmt: skip
    for attack in attacks:
        hostile.run("sh", "-c", f"cd {diff} && {attack.replace('{diff}', diff)}", check=False, timeout=30)
    # What it can do is hide its own.
    hostile.run("sh", "-c", f"cd /; umount -l {diff}; mkdir -p {diff}/kept; echo evil > {diff}/kept/file", check=False)
    assert sh(victim, "cat /kept/file; ls -ln /kept/file").startswith(SECRET.decode() + "-rwsr-xr-x    1 33 ")
    (later,) = lab.create(born(archive))
    assert sh(later, "cat /kept/file; ls -ln /kept/file").startswith(SECRET.decode() + "-rwsr-xr-x    1 33 ")
    assert sh(later, "ls /").split() == sh(victim, "ls /").split()


def test_without_a_user_namespace_each_has_a_copy(archive: Path, lab: Lab) -> None:
    """Root in such a machine can remount what it sees, so it sees nothing that another one has."""
    hostile, victim = lab.create(born(archive, userns=False), born(archive, userns=False))
    hostile.run("sh", "-c", "for f in /var/lib/docker/overlay2/*/diff/kept/file; do echo evil > $f; done")
    assert sh(hostile, "cat /kept/file") == "evil\n"
    assert sh(victim, "cat /kept/file") == SECRET.decode()
    (later,) = lab.create(born(archive, userns=False))
    assert sh(later, "cat /kept/file; ls /www").split() == [*SECRET.decode().split(), "new"]


def test_on_a_disk_of_its_own(archive: Path, lab: Lab) -> None:
    (machine,) = lab.create(born(archive, disk="256m"))
    assert sh(machine, "cat /kept/file") == SECRET.decode()


def test_an_engine_that_stores_otherwise_has_them_too(archive: Path, lab: Lab) -> None:
    (machine,) = lab.create(born(archive, setting=Engine(options={"storage-driver": "vfs"})))
    assert machine.docker.info()["Driver"] == "vfs"
    assert sh(machine, "cat /kept/file; ls /www").split() == [*SECRET.decode().split(), "new"]


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_a_reset_brings_them_back(driver: str, archive: Path, lab: Lab) -> None:
    (machine,) = lab.create(born(archive, setting=Engine(options={"storage-driver": driver})))
    machine.note()
    machine.docker.images.remove(NAME)
    machine.run("touch", "/etc/touched")
    machine.reset()
    assert [image.tags for image in machine.docker.images.list()] == [[NAME]]
    assert sh(machine, "cat /kept/file; ls /www").split() == [*SECRET.decode().split(), "new"]


def test_what_is_in_use_is_not_removed(archive: Path, lab: Lab) -> None:
    (machine,) = lab.create(born(archive))
    kept = next(one for one in preloads.preloads() if machine.id in [path.name for path in preloads.users(one)])
    machine.stop()
    with pytest.raises(UsageError, match="in use"):
        preloads.remove(kept)
    machine.start()
    assert sh(machine, "cat /last") == "last\n"
    machine.destroy()
    assert machine.id not in [path.name for path in preloads.users(kept)]


def test_ten_at_once_make_it_once(tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archives.write(
        tmp_path / "a.tar", "ten:1", [busybox_archive(), archives.layer({"id": new_id().encode()})]
    )
    load = engine.load
    loads: list[Address] = []

    def count(address: Address, *, certs: Path, archive: Iterable[bytes], name: str) -> list[str]:
        loads.append(address)
        return load(address, certs=certs, archive=archive, name=name)

    monkeypatch.setattr(engine, "load", count)
    before = {one.name for one in preloads.preloads()}
    labs = [Lab(store=lab._store, registry=lab._registry, run=lab._run) for _ in range(5)]
    threads = [threading.Thread(target=each.create, args=(born(archive),)) for each in labs]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(loads) == 1
        assert [len(each) for each in labs] == [1] * 5
    finally:
        for each in labs:
            each.destroy(kill=True)
    for one in preloads.preloads():
        if one.name not in before:
            with contextlib.suppress(UsageError):  # another test's, which is at it now
                preloads.remove(one)


def test_what_is_no_archive(tmp_path: Path, lab: Lab, run: object) -> None:
    wrong = tmp_path / "wrong.tar"
    wrong.write_bytes(b"no archive" + new_id().encode())
    with pytest.raises(DriverError, match=r"could not load the images of '.*wrong\.tar'") as caught:
        lab.create(born(wrong))
    assert "docker save" in caught.value.hint
    assert not list(lab._store.names()), "the machine that was to load them is gone"
    with pytest.raises(BadSpec, match="cannot be preloaded"):
        lab.create(born(tmp_path / "absent.tar"))


def test_images_of_the_users_engine(
    archive: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, busybox: Callable[..., str]
) -> None:
    """A machine serves as the user's engine here; another machine's variables, shown to a test, hide it from nobody."""
    theirs, other = lab.create(born(archive, name="theirs"), Spec(name="other", driver="runc"))
    busybox(theirs)
    for name, value in theirs.env.items():
        monkeypatch.setenv(name, value)
    with other.environment():
        (machine,) = lab.create(Spec(driver="runc", preload=("busybox:latest",)))
        with pytest.raises(BadSpec, match="not in your local Docker") as caught:
            lab.create(Spec(driver="runc", preload=("absent:1",)))
    assert caught.value.hint == "docker pull absent:1"
    assert [image.tags for image in machine.docker.images.list()] == [["busybox:latest"]]
    assert sh(machine, "echo hi", "busybox:latest") == "hi\n"
    preloads._image.cache_clear()


def test_a_user_without_an_engine(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    with pytest.raises(MachineError, match="does not answer") as caught:
        lab.create(Spec(driver="runc", preload=("busybox:1",)))
    assert "archive" in caught.value.hint


def test_nothing_is_left_on_the_host(archive: Path, lab: Lab) -> None:
    (machine,) = lab.create(born(archive))
    assert "preloads" not in on_host("cat", "/proc/self/mounts")
    machine.destroy()
    assert machine.id not in on_host("cat", "/proc/self/mounts")


KILLED = """
import sys
from pathlib import Path
from pytest_machine.lab import Lab
from pytest_machine.model import Spec
from pytest_machine.plugins import Registry
from pytest_machine.store import Store
print("go", flush=True)
Lab(store=Store(Path(sys.argv[1])), registry=Registry()).create(Spec(driver="runc", preload=(sys.argv[2],)))
print("made", flush=True)
"""


def layers() -> set[str]:
    return {line for line in on_host("cat", "/proc/self/mounts").splitlines() if "/layers" in line}


def test_killed_at_any_moment_it_leaves_nothing(
    tmp_path: Path, registry: Registry, usable: None, rounds: Callable[[int, int], int]
) -> None:
    """While images are being kept, and while a machine is born with them: SIGKILL, then the machine's destruction."""
    before, mounted = {one.name for one in preloads.preloads()}, layers()
    store, ids = Store(tmp_path / "store"), set()
    for number in range(rounds(40, 8)):
        mark = archives.layer({"mark": new_id().encode()})
        archive = archives.write(tmp_path / f"{number}.tar", "killed:1", [busybox_archive(), mark])
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, store.path, archive], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            time.sleep(random.uniform(0, 2.5))
            process.kill()
        for name in store.names():
            machine = Machine.load(name, store=store, registry=registry)
            ids.add(machine.id)
            machine.destroy(kill=True)
    assert store.names() == []
    assert not [record.id for record in RuncDriver().find() if record.store == store.path]

    def no_more() -> None:
        if more := layers() - mounted:
            raise NotYet(f"{sorted(more)}")

    wait(no_more, "The end of all layers", timeout=60)  # other tests have machines as well, which come and go
    made = [one for one in preloads.preloads() if one.name not in before]
    for one in made:
        assert not ids & {path.name for path in preloads.users(one)}
        with contextlib.suppress(UsageError):  # another test's, which is at it now
            preloads.remove(one)
