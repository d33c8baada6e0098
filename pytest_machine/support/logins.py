"""Strict parsing of what a login to a machine is made of: a user's name, an engine's URL, keys and certificates.

OpenSSH's programs, shells and Docker's client read these values. One that holds a blank, a quote, a line break or a
leading dash would become an option or a line of its own there.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import urlsplit

from .parsing import Malformed, host, port, text

LONGEST_KEY = 64 << 10
"""Bytes of one key or certificate file. A chain of RSA certificates has some thousand."""

# Windows' accounts have a domain, a plus sign or an at sign in them.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+\\$-]{0,63}")
_PUBLIC = r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}"
_KNOWN_HOST = re.compile(rf"[^\s@#]\S* {_PUBLIC}( [^\x00-\x1f\x7f]*)?")
_PUBLIC_KEY = re.compile(rf"{_PUBLIC}( [^\x00-\x1f\x7f]*)?")


def user(value: object, what: str = "the user") -> str:
    """Return whom SSH logs in as: one word of letters, digits and the few marks that accounts have."""
    found = text(value, what, longest=64, empty=False)
    if not _USER.fullmatch(found):
        raise Malformed(f"{what} is '{found}', which is not the name of a user")
    return found


def engine_url(value: object, what: str = "the engine's URL") -> str:
    """Return ``tcp://HOST:PORT``: an engine's address that leads to another computer and to no program of this one."""
    found = text(value, what, longest=512, empty=False)
    try:
        parts = urlsplit(found)
        named, numbered = parts.hostname, parts.port
    except ValueError:
        raise Malformed(f"{what} is '{found}', which is not a URL") from None
    if parts.scheme != "tcp" or numbered is None or parts.username is not None or parts.path.strip("/"):
        raise Malformed(f"{what} is '{found}', which is not tcp://HOST:PORT")
    host(named, f"the host of {what}")
    port(numbered, f"the port of {what}")
    return found


def certificates(data: bytes, what: str) -> bytes:
    """Return one or more X.509 certificates in PEM form."""
    from cryptography.x509 import load_pem_x509_certificates

    _sized(data, what)
    try:
        load_pem_x509_certificates(data)
    except ValueError as error:
        raise Malformed(f"{what} is not a certificate in PEM form") from error
    return data


def private_key(data: bytes, what: str) -> bytes:
    """Return a private key in PEM or OpenSSH's form, with or without a passphrase."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    _sized(data, what)
    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        load(data, None)
    except TypeError:  # it has a passphrase
        return data
    except (ValueError, UnsupportedAlgorithm) as error:
        if "password-protected" in str(error):
            return data
        raise Malformed(f"{what} is not a private key in PEM or OpenSSH's form") from error
    return data


def has_passphrase(data: bytes) -> bool:
    """Return whether a private key, in any form, opens with a passphrase alone."""
    if b"BEGIN OPENSSH PRIVATE KEY" in data:
        # The magic, then the name of the cipher, its length first.
        return _decoded(data)[15:23] not in (b"", b"\0\0\0\x04none")
    return b"ENCRYPTED" in data


def public_half(data: bytes) -> str:
    """Return the public half that OpenSSH's form of a private key shows without its passphrase; empty: it has none."""
    rest = _decoded(data)[15:]
    for _ in range(3):  # the cipher, the key's derivation, its options
        rest = rest[4 + int.from_bytes(rest[:4], "big") :]
    blob = rest[8 : 8 + int.from_bytes(rest[4:8], "big")]
    return base64.b64encode(blob).decode() if blob.startswith(b"\0\0\0") else ""


def _decoded(data: bytes) -> bytes:
    lines = [line.strip() for line in data.splitlines() if line.strip() and not line.startswith(b"-----")]
    try:
        found = base64.b64decode(b"".join(lines))
    except ValueError:
        return b""
    return found if found.startswith(b"openssh-key-v1\0") else b""


def public_key(data: bytes, what: str) -> bytes:
    """Return a public key as OpenSSH has it: one line."""
    lines = _lines(data, what)
    if len(lines) != 1 or not _PUBLIC_KEY.fullmatch(lines[0]):
        raise Malformed(f"{what} is not one public key in OpenSSH's form")
    return data


def known_hosts(data: bytes, what: str) -> bytes:
    """Return lines of ``HOST TYPE KEY``; a line that trusts or revokes an authority is not one."""
    for number, line in enumerate(_lines(data, what), 1):
        if not _KNOWN_HOST.fullmatch(line):
            raise Malformed(f"line {number} of {what} is not a host's key: HOST TYPE KEY")
    return data


def _lines(data: bytes, what: str) -> list[str]:
    _sized(data, what)
    try:
        found = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise Malformed(f"{what} is not UTF-8 text") from None
    return [line.rstrip("\r") for line in found if line.strip()]


def _sized(data: bytes, what: str) -> None:
    if not data:
        raise Malformed(f"{what} is empty")
    if len(data) > LONGEST_KEY:
        raise Malformed(f"{what} has {len(data)} bytes; at most {LONGEST_KEY} are read")
