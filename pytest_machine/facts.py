"""What a machine is, as it says itself: asked once, in one round trip.

Whoever makes a host of it decides by these facts alone, so that what is run can be known, and tested, without one.
"""

from __future__ import annotations

import re

from .connection import Connection
from .provisioner import Facts

INSTALLING = "/etc/docker/.pytest-machine.installing"
"""In the machine while Docker is being installed: with it, a daemon that is there may be half a one."""
_HERE = "pytest-machine:"
PRELUDE = f"export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH\necho {_HERE}\n"
"""How every script of ours begins: a login without a shell of its own does not find ``dockerd`` in Debian."""

_BOOT2DOCKER = "/var/lib/boot2docker/etc/docker"

# One `name=value` a line; os-release comes last, as it is. Written for every sh, busybox's and dash included.
_PROBE = f"""{PRELUDE}
echo arch="$(uname -m)"
if [ -d /run/systemd/system ]; then echo manager=systemd
elif [ "$(cat /proc/1/comm 2>/dev/null)" = machine-init ]; then echo manager=machine-init
elif [ -d /run/openrc ] || command -v openrc-run >/dev/null 2>&1; then echo manager=openrc
fi
if [ "$(id -u)" = 0 ]; then echo root=yes
elif ! said=$(sudo -n true 2>&1 </dev/null); then echo refused="$(echo "$said" | tail -n 1)"
fi
if command -v dockerd >/dev/null 2>&1; then echo engine="$(dockerd --version 2>&1 | tail -n 1)"; fi
if [ -e {INSTALLING} ]; then echo unfinished=yes; fi
echo os-release=
cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release 2>/dev/null || :
"""
_SECONDS = 60.0


def probe(connection: Connection) -> Facts:
    """Return what the machine is; raises what `connection` raises."""
    return read(spoken(connection.run("sh", "-c", _PROBE, timeout=_SECONDS).stdout))


def spoken(stdout: str) -> str:
    """Return what a script with our prelude printed, without what the user's own shell says to whoever logs in."""
    before, here, after = stdout.partition(f"{_HERE}\n")
    return after if here else before


def read(said: str) -> Facts:
    """Return the facts in what a machine said to the question that `probe` asks."""
    head, _, release = said.partition("os-release=\n")
    told = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
    os = os_release(release)
    name = os.get("ID", "").lower()
    version = re.search(r"version v?([^\s,]+)", told.get("engine", ""))
    return Facts(
        os=name,
        like=tuple(os.get("ID_LIKE", "").lower().split()),
        version=os.get("VERSION_ID", ""),
        codename=os.get("VERSION_CODENAME", ""),
        pretty=os.get("PRETTY_NAME") or os.get("NAME") or name,
        arch=told.get("arch", ""),
        manager="boot2docker" if name == "boot2docker" else told.get("manager", ""),
        root=told.get("root") == "yes",
        refused=told.get("refused", ""),
        engine=(version[1] if version else told["engine"][:40]) if "engine" in told else "",
        unfinished="unfinished" in told,
    )


def called(facts: Facts) -> str:
    """Return what Docker Machine calls those who work on such a machine: by system, and init where it says so."""
    name = facts.os or "an unknown system"
    return f"{name}({facts.manager})" if facts.os == "ubuntu" and facts.manager else name


def directory(facts: Facts) -> str:
    """Return where the daemon's settings are: boot2docker forgets what is not on its disk, and links it there."""
    return _BOOT2DOCKER if facts.manager == "boot2docker" else "/etc/docker"


def os_release(text: str) -> dict[str, str]:
    """Return the variables of an os-release file; lines that are none are passed over.

    Shells read the file and people write it: values may be in double or single quotes or in none, hold a ``=``, and
    escape what a shell would take for its own (os-release(5)).
    """
    found = {}
    for line in text.splitlines():
        name, assigned, value = line.strip().partition("=")
        if not assigned or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            continue
        quote = value[:1]
        if len(value) > 1 and quote in "\"'" and value.endswith(quote):
            value = value[1:-1]
        found[name] = value if quote == "'" else re.sub(r"\\([$\"'`\\])", r"\1", value)
    return found
