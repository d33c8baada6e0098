"""How the core talks to the inside of a machine; SSH is the one that every machine has (`pytest_machine.ssh`)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from .model import Result


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

    def get(self, source: str, target: Path) -> None:
        """Bring a file or a directory home."""
        ...

    def close(self) -> None:
        """Let go; again: nothing happens."""
        ...
