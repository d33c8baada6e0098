"""A connection to this computer: the scripts that are run in machines, in a real shell."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pytest_machine.errors import CommandFailed
from pytest_machine.model import Result


class Local:
    """Runs what a machine would run, by a shell of one's choice: ``sh``, or ``busybox sh`` as on small systems."""

    def __init__(self, shell: Sequence[str] = ("sh",)) -> None:
        self.shell = tuple(shell)
        self.asked: list[tuple[str, ...]] = []

    def run(
        self, *argv: str, check: bool = True, timeout: float | None = None, input: str | bytes | None = None
    ) -> Result:
        self.asked.append(argv)
        if argv[0] == "sh":
            argv = (*self.shell, *argv[1:])
        content = input.encode() if isinstance(input, str) else input or b""
        done = subprocess.run(argv, input=content, capture_output=True, timeout=timeout, check=False)
        result = Result(argv, done.returncode, done.stdout.decode(), done.stderr.decode())
        if check and done.returncode:
            raise CommandFailed("It failed.", result=result)
        return result

    def put(self, source: Path | bytes, target: str, *, mode: int = 0o644) -> None:
        raise NotImplementedError

    def get(self, source: str, target: Path, *, size: int = 0, timeout: float = 0) -> tuple[str, ...]:
        raise NotImplementedError

    def close(self) -> None: ...
