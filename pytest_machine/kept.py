"""Machines that were kept on purpose: a note in the machine's own directory, which everybody who destroys asks for.

The note is on disk from the moment on at which the machine is to stay, so that whatever ends the run afterwards leaves
it alone too. A kept machine belongs to nobody: `pytest-machine rm` removes it, and ``prune --all``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from . import store
from .model import Record
from .owner import state_dir, stores
from .support import clock, files, parsing
from .support.parsing import Malformed
from .support.text import visible

_NOTE = "kept.json"
_KEY = "id_ed25519"


@dataclass(frozen=True, slots=True)
class Kept:
    """One machine that stays."""

    record: Record
    because: str
    """Why: a test's id as a rule."""
    since: float
    """Unix time, seconds."""

    @property
    def ssh(self) -> str:
        """The command that gives a shell in it."""
        directory, address = self.record.directory, self.record.address
        if address is None:
            return ""
        # OpenSSH splits the value of this option at blanks, unless it is quoted for OpenSSH too.
        known = _for_ssh(str(directory / "known_hosts"))
        argv = ["ssh", "-F", "none", "-i", str(directory / _KEY), "-o", "IdentitiesOnly=yes"]
        argv += ["-o", f"UserKnownHostsFile={known}"]
        argv += ["-p", str(address.ssh_port)] if address.ssh_port != 22 else []
        return shlex.join([*argv, f"{address.user}@{address.ip}"])

    @property
    def docker(self) -> str:
        """The command that asks its engine; any other command of ``docker`` in place of ``ps -a``."""
        if self.record.address is None:
            return ""
        where = shlex.quote(str(self.record.directory))
        return f"DOCKER_HOST={self.record.address.url} DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={where} docker ps -a"

    @property
    def remove(self) -> str:
        """The command that removes it."""
        return f"pytest-machine rm {self.record.id}"


def _for_ssh(path: str) -> str:
    """Return a path as OpenSSH splits the value of an option: in quotes, where it has blanks, quotes or the like."""
    if not re.search(r"[\s\"'\\#]", path):
        return path
    escaped = re.sub(r'(["\\])', r"\\\1", path)
    return f'"{escaped}"'


def keep(record: Record, because: str) -> None:
    """Let a machine stay whatever ends its run; again: the first reason holds."""
    if record.directory.is_dir() and because_of(record) is None:
        note = {"because": because, "since": clock.now()}
        store.write(record.directory / _NOTE, json.dumps(note).encode(), durable=False)


def because_of(record: Record) -> str | None:
    """Return why a machine is kept; None: it is not."""
    found = _read(record)
    return None if found is None else found.because


def among(found: Iterable[store.Store]) -> list[Kept]:
    """Return what is kept of the machines in these stores, in the order in which it was made."""
    records = [record for each in found for record in each.records()]
    there = [kept for record in records if (kept := _read(record)) is not None]
    return sorted(there, key=lambda kept: kept.record.created)


def everywhere() -> list[Kept]:
    """Return what is kept of all runs of this user, and of what waits for later runs."""
    runs = [each for directory in sorted((state_dir() / "runs").glob("[!.]*")) for each in stores(directory)]
    shelf = [store.Store(place) for place in sorted((state_dir() / "shelf").glob("*-*")) if place.is_dir()]
    return among([*runs, *shelf])


def _read(record: Record) -> Kept | None:
    try:
        note = files.read_table(record.directory / _NOTE, "its note")
        because = note.get("because", "")
        if not isinstance(because, str):
            raise Malformed("'because' is not a text")
        since = parsing.time(note.get("since", record.created), "'since'")
        return Kept(record, visible(because, lines=False), since)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except files.UNREADABLE as error:
        # The note was there on purpose: in doubt, the machine stays.
        return Kept(record, f"its note is damaged ({files.reason(error)})", record.created)
