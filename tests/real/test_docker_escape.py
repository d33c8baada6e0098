"""The attempts of `test_escape` from a machine of the driver 'docker': what is held there, and what is not.

Such a machine is a privileged container: nothing stands between its root and the kernel but namespaces. The list of
what is not held is in docs/security.md too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.model import new_id
from pytest_machine.owner import Run
from pytest_machine.plugins import Registry
from tests.dockerd import Dockerd
from tests.real import calls, test_escape
from tests.real import test_docker_driver as by_docker
from tests.real.test_escape import ATTACKS, Attack

users_engine = by_docker.users_engine

# Held by namespaces of processes, mounts and files.
HELD = {
    "signal a host's process", "kill a host's process", "trace a host's process", "memory of a host's process",
    "the host's namespaces", "the host's first process", "the host's folders", "up and out", "up and out by chroot",
    "layers from their place on the host", "layers from where overlay says", "below the mounts", "move the root",
}  # fmt: skip
# Held only where the engine's computer refuses them to its own root: by its kernel, its capabilities, its own groups.
BY_THE_COMPUTER = {
    "read the disk", "write the disk", "disk in /dev", "disk in the data", "memory", "kcore", "io ports", "sysrq",
    "sysrq, remounted", "sysrq, mounted anew", "sysrq in another namespace", "uevent_helper",
    "uevent_helper, mounted anew", "sysfs", "release_agent of memory", "release_agent of pids", "release_agent of rdma",
    "release_agent of none,name=new", "release_agent in place", "load a module", "load a module from memory",
    "another kernel", "swap", "the kernel's cryptography", "more memory", "the groups above", "kvm", "loop device",
    "loop control", "kernel log", "all devices", "allow devices", "more processes", "more processors",
}  # fmt: skip
# All others are not held.
NOT_HELD = {
    *(attack.name for attack in ATTACKS if attack.name.startswith("sysctl ")),
    "sysfs, mounted anew", "power", "a module's parameter", "switch a processor on", "look for devices", "debugfs",
    "tracefs", "securityfs", "date", "clock_settime", "settimeofday", "adjtimex", "perf of all",
    "a program in the kernel", "mount the disk", "a port of the computer", "a socket of that kind",
    "the kernel's log by a call",
}  # fmt: skip
# System calls that reach the kernel, of those that a machine of 'runc' is refused.
REACHED = ("io_uring_setup", "userfaultfd", "keyctl", "perf_event_open", "socket of the computer's ports")


@pytest.fixture(scope="module")
def privileged(users_engine: Dockerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with users_engine.at_home(), ExitStack() as stack:
        run = Run.begin(root=tmp_path_factory.mktemp("state"))
        stack.callback(run.end)
        lab = stack.enter_context(Lab(store=run.lab_store(new_id()), registry=Registry(), run=run.id))
        (machine,) = lab.create(by_docker.spec("hostile", host=users_engine.url))
        # It may take any device, by its own group's rules: which of them Docker opened at first differs.
        machine.run("sh", "-c", "echo a >/sys/fs/cgroup/devices/devices.allow", check=False)
        yield machine


@pytest.mark.parametrize("attack", [pytest.param(a, id=a.name, marks=a.marks) for a in ATTACKS])
def test_root_in_a_machine_of_docker(privileged: Machine, users_engine: Dockerd, attack: Attack) -> None:
    if attack.needs and not Path(attack.needs).exists():
        pytest.skip(f"this host has no {attack.needs}")
    before = test_escape._observed()
    tried = privileged.run("unshare", "-m", "timeout", "10", "bash", "-c", attack.script, check=False, timeout=60)
    assert tried.returncode != 255
    if attack.name in HELD:
        assert tried.returncode != 0, f"it is not held: {tried.stdout}"
    elif attack.name in NOT_HELD:
        assert tried.returncode == 0, f"it is held, and docs/security.md says otherwise: {tried.stderr}"
    assert test_escape._observed() == before, "no attempt leaves anything, whether it succeeds or not"


def test_each_attempt_is_spoken_of() -> None:
    assert sorted([*HELD, *BY_THE_COMPUTER, *NOT_HELD]) == sorted(attack.name for attack in ATTACKS)


@test_escape.x86_64
def test_system_calls_are_not_refused(privileged: Machine) -> None:
    for each in calls.REFUSED:
        if each.name in REACHED:
            answer = privileged.run("sh", "-c", each.command("x86_64"), check=False).returncode
            assert answer not in calls.REFUSALS, each.name
