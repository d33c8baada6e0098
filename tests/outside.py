"""A host that is reached through this one alone: what the outside is to machines that live here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

# Of TEST-NET-2 (RFC 5737), four addresses for each that there is.
_NETWORK = "198.51.100"
_MOST = 60

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

    def __enter__(self) -> str:
        first = os.getpid()
        number = next(number for number in range(first, first + _MOST) if self._took(number % _MOST)) % _MOST
        self._host, self.ip = (f"{_NETWORK}.{4 * number + last}" for last in (1, 2))
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

    def _took(self, number: int) -> bool:
        """Make the namespace and its link, unless somebody has those of that number, or was killed with them."""
        self.namespace, self._link = f"outside-of-ptests-{number}", f"outside{number}"
        if not _made("ip", "netns", "add", self.namespace):
            return False
        peer = ("type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        if _made("ip", "link", "add", self._link, *peer):
            return True
        _run("ip", "netns", "delete", self.namespace)
        return False

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()
        _run("ip", "link", "delete", self._link)
        _run("ip", "netns", "delete", self.namespace)


def _made(*argv: str) -> bool:
    """Make something; return whether it was not there."""
    try:
        _run(*argv)
    except subprocess.CalledProcessError as error:
        if b"File exists" in error.stderr:
            return False
        raise
    return True


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
