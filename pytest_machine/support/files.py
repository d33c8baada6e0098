"""Small state files, read safely whatever stands at their place.

A state file is a regular file of bounded size. A FIFO would make the reader wait for ever, a symbolic link would lead
it elsewhere, a sparse file of gigabytes would fill its memory: each of them is `Malformed`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from .parsing import LARGEST_DOCUMENT, Malformed, json_table, json_value
from .text import visible

UNREADABLE = (OSError, Malformed)
"""What `read` and its like raise: the file is absent or refused by the system, or it is not what it has to be."""

# O_NONBLOCK: to open a FIFO that nobody writes to waits for ever otherwise. Windows has none of these but O_BINARY.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)


def read(path: Path, what: str = "the file", *, largest: int = LARGEST_DOCUMENT) -> bytes:
    """Return the content of a regular file of at most `largest` bytes.

    Raises `OSError` where there is no file or the system refuses it, `Malformed` where something else is in its place.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise Malformed(f"{what} is {_kind(status.st_mode)}, not a regular file")
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:  # replaced by a symbolic link just now
            raise Malformed(f"{what} is a symbolic link, not a regular file") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Malformed(f"{what} is {_kind(status.st_mode)}, not a regular file")
        if status.st_size > largest:
            raise Malformed(f"{what} has {status.st_size} bytes; at most {largest} are read")
        content = file.read(largest + 1)
    if len(content) > largest:
        raise Malformed(f"{what} has more than {largest} bytes")
    return content


def read_text(path: Path, what: str = "the file", *, largest: int = LARGEST_DOCUMENT) -> str:
    """Return the content of such a file as text; raises `Malformed` for bytes that are not UTF-8."""
    try:
        return read(path, what, largest=largest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"{what} is not UTF-8 text (byte {error.start})") from None


def read_json(path: Path, what: str = "the file", *, largest: int = LARGEST_DOCUMENT) -> object:
    """Return the value of a JSON document."""
    return json_value(read(path, what, largest=largest), what, largest=largest)


def read_table(path: Path, what: str = "the file", *, largest: int = LARGEST_DOCUMENT) -> dict[str, object]:
    """Return the table of a JSON document."""
    return json_table(read(path, what, largest=largest), what, largest=largest)


def reason(error: BaseException) -> str:
    """Return in one line why a file could not be read, for people."""
    if isinstance(error, OSError):
        return visible(error.strerror or str(error), lines=False)
    return visible(str(error), lines=False)


def replace_in_place(path: Path, content: bytes) -> None:
    """Overwrite a file that is at least as long as `content`, without new space; then cut it to its new length.

    For a disk without a free byte. A crash in between leaves a damaged file, so that a copy of it has to be elsewhere.
    """
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0))
    try:
        if os.fstat(descriptor).st_size < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written = 0
        while written < len(content):
            written += os.write(descriptor, content[written:])
        os.ftruncate(descriptor, len(content))
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), "a device")
