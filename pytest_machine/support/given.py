"""Files that a user names on the command line, read with a bound in size and time.

Unlike a state file (`files`), such a file may be reached by a link, and may be a pipe: ``import <(ssh host cat file)``.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from . import clock
from .parsing import LARGEST_DOCUMENT, Malformed

PATIENCE = 10.0
"""Seconds that a pipe may say nothing."""


def read(path: Path, what: str = "the file", *, largest: int = LARGEST_DOCUMENT, patience: float = PATIENCE) -> bytes:
    """Return the content of a file of at most `largest` bytes.

    Raises `OSError` where there is none or the system refuses it, `Malformed` for what is too large or not a file.
    """
    # O_NONBLOCK: to open a FIFO that nobody writes to waits for ever otherwise. Windows has neither.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            raise Malformed(f"{what} is not a file that can be read")
        found = bytearray()
        deadline = clock.monotonic() + patience
        while len(found) <= largest:
            part = file.read(1 << 16)
            if part is None:  # a pipe whose writer has said nothing yet
                if clock.monotonic() > deadline:
                    raise Malformed(f"{what} is a pipe that said nothing for {patience:g} s")
                clock.sleep(0.01)
                continue
            if not part:
                return bytes(found)
            found += part
            deadline = clock.monotonic() + patience
    raise Malformed(f"{what} has more than {largest} bytes")


def read_text(path: Path, what: str = "the file", *, largest: int = LARGEST_DOCUMENT) -> str:
    """Return the content of such a file as text; raises `Malformed` for bytes that are not UTF-8."""
    try:
        return read(path, what, largest=largest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"{what} is not UTF-8 text (byte {error.start})") from None
