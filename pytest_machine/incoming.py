"""A file or directory on its way from a machine to this computer, as `pytest_machine.ssh` gets it.

The machine's shell says by one letter which of the two it sends. A file appears whole or not at all; a directory comes
as an archive (`pytest_machine.support.archives`).
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path, PurePosixPath

from .errors import LimitExceeded, TransferFailed, UsageError
from .model import Result
from .support import archives
from .support.processes import Conversation, TooLong, TooMuch
from .support.text import shell_word

SIZE = 16 << 30
"""Bytes that are taken at most, unless the caller says otherwise."""
SECONDS = 3600.0
"""How long it may take, unless the caller says otherwise."""
SILENCE = 60.0
"""Seconds for which the machine may send nothing: reading /proc/kmsg never ends, for example."""
OVERHEAD = 2 << 30
"""Bytes of an archive that are no file's content: a million headers, and what fills blocks."""

SCRIPT = """\
export LC_ALL=C
if [ -d "$1" ]; then printf d && exec tar -cf - -C "$1" .; fi
if [ -e "$1" ] && [ ! -f "$1" ]; then echo "$1 is neither a file nor a directory" >&2; exit 1; fi
[ -r "$1" ] && printf f; exec cat "$1\""""
"""What a shell in the machine does with the path. A pipe is not opened: it would be read for ever."""

# What GNU's and BusyBox's tar say, and return 1 or 2 for, when a directory is written to while it is packed.
_CHANGED = re.compile(
    r"[^ :]*tar[^ :]*: (.*: (file changed as we read it|file removed before we read it|socket ignored"
    r"|file shrank by \d+ bytes; padding with zeros|(cannot (stat|open): )?no such file or directory)"
    r"|exiting with failure status due to previous errors|error exit delayed from previous errors)",
    re.IGNORECASE,
)
# Seconds for which a program that sent nonsense may still say why.
_LAST_WORDS = 2.0
_CHUNK = 1 << 18


class Incoming:
    """Takes what `SCRIPT` prints for `path` and puts it at `target`."""

    def __init__(self, path: str, target: Path, size: int) -> None:
        self._path = path
        self._target = target
        self._size = size
        self._kind = b""
        self._file: Path | None = None
        self._temporary: Path | None = None
        self._failed: TransferFailed | None = None
        self.left: tuple[str, ...] = ()
        """What was left out of a directory and why, a line each."""

    def take(self, talk: Conversation) -> None:
        """Read it; raises `UsageError` where it has no place here, and `LimitExceeded`."""
        try:
            self._read(talk)
        except TransferFailed as error:
            # The command's own words say it better, if it has any.
            self._failed = error
            talk.hurry(_LAST_WORDS)
            try:
                talk.end(keep=False)
            except (TooLong, TooMuch):
                raise error from None
        except OSError as error:
            raise UsageError(
                f"'{self._path}' cannot be brought home to '{self._target}'.",
                facts={"reason": error.strerror or error, "path": error.filename or self._target},
                hint=f"ls -ld {shell_word(self._target)}; df -h {shell_word(self._target.parent)}",
            ) from error

    def settle(self, result: Result) -> bool:
        """Put a file where it belongs; return False when the command failed. Raises `TransferFailed`."""
        changed = self._kind == b"d" and self._failed is None and result.returncode in (1, 2)
        lines = result.stderr.splitlines()
        if result.returncode and not (changed and lines and all(_CHANGED.fullmatch(line.strip()) for line in lines)):
            return False
        if self._failed is not None:
            raise self._failed
        if self._file is not None and self._temporary is not None:
            try:
                self._temporary.replace(self._file)
            except OSError as error:
                raise UsageError(
                    f"'{self._path}' cannot be brought home to '{self._file}'.",
                    facts={"reason": error.strerror or error},
                    hint=f"ls -ld {shell_word(self._file)}",
                ) from error
        return True

    def drop(self) -> None:
        """Remove what is not whole. Idempotent."""
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def _read(self, talk: Conversation) -> None:
        self._kind = talk.read(1)
        if self._kind == b"d":
            self._directory(talk)
        elif self._kind == b"f":
            self._content(talk)
        else:
            raise self._neither("neither a file nor a directory")

    def _neither(self, what: str) -> TransferFailed:
        return TransferFailed(
            f"The machine sent {what} for '{self._path}'.",
            hint=f"look at what is there: machine.run('ls', '-ld', {self._path!r})",
        )

    def _directory(self, talk: Conversation) -> None:
        self._target.mkdir(parents=True, exist_ok=True)
        limits = archives.Limits(size=self._size)
        self.left = tuple(archives.unpack(talk.read, self._target, limits=limits).report())

    def _content(self, talk: Conversation) -> None:
        name = PurePosixPath(self._path).name
        if self._target.is_dir() and name in ("", "..", "."):
            raise self._neither("a file")
        file = self._target / name if self._target.is_dir() else self._target
        if not file.parent.is_dir():
            raise UsageError(
                f"'{self._path}' cannot be brought home: there is no directory '{file.parent}'.",
                hint=f"mkdir -p {shell_word(file.parent)}",
            )
        self._file = file
        self._temporary = file.with_name(f".{file.name[:200]}.{secrets.token_hex(4)}.tmp")
        count = 0
        with self._temporary.open("xb") as out:
            while part := talk.read(_CHUNK):
                count += len(part)
                if count > self._size:
                    raise LimitExceeded(
                        f"The file '{self._path}' of the machine has more than {self._size:,} bytes.",
                        hint="get a part of it: machine.run('tail', '-c', '1000000', PATH).stdout",
                    )
                out.write(part)
