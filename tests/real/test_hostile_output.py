"""What root in a machine can leave for those who look at it, bring things home from it and remove it."""

from __future__ import annotations

import os
import platform
import resource  # real machines are Linux
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_machine.drivers.runc import cgroups, incidents
from pytest_machine.drivers.runc.places import Place
from pytest_machine.errors import CommandFailed, DriverError, LimitExceeded, TransferFailed
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import Spec, State
from tests.conftest import SLOWNESS
from tests.real.asked import spec

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("usable")]

# Directories in each other, past every limit of recursion and of a path's length.
NEST = """
set -e; cd "$1"; n=0
while [ $n -lt "$2" ]; do mkdir "$3"; cd -P "./$3"; n=$((n+1)); done
"""
DEEP = 1600


def made(lab: Lab) -> Machine:
    (machine,) = lab.create(Spec(driver="runc"))
    return machine


@pytest.fixture(scope="module")
def machine(module_lab: Lab) -> Machine:
    """One machine that all may damage: what they leave is in places of their own."""
    return made(module_lab)


@pytest.fixture(autouse=True)
def unharmed(tmp_path: Path) -> Iterator[None]:
    """Nothing of this host is written, wherever a link leads."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    yield
    assert precious.read_text() == "precious"


TAR = """\
#!/bin/sh
case "$*" in *" $DIRECTORY "*) exec cat /srv/archive;; esac
exec /bin/tar.real "$@"
"""


@contextmanager
def packed(machine: Machine, directory: str, archive: bytes) -> Iterator[None]:
    """Have the machine's `tar` send this for a directory."""
    machine.put(archive, "/srv/archive")
    machine.put(TAR.replace("$DIRECTORY", directory).encode(), "/srv/tar", mode=0o755)
    machine.run("sh", "-c", 'mkdir -p "$1"; mv /bin/tar /bin/tar.real; cp /srv/tar /bin/tar', "sh", directory)
    try:
        yield
    finally:
        machine.run("mv", "/bin/tar.real", "/bin/tar")


@pytest.mark.parametrize(("name", "count", "move"), [("d", 1200, ""), ("n" * 200, 40, "move")])
def test_nested_control_groups(lab: Lab, name: str, count: int, move: str) -> None:
    """A5: they go with the machine, and so they do when its init sits in the deepest, which no path names."""
    machine = made(lab)
    script = """
    for top in /sys/fs/cgroup /sys/fs/cgroup/pids; do
      [ -d "$top" ] && [ -w "$top" ] || continue
      cd "$top" || continue; n=0
      while [ $n -lt "$2" ]; do mkdir "$1" && cd -P "./$1" || break; n=$((n+1)); done
      [ -z "$3" ] || echo 1 >cgroup.procs || true
      echo "$n"
    done"""
    assert str(count) in machine.run("sh", "-c", script, "sh", name, str(count), move).stdout.split()
    assert machine.state == State.RUNNING
    machine.destroy()
    assert list(cgroups.of_machine(machine.record.id)) == []


def test_nested_directories(machine: Machine, tmp_path: Path) -> None:
    """A6: looking, bringing home and comparing neither recurse nor end by an error of Python's."""
    machine.note()
    machine.run("mkdir", "-p", "/srv/deep")
    machine.run("sh", "-c", NEST, "sh", "/srv/deep", str(DEEP), "d")
    machine.run("sh", "-c", "echo x >/srv/deep/file")
    assert incidents.cores(Place(machine.record.id)) == []
    assert machine.driver.is_touched(machine.record)  # type: ignore[attr-defined]
    with pytest.raises(DriverError, match="directories in each other"):
        machine.changes()
    left = machine.get("/srv/deep", tmp_path / "home")
    assert (tmp_path / "home" / "file").read_text() == "x\n"
    assert left[-1] == f"and {DEEP - 100 - 20} more"
    machine.run("sh", "-c", "rm -rf /srv/deep")


def test_a_link_in_place_of_dockers_data(lab: Lab) -> None:
    """A8: this host's own disk is not searched, and none of its files shown as the machine's."""
    machine = made(lab)
    script = """
    pkill dockerd; sleep 0.2
    cd /var/lib/docker
    for each in volumes overlay2; do mv $each $each.old; ln -s / $each; done
    ln -s / /srv/all; ln -s .. /core.up
    """
    machine.run("sh", "-c", script, check=False)
    begun = time.monotonic()
    assert incidents.cores(Place(machine.record.id)) == []
    assert time.monotonic() - begun < 2 * SLOWNESS


def test_a_pipe_or_a_device_is_not_read(machine: Machine, tmp_path: Path) -> None:
    """A9: neither by its own name nor by a link; in a directory it is left out."""
    machine.run("sh", "-c", "mkdir -p /srv/odd; mkfifo /srv/odd/pipe; ln -s odd/pipe /srv/link; echo x >/srv/odd/file")
    for path in ("/srv/odd/pipe", "/srv/link", "/dev/zero", "/dev/full"):
        with pytest.raises(CommandFailed, match="neither a file nor a directory"):
            machine.get(path, tmp_path / "home")
    left = machine.get("/srv/odd", tmp_path / "odd")
    assert [path.name for path in (tmp_path / "odd").iterdir()] == ["file"]
    assert ["pipe" in line for line in left] == [True]


def test_what_never_ends(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A9: bytes that do not come, too many bytes, and bytes for too long."""
    monkeypatch.setattr("pytest_machine.ssh.SILENCE", 1.0)
    machine.run("sh", "-c", "truncate -s 1T /srv/sparse; mkdir -p /srv/holes; truncate -s 1T /srv/holes/file")
    for path in ("/srv/sparse", "/srv/holes"):
        with pytest.raises(LimitExceeded, match="more than 1,000,000 bytes"):
            machine.get(path, tmp_path / "home", size=1_000_000)
    with pytest.raises(LimitExceeded, match=r"was not done after 0\.5 s"):
        machine.get("/srv/sparse", tmp_path / "home", timeout=0.5)
    machine.run("sh", "-c", "mv /bin/cat /bin/cat.real; printf '#!/bin/sh\\nsleep 30\\n' >/bin/cat; chmod 755 /bin/cat")
    try:
        with pytest.raises(LimitExceeded, match="sent nothing for 1 s"):
            machine.get("/etc/hostname", tmp_path / "file")
    finally:
        machine.run("mv", "/bin/cat.real", "/bin/cat")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "precious"]


def test_output_without_an_end(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A9: memory does not grow with it, on either stream."""
    monkeypatch.setattr("pytest_machine.ssh.OUTPUT", 8 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for script in ("cat /dev/zero", "cat /dev/zero >&2", "yes 'begin of it'"):
        with pytest.raises(LimitExceeded, match="printed more than") as caught:
            machine.run("sh", "-c", script)
        assert caught.value.hint
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10
    assert machine.run("echo", "still here").stdout == "still here\n"


@pytest.mark.parametrize("size", [0, 1000, 100_000])
def test_garbage_in_place_of_an_archive(machine: Machine, tmp_path: Path, size: int) -> None:
    with packed(machine, "/srv/garbage", os.urandom(size)), pytest.raises(TransferFailed) as caught:
        machine.get("/srv/garbage", tmp_path / "home")
    assert caught.value.hint


@pytest.mark.parametrize("before", [False, True])
def test_an_archive_that_leads_out(machine: Machine, tmp_path: Path, *, before: bool) -> None:
    """A1: the real way, by a machine whose `tar` is its own; and into a directory that holds a link already."""
    from tests.unit.test_archives import END, beyond_realpath, entry

    content = entry(b"../precious", b"pwned") + beyond_realpath(b"..") + entry(b"escape/precious", b"pwned")
    content += entry(b"escape/new", b"pwned") + entry(b"file", b"x") + END
    (tmp_path / "home").mkdir()
    if before:
        (tmp_path / "home" / "escape").symlink_to("..")
    with packed(machine, "/srv/evil", content):
        left = machine.get("/srv/evil", tmp_path / "home")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "precious"]
    assert (tmp_path / "home" / "file").read_text() == "x"
    assert any("'../precious'" in line for line in left)


def test_a_directory_that_changes(machine: Machine, tmp_path: Path) -> None:
    """C16: files grow, shrink and vanish while it is packed; what was there comes home."""
    machine.run("sh", "-c", "mkdir -p /srv/live; for n in $(seq 300); do head -c 200000 /dev/zero >/srv/live/$n; done")
    writes = """
    end=$(($(date +%s)+30))
    while [ $(date +%s) -lt $end ] && [ -d /srv/live ]; do
      for n in $(seq 300); do
        echo x >>/srv/live/$n; rm -f /srv/live/t$n; echo >/srv/live/t$((n+1))
        : >/srv/live/s; head -c 300000 /dev/zero >/srv/live/s
      done
    done"""
    machine.run("sh", "-c", 'setsid sh -c "$1" >/dev/null 2>&1 </dev/null &', "sh", writes)
    for number in range(5):
        machine.get("/srv/live", tmp_path / str(number))
        assert (tmp_path / str(number) / "300").stat().st_size >= 200_000
    machine.run("rm", "-rf", "/srv/live", check=False)


# Takes PID 1's own descriptor, as root in a machine can, and writes 200 MiB by it, wherever in the file.
FLOOD = """
use POSIX; my $pid = syscall(434, 1, 0); my $fd = syscall(438, $pid, 1, 0);
if ($fd < 0) { open(my $f, '>', '/proc/1/fd/1') or die "no way: $!"; $fd = fileno($f); }
my $part = 'x' x 1048576;
for (1..100) { POSIX::write($fd, $part, 1048576); }
POSIX::lseek($fd, 1 << 40, 0); POSIX::write($fd, "far", 3);
print "done";
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are those of x86_64")
@pytest.mark.parametrize("userns", [True, False])
def test_a_console_without_an_end(lab: Lab, *, userns: bool) -> None:
    """A19: what root in a machine writes to PID 1's console takes no disk of this host; what it said before is kept."""
    (machine,) = lab.create(spec("loud", userns=userns))
    place = Place(machine.record.id)
    used = shutil.disk_usage(place.state).used
    assert "done" in machine.run("perl", "-e", FLOOD).stdout
    files = [path for top in (place.state, place.run) for path in top.rglob("console*") if path.is_file()]
    assert files
    assert sum(path.stat().st_blocks * 512 for path in files) <= 1 << 20
    assert shutil.disk_usage(place.state).used - used < 64 << 20
    assert len(machine.driver.console(machine.record)) <= 1 << 16  # type: ignore[attr-defined]
    machine.restart()
    assert machine.docker.ping()
    assert (place.state / "console.log").stat().st_size <= 1 << 16
    assert "machine-init: started" in machine.driver.console(machine.record)  # type: ignore[attr-defined]
    machine.destroy()
    assert not place.run.exists()
