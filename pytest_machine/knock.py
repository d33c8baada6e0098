"""Whether a machine's Docker daemon answers over mutual TLS: asked more often than anything else, and in a hurry.

By hand, because what speaks HTTP costs a tenth of what a shell's prompt can wait for, and docker-py half a second.
"""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path
from typing import Any

from .model import Address
from .support import clock
from .waiting import NotYet

# A daemon's headers are a tenth of the first, and its errors are shown up to the second, in bytes.
_LONGEST, _SHOWN = 4096, 200


def ping(address: Address, *, certs: Path, timeout: float = 5) -> str:
    """Return the API version of the daemon, once it answers over mutual TLS; raises `NotYet` or `OSError` until then.

    `certs` is a directory with ``ca.pem``, ``cert.pem`` and ``key.pem``; the server must be whom that authority says,
    at that address. `timeout` bounds each step, in seconds.
    """
    # As bytes, which need no codec for names in all the world's scripts: importing that takes as long as the handshake.
    host: Any = address.ip.encode() if address.ip.isascii() else address.ip
    # The certificates are read when somebody listens, and not before: see `pytest_machine.engine`.
    with (
        socket.create_connection((host, address.engine_port), timeout=timeout) as plain,
        context(certs).wrap_socket(plain, server_hostname=host) as secure,
    ):
        secure.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        status, *headers = _head(secure, clock.monotonic() + timeout)
        body = secure.recv(_SHOWN) if headers and " 200" not in status else b""
    words = status.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        raise NotYet(f"it is no HTTP: {status[:80]!r}" if status else "it closed the connection without an answer")
    if words[1] != "200":
        raise NotYet(f"HTTP {words[1]}: {body.decode(errors='replace')}")
    found = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in headers)}
    # Daemons before API 1.25 name their version elsewhere; none of them is old enough to be refused for it.
    version = found.get("api-version") or "1.24"
    if not re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}", version):
        raise NotYet(f"it speaks version {version[:80]!r} of Docker's API, which is none")
    return version


def _head(connection: ssl.SSLSocket, deadline: float) -> list[str]:
    """Return the lines before the first empty one, or what came before the end; not a byte more is read."""
    head = b""
    # Byte by byte, so that the body is left for whoever wants it; all of it is here already, in one record.
    while len(head) < _LONGEST and not head.endswith(b"\r\n\r\n") and (byte := connection.recv(1)):
        head += byte
        if clock.monotonic() > deadline:
            raise NotYet("its answer comes byte by byte")
    return head.decode("latin-1").rstrip("\r\n").split("\r\n")


def context(certs: Path) -> ssl.SSLContext:
    """Return what a client of a daemon needs to know it, and to be known."""
    # Not `create_default_context`: that is as strict since Python 3.13 as Docker Machine's older authorities are not.
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    found.load_verify_locations(cafile=certs / "ca.pem")
    found.load_cert_chain(certs / "cert.pem", certs / "key.pem")
    return found
