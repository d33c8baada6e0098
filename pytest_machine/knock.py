"""Whether a machine's Docker daemon answers over mutual TLS: asked more often than anything else, and in a hurry.

By hand, because what speaks HTTP costs a tenth of what a shell's prompt can wait for, and docker-py half a second.
"""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path
from typing import Any

from .errors import damaged
from .model import Address
from .support import clock, pems
from .support.parsing import Malformed
from .support.text import shell_word
from .waiting import NotYet

# A daemon's headers are a tenth of the first, and its errors are shown up to the second, in bytes.
_LONGEST, _SHOWN = 4096, 200
_RENEW = "docker-machine regenerate-certs --force NAME"


def ping(address: Address, *, certs: Path, timeout: float = 5) -> str:
    """Return the API version of the daemon, once it answers over mutual TLS; raises `NotYet` or `OSError` until then.

    `certs` is a directory with ``ca.pem``, ``cert.pem`` and ``key.pem``; the server must be whom that authority says,
    at that address. `timeout` bounds all of it, in seconds, however slowly the server sends. Raises `StoreError` for a
    file of `certs` that is damaged.
    """
    # As bytes, which need no codec for names in all the world's scripts: importing that takes as long as the handshake.
    host: Any = address.ip.encode() if address.ip.isascii() else address.ip
    # The certificates are read once the port accepts, and not before: see `pytest_machine.engine`.
    deadline = clock.monotonic() + timeout
    with socket.create_connection((host, address.engine_port), timeout=timeout) as plain:
        tls = context(certs)
        # One operation of a socket, the handshake too, ends after its timeout in all.
        plain.settimeout(_left(deadline))
        with tls.wrap_socket(plain, server_hostname=host) as secure:
            secure.settimeout(_left(deadline))
            secure.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            status, *headers = _head(secure, deadline)
            secure.settimeout(_left(deadline))
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
    while len(head) < _LONGEST and not head.endswith(b"\r\n\r\n"):
        connection.settimeout(_left(deadline))
        if not (byte := connection.recv(1)):
            break
        head += byte
    return head.decode("latin-1").rstrip("\r\n").split("\r\n")


def context(certs: Path) -> ssl.SSLContext:
    """Return what a client of a daemon needs to know it, and to be known."""
    # Not `create_default_context`: that is as strict since Python 3.13 as Docker Machine's older authorities are not.
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    for name in pems.CLIENT:
        _check(certs / name)
    try:
        found.load_verify_locations(cafile=certs / "ca.pem")
        found.load_cert_chain(certs / "cert.pem", certs / "key.pem")
    except ssl.SSLError as error:
        raise damaged(certs, f"ca.pem, or cert.pem with key.pem: {error.reason or error}", hint=_RENEW) from error
    return found


def _check(path: Path) -> None:
    try:
        pems.read(path)
    except Malformed as error:
        first = f"rm -r -- {shell_word(path)} && " if path.is_dir() else ""
        raise damaged(path, error, hint=f"{first}{_RENEW}") from error


def _left(deadline: float) -> float:
    left = deadline - clock.monotonic()
    if left <= 0:
        raise TimeoutError("its answer did not come in time")
    return left
