"""A host that is reached through this one alone: what the outside is to machines that live here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

# Of TEST-NET-2 (RFC 5737), four addresses for each process that has one.
_NETWORK = "198.51.100"

_SERVER = """
import socket
s = socket.create_server(({ip!r}, 7))
print('up', flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b'from outside\\n')
    c.close()
"""


class Outside:
    """Says something to who asks at port 7; a context manager: its address."""

    def __init__(self) -> None:
        number = os.getpid() % 60
        self.namespace = f"outside-of-ptests-{number}"
        self._link = f"outside{number}"
        self._host, self.ip = (f"{_NETWORK}.{4 * number + last}" for last in (1, 2))

    def __enter__(self) -> str:
        _run("ip", "netns", "add", self.namespace)
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        _run("ip", "addr", "add", f"{self._host}/30", "dev", self._link)
        _run("ip", "link", "set", self._link, "up")
        for words in (f"addr add {self.ip}/30 dev eth0", "link set eth0 up", f"route add default via {self._host}"):
            _run("ip", "-n", self.namespace, *words.split())
        program = _SERVER.format(ip=self.ip)
        argv = ["ip", "netns", "exec", self.namespace, shutil.which("python3") or sys.executable, "-c", program]
        self._server = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"up\n"
        return self.ip

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()
        _run("ip", "link", "delete", self._link)
        _run("ip", "netns", "delete", self.namespace)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
