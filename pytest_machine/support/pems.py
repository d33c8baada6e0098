"""PEM files, certificates and keys: read with a bound, whatever is at their path.

OpenSSL and docker-py open such a file by its path: a FIFO in its place would make them wait for ever.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import files
from .parsing import Malformed

LARGEST = 1 << 20
"""Bytes of one file. A bundle of all public authorities has a quarter of it."""
CLIENT = ("ca.pem", "cert.pem", "key.pem")
"""The files that a client of Docker reads, in the directory that ``DOCKER_CERT_PATH`` names."""


def read(path: Path) -> bytes:
    """Return the content of a PEM file, which a symbolic link may lead to.

    Raises `OSError` where there is no file or the system refuses it, `Malformed` for what is not a PEM file.
    """
    content = files.read(Path(os.path.realpath(path)), "it", largest=LARGEST)
    if not content:
        raise Malformed("it is empty")
    if b"-----BEGIN " not in content:
        raise Malformed("it is not a certificate or a key in PEM form")
    return content
