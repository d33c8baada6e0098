"""A hostile machine tries to get out: each attempt fails inside, and outside nothing has changed.

None of them would do lasting harm if it came through: a disk is opened and not written, a setting is set to what it
is, the clock to what it shows. So each has a proof that it *was* refused, and not that it did nothing: the command's
own return code, and where there is something to see, a look from outside.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_machine.lab import Lab
from pytest_machine.machine import Machine
from pytest_machine.owner import Run
from pytest_machine.plugins import Registry
from tests.real import calls
from tests.real.asked import spec

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are those of x86_64")

# Perl is in every Debian. Prints the error's name and returns 1 where the kernel refuses.
SYSCALL = 'my ($number, @words) = (%s); if (syscall($number, @words) < 0) { print "$!"; exit 1 } exit 0'


def call(number: int, *arguments: str) -> str:
    """Return the shell command that makes a system call."""
    return f"perl -e '{SYSCALL % ', '.join([str(number), *arguments])}'"


DOCKER_RUN = ("docker", "run", "--rm")


@dataclass(frozen=True)
class Attack:
    """One attempt: a shell script that succeeds if the attack does."""

    name: str
    script: str
    needs: str = ""
    """A file of this host without which there is nothing to attack."""
    marks: tuple[pytest.MarkDecorator, ...] = ()
    direct: bool = False
    """Whether it must fail in a machine without a user namespace, too."""


def _root_device() -> tuple[int, int]:
    """Return major and minor number of the disk that this host's root is on."""
    device = Path("/var/lib").stat().st_dev
    return os.major(device), os.minor(device)


def _set_again(path: str) -> str:
    """Return a script that writes a setting's own value back."""
    return f'v=$(cat {path}) && echo "$v" >{path}'


MAJOR, MINOR = _root_device() if sys.platform == "linux" else (0, 0)
# A process of the host: ourselves. A machine may have one of the same number, and that is its own to kill.
OUR_PID = os.getpid()
SYSCTLS = (
    "kernel/core_pattern", "kernel/panic", "kernel/threads-max", "kernel/randomize_va_space",
    "vm/swappiness", "vm/overcommit_memory", "fs/file-max", "net/core/somaxconn", "debug/exception-trace",
    "abi/vsyscall32",
)  # fmt: skip

ATTACKS = [
    # The host's disk and memory.
    Attack("read the disk", f"mknod /tmp/d b {MAJOR} {MINOR} && dd if=/tmp/d of=/dev/null bs=512 count=1", direct=True),
    Attack("write the disk", f"mknod /run/d b {MAJOR} {MINOR} && exec 3<>/run/d", direct=True),
    Attack("disk in /dev", f"mknod /dev/d b {MAJOR} {MINOR} && exec 3<>/dev/d", direct=True),
    Attack("disk in the data", f"mknod /var/lib/docker/d b {MAJOR} {MINOR} && exec 3<>/var/lib/docker/d", direct=True),
    Attack("loop device", "mknod /tmp/loop0 b 7 0 && exec 3<>/tmp/loop0", direct=True),
    Attack("loop control", "mknod /tmp/lc c 10 237 && exec 3<>/tmp/lc", direct=True),
    Attack("memory", "mknod /tmp/mem c 1 1 && exec 3<>/tmp/mem", direct=True),
    Attack("kernel log", "mknod /tmp/kmsg c 1 11 && exec 3<>/tmp/kmsg", direct=True),
    Attack("kvm", "mknod /tmp/kvm c 10 232 && exec 3<>/tmp/kvm", needs="/dev/kvm", direct=True),
    Attack("kcore", "dd if=/proc/kcore of=/dev/null count=1", needs="/proc/kcore", direct=True),
    Attack("io ports", call(172, "3"), marks=(x86_64,), direct=True),
    Attack("all devices", "mount -t devtmpfs x /mnt && ls /mnt/null"),
    Attack("allow devices", "echo a >/sys/fs/cgroup/devices/devices.allow", needs="/sys/fs/cgroup/devices"),
    # The kernel's levers.
    Attack("sysrq", "echo h >/proc/sysrq-trigger", needs="/proc/sysrq-trigger", direct=True),
    Attack(
        "sysrq, remounted", "mount -o remount,rw /proc; echo h >/proc/sysrq-trigger", needs="/proc/sysrq-trigger"
    ),
    Attack(
        "sysrq, mounted anew", "mount -t proc p /mnt && echo h >/mnt/sysrq-trigger", needs="/proc/sysrq-trigger"
    ),
    Attack(
        "sysrq in another namespace",
        "unshare -Urmpf sh -c 'mount -t proc p /mnt && echo h >/mnt/sysrq-trigger'",
        needs="/proc/sysrq-trigger",
    ),
    *(
        Attack(f"sysctl {name}", _set_again(f"/proc/sys/{name}"), needs=f"/proc/sys/{name}", direct=True)
        for name in SYSCTLS
        # A network namespace's own settings are the machine's.
        if not name.startswith("net/")
    ),
    *(
        Attack(
            f"sysctl {name}, {how}", f"{mount}; {_set_again(f'/mnt/sys/{name}')}", needs=f"/proc/sys/{name}"
        )
        for name in ("kernel/core_pattern", "vm/swappiness")
        for how, mount in {
            "mounted anew": "mount -t proc p /mnt",
            "bound": "mount --bind /proc /mnt && mount -o remount,bind,rw /mnt",
        }.items()
    ),
    Attack("uevent_helper", _set_again("/sys/kernel/uevent_helper"), needs="/sys/kernel/uevent_helper", direct=True),
    Attack(
        "uevent_helper, mounted anew",
        f"mount -t sysfs s /mnt; {_set_again('/mnt/kernel/uevent_helper')}",
        needs="/sys/kernel/uevent_helper",
    ),
    Attack("sysfs", f"mount -o remount,rw /sys; {_set_again('/sys/kernel/mm/transparent_hugepage/defrag')}"),
    Attack("sysfs, mounted anew", "mount -t sysfs s /mnt && echo 0 >/mnt/kernel/mm/ksm/run"),
    Attack("power", "echo on >/sys/power/state; test -w /sys/power/state", needs="/sys/power/state", direct=True),
    Attack(
        "a module's parameter",
        _set_again("/sys/module/firmware_class/parameters/path"),
        needs="/sys/module/firmware_class/parameters/path",
        direct=True,
    ),
    Attack(
        "switch a processor on",  # which it is
        "echo 1 >/sys/devices/system/cpu/cpu1/online",
        needs="/sys/devices/system/cpu/cpu1/online",
        direct=True,
    ),
    Attack("look for devices", "echo 1 >/sys/bus/cpu/drivers_autoprobe", needs="/sys/bus/cpu", direct=True),
    *(
        Attack(f"release_agent of {name}", f"mount -t cgroup -o {name} x /mnt && echo /x >/mnt/release_agent")
        for name in ("memory", "pids", "rdma", "none,name=new")
    ),
    Attack(
        "release_agent in place",
        "echo /x >/sys/fs/cgroup/memory/release_agent",
        needs="/sys/fs/cgroup/memory/release_agent",
    ),
    Attack("debugfs", "mount -t debugfs x /mnt"),
    Attack("tracefs", "mount -t tracefs x /mnt"),
    Attack("securityfs", "mount -t securityfs x /mnt"),
    Attack(
        "load a module",
        "touch /tmp/m.ko; exec 3</tmp/m.ko; " + call(313, "3", 'pack("x64")', "0"),
        marks=(x86_64,),
        direct=True,
    ),
    Attack("load a module from memory", call(175, 'pack("x64")', "64", 'pack("x64")'), marks=(x86_64,), direct=True),
    Attack("another kernel", call(246, "0", "0", "0", "0"), marks=(x86_64,), direct=True),
    Attack("swap", "truncate -s 1m /tmp/swap; " + call(167, 'pack("Z*", "/tmp/swap")', "0"), marks=(x86_64,)),
    # The clock: set to what it shows.
    Attack("date", 'date -s "@$(date +%s)"', direct=True),
    Attack("clock_settime", call(227, "0", 'pack("qq", time, 0)'), marks=(x86_64,), direct=True),
    Attack("settimeofday", call(164, 'pack("qq", time, 0)', "0"), marks=(x86_64,), direct=True),
    # ADJ_TICK with 10000, which it is.
    Attack("adjtimex", call(159, 'pack("l!26", 0x4000, (0) x 10, 10000, (0) x 14)'), marks=(x86_64,), direct=True),
    # The host's processes and whatever belongs to it.
    Attack("signal a host's process", f"! test -d /proc/{OUR_PID} && kill -0 {OUR_PID}"),
    Attack("kill a host's process", f"! test -d /proc/{OUR_PID} && kill -9 {OUR_PID}"),
    Attack(
        "trace a host's process",
        f"! test -d /proc/{OUR_PID} && " + call(101, "16", str(OUR_PID), "0", "0"),
        marks=(x86_64,),
    ),
    Attack("memory of a host's process", f"! test -d /proc/{OUR_PID} && cat /proc/{OUR_PID}/environ"),
    Attack("the host's namespaces", f"! test -d /proc/{OUR_PID} && nsenter -t {OUR_PID} -m -p true"),
    Attack("the host's first process", "test $(cat /proc/1/comm) != machine-init && nsenter -t 1 -m ls /work"),
    # A counter of every process on the first processor; a host may allow that to everybody.
    Attack(
        "perf of all",
        "(($(cat /proc/sys/kernel/perf_event_paranoid) > 0)) && "
        + call(298, 'pack("LLx104", 1, 112)', "-1", "0", "-1", "0"),
        marks=(x86_64,),
    ),
    # BPF_PROG_LOAD of a kprobe that does nothing: two instructions, `r0 = 0; exit`.
    Attack(
        "a program in the kernel",
        "perl -e '$i = pack(\"CCsl\" x 2, 0xb7, 0, 0, 0, 0x95, 0, 0, 0); $l = \"GPL\\0\";"
        " $a = pack(\"LLppx96\", 2, 2, $i, $l);"
        " exit(syscall(321, 5, $a, 120) < 0 ? 1 : 0)'",
        marks=(x86_64,),
    ),
    # Ports of the whole computer, for virtual machines' conversations: no network namespace holds them.
    Attack(
        "a port of the computer",
        "perl -e 'exit(socket(S, 40, 1, 0) && bind(S, pack(\"SSLLx4\", 40, 0, 54321, 0xffffffff)) && listen(S, 1)"
        " ? 0 : 1)'",
        direct=True,
    ),
    Attack("a socket of that kind", "perl -e 'exit(socket(S, 40, 1, 0) || socket(S, 40, 2, 0) ? 0 : 1)'", direct=True),
    Attack("the kernel's cryptography", "perl -e 'exit(socket(S, 38, 5, 0) ? 0 : 1)'", direct=True),
    Attack("the kernel's log by a call", call(103, "3", '" " x 4096', "4096"), marks=(x86_64,), direct=True),
    # Other machines' files, and the folders that ours come from.
    Attack("the host's folders", "ls /var/lib/pytest-machine || ls /run/pytest-machine"),
    Attack("up and out", "ls /../../../../var/lib/pytest-machine || ls /proc/1/root/../var/lib/pytest-machine"),
    Attack(
        "up and out by chroot",
        "mkdir -p /tmp/jail && perl -e 'opendir(D,\"/\"); chroot \"/tmp/jail\"; chdir \"..\" for 1..99; chroot \".\";"
        " exit(-d \"/var/lib/pytest-machine\" ? 0 : 1)'",
        direct=True,
    ),
    Attack(
        "layers from their place on the host",
        "mkdir -p /run/u /run/w && mount -t overlay o -o"
        " lowerdir=/run/pytest-machine/runc/machines,upperdir=/run/u,workdir=/run/w /mnt",
    ),
    Attack(
        "layers from where overlay says",
        "d=$(sed -n 's/.*upperdir=\\([^,]*\\).*/\\1/p' /proc/mounts | head -1); ls \"$d/..\"",
    ),
    Attack("mount the disk", f"mknod /tmp/r b {MAJOR} {MINOR} && mount -t ext4 /tmp/r /mnt", direct=True),
    Attack("below the mounts", "umount -l /proc /sys /dev/shm /run; ls /var/lib/pytest-machine"),
    Attack("move the root", "mkdir -p /mnt/old; mount --move / /mnt || pivot_root . /mnt/old"),
    # What a machine may not have more of.
    Attack("more memory", "echo 99g >/sys/fs/cgroup/memory/memory.limit_in_bytes", needs="/sys/fs/cgroup/memory"),
    Attack("more processes", "echo max >/sys/fs/cgroup/pids/pids.max", needs="/sys/fs/cgroup/pids"),
    Attack("more processors", "echo -1 >/sys/fs/cgroup/cpu/cpu.cfs_quota_us", needs="/sys/fs/cgroup/cpu"),
    Attack("the groups above", "mount -t cgroup -o memory x /mnt; ls -d /mnt/pytest-machine /mnt/../pytest-machine"),
]  # fmt: skip


# Those that may be tried on this host itself, to see that the scripts are right.
HARMLESS = {
    "mount the disk", "kernel log", "sysctl vm/swappiness", "sysctl kernel/core_pattern", "tracefs",
    "a program in the kernel", "perf of all", "all devices", "adjtimex",
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile(module_lab: Lab) -> Machine:
    """Whose root is an enemy; beside it 'plain', without a user namespace, and 'victim'."""
    made = module_lab.create(
        spec("hostile", memory="400m", pids=400, disk="300m"),
        spec("plain", memory="400m", userns=False),
        spec("victim"),
    )
    module_lab["victim"].put(b"secret", "/srv/secret", mode=0o600)
    return made[0]


@pytest.fixture
def plain(hostile: Machine, module_lab: Lab) -> Machine:
    return module_lab["plain"]


@pytest.fixture
def victim(hostile: Machine, module_lab: Lab) -> Machine:
    return module_lab["victim"]


def _observed() -> dict[str, str]:
    """Return what an attack would change of this host."""
    files = [Path("/proc/sys", name) for name in SYSCTLS]
    files += [Path("/sys/kernel/uevent_helper"), *Path("/sys/fs/cgroup").glob("*/release_agent")]
    return {str(path): path.read_text() for path in files if path.exists()} | {
        "swap": Path("/proc/swaps").read_text(),
        "host name": platform.node(),
    }


def _clock() -> float:
    return time.time() - time.monotonic()


def _raw(number: int, *arguments: object) -> int:
    done: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)
    return done


@pytest.fixture(autouse=True)
def unharmed(victim: Machine) -> Iterator[None]:
    """Whatever a test does: this host is as it was, and the machine beside goes on."""
    before, clock = _observed(), _clock()
    yield
    assert _observed() == before
    assert abs(_clock() - clock) < 5
    assert victim.run("cat", "/srv/secret", timeout=20).stdout == "secret"


def _attempt(machine: Machine, attack: Attack) -> None:
    if attack.needs and not Path(attack.needs).exists():
        pytest.skip(f"this host has no {attack.needs}")
    # In mounts of its own: what one attempt takes away, the next may need.
    tried = machine.run("unshare", "-m", "timeout", "10", "bash", "-c", attack.script, check=False, timeout=60)
    assert tried.returncode not in (0, 255), f"'{attack.name}' succeeded: {tried.stdout}{tried.stderr}"


@pytest.mark.parametrize("attack", [pytest.param(a, id=a.name, marks=a.marks) for a in ATTACKS])
def test_root_in_a_machine(hostile: Machine, attack: Attack) -> None:
    _attempt(hostile, attack)


@pytest.mark.parametrize("attack", [pytest.param(a, id=a.name, marks=a.marks) for a in ATTACKS if a.direct])
def test_root_without_a_user_namespace(plain: Machine, attack: Attack) -> None:
    _attempt(plain, attack)


def test_the_attempts_can_succeed(tmp_path: Path) -> None:
    """The scripts are right: on this host, whose root has the rights, harmless ones of them come through."""
    for attack in ATTACKS:
        if attack.name in HARMLESS and (not attack.needs or Path(attack.needs).exists()):
            script = attack.script.replace("/tmp/", f"{tmp_path}/")
            tried = subprocess.run(["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, check=False)
            assert tried.returncode == 0, f"'{attack.name}': {tried.stdout}{tried.stderr}"


@x86_64
@pytest.mark.parametrize("abi", calls.ABIS)
@pytest.mark.parametrize("which", ["hostile", "plain"])
def test_system_calls_that_are_refused(module_lab: Lab, hostile: Machine, which: str, abi: str, tmp_path: Path) -> None:
    """Each is refused before the kernel looks at its arguments, by all ways that a program of this processor has."""
    if not calls.works_here(abi, tmp_path):
        pytest.skip(f"this kernel runs no program of the kind {abi}")
    tried = [each for each in calls.REFUSED if which == "hostile" or each.name != "bpf"]
    script = "; ".join(
        f"{{ {command}; }} >/dev/null 2>&1; echo {number} $?"
        for number, each in enumerate(tried)
        if (command := each.command(abi))
    )
    said = module_lab[which].run("bash", "-c", script, timeout=120).stdout.split()
    answers = {tried[int(number)].name: int(code) for number, code in zip(said[::2], said[1::2], strict=True)}
    assert len(answers) > 30
    assert {name: code for name, code in answers.items() if code not in calls.REFUSALS} == {}


@x86_64
@pytest.mark.parametrize("name", ["hostile", "plain"])
def test_files_by_their_handle(hostile: Machine, module_lab: Lab, name: str) -> None:
    """The data directory lies on the host's own disk, and a handle names any file of a disk."""

    class Handle(ctypes.Structure):
        _fields_ = (("size", ctypes.c_uint), ("kind", ctypes.c_int), ("body", ctypes.c_char * 128))

    handle = Handle(128, 0)
    tag = f"/var/lib/pytest-machine/runc/machines/{module_lab[name].id}/tag.json".encode()
    assert _raw(303, -100, tag, ctypes.byref(handle), ctypes.byref(ctypes.c_int()), 0) == 0
    packed = bytes(handle)[: 8 + handle.size].hex()
    for folder in ("/var/lib/docker", "/", "/etc", "/usr"):
        script = f"exec 3<{folder}; " + call(304, "3", f'pack("H*", "{packed}")', "0")
        _attempt(module_lab[name], Attack("by handle", script))


@x86_64
@pytest.mark.skipif(not Path("/proc/keys").exists(), reason="this kernel keeps no keys")
@pytest.mark.parametrize("userns", [True, False])
def test_keys_of_whoever_made_it(run: Run, registry: Registry, userns: bool) -> None:
    """Kerberos tickets and disk keys lie in the keyring of the session: it is not handed on."""
    made: list[str] = []

    def make() -> None:
        # A thread has a session keyring of its own, and the processes that it starts inherit it.
        assert _raw(250, 1, None) > 0
        key = _raw(248, b"user", b"pytest-machine", b"secret", 6, -3)
        assert key > 0
        with Lab(store=run.lab_store("keys"), registry=registry, run=run.id) as lab:
            (machine,) = lab.create(spec("keys", userns=userns))
            # Its first process sources this file: nobody there is nearer to our keyring.
            read = call(250, "11", str(key), '" " x 64', "64")
            machine.put(f"{read} >/run/key 2>&1; echo $? >>/run/key\n".encode(), "/etc/docker/machine.env")
            machine.run("service", "docker", "restart", timeout=60)
            made.append(machine.run("cat", "/run/key").stdout)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert made == ["Function not implemented1\n"]


def test_a_container_that_is_allowed_all(hostile: Machine, busybox: Callable[..., str]) -> None:
    """Everything that Docker can give away, as `--privileged` does where the host has every capability itself."""
    image = busybox(hostile)
    tried = {
        "disk": f"chroot /host mknod /tmp/d b {MAJOR} {MINOR}",
        "core_pattern": "chroot /host sh -c 'echo core >/proc/sys/kernel/core_pattern'",
        "folders": "ls -d /host/var/lib/pytest-machine /host/run/pytest-machine",
        "release_agent": "chroot /host sh -c 'mount -t cgroup -o memory x /mnt; echo /x >/mnt/release_agent'",
        "the clock": "chroot /host /bin/date -s @$(date +%s)",
        "a port of the computer": "chroot /host /usr/bin/perl -e 'exit(socket(S, 40, 1, 0) ? 0 : 1)'",
    }
    script = "; ".join(f"{{ {attack}; }} >/dev/null 2>&1 && echo '{name}'" for name, attack in tried.items())
    said = hostile.docker.containers.run(
        image,
        ["sh", "-c", f"{script}; chroot /host cat /etc/hostname"],
        remove=True,
        cap_add=["SYS_ADMIN", "SYS_CHROOT", "MKNOD", "SYS_TIME", "SYS_PTRACE", "DAC_READ_SEARCH", "SYS_MODULE"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        volumes=["/:/host"],
        pid_mode="host",
        network_mode="host",
        userns_mode="host",
        ipc_mode="host",
    )
    # The machine's own root is all that it got.
    assert said == b"hostile\n"
    privileged = [*DOCKER_RUN, "--privileged", "-v", "/:/host", image, "sh", "-c", tried["core_pattern"]]
    assert hostile.run(*privileged, check=False).returncode not in (0, 255)


def test_containers_run_without_a_user_namespace(plain: Machine, busybox: Callable[..., str]) -> None:
    """What it is not allowed does not keep Docker from its work."""
    image = busybox(plain)
    assert plain.docker.containers.run(image, ["echo", "hello"], remove=True) == b"hello\n"
