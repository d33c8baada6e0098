"""Records on disk: save, load, remove, names and a lock for each machine, in Docker Machine's layout.

::

    STORE/certs/                                 the authority and the client's pair (`pytest_machine.certs`)
    STORE/locks/NAME.lock                        outside of the machine's directory, so that it outlives it
    STORE/machines/NAME/pytest-machine.json      our record; Docker Machine's own is config.json beside it
    STORE/machines/NAME/secrets.json             secret options, 0600, gone with the machine
    STORE/machines/NAME/...                      keys, certificates, and what the driver keeps

A file is replaced whole or not at all, and every record stands alone: one that is broken never hides the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_machine.support.folders import make_folder

from .errors import BadSpec, MachineExists, StoreError, UnknownMachine
from .model import Record, Value, check_name
from .support import files, parsing
from .support.parsing import Malformed
from .support.text import shell_word

if TYPE_CHECKING:
    from .stored import Damaged

RECORD = "pytest-machine.json"
SECRETS = "secrets.json"


def write(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace a file whole: whoever reads it, or a crash in between, meets the old content or the new.

    The new file has exactly `mode`, whatever the umask is. `durable` waits for the disk, about 5 ms; not worth it for
    what can be made again.
    """
    # Late, here and below: who only reads a record is in a hurry.
    import secrets

    # In the same directory, because a rename is atomic only within a file system.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        with os.fdopen(descriptor, "wb") as file:
            if hasattr(os, "fchmod"):  # Windows has no modes
                os.fchmod(descriptor, mode)
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # Windows cannot open a directory, and needs no fsync of it.
    if durable and os.name != "nt":
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Store:
    """The machines noted under one directory. Values only: any number of these may look at the same directory."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    @property
    def certificates(self) -> Path:
        """Where the authority and the client's pair of this store's machines are."""
        return self.path / "certs"

    def check(self) -> None:
        """Raise `StoreError` where no store can be, because a file is in the way. One that is not there yet can."""
        try:
            os.scandir(self.path).close()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._unusable(error) from error

    def make(self, name: str) -> Path:
        """Return a directory of the store's, such as ``locks``; it is made where there is none, for its owner alone."""
        directory = self.path / name
        self._mkdir(directory)
        return directory

    def add(self, record: Record) -> None:
        """Note a new machine; raises `MachineExists` when the name is taken.

        A directory that Docker Machine made under that name is taken too; an empty one that a crash left is not.
        """
        directory = self._directory(record.name)
        with self.lock(record.name):
            if directory.is_symlink() or (directory / RECORD).is_symlink() or _occupied(directory):
                raise MachineExists(
                    f"There is already a machine '{record.name}'.",
                    facts={"directory": directory},
                    hint="choose another name",
                )
            self._mkdir(directory)
            try:
                self._write_record(record)
            except OSError:
                with contextlib.suppress(OSError):  # not empty: `_write_record` says why it failed
                    directory.rmdir()
                raise

    def save(self, record: Record) -> None:
        """Replace the record of a machine that was added; raises `UnknownMachine` for one that was not, or is gone."""
        with self.lock(record.name):
            self._check_known(record.name)
            self._write_record(record)

    def load(self, name: str) -> Record:
        """Return the record; raises `UnknownMachine`, or `StoreError` when it is there and cannot be read."""
        self._check_known(name)
        path = self._directory(name) / RECORD
        try:
            record = Record.from_json(files.read_table(path, "the record"))
            if record.name != name:  # it would have two directories
                raise Malformed(f"it is the record of '{record.name}'")
        except FileNotFoundError:  # removed just now
            raise self._unknown(name) from None
        except files.UNREADABLE as error:
            raise _unreadable("record", name, path, error) from error
        # Whatever it says: a store may have been moved, or be mounted elsewhere.
        return record.with_(store=self.path)

    def salvaged(self, name: str) -> Damaged | None:
        """Return what is left to know of a machine whose record cannot be read; None where it can, or is gone."""
        from . import stored

        path = self._directory(name) / RECORD
        try:
            self._check_known(name)
        except UnknownMachine:
            return None
        except StoreError as error:
            return stored.damaged({"name": name}, error.message, id="", place=str(path))
        content, given = b"", None
        try:
            content = files.read(path, "the record")
            given = parsing.json_table(content, "the record")
            if Record.from_json(given).name == name:
                return None
            found: Exception | str = "it is the record of another machine"
        except FileNotFoundError:
            return None
        except files.UNREADABLE as error:
            found = error
        id_ = re.search(rb'"id":\s*"([0-9a-f]{10})"', content)
        left = stored.damaged(given, found, id=id_[1].decode() if id_ else "", place=str(path))
        return dataclasses.replace(left, name=name)

    def remove(self, name: str) -> None:
        """Remove the machine's directory and all in it; again, or never added: nothing happens.

        Secrets and keys go first and the record last, so that a crash in between leaves a machine that can be removed
        again. A directory without a record of ours is left alone, and no link is followed.
        """
        from .support import trees

        directory = self._directory(name)
        if not os.path.lexists(directory / RECORD):
            return
        with self.lock(name):
            try:
                if not os.path.lexists(directory / RECORD):  # another process was faster
                    return
                if directory.is_symlink():  # what it leads to is not ours
                    directory.unlink()
                    return
                for child in sorted(directory.iterdir(), key=_secret_first):
                    if child.name != RECORD:
                        trees.remove(child)
                trees.remove(directory / RECORD)
                directory.rmdir()
            except OSError as error:
                raise StoreError(
                    f"The directory of the machine '{name}' cannot be removed.",
                    facts={"path": error.filename or directory, "reason": error.strerror or error},
                    hint="remove what is in the way, then: pytest-machine prune",
                ) from error

    def names(self) -> list[str]:
        """Return the names of all machines that have a record of ours, readable or not; ``web-2`` before ``web-10``."""
        try:
            found = [entry.name for entry in (self.path / "machines").iterdir()]
        except OSError:  # `check` says why it cannot be read
            return []
        known = [name for name in found if _is_name(name) and os.path.lexists(self._directory(name) / RECORD)]
        return sorted(known, key=_natural)

    def strangers(self) -> list[Path]:
        """Return what lies among the machines and has no name that a machine can have."""
        try:
            return sorted(path for path in (self.path / "machines").iterdir() if not _is_name(path.name))
        except OSError:
            return []

    def records(self) -> list[Record]:
        """Return every record that can be read, in the order of `names`."""
        return [found for found in self._all().values() if isinstance(found, Record)]

    def broken(self) -> dict[str, StoreError]:
        """Return why the other records cannot be read, by name."""
        return {name: found for name, found in self._all().items() if isinstance(found, StoreError)}

    @contextlib.contextmanager
    def lock(self, name: str, *, timeout: float = -1) -> Iterator[None]:
        """Hold the machine against every other thread and process, for as long as the block lasts.

        Waits for its turn for ever, or `timeout` seconds, after which it raises `StoreError`.

        The thread that holds it may take it again, and `add`, `save` and `remove` do so themselves; a thread that
        waits for another one that wants the same machine waits forever. The kernel lets go when the process dies.
        """
        from filelock import Timeout

        from .support.locks import lock_file

        self._directory(name)  # checks the name
        locks = self.make("locks")
        # A singleton, because one object is what makes it reentrant; thread-local, so that threads exclude each other.
        try:
            held = lock_file(locks / f"{name}.lock", singleton=True).acquire(timeout=timeout, poll_interval=0.01)
        except Timeout:
            raise StoreError(
                f"Another process is at work on the machine '{name}'.",
                facts={"waited": f"{timeout:g} s", "lock": locks / f"{name}.lock"},
                hint="try again when it has ended",
            ) from None
        except OSError as error:
            raise StoreError(
                f"The machine '{name}' cannot be locked.",
                facts={"lock": locks / f"{name}.lock", "reason": error.strerror or error},
                hint=f"see what is there: ls -ld '{locks / f'{name}.lock'}'",
            ) from error
        with held:
            yield

    def secrets(self, name: str) -> dict[str, Value]:
        """Return the machine's secret options; empty when there are none."""
        from . import stored

        self._check_known(name)
        path = self._directory(name) / SECRETS
        try:
            found = files.read_table(path, "the file")
            return {key: stored.option(value, f"the option '{key}'") for key, value in found.items()}
        except FileNotFoundError:
            return {}
        except files.UNREADABLE as error:
            # Without the words of the error: they may have the secret in them.
            why = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise _unreadable("secrets", name, path, why) from None

    def save_secrets(self, name: str, secrets: Mapping[str, Value]) -> None:
        """Replace the machine's secret options, in a file that only its owner can read."""
        with self.lock(name):
            self._check_known(name)
            write(self._directory(name) / SECRETS, _json(dict(secrets)))

    def _all(self) -> dict[str, Record | StoreError]:
        found: dict[str, Record | StoreError] = {}
        for name in self.names():
            # Removed since it was listed: then it is simply not there.
            with contextlib.suppress(UnknownMachine):
                try:
                    found[name] = self.load(name)
                except StoreError as error:
                    found[name] = error
        return found

    def _directory(self, name: str) -> Path:
        return self.path / "machines" / check_name(name)

    def _mkdir(self, directory: Path) -> None:
        try:
            # What is above the store belongs to the user, and gets the mode that their umask gives.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            make_folder(directory)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            f"The store '{self.path}' cannot be used.",
            facts={"reason": error.strerror or error},
            hint=f"choose another directory, or see what is there: ls -ld {shell_word(error.filename or self.path)}",
        )

    def _write_record(self, record: Record) -> None:
        content = _json(record.with_(store=self.path).to_json())
        try:
            Record.from_json(parsing.json_value(content, "the record"))
        except Malformed as error:  # it could never be read again
            raise BadSpec(
                f"The machine '{record.name}' cannot be stored.",
                facts={"reason": error},
                hint="leave that value out, or choose another",
            ) from None
        write(self._directory(record.name) / RECORD, content)

    def _check_known(self, name: str) -> None:
        if not os.path.lexists(self._directory(name) / RECORD):
            raise self._unknown(name)
        self._refuse_links(name)

    def _refuse_links(self, name: str) -> None:
        # A link would let one machine's removal, or its secrets, land in a place of somebody else's choosing.
        for path in (self._directory(name), self._directory(name) / RECORD):
            if path.is_symlink():
                raise StoreError(
                    f"The machine '{name}' is a symbolic link, which the store does not follow.",
                    facts={"path": path, "reason": "it cannot be read"},
                    hint=f"docker-machine rm -f {name}",
                )

    def _unknown(self, name: str) -> UnknownMachine:
        import difflib

        close = difflib.get_close_matches(name, self.names(), n=3)
        return UnknownMachine(
            f"There is no machine '{name}'.",
            facts={"store": self.path, **({"close": ", ".join(f"'{each}'" for each in close)} if close else {})},
            hint=f"did you mean '{close[0]}'?" if close else f"ls {shell_word(self.path / 'machines')}",
        )


def _occupied(directory: Path) -> bool:
    try:
        # A temporary file of ours is what a crash in `add` leaves.
        return any(not child.name.endswith(".tmp") for child in directory.iterdir())
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except BadSpec:
        return False
    return True


def _natural(name: str) -> tuple[list[str | int], str]:
    # `split` with a group yields text, digits, text, …: like is always compared with like.
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", name)], name


def _secret_first(path: Path) -> tuple[int, str]:
    key = path.name == SECRETS or path.name.startswith("id_") or path.suffix in (".pem", ".key", ".tmp")
    return (0 if key else 2 if path.is_dir() else 1), path.name


def _json(data: Mapping[str, object]) -> bytes:
    return json.dumps(data, indent=2).encode() + b"\n"


def _unreadable(what: str, name: str, path: Path, error: object) -> StoreError:
    newer = isinstance(error, Malformed) and "upgrade" in str(error)
    return StoreError(
        f"The {what} of the machine '{name}' cannot be read.",
        facts={"path": path, "reason": files.reason(error) if isinstance(error, Exception) else error},
        hint="upgrade pytest-machine" if newer else f"docker-machine rm -f {name}",
    )
