"""Lock files: held by a process, released by the kernel when it dies, whatever stands at their place."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock


def lock_file(path: Path, *, singleton: bool = False, thread_local: bool = True) -> FileLock:
    """Return the lock of a file; `singleton`: the same object for the same path, which makes it reentrant.

    No process can hold a lock on a directory or a link: one at the file's place is renamed, so that the lock works.
    """
    from filelock import FileLock

    if path.is_symlink() or path.is_dir():
        with contextlib.suppress(OSError):
            path.rename(path.with_name(f".{path.name.lstrip('.')}.{secrets.token_hex(4)}.not-a-lock"))
    return FileLock(path, is_singleton=singleton, thread_local=thread_local)


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock of a file; the file of a lock that no process holds is removed.

    For names that are used once: the caller keeps other processes from asking at the same moment.
    """
    from filelock import Timeout

    if path.is_symlink() or not path.is_file():  # to try a lock is to create its file
        return False
    lock = lock_file(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # it cannot even be opened: no process of this user holds it
        return False
    lock.release()
    path.unlink(missing_ok=True)
    return False
