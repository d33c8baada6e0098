"""Systems, as they say themselves what they are, and how their packages start Docker.

``os-release`` and ``docker.service`` are those of the distributions, shortened; see docs/provisioning.md.
"""

from __future__ import annotations

from pytest_machine.facts import read
from pytest_machine.provisioner import Facts

# System: who starts its services | PRETTY_NAME | ID | ID_LIKE | VERSION_ID
_TABLE = """
debian-12: systemd | Debian GNU/Linux 12 (bookworm) | debian | | 12
debian-sid: machine-init | Debian GNU/Linux forky/sid | debian | |
ubuntu-24.04: systemd | Ubuntu 24.04.1 LTS | ubuntu | debian | 24.04
mint-22: systemd | Linux Mint 22 | linuxmint | ubuntu debian | 22
raspbian-11: systemd | Raspbian GNU/Linux 11 (bullseye) | raspbian | debian | 11
fedora-41: systemd | Fedora Linux 41 (Server Edition) | fedora | | 41
rhel-9: systemd | Red Hat Enterprise Linux 9.4 (Plow) | rhel | fedora | 9.4
rocky-9: systemd | Rocky Linux 9.4 (Blue Onyx) | rocky | rhel centos fedora | 9.4
alma-9: systemd | AlmaLinux 9.4 (Seafoam Ocelot) | almalinux | rhel centos fedora | 9.4
centos-7: systemd | CentOS Linux 7 (Core) | centos | rhel fedora | 7
oracle-7: systemd | Oracle Linux Server 7.9 | ol | fedora | 7.9
oracle-9: systemd | Oracle Linux Server 9.4 | ol | fedora | 9.4
amazon-2: systemd | Amazon Linux 2 | amzn | centos rhel fedora | 2
amazon-2023: systemd | Amazon Linux 2023 | amzn | fedora | 2023
opensuse-15.6: systemd | openSUSE Leap 15.6 | opensuse-leap | suse opensuse | 15.6
sles-15.6: systemd | SUSE Linux Enterprise Server 15 SP6 | sles | suse | 15.6
arch: systemd | Arch Linux | arch | |
manjaro: systemd | Manjaro Linux | manjaro | arch |
alpine-3.20: openrc | Alpine Linux v3.20 | alpine | | 3.20.3
flatcar: systemd | Flatcar Container Linux by Kinvolk 3975.2.2 (Oklo) | flatcar | coreos | 3975.2.2
boot2docker: | Boot2Docker 19.03.12 (TCL 10.1) | boot2docker | tcl | 19.03.12
"""


def _release(line: str) -> tuple[str, str]:
    manager, *values = (part.strip() for part in line.split("|"))
    names = ("PRETTY_NAME", "ID", "ID_LIKE", "VERSION_ID")
    return "".join(f'{name}="{value}"\n' for name, value in zip(names, values, strict=True) if value), manager


OS_RELEASE = {
    system: _release(rest) for system, _, rest in (line.partition(":") for line in _TABLE.strip().splitlines())
}
"""System → its os-release, and who starts its services."""

# Whose packages start it how. What is longer than a line is so in the unit, too.
UNITS = {
    "debian": "[Service]\nType=notify\nEnvironmentFile=-/etc/default/docker\n"
    "ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS\n",
    "fedora": "[Service]\nType=notify\nEnvironmentFile=-/etc/sysconfig/docker\n"
    "ExecStart=/usr/bin/dockerd \\\n          --host=fd:// \\\n          --exec-opt native.cgroupdriver=systemd \\\n"
    "          $OPTIONS\n",
    "makers": "[Service]\nType=notify\n"
    "ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock\n",
    "amazon": "[Service]\nType=notify\nEnvironmentFile=-/etc/sysconfig/docker\n"
    "ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $OPTIONS $DOCKER_STORAGE_OPTIONS"
    " $DOCKER_ADD_RUNTIMES\n",
    "suse": "[Service]\nType=notify\nEnvironmentFile=/etc/sysconfig/docker\n"
    "ExecStart=/usr/bin/dockerd --add-runtime oci=/usr/sbin/docker-runc $DOCKER_NETWORK_OPTIONS $DOCKER_OPTS\n",
    "flatcar": "[Service]\nType=notify\nEnvironmentFile=-/run/flannel/flannel_docker_opts.env\n"
    "Environment=DOCKER_SELINUX=--selinux-enabled=true\n"
    "ExecStart=/usr/bin/dockerd --host=fd:// --containerd=/run/containerd/containerd.sock $DOCKER_SELINUX $DOCKER_OPTS"
    " $DOCKER_CGROUPS\n",
}
_UNIT_OF = {
    **dict.fromkeys(("debian-12", "ubuntu-24.04", "mint-22", "raspbian-11"), "debian"),
    "fedora-41": "fedora",
    **dict.fromkeys(("amazon-2", "amazon-2023"), "amazon"),
    **dict.fromkeys(("opensuse-15.6", "sles-15.6"), "suse"),
    "flatcar": "flatcar",
}


def facts(system: str, **changes: object) -> Facts:
    """Return the facts of a system without Docker, but for those that bring one."""
    release, manager = OS_RELEASE[system]
    engine = "engine=Docker version 24.0.9, build x\n" if system in ("flatcar", "boot2docker") else ""
    found = read(f"arch=x86_64\nmanager={manager}\nroot=yes\n{engine}os-release=\n{release}")
    return Facts(**{**{name: getattr(found, name) for name in Facts.__slots__}, **changes})


def unit(system: str) -> str:
    """Return the ``docker.service`` of a system's packages."""
    return UNITS[_UNIT_OF.get(system, "makers")] if OS_RELEASE[system][1] == "systemd" else ""
