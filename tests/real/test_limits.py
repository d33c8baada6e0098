"""What a machine may have is all that it gets, however hard it tries; its host and its neighbour go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_machine.errors import WaitTimeout
from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import State
from pytest_machine.waiting import NotYet, wait
from tests.conftest import SLOWNESS
from tests.real.asked import engine_answers, groups_of, pid_of, spec

MIB = 1 << 20
# Takes memory and holds it: Perl is in every Debian.
HOG = 'my $x = "x" x ({size} << 20); print length $x; sleep {seconds}'


@pytest.fixture(scope="module")
def bystander(module_lab: Lab) -> Machine:
    (machine,) = module_lab.create(spec("bystander"))
    return machine


@pytest.fixture(autouse=True)
def others_go_on(bystander: Machine) -> Iterator[None]:
    """Ask the neighbour afterwards for more than a sign of life, and this host for a process."""
    yield
    begun = time.monotonic()
    assert bystander.run("sh", "-c", "echo $((6 * 7))", timeout=30 * SLOWNESS).stdout == "42\n"
    assert bystander.docker.ping()
    assert time.monotonic() - begun < 30 * SLOWNESS


def test_memory_is_bounded(lab: Lab, busybox: Callable[..., str]) -> None:
    (machine,) = lab.create(spec("small", memory="256m"))
    assert machine.run("perl", "-e", HOG.format(size=50, seconds=0)).stdout == str(50 * MIB)
    for _ in range(2):
        hog = machine.run("perl", "-e", HOG.format(size=600, seconds=0), check=False, timeout=60)
        # Killed by the kernel, or its session was: perl, not the machine, is who is too big.
        assert hog.returncode in (137, 255)
        assert hog.stdout == ""
    wait(lambda: engine_answers(machine), "Docker after the hog", timeout=60)
    # So is what it keeps in memory as files, and its containers.
    filled = machine.run("dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=600", check=False, timeout=60)
    assert "No space left" in filled.stderr
    machine.run("rm", "-f", "/dev/shm/x")
    wait(lambda: engine_answers(machine), "Docker after the files", timeout=60)
    image = busybox(machine)
    contained = machine.docker.containers.run(
        image, ["sh", "-c", "x=x; while :; do x=$x$x$x$x; done"], detach=True, mem_limit="64m"
    )
    assert contained.wait(timeout=60)["StatusCode"] == 137
    assert machine.state is State.RUNNING
    # Nor is there a way around it by swapping.
    groups = groups_of(machine)
    if "memory" in groups:
        assert int((groups["memory"] / "memory.limit_in_bytes").read_text()) == 256 * MIB
        assert int((groups["memory"] / "memory.max_usage_in_bytes").read_text()) <= 256 * MIB


def test_one_machine_has_half_of_the_memory_at_most(bystander: Machine) -> None:
    group = groups_of(bystander).get("memory")
    if group is None:
        limit = int((groups_of(bystander)[""] / "memory.max").read_text())
    else:
        limit = int((group / "memory.limit_in_bytes").read_text())
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert limit == pytest.approx(total / 2, abs=os.sysconf("SC_PAGE_SIZE"))


def _processor_seconds(machine: Machine) -> float:
    groups = groups_of(machine)
    if "cpuacct" in groups:
        return int((groups["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
    return int((groups[""] / "cpu.stat").read_text().split()[1]) / 1e6


def test_processors_are_bounded(lab: Lab) -> None:
    (machine,) = lab.create(spec("slow", cpus=0.25))
    # Two loops would take two processors.
    machine.run("sh", "-c", "for i in 1 2; do timeout 30 sh -c 'while :; do :; done' >/dev/null 2>&1 & done")
    begun, before = time.monotonic(), _processor_seconds(machine)
    time.sleep(3)
    used = (_processor_seconds(machine) - before) / (time.monotonic() - begun)
    # Nothing bounds it from below but a busy host; a quota may be overdrawn by a period or two.
    assert used < 0.25 * 1.3
    assert used > 0.02


def test_processes_are_bounded(lab: Lab, bystander: Machine) -> None:
    (machine,) = lab.create(spec("fertile", pids=200))
    counter = groups_of(machine).get("pids", groups_of(machine).get("", Path()))
    machine.run("true")  # the bomb's time is its own, not that of the first to log in
    # The bomb: it doubles until it may not. Its session may be lost with it.
    with contextlib.suppress(WaitTimeout):
        machine.run("bash", "-c", "exec >/dev/null 2>&1; b() { b | b & }; b", check=False, timeout=2 * SLOWNESS)

    def full() -> None:
        if (now := int((counter / "pids.current").read_text())) < 190:
            raise NotYet(f"{now} processes")

    wait(full, "The bomb", timeout=30 * SLOWNESS)
    for _ in range(10):
        assert int((counter / "pids.current").read_text()) <= 200
        # By this host's own count, which takes its time: some begin when others that were counted have ended.
        assert 0 < _processes_of(machine) < 300
        begun = time.monotonic()
        assert bystander.run("true", timeout=30 * SLOWNESS).returncode == 0
        assert time.monotonic() - begun < 10 * SLOWNESS
    begun = time.monotonic()
    machine.destroy(kill=True)
    assert time.monotonic() - begun < 15 * SLOWNESS


def _processes_of(machine: Machine) -> int:
    """Return how many are in the machine's group, or in one below."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            found += machine.id in (process / "cgroup").read_text()
    return found


def _has(machine: Machine) -> int:
    """Return how much of this host's disk its own folder takes, bytes."""
    home = Path("/var/lib/pytest-machine/runc/machines", machine.id)
    return sum(path.lstat().st_blocks * 512 for path in [home, *home.rglob("*")])


def _free() -> int:
    return shutil.disk_usage("/var/lib/pytest-machine").free


def test_the_disk_is_bounded(lab: Lab) -> None:
    size = 256 * MIB
    (machine,) = lab.create(spec("full", disk="256m"))
    before = _free()
    for target in ("/var/lib/docker/filler", "/filler", "/root/filler"):
        filled = machine.run("dd", "if=/dev/zero", f"of={target}", "bs=1M", "count=2000", check=False, timeout=60)
        assert "No space left" in filled.stderr
    # And in small things: names take space too.
    machine.run("sh", "-c", "i=0; while echo x >/var/lib/docker/x$i; do i=$((i+1)); done", check=False, timeout=60)
    image = Path("/var/lib/pytest-machine/runc/machines", machine.id, "disk.img")
    assert image.stat().st_size == size
    assert image.stat().st_blocks * 512 <= size
    # Others write here as well, meanwhile: what counts is that it is not the gigabytes that it has tried to write.
    assert before - _free() < size + 1024 * MIB
    assert _has(machine) < size + 10 * MIB
    # It prints to its own disk, too.
    machine.run("sh", "-c", "timeout 2 yes machine >/proc/1/fd/1", check=False, timeout=60)
    assert before - _free() < size + 1024 * MIB
    assert _has(machine) < size + 10 * MIB
    assert machine.run("true", timeout=30).returncode == 0
    machine.run(
        "sh", "-c", "rm -rf /filler /root/filler /var/lib/docker/filler; find /var/lib/docker -name 'x*' -delete"
    )
    assert machine.run("dd", "if=/dev/zero", "of=/again", "bs=1M", "count=10").returncode == 0


def test_files_in_memory_are_bounded(lab: Lab) -> None:
    limit = 200 * MIB
    (machine,) = lab.create(spec("files", memory="200m"))
    group = groups_of(machine).get("memory")
    for target in ("/run/filler", "/dev/filler", "/dev/shm/filler"):
        filled = machine.run("dd", "if=/dev/zero", f"of={target}", "bs=1M", "count=1000", check=False, timeout=60)
        assert "No space left" in filled.stderr
        machine.run("rm", target)
    # One that is as big as it likes costs the machine its life at worst, and nobody else a page.
    machine.run("mount", "-t", "tmpfs", "-o", "size=10g", "big", "/mnt")
    with contextlib.suppress(WaitTimeout):
        machine.run("dd", "if=/dev/zero", "of=/mnt/filler", "bs=1M", "count=1000", check=False, timeout=10 * SLOWNESS)
    if group is not None and group.exists():
        # Each processor charges in batches of up to 64 pages, and the high-water mark may show one on top.
        assert int((group / "memory.max_usage_in_bytes").read_text()) <= limit + MIB
    machine.kill()
    machine.start()
    assert machine.run("ls", "/mnt").stdout == ""


def _stopped(machine: Machine) -> None:
    if machine.state is not State.STOPPED:
        raise NotYet(f"it is {machine.state}")


def test_a_reboot_takes_only_the_machine_down(lab: Lab) -> None:
    """Should it reach this host, nobody is left to say so."""
    (machine,) = lab.create(spec("down"))
    restart = "syscall(169, 0xfee1dead, 0x28121969, 0x1234567, 0)"
    machine.run("true")  # so that who cannot log in is not taken for one that was cut off
    with contextlib.suppress(WaitTimeout):
        machine.run("perl", "-e", restart, check=False, timeout=5 * SLOWNESS)
    wait(lambda: _stopped(machine), "The end of its first process", timeout=10 * SLOWNESS)
    machine.start()
    assert machine.run("true").returncode == 0


def test_a_signal_to_all_reaches_its_own_processes(lab: Lab) -> None:
    (machine,) = lab.create(spec("signal"))
    ours, init = os.getpid(), pid_of(machine)
    assert machine.run("sh", "-c", "kill -9 1; kill -9 -1", check=False, timeout=30).returncode == 255
    wait(lambda: machine.run("true"), "SSH after the end of all", timeout=60)
    wait(lambda: engine_answers(machine), "Docker after the end of all", timeout=60)
    # Its first process is deaf to those below it, and ours are out of reach.
    assert (pid_of(machine), os.getpid()) == (init, ours)
