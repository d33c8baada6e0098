"""Who owns a machine of a test run: the processes that hold a lock in the run's directory.

::

    STATE/runs/ID/owners/PID-HEX.lock     one for each process of the run, locked while it lives
    STATE/runs/ID/over/                   what `owners` is called once the run was found dead: nobody joins it any more
    STATE/runs/ID/store/                  the run's machines and their authority
    STATE/runs/ID/store-LAB/              the same for one lab, so that two tests' machines may have one name
    STATE/runs/ID/store-LAB/owner         which of the processes alone uses that lab: it goes when the process dies
    STATE/runs/ID/called-off              there when the run is to end: its other processes tear down too

The kernel lets go of a lock when its process dies, however it dies, on every system and across pid namespaces; a pid in
a file would say nothing of any of these. So "is this run alive?" is a question to the kernel, and the answer is never
out of date.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_machine.support.folders import make_folder

from .errors import StoreError
from .model import check_name, new_id
from .store import Store, write
from .support import files
from .support.locks import is_held, lock_file
from .support.text import shell_word

if TYPE_CHECKING:
    from filelock import FileLock

_APP = "pytest-machine"
_OWNERS, _OVER, _OWNER, _CALLED_OFF = "owners", "over", "owner", "called-off"

# PID-HEX, as `Run.begin` names them.
_OWNERS_NAME = re.compile(r"[0-9]+-[0-9a-f]{8}")
# Counting a run's locks takes milliseconds; a minute is a process that was stopped while it counted.
_PATIENCE = 60.0


def state_dir() -> Path:
    """Return where runs are kept: ``PYTEST_MACHINE_HOME``, or the user's state directory."""
    import platformdirs

    return _directory("PYTEST_MACHINE_HOME", platformdirs.user_state_path(_APP, appauthor=False))


def cache_dir() -> Path:
    """Return where images are kept: ``PYTEST_MACHINE_CACHE``, or the user's cache directory."""
    import platformdirs

    return _directory("PYTEST_MACHINE_CACHE", platformdirs.user_cache_path(_APP, appauthor=False))


def storage_path() -> Path:
    """Return the command line's store: ``MACHINE_STORAGE_PATH``, or Docker Machine's own, ``~/.docker/machine``."""
    given = os.environ.get("MACHINE_STORAGE_PATH")
    return Path(given).absolute() if given else Path.home() / ".docker" / "machine"


def host_id() -> str:
    """Return 12 hex digits that stand for this computer, the same at every call.

    Made of the system's own id and the host name: containers and cloned disks share the former, and whoever takes a
    stranger's machine for its own destroys it. The system's id is confidential, so that only a digest leaves.
    """
    import hashlib
    import platform
    import uuid

    text = "\0".join((_APP, _system_id() or f"{uuid.getnode():x}", platform.node()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Run:
    """One test run, as one of its processes sees it. Several processes may be in the same run."""

    id: str
    directory: Path
    _lock: FileLock = field(repr=False, compare=False)
    _pid: int = field(repr=False, compare=False)

    @classmethod
    def begin(cls, id: str = "", root: Path | None = None) -> Run:
        """Join the run `id`, or start it; without an id, start a new one. `root` is in place of `state_dir`.

        This process is one of the run's owners from now on, until `end` or its death, whichever comes first. A process
        that it forks shares that, for as long as it lives. Raises `StoreError` for a run that was found dead, whose
        machines are being destroyed.
        """
        # Late, here and below: whoever only wants to know where machines are kept waits for none of it.
        import secrets

        from filelock import FileLock

        name = check_name(id) if id else str(new_id())
        directory = (root or state_dir()).absolute() / "runs" / name
        # The directories are private: in them are the keys of every machine of the run.
        make_folder(directory.parent)
        with _census(directory):
            if (directory / _OVER).is_dir():
                raise StoreError(
                    f"The run '{name}' has ended, and nobody can join it any more.",
                    facts={"directory": directory},
                    hint="start the tests again; pytest-machine prune --dry-run shows what is left of it",
                )
            for each in (directory, directory / _OWNERS):
                each.mkdir(mode=0o700, exist_ok=True)
            # Not thread-local: the one who ends the run need not be the thread that began it.
            lock = FileLock(directory / _OWNERS / f"{os.getpid()}-{secrets.token_hex(4)}.lock", thread_local=False)
            lock.acquire()
        return cls(name, directory, lock, os.getpid())

    @property
    def store(self) -> Store:
        """Where the run's machines are noted."""
        return Store(self.directory / "store")

    @property
    def owner(self) -> str:
        """This process's name among the run's owners."""
        return Path(self._lock.lock_file).stem

    def lab_store(self, lab: str, *, mine: bool = False) -> Store:
        """Where the machines of one lab are noted: equal names in two labs of a run never meet.

        `mine`: no other process uses them, so they may go as soon as this one is dead, before the run's end.
        """
        store = Store(self.directory / f"store-{lab}")
        if mine:
            store.path.mkdir(mode=0o700, exist_ok=True)
            write(store.path / _OWNER, self.owner.encode(), durable=False)
        return store

    def call_off(self) -> None:
        """Tell the run's other processes to tear down and end."""
        with contextlib.suppress(OSError):  # on a full disk they hear of it otherwise, and later
            (self.directory / _CALLED_OFF).touch()

    @property
    def called_off(self) -> bool:
        """Whether one of its processes has called the run off."""
        return (self.directory / _CALLED_OFF).exists()

    @property
    def stores(self) -> list[Store]:
        """Every store of the run, those of labs too."""
        return stores(self.directory)

    def end(self) -> None:
        """Let go; again: nothing happens.

        The last owner out removes the directory, provided that no machine is left in it.
        """
        # In a forked child the lock is the parent's: unlocking it here would unlock it there.
        if os.getpid() != self._pid or not self._lock.is_locked:
            return
        with _census(self.directory):
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)
            if not _held(self.directory) and not any(store.names() for store in self.stores):
                _remove(self.directory)


def stores(directory: Path) -> list[Store]:
    """Return every store of the run whose directory this is."""
    return [Store(path) for path in sorted(directory.glob("store*"))]


def orphans(directory: Path) -> list[Store]:
    """Return the stores of a run that were one process's alone, which is dead; the run may live."""
    owned: dict[Store, str] = {}
    for store in stores(directory):
        with contextlib.suppress(*files.UNREADABLE):
            owner = files.read_text(store.path / _OWNER, largest=100)
            # An empty one is being written, or was on a full disk. A damaged one says nothing: it goes with the run.
            if _OWNERS_NAME.fullmatch(owner):
                owned[store] = owner
    if not owned:
        return []
    with _census(directory):
        living = {path.stem for path in (directory / _OWNERS).glob("*.lock") if is_held(path)}
    return [store for store, owner in owned.items() if owner not in living]


def alive(directory: Path, owner: str = "") -> bool:
    """Return whether some process, or the one called `owner`, holds a lock of the run whose directory this is.

    Raises `PermissionError` where that is another user's business.
    """
    try:
        # Not `is_dir`, which in newer Pythons takes what it may not see for what is not there.
        os.stat(directory)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        with _census(directory):
            if owner:
                return is_held(directory / _OWNERS / f"{owner}.lock")
            return _held(directory)
    except FileNotFoundError:  # all of it was removed just now
        return False


def close(directory: Path) -> bool:
    """Note that a run is over, so that nobody joins it.

    Return whether that is so; a run that lives is left as it is, and one that is gone is nobody's business.
    """
    with _census(directory):
        if not directory.is_dir() or _held(directory):
            return False
        if (directory / _OWNERS).is_dir():
            # Renamed, and no file written, because the disk may be full.
            (directory / _OWNERS).rename(directory / _OVER)
        else:
            (directory / _OVER).mkdir(mode=0o700, exist_ok=True)
    return True


def remove(directory: Path) -> None:
    """Remove the directory of a run that is over; whoever asks for that run from then on begins a new one."""
    with _census(directory):
        if not _held(directory):
            _remove(directory)


def _remove(directory: Path) -> None:
    from .support import trees

    # What cannot be removed has no machine any more: `prune` tries again.
    with contextlib.suppress(OSError):
        trees.remove(directory)


@contextlib.contextmanager
def _census(directory: Path) -> Iterator[None]:
    """Keep others from beginning, ending or counting any run beside this one.

    Counting means trying each lock, so that two who counted at once would take each other for an owner.
    """
    from filelock import Timeout

    path = directory.parent / ".lock"
    try:
        held = lock_file(path, singleton=True).acquire(timeout=_PATIENCE, poll_interval=0.01)
    except Timeout:
        raise StoreError(
            "The runs of this computer cannot be counted.",
            facts={"lock": path, "waited": f"{_PATIENCE:.0f} s"},
            hint=f"a process holds the lock and hangs; see which: fuser {shell_word(path)}",
        ) from None
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise StoreError(
            "The runs of this computer cannot be counted.",
            facts={"lock": path, "reason": error.strerror or error},
            hint=f"see what is there: ls -ld {shell_word(path)}",
        ) from error
    with held:
        yield


def _held(directory: Path) -> bool:
    return any(is_held(path) for path in sorted((directory / _OWNERS).glob("*.lock")))


def _directory(variable: str, usual: Path) -> Path:
    given = os.environ.get(variable)
    return Path(given).absolute() if given else usual


def _system_id() -> str:
    if sys.platform == "win32":
        import winreg

        with (
            contextlib.suppress(OSError),
            winreg.OpenKey(
                winreg.HKEY_LOCAL_MACHINE,
                r"SOFTWARE\Microsoft\Cryptography",
                0,
                winreg.KEY_READ | winreg.KEY_WOW64_64KEY,
            ) as key,
        ):
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])
        return ""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        with contextlib.suppress(OSError):
            # "uninitialized" is what systemd writes into an image that has not booted yet.
            if (found := path.read_text().strip()) and found != "uninitialized":
                return found
    return ""
