"""The shelf: machines that stay after their run for the next one that wants the like (``reuse="runs"``).

::

    STATE/shelf/KEY-NUMBER/              a store of its own for each set of machines that belongs together
    STATE/shelf/KEY-NUMBER/claim.json    which run has it now, or had it last

KEY stands for all that the machines are made of, so that a run finds only what it would make itself. While a run
lives, what it has claimed is its own: another that wants the like takes the next number, and makes its own there.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pytest_machine.support.folders import make_folder

from .kept import because_of
from .model import Record
from .owner import Run, alive, state_dir
from .store import Store, write
from .support import files, parsing, trees
from .support.locks import lock_file

_CLAIM = "claim.json"


class Shelf:
    """The shelf of this user on this host; `root` is in place of `state_dir`."""

    def __init__(self, root: Path | None = None) -> None:
        self.path = (root or state_dir()).absolute() / "shelf"

    def key(self, made_of: Iterable[str]) -> str:
        """Return the key of machines that are made of just this.

        Options may be secrets, so the digest needs a key of its own, which never leaves this host.
        """
        with self._lock():
            return hmac.new(self._salt(), "\0".join(made_of).encode(), hashlib.sha256).hexdigest()[:16]

    def claim(self, key: str, run: Run, *, by: str = "", withdrawn: Callable[[Store], bool] = lambda _: False) -> Store:
        """Return the place of machines with that key which the run has from now on, for as long as it lives.

        The same again for the same run, and for one of its processes alone when it says who it is, unless it is
        `withdrawn`. A place where somebody keeps a machine on purpose is nobody else's. Whether machines are there, and
        are any good, is for the caller to see.
        """
        mine = {"run": str(run.directory), "by": by}
        with self._lock():
            for place in self._places(key):
                if _claim(place) == mine and not withdrawn(Store(place)):
                    return Store(place)
            for number in itertools.count():
                place = self.path / f"{key}-{number}"
                if not (_taken(place) or _kept(Store(place))):
                    place.mkdir(mode=0o700, exist_ok=True)
                    write(place / _CLAIM, json.dumps(mine).encode())
                    return Store(place)
        raise AssertionError("numbers do not end")

    def free(self) -> list[Store]:
        """Return the places that no living run has, and where nothing is kept on purpose."""
        places = [Store(place) for place in self._places() if not _taken(place)]
        return [store for store in places if not _kept(store)]

    def stores(self, run: Path | None = None) -> list[Store]:
        """Return the places that were last a run's, by its directory; all of them when none is named."""
        return [Store(place) for place in self._places() if run is None or _claim(place).get("run") == str(run)]

    def take(self, store: Store, run: Run) -> bool:
        """Claim a place that is free, whatever its key; return whether it still was."""
        with self._lock():
            if _taken(store.path):
                return False
            write(store.path / _CLAIM, json.dumps({"run": str(run.directory), "by": "to destroy it"}).encode())
            return True

    def half_made(self, run: Path) -> list[Record]:
        """Return the machines that a run, by its directory, died over while it made them for the shelf."""
        places = [Store(place) for place in self._places() if _claim(place).get("run") == str(run)]
        return [record for store in places for record in store.records() if record.ready is None]

    def tidy(self) -> list[str]:
        """Remove the places without machines that no living run has: the keys of their authority go too.

        Return why others could not be removed.
        """
        errors: list[str] = []
        if not self.path.is_dir():  # taking the lock would create it
            return errors
        with self._lock():
            for place in sorted(self.path.glob("[!.]*-*")):
                with contextlib.suppress(PermissionError):
                    if Store(place).names() or _lives(_claim(place)):
                        continue
                try:
                    trees.remove(place)
                except OSError as error:
                    errors.append(f"'{place}' cannot be removed: {files.reason(error)}; rm -r '{place}'")
        return errors

    def _salt(self) -> bytes:
        path = self.path / "salt"
        with contextlib.suppress(*files.UNREADABLE):
            if len(found := files.read(path, largest=32)) == 32:
                return found
        # Absent or damaged: what was made with another one is not found again, and goes when its time is over.
        if path.is_dir():
            trees.remove(path)
        write(path, found := secrets.token_bytes(32), durable=False)
        return found

    def _places(self, key: str = "") -> list[Path]:
        return sorted(path.parent for path in self.path.glob(f"{key or '*'}-*/{_CLAIM}"))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        make_folder(self.path)
        with lock_file(self.path / ".lock", singleton=True).acquire(poll_interval=0.01):
            yield


def _taken(place: Path) -> bool:
    """Return whether a living run has a place, or may have it: its claim is damaged and machines are there."""
    claim = _claim(place)
    if not claim and os.path.lexists(place / _CLAIM):
        return bool(Store(place).names())
    return _lives(claim)


def _kept(store: Store) -> bool:
    return any(because_of(record) is not None for record in store.records())


def user(place: Path) -> str:
    """Return the id of the living run that has a place of a shelf now; empty when none has, or it is no such place.

    Raises `PermissionError` for another user's.
    """
    claim = _claim(place)
    return Path(claim["run"]).name if _lives(claim) else ""


def _claim(place: Path) -> dict[str, str]:
    """Return which run has a place or had it last; empty where that is not known."""
    try:
        found = files.read_table(place / _CLAIM, "the claim")
        run = parsing.path(found.get("run"), "'run'")
        return {"run": str(run), "by": parsing.text(found.get("by", ""), "'by'")}
    except PermissionError:
        raise
    except files.UNREADABLE:
        return {}


def _lives(claim: dict[str, str]) -> bool:
    return bool(claim.get("run")) and alive(Path(claim["run"]))
