"""Where the files of failed tests go: a directory for each test, in it one for each machine."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_machine.support import reasons


class Artifacts:
    """The directory that was asked for; else one of pytest's own, which keeps those of the last three runs."""

    def __init__(self, config: pytest.Config, asked: Path | None) -> None:
        self._config = config
        self._top = asked
        self._begun: set[Path] = set()
        self.asked = asked is not None
        """Whether the user wants files; otherwise only what exists as files alone is written."""
        self.refused: dict[str, str] = {}
        """Why files could not be written, by path: for the end of the run."""

    @property
    def top(self) -> Path:
        """The directory of the run."""
        if self._top is None:
            # What the fixture `tmp_path_factory` gives, which a hook cannot ask for.
            factory: pytest.TempPathFactory = self._config._tmp_path_factory  # type: ignore[attr-defined]  # noqa: SLF001
            self._top = factory.mktemp("machine-artifacts", numbered=False)
        return self._top

    @property
    def written(self) -> Path | None:
        """The directory of the run if this process, or a worker with the same one, has put something into it."""
        return self._top if self._begun or (self._top is not None and self._top.is_dir()) else None

    def path(self, test: str, machine: str) -> Path:
        """Return where the files of a machine of a test go."""
        return self.top.joinpath(*places(test), place(machine))

    def directory(self, test: str, machine: str) -> Path:
        """Return the directory for a machine of a test, made now; what an earlier run left there is gone."""
        path = self.path(test, machine)
        if path not in self._begun:
            self._begun.add(path)
            for old in path.glob("*") if path.is_dir() else ():
                if old.is_file() or old.is_symlink():
                    old.unlink()
            path.mkdir(parents=True, exist_ok=True)
        return path

    def test(self, test: str) -> Path:
        """Return the directory of a test, made now."""
        path = self.top.joinpath(*places(test))
        self._begun.add(path)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, test: str, machine: str, title: str, text: str) -> None:
        """Write one file of a machine."""
        with self.attempt():
            path = self.directory(test, machine) / f"{place(title)}.txt"
            path.write_text(text, "utf-8", errors="replace")

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Write in this block; where that cannot be, the reason is noted, because it must not hide how a test ended."""
        try:
            yield
        except OSError as error:
            path = str(error.filename or self._top)
            self.refused.setdefault(path, f"{reasons.reason_of(error)} (hint: {reasons.hint(error, path)})")


def places(test: str) -> list[str]:
    """Return a test's id as names of directories, one in the other: ``tests/test_a.py``, ``test_b[x]``."""
    return [_own(part) for part in re.split(r"::|/(?=[^\[\]]*(?:$|::|\[))", test) if part]


def _own(part: str) -> str:
    """Return a name that is no other's: where something had to be replaced or cut, a digest tells the two apart."""
    clean = place(part)
    return clean if clean == part else f"{clean}-{hashlib.sha256(part.encode()).hexdigest()[:6]}"


def place(name: str) -> str:
    """Return a name that every file system takes."""
    clean = re.sub(r"[^\w.@+=,\[\]-]+", "-", name).strip("-. ") or "_"
    return clean[:100]
