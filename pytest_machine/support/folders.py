"""Folders with an exact mode, whatever the process's umask is."""

from __future__ import annotations

import contextlib
from pathlib import Path

PRIVATE = 0o700
"""For what its owner alone may see: keys, records, runs."""
PUBLIC = 0o755
"""For what everybody may read."""


def make_folder(path: Path, mode: int = PRIVATE) -> None:
    """Make a folder and the missing ones above it, all with `mode`; those that are there keep theirs. Idempotent."""
    for each in reversed((path, *path.parents)):
        if each.is_dir():
            continue
        with contextlib.suppress(FileExistsError):  # another process was as quick
            # Narrow at first: between the two calls it must not be open to more than afterwards.
            each.mkdir(mode=mode & PRIVATE)
            each.chmod(mode)
    if not path.is_dir():
        raise NotADirectoryError(f"'{path}' is not a directory.")
