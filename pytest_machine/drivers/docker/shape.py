"""The configuration of a machine's container: a pure function of a few values, with golden files in ``tests/rendered``.

Two shapes. A privileged container has all that a machine needs. Where the engine cannot make one, because its computer
itself lacks a capability that Docker would hand on, the other has the same piece by piece: all capabilities but those,
all devices, nothing masked; `boot` then mounts read-write what Docker has mounted read-only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_machine.model import Address

BOOT = "/usr/sbin/machine-boot"
"""The program that a machine's container begins with: this package's file ``boot``."""

NEW = ("PERFMON", "BPF", "CHECKPOINT_RESTORE")
"""Capabilities of Linux 5.8 and 5.9: an engine may be older, and then refuses to hear of them."""
CAPABILITIES = (  # in the order of their bits, see capabilities(7)
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What differs between two machines."""

    image: str
    volume: str
    network: str
    """The engine's network that it is born on."""
    address: Address
    labels: Mapping[str, str]
    memory: int
    cpus: float | None = None
    pids: int = 0
    publish: str = ""
    """The engine's address that its ports are published at; empty: they are not."""
    alias: str = ""
    """A name by which others on its network find it, besides its container's."""
    lacking: Sequence[str] | None = None
    """The capabilities that the engine's computer cannot give; None: the container is privileged."""

    def config(self) -> dict[str, object]:
        """Return the body of a request to create the container, as Docker's API 1.41 has it."""
        ports = {"22/tcp": self.address.ssh_port, "2376/tcp": self.address.engine_port} if self.publish else {}
        endpoint: dict[str, object] = {"IPAMConfig": {"IPv4Address": self.address.among}}
        if self.alias:
            endpoint["Aliases"] = [self.alias]
        return {
            "Image": self.image,
            "Entrypoint": [BOOT],
            # With `container` set, Docker inside does not load an AppArmor profile of its own into the host's kernel.
            "Env": [f"MACHINE_ADDRESS={self.address.among}", "container=pytest-machine"],
            "Labels": dict(self.labels),
            "ExposedPorts": {port: {} for port in ports},
            "NetworkingConfig": {"EndpointsConfig": {self.network: endpoint}},
            "HostConfig": {
                **self._rights(),
                **self._limits(),
                # Its own control groups, as a host has them; on version 1 Docker's default is the engine's.
                "CgroupnsMode": "private",
                "NetworkMode": self.network,
                "PortBindings": {
                    port: [{"HostIp": self.publish, "HostPort": str(number)}] for port, number in ports.items()
                },
                # Labelled here too: should it be made anew, by a request that outlived its claim, it can be found.
                "Mounts": [
                    {
                        "Type": "volume",
                        "Source": self.volume,
                        "Target": "/var/lib/docker",
                        "VolumeOptions": {"NoCopy": True, "Labels": dict(self.labels)},
                    }
                ],
                # After a kill, an old docker.pid in /run would keep dockerd from starting: it must not outlive a boot.
                "Tmpfs": {"/run": f"rw,exec,nosuid,nodev,mode=755,size={self.memory // 4}"},
                # The engine may be set to keep logs where they cannot be read back.
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
                "RestartPolicy": {"Name": "no"},
                "Init": False,
            },
        }

    def _rights(self) -> dict[str, object]:
        if self.lacking is None:
            return {"Privileged": True}
        return {
            "CapAdd": ["ALL"],
            "CapDrop": list(self.lacking),
            "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined", "label=disable"],
            "DeviceCgroupRules": ["a *:* rwm"],
            "MaskedPaths": [],
            "ReadonlyPaths": [],
        }

    def _limits(self) -> dict[str, object]:
        found: dict[str, object] = {"Memory": self.memory, "MemorySwap": self.memory, "ShmSize": self.memory // 4}
        if self.cpus is not None:
            found["NanoCpus"] = int(self.cpus * 1e9)
        if self.pids:
            found["PidsLimit"] = self.pids
        return found


def lacking(bounding: int) -> list[str]:
    """Return the names of those that are not in a mask such as ``CapBnd`` in ``/proc/1/status``."""
    return [name for bit, name in enumerate(CAPABILITIES) if not bounding >> bit & 1]
