"""How the core talks to the inside of a machine; SSH is the one that every machine has (`pytest_machine.ssh`).

What can be said to a machine is settled here, too. A number would pass for a file descriptor in `subprocess`, and be
waited for; a list for a word: so whatever is neither text nor bytes nor a path is refused before anything is run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Protocol, TypeAlias

from .errors import UsageError
from .model import Result

AnyPath: TypeAlias = str | os.PathLike[str]
"""A path, or a word of a command."""
AnyBytes: TypeAlias = bytes | bytearray | memoryview


class Connection(Protocol):
    """Commands and files, over whatever reaches the machine. Safe to use from several threads."""

    def run(
        self, *argv: str, check: bool = True, timeout: float | None = None, input: str | bytes | None = None
    ) -> Result:
        """Run a command and return what it did.

        With ``check`` a return code other than 0 raises `CommandFailed` and a lost connection `ConnectFailed`; without,
        the latter is return code 255. `timeout` is in seconds; past it the command is abandoned: `WaitTimeout`.
        """
        ...

    def put(self, source: Path | bytes, target: str, *, mode: int = 0o644) -> None:
        """Write a file (bytes or a local file) or a whole directory into the machine; a file gets `mode`."""
        ...

    def get(self, source: str, target: Path, *, size: int = ..., timeout: float = ...) -> tuple[str, ...]:
        """Bring a file or a directory home; return what was left out of a directory and why, a line each.

        Raises `LimitExceeded` when it is more than `size` bytes or takes longer than `timeout` seconds.
        """
        ...

    def close(self) -> None:
        """Let go; again: nothing happens."""
        ...


def content(input: object) -> bytes:
    """Return what a command is to read, as bytes; raises `UsageError` for what is neither text nor bytes."""
    if input is None or isinstance(input, str):
        return (input or "").encode()
    if isinstance(input, bytes | bytearray | memoryview):
        return bytes(input)
    raise UsageError(
        "What a command reads is text or bytes.",
        facts={"input": f"{input!r:.100}", "type": type(input).__name__},
        hint='machine.run("cat", input=str(3)), and a file goes by machine.put("data.bin", "/srv/data.bin")',
    )


def words(argv: Sequence[object]) -> tuple[str, ...]:
    """Return a command's words, a path among them as its text; raises `UsageError` for what is no word, and for none.

    Nothing else becomes text by itself: whoever gives a list, or None, has mostly meant something else.
    """
    if not argv:
        raise UsageError("A command has a word at least: its program.", hint='machine.run("uname", "-a")')
    return tuple(_word(word) for word in argv)


def _word(word: object) -> str:
    found = _text(word)
    if found is None:
        several = isinstance(word, list | tuple | set | frozenset)
        raise UsageError(
            "The words of a command are texts or paths.",
            facts={"word": f"{word!r:.100}", "type": type(word).__name__},
            hint="machine.run(*words)" if several else 'machine.run("echo", str(3))',
        )
    if "\0" in found:
        raise UsageError(
            "No word of a command can hold a NUL.",
            facts={"word": f"{found!r:.100}"},
            hint='machine.run("cat", input=...) takes any bytes',
        )
    return found


def path_there(path: object) -> str:
    """Return the text of a path in the machine, which is a Unix one wherever we are; raises `UsageError` for none."""
    found = _text(path)
    if not found or "\0" in found:
        raise _no_path("A path in the machine is a text or a Path.", path)
    return found


def path_here(path: object) -> Path:
    """Return a path of this computer; raises `UsageError` for what is none."""
    if isinstance(path, str | os.PathLike) and isinstance(found := os.fspath(path), str) and "\0" not in found:
        return Path(found)
    raise _no_path("A path on this computer is a text or a Path.", path)


def _no_path(sentence: str, path: object) -> UsageError:
    return UsageError(
        sentence,
        facts={"path": f"{path!r:.100}", "type": type(path).__name__},
        hint='machine.put("app.conf", "/etc/app.conf") or machine.get("/etc/app.conf", "app.conf")',
    )


def _text(word: object) -> str | None:
    if isinstance(word, PurePath):
        return word.as_posix()
    found = os.fspath(word) if isinstance(word, os.PathLike) else word
    return found if isinstance(found, str) else None
