"""The OCI configuration of a machine: a pure function of a few values, with golden files in ``tests/rendered``.

Two shapes, both with a list of system calls (see `seccomp`). With a user namespace the machine has every capability
that this process has, because none of them counts outside. Nothing of ``/proc`` is masked then, because the kernel
mounts no ``/proc`` for a container inside a namespace in which some of it is hidden. Without one it keeps the
capabilities that a Docker engine cannot do without, and what could reach the host's kernel is masked or read-only:
enough against accidents, not against an attacker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_machine.images import INIT
from pytest_machine.model import Value
from pytest_machine.options import size

from . import seccomp
from .leases import UID_COUNT

# What a machine without a user namespace does not get: the host's modules, clock, raw hardware, kernel log and policy,
# and DAC_READ_SEARCH, which opens any file of the disk that /var/lib/docker lies on by its inode's number.
# AUDIT_WRITE is not among them: Docker gives it to every container.
_WITHHELD = frozenset(
    {
        "CAP_AUDIT_CONTROL",
        "CAP_AUDIT_READ",
        "CAP_BLOCK_SUSPEND",
        "CAP_CHECKPOINT_RESTORE",
        "CAP_DAC_READ_SEARCH",
        "CAP_LINUX_IMMUTABLE",
        "CAP_MAC_ADMIN",
        "CAP_MAC_OVERRIDE",
        "CAP_PERFMON",
        "CAP_SYSLOG",
        "CAP_SYS_BOOT",
        "CAP_SYS_MODULE",
        "CAP_SYS_PACCT",
        "CAP_SYS_RAWIO",
        "CAP_SYS_RESOURCE",
        "CAP_SYS_TIME",
        "CAP_WAKE_ALARM",
    }
)

_CAPABILITIES = (  # in the order of their bits, see capabilities(7)
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip

_MASKED = ("/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/latency_stats", "/proc/sched_debug", "/proc/timer_list")
# All of /proc/sys but `net`, which is the network namespace's own; and /sys, whose levers (modules' parameters, the
# processors, sleep, devices' drivers) are the host's. The control groups are a mount of their own there, and stay.
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger", "/proc/sys/abi", "/proc/sys/crypto",
              "/proc/sys/debug", "/proc/sys/dev", "/proc/sys/fs", "/proc/sys/kernel", "/proc/sys/sunrpc",
              "/proc/sys/user", "/proc/sys/vm", "/sys")  # fmt: skip


def memory(value: Value) -> int:
    """Return a limit in bytes with which a machine can boot; raises `ValueError` with the reason."""
    if (found := size(value)) < 32 << 20:
        raise ValueError("a machine with its Docker does not boot in less than '32m'")
    return found


def cores(value: Value) -> float:
    """Return a limit in cores; raises `ValueError` with the reason."""
    found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else 0.0
    # Of a period of 100 ms the kernel gives no less than 1 ms; more than it can count, no host has.
    if not 0.01 <= found <= 1_000_000:
        raise ValueError("it takes a number of cores, such as 1.5 (0.01 is the least)")
    return found


def capabilities(effective: int) -> list[str]:
    """Return the names behind a mask such as ``CapBnd`` in ``/proc/self/status``."""
    return [f"CAP_{name}" for bit, name in enumerate(_CAPABILITIES) if effective >> bit & 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What differs between two machines."""

    hostname: str
    root: Path
    docker: Path
    """The host's directory that becomes ``/var/lib/docker``."""
    holder: int
    """Pid of the process whose namespaces the machine joins."""
    uid: int | None
    """The host's id of the machine's root; None: no user namespace."""
    capabilities: tuple[str, ...]
    group: str
    """Path of the machine's control group."""
    cgroups: int
    """1 or 2."""
    architecture: str
    """The host's processor, as ``uname -m`` names it."""
    environment: tuple[str, ...] = ()
    layers: Path | None = None
    """A table of mounts (see fstab(5)) of images that it was born with; None: it was born without."""
    memory: int | None = None
    cpus: float | None = None
    pids: int = 0

    def config(self) -> dict[str, object]:
        """Return ``config.json`` as the OCI runtime specification has it."""
        kept = [c for c in self.capabilities if self.uid is not None or c not in _WITHHELD]
        linux: dict[str, object] = {
            "namespaces": self._namespaces(),
            "cgroupsPath": self.group,
            "resources": self._resources(),
            "maskedPaths": [] if self.uid is not None else list(_MASKED),
            "readonlyPaths": [] if self.uid is not None else list(_READ_ONLY),
        }
        linux["seccomp"] = seccomp.profile(self.architecture, userns=self.uid is not None)
        if self.uid is not None:
            mapping = [{"containerID": 0, "hostID": self.uid, "size": UID_COUNT}]
            linux |= {"uidMappings": mapping, "gidMappings": mapping}
        return {
            "ociVersion": "1.0.2",
            "hostname": self.hostname,
            "root": {"path": str(self.root)},
            "process": {
                "user": {"uid": 0, "gid": 0},
                "cwd": "/",
                "args": [INIT],
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *self.environment],
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), kept),
                # No rlimits: where we lack CAP_SYS_RESOURCE, asking for one fails, and ours are inherited anyway.
            },
            "mounts": self._mounts(),
            "linux": linux,
            **({"hooks": self._hooks()} if self.layers else {}),
        }

    def _namespaces(self) -> list[dict[str, str]]:
        joined = [{"type": "network", "path": f"/proc/{self.holder}/ns/net"}]
        if self.uid is not None:
            joined.append({"type": "user", "path": f"/proc/{self.holder}/ns/user"})
        return [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")] + joined

    def _hooks(self) -> dict[str, object]:
        # One program for all of them, in the machine's own mount namespace: runc takes 3 ms for each of its own mounts,
        # and what the host mounts beforehand, the machine's Docker could not unmount to remove an image.
        # Read-only as their source is, which the kernel does not let a user namespace undo.
        return {"createContainer": [{"path": "/bin/mount", "args": ["mount", "-T", str(self.layers), "-a"]}]}

    def _mounts(self) -> list[dict[str, object]]:
        def mount(target: str, kind: str, options: Iterable[str] = (), source: str = "") -> dict[str, object]:
            return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}

        # What is in them counts as memory: a full one must leave room for those who would empty it.
        quarter = f"size={self.memory // 4}" if self.memory else "size=25%"
        return [
            mount("/proc", "proc", ["nosuid", "nodev", "noexec"]),
            mount("/sys", "sysfs", ["nosuid", "nodev", "noexec"]),
            mount("/sys/fs/cgroup", "cgroup" if self.cgroups == 1 else "cgroup2", ["nosuid", "nodev", "noexec"]),
            mount("/dev", "tmpfs", ["nosuid", "noexec", "mode=755", "size=1m"]),
            mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", ["nosuid", "nodev", "mode=1777", quarter]),  # noqa: S108  # that is its name
            mount("/dev/mqueue", "mqueue", ["nosuid", "nodev", "noexec"]),
            # After a kill, an old docker.pid in /run would keep dockerd from starting: it must not outlive a boot.
            mount("/run", "tmpfs", ["nosuid", "nodev", "mode=755", quarter]),
            mount("/var/lib/docker", "bind", ["rbind", "rw"], str(self.docker)),
        ]

    def _resources(self) -> dict[str, object]:
        def device(kind: str, access: str, major: int | None = None, minor: int | None = None) -> dict[str, object]:
            rule: dict[str, object] = {"allow": True, "type": kind, "access": access}
            return rule | {k: v for k, v in (("major", major), ("minor", minor)) if v is not None}

        found: dict[str, object] = {
            # Every device node may be made (an image's layers hold some) and the harmless ones used; never a disk.
            "devices": [
                {"allow": False, "access": "rwm"},
                device("c", "m"),
                device("b", "m"),
                *(device("c", "rwm", 1, minor) for minor in (3, 5, 7, 8, 9)),  # null zero full random urandom
                *(device("c", "rwm", 5, minor) for minor in (0, 1, 2)),  # tty console ptmx
                device("c", "rwm", 136),  # pts
                device("c", "rwm", 10, 200),  # net/tun, which Docker's own list has too
                device("c", "rwm", 10, 229),  # fuse
            ]
        }
        if self.memory is not None:
            found["memory"] = {"limit": self.memory, "swap": self.memory}
        if self.cpus is not None:
            # 100 ms is the kernel's own default period.
            found["cpu"] = {"quota": int(self.cpus * 100_000), "period": 100_000}
        if self.pids:
            found["pids"] = {"limit": self.pids}
        return found
