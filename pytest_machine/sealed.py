"""Bytes under a passphrase: what leaves this computer as a file, and is of no use to whoever finds it.

::

    pytest-machine sealed 1                            what it is, and the version of this form
    scrypt 131072 8 1 SALT NONCE SHA256                how the key is made of the passphrase; base64
    …                                                  AES-256-GCM over the content, base64, in lines

The first two lines are authenticated with the content. The digest tells damage (a mail that was cut off, a bit that
fell over) from a passphrase that is wrong, which AES-GCM alone cannot; it protects from nobody who means harm, and need
not: what such a one altered does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import textwrap

from .errors import BadSpec, StoreError

_MAGIC = b"pytest-machine sealed "
_VERSION = b"1"
# What OWASP asks of scrypt: 128 MiB and a third of a second for each guess.
_COST, _BLOCK, _LANES = 1 << 17, 8, 1
# A file of somebody else's making must not take all memory: 1 GiB is for passphrases of ten years from now.
_MOST = 1 << 20
_SALT, _NONCE = 16, 12
LONGEST = 1 << 20
"""The longest file that is read, in bytes: an access has some four thousand."""


def seal(content: bytes, passphrase: str, *, cost: int = _COST) -> bytes:
    """Return the content as text that opens with the passphrase alone. `cost` is scrypt's n, a power of two."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
    first = _MAGIC + _VERSION
    how = b" ".join([b"scrypt", b"%d %d %d" % (cost, _BLOCK, _LANES), _text(salt), _text(nonce)])
    hidden = AESGCM(_key(passphrase, salt, cost)).encrypt(nonce, content, first + b"\n" + how)
    digest = _digest(first, how, hidden)
    lines = textwrap.wrap(_text(hidden).decode(), 76)
    return b"\n".join([first, how + b" " + digest, *(line.encode() for line in lines)]) + b"\n"


def is_sealed(text: bytes) -> bool:
    """Return whether this is what `seal` makes, of whatever version, whole or not."""
    return text.startswith(_MAGIC)


def unseal(text: bytes, passphrase: str, *, called: str) -> bytes:
    """Return the content of a file that is `called` so in errors.

    Raises `StoreError` for what `seal` has not made, or not as it is now, and `BadSpec` for a wrong passphrase.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not is_sealed(text):
        raise StoreError(
            f"The file '{called}' is none that 'export' makes.",
            facts={"reason": "it does not begin as one"},
            hint="docker-machine export NAME -o FILE",
        )
    if len(text) > LONGEST:
        raise _damaged(called, f"it has {len(text)} bytes")
    # What a mail or an editor does to the ends of lines is no damage.
    first, *rest = text.replace(b"\r\n", b"\n").rstrip().split(b"\n")
    version = first[len(_MAGIC) :].strip()
    if version != _VERSION and version.isdigit():
        raise StoreError(
            f"The file '{called}' is of a version that this program does not know.",
            facts={"version": version.decode(), "known": _VERSION.decode()},
            hint="pip install --upgrade pytest-machine",
        )
    try:
        kind, *costs, salt_text, nonce_text, digest = rest[0].split(b" ")
        cost, block, lanes = map(int, costs)
        salt, nonce = _bytes(salt_text), _bytes(nonce_text)
        hidden = _bytes(b"".join(rest[1:]))
    except (ValueError, IndexError):
        raise _damaged(called, "its text cannot be read") from None
    how = rest[0].rpartition(b" ")[0]
    if digest != _digest(first, how, hidden):
        raise _damaged(called, "its digest is not that of its content")
    well = cost & (cost - 1) == 0 and 1 < cost <= _MOST
    if (kind, block, lanes) != (b"scrypt", _BLOCK, _LANES) or not well or (len(salt), len(nonce)) != (_SALT, _NONCE):
        raise _damaged(called, "no version of this program makes a key so")
    try:
        return AESGCM(_key(passphrase, salt, cost)).decrypt(nonce, hidden, first + b"\n" + how)
    except InvalidTag:
        raise BadSpec(
            f"The passphrase does not open '{called}'.",
            facts={"file": "whole, by its digest"},
            hint="try the one that was given to 'export'",
        ) from None


def _key(passphrase: str, salt: bytes, cost: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=32, n=cost, r=_BLOCK, p=_LANES).derive(
        passphrase.encode("utf-8", "surrogateescape")
    )


def _digest(first: bytes, how: bytes, hidden: bytes) -> bytes:
    return hashlib.sha256(b"\n".join([first, how, hidden])).hexdigest().encode()


def _text(data: bytes) -> bytes:
    return base64.b64encode(data)


def _bytes(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _damaged(called: str, reason: str) -> StoreError:
    return StoreError(
        f"The file '{called}' is damaged.",
        facts={"reason": reason},
        hint="get it once more, or export the machine again",
    )
