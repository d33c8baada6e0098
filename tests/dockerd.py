"""A user's own Docker engine, for tests of what works inside it: a real dockerd, private in all that it has.

Its programs are the machine image's own; its network, mounts and processes are new namespaces, its data and its socket
lie in a directory of the test's. So it harms nobody's firewall, and all in it is ours. It is looked at from two places:

`at_home`      on the computer that the engine is on: a Unix socket, and containers' addresses can be reached
`elsewhere`    on another one: TCP with TLS, and nothing of the engine's containers is reached but published ports
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pytest_machine.certs import Authority
from pytest_machine.images import ensure

IP = "192.0.2.2"
"""The engine's host, as the other computer knows it."""

# PID 1 of the namespaces is a shell, which buries whoever is orphaned there. The image is seen through an overlay.
_SETUP = r"""
set -e
mount -t tmpfs -o mode=755 private "$HOME_OF_IT/layers"
mkdir "$HOME_OF_IT/layers/upper" "$HOME_OF_IT/layers/work" "$HOME_OF_IT/layers/root"
root=$HOME_OF_IT/layers/root
mount -t overlay -o "lowerdir=$TREE,upperdir=$HOME_OF_IT/layers/upper,workdir=$HOME_OF_IT/layers/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir "$root/run/shared"
mount --bind "$HOME_OF_IT/shared" "$root/run/shared"
mkdir -p "$root/var/lib/docker"
mount --bind "$HOME_OF_IT/data" "$root/var/lib/docker"
echo "nameserver 192.0.2.1" >"$root/etc/resolv.conf"
cd "$root"
pivot_root . mnt
umount -l /mnt
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
unshare --net sleep infinity &
other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/1/ns/net)" ]; do sleep 0.01; done
ip link set lo up
ip link add other0 type veth peer name eth0 netns $other
ip addr add 192.0.2.2/30 dev other0
ip link set other0 up
nsenter --net=/proc/$other/ns/net ip addr add 192.0.2.1/30 dev eth0
nsenter --net=/proc/$other/ns/net ip link set eth0 up
nsenter --net=/proc/$other/ns/net ip link set lo up
echo $other >/run/shared/other
dockerd --host unix:///run/shared/docker.sock --host tcp://192.0.2.2:2376 --cgroup-parent "$GROUP" \
    --tlsverify --tlscacert /run/shared/ca.pem --tlscert /run/shared/server.pem --tlskey /run/shared/server-key.pem \
    --group root $ARGUMENTS >/run/shared/dockerd.log 2>&1 &
wait $!
"""


_WITH_US = ("setpriv", "--pdeathsig", "KILL")

# A name server on the other computer that knows no name: Docker's own leaves those without an answer who ask for one
# while there is none, and they wait for twenty seconds.
_NAMES = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("192.0.2.1", 53))
while True:
    asked, who = server.recvfrom(4096)
    question = asked[12 : asked.index(0, 12) + 5]
    server.sendto(asked[:2] + bytes([0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0]) + question, who)
"""


@dataclass(frozen=True)
class Dockerd:
    """An engine that runs."""

    home: Path
    pid: int
    """PID 1 of its namespaces, as this host counts."""
    other: int
    """A process on the other computer."""

    @property
    def socket(self) -> Path:
        return self.home / "shared" / "docker.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def certs(self) -> Path:
        """A client's ca.pem, cert.pem and key.pem."""
        return self.home / "certs"

    def at_home(self) -> contextlib.AbstractContextManager[None]:
        """Be on the engine's own computer, as far as the network goes: this thread, and what it starts."""
        return _network_of(self.pid)

    def elsewhere(self) -> contextlib.AbstractContextManager[None]:
        """Be on the other computer."""
        return _network_of(self.other)

    def ask(self, path: str, method: str = "GET", **filters: object) -> Any:
        """Return the engine's own answer, by nobody's client."""
        if filters:
            path += f"{'&' if '?' in path else '?'}filters={quote(json.dumps(filters))}"
        connection = _Unix(str(self.socket))
        try:
            connection.request(method, path)
            body = connection.getresponse().read()
        finally:
            connection.close()
        return json.loads(body) if body.strip() else None

    def things(self) -> set[str]:
        """Return every container, volume and network that there is, but for those that every engine has."""
        found = {
            f"container {each['Names'][0]} {sorted(each['Labels'].items())}"
            for each in self.ask("/containers/json?all=1")
        }
        found |= {
            f"volume {each['Name']} {sorted((each['Labels'] or {}).items())}"
            for each in self.ask("/volumes")["Volumes"] or ()
        }
        return found | {
            f"network {each['Name']} {each['Id']} {sorted(each['Labels'].items())}"
            for each in self.ask("/networks")
            if each["Name"] not in ("bridge", "host", "none")
        }


@contextlib.contextmanager
def running(home: Path, *, arguments: str = "", tree: Path | None = None) -> Iterator[Dockerd]:
    """Run an engine whose files are in `home`, which is on a real disk, and end it, whatever happens."""
    for name in ("layers", "shared", "data"):
        (home / name).mkdir()
    authority = Authority.ensure(home / "certs")
    pair = authority.issue_server(name="engine", hosts=[IP])
    for name, content in (("ca.pem", authority.ca), ("server.pem", pair.cert), ("server-key.pem", pair.key)):
        (home / "shared" / name).write_bytes(content)
    group = f"ptd{os.getpid()}-{home.name[-20:]}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME_OF_IT": str(home),
        "TREE": str(tree or ensure().path),
        "GROUP": f"/{group}",
        "ARGUMENTS": arguments,
    }
    # With us ends all of it, also when we are killed.
    argv = [
        *_WITH_US,
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
        "--propagation",
        "private",
        "sh",
        "-c",
        _SETUP,
    ]
    with (home / "setup.log").open("wb") as log:
        process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        made = _answering(process, home)
        with made.elsewhere():
            names = subprocess.Popen([*_WITH_US, sys.executable, "-c", _NAMES], stdin=subprocess.DEVNULL)
        try:
            yield made
        finally:
            names.kill()
            names.wait()
    finally:
        process.kill()
        process.wait()
        _clear(group, home)


def _answering(process: subprocess.Popen[bytes], home: Path) -> Dockerd:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, IndexError, http.client.HTTPException):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            inside = int((home / "shared" / "other").read_text())
            made = Dockerd(home, int(children[0]), _outside(int(children[0]), inside))
            made.ask("/version")
            return made
        time.sleep(0.02)
    said = [(home / name).read_text() for name in ("setup.log", "shared/dockerd.log") if (home / name).exists()]
    raise RuntimeError(f"the private dockerd does not answer:\n{''.join(said)[-3000:]}")


def _outside(init: int, inside: int) -> int:
    """Return the pid, as this host counts, of a child of `init` that counts as `inside` itself."""
    for child in Path(f"/proc/{init}/task/{init}/children").read_text().split():
        line = next(line for line in Path(f"/proc/{child}/status").read_text().splitlines() if line.startswith("NSpid"))
        if int(line.split()[-1]) == inside:
            return int(child)
    raise ValueError(inside)


def _clear(group: str, home: Path) -> None:
    """Remove what a dockerd that was killed leaves: control groups without processes, and files."""
    until = time.monotonic() + 10
    for top in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        while (top / group).exists() and time.monotonic() < until:
            for place, folders, _ in os.walk(top / group, topdown=False):
                for path in (*(Path(place, folder) for folder in folders), Path(place)):
                    with contextlib.suppress(OSError):
                        path.rmdir()
            time.sleep(0.02)
    shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _network_of(pid: int) -> Iterator[None]:
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(back)
        os.close(there)
        os.close(back)


def _enter(descriptor: int) -> None:
    # os.setns came with Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
