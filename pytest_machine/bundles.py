"""Certificate authorities of the user's environment together with a machine's own.

``REQUESTS_CA_BUNDLE`` and related variables replace the authorities that a client was configured with. So they must
name ours too: a bundle in one file, or a directory whose files carry OpenSSL's hashed names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .store import write

_CERTIFICATE = re.compile(rb"-----BEGIN ((?:TRUSTED |X509 )?CERTIFICATE)-----\r?\n.*?-----END \1-----", re.DOTALL)
# More than any list of authorities has; a special file or a disk image is not read to its end.
_LIMIT = 16 << 20

# ASN.1's types of text, by tag, and how each is encoded.
_TEXTS = {12: "utf-8", 19: "ascii", 20: "latin-1", 22: "ascii", 28: "utf-32-be", 30: "utf-16-be"}


def merged(theirs: Path, ca: bytes, target: Path) -> None:
    """Write to `target` every PEM certificate of `theirs`, a file or a directory, and `ca`.

    A path that does not exist, and a file that cannot be read or holds no certificate, add nothing.
    """
    files = _files(theirs) if theirs.is_dir() else [theirs]
    # By content, because a directory as OpenSSL wants it has each certificate under two names.
    parts = dict.fromkeys(block for file in files for block in _certificates(file))
    parts.update(dict.fromkeys(_blocks(ca)))
    write(target, b"\n".join(parts) + b"\n", mode=0o644, durable=False)


def hashed(theirs: str, ca: bytes, target: Path) -> None:
    """Create the directory `target`: links to the files of `theirs` under their own names, and `ca` under its hash.

    `theirs` names one directory or several, separated as in ``PATH``. An earlier `target` is replaced. Links, because
    copies would take a megabyte for each machine; where links cannot be made (Windows), certificates are copied.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        temporary.chmod(0o755)
        for directory in filter(None, theirs.split(os.pathsep)):
            for file in _files(Path(directory)):
                _link(_free(temporary / file.name), file)
        _free(temporary / f"{subject_hash(ca)}.0").write_bytes(ca)
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _link(path: Path, file: Path) -> None:
    try:
        path.symlink_to(file.absolute())
    except OSError:
        if found := list(_certificates(file)):
            path.write_bytes(b"\n".join(found) + b"\n")


def _free(path: Path) -> Path:
    """Return a name that is not taken; OpenSSL counts in the suffix: ``5ed36f99.0``, ``5ed36f99.1``."""
    number = 0
    while os.path.lexists(path):
        number += 1
        path = path.with_suffix(f".{number}")
    return path


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.is_file())
    except OSError:
        return []


def _certificates(file: Path) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        if file.is_file():
            with file.open("rb") as stream:
                yield from _blocks(stream.read(_LIMIT))


def _blocks(content: bytes) -> Iterator[bytes]:
    for match in _CERTIFICATE.finditer(content):
        yield match[0].replace(b"\r\n", b"\n")


def subject_hash(certificate: bytes) -> str:
    """Return the eight digits under which OpenSSL looks up a certificate (PEM) in a directory.

    As `X509_NAME_hash`: the first four bytes, little endian, of the SHA-1 of the subject in canonical form.
    """
    from cryptography import x509

    subject = x509.load_pem_x509_certificate(certificate).subject.public_bytes()
    canonical = b"".join(
        _tlv(0x31, b"".join(_attribute(pair) for _, pair in _walk(names))) for _, names in _walk(_walk(subject)[0][1])
    )
    digest = hashlib.sha1(canonical, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _attribute(pair: bytes) -> bytes:
    (oid_tag, oid), (tag, value) = _walk(pair)
    if tag in _TEXTS:
        text = " ".join(value.decode(_TEXTS[tag], "replace").split(" ")).strip()
        # OpenSSL lowers ASCII letters only.
        text = re.sub("[A-Z]", lambda found: found[0].lower(), re.sub(r"[ \t\n\v\f\r]+", " ", text))
        tag, value = 12, text.encode()
    return _tlv(0x30, _tlv(oid_tag, oid) + _tlv(tag, value))


def _tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes([tag, size]) + value
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + value


def _walk(der: bytes) -> list[tuple[int, bytes]]:
    """Return the (tag, value) of each element of DER."""
    found = []
    while der:
        tag, size, start = der[0], der[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(der[2:start], "big")
        found.append((tag, der[start : start + size]))
        der = der[start + size :]
    return found
