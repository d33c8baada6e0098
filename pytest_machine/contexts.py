"""Machines as Docker contexts: ``docker --context web ps``; ``docker context use default`` is the way back.

They are written as Docker's own store has them, so that no ``docker`` program is needed for it. A context of ours holds
its machine's id; one that does not is somebody else's and stays as it is.

::

    DOCKER_CONFIG/config.json                              names the context in use
    DOCKER_CONFIG/contexts/meta/SHA256/meta.json           what it is called, and where its Docker is reached
    DOCKER_CONFIG/contexts/tls/SHA256/docker/*.pem         copies of the machine's certificates
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_machine.support.folders import PUBLIC, make_folder

from . import certs as certificates_
from .errors import BadSpec, StoreError
from .model import Address, Record
from .store import RECORD, write
from .support import given
from .support.files import UNREADABLE, read_table, reason
from .support.parsing import Malformed, json_table, table, text
from .support.parsing import path as path_of
from .support.text import visible

_OURS = "pytest-machine"
_PEMS = ("ca.pem", "cert.pem", "key.pem")
_RESERVED = "default"
# Docker Machine's own.
_THEIR_RECORD = "config.json"


def home() -> Path:
    """Return where the ``docker`` program keeps its things."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def name_of(machine: str) -> str:
    """Return what the context of a machine is called: as the machine, where Docker allows that."""
    return f"machine-{machine}" if machine == _RESERVED or len(machine) < 2 else machine


def check_free(machine: str, id: str = "") -> None:
    """Raise `BadSpec` when a context of that name is somebody else's, or another machine's that there still is."""
    name = name_of(machine)
    found = _read(name)
    if found is None:
        return
    ours = _ours(found)
    if ours is None or (ours.get("id") != id and _lives(ours)):
        whose = visible(str(ours.get("machine", "")), lines=False) if ours else ""
        raise BadSpec(
            f"There is already a Docker context '{name}'.",
            facts={"file": _meta(name), **({"machine": whose} if whose else {})},
            hint=f"docker context rm {name}",
        )


def add(record: Record, address: Address, *, certs: Path | None = None) -> str:
    """Write the machine's context, or write it anew; return what it is called. Raises what `check_free` raises.

    `certs` is where the client's certificates are that it asks for, if not in the machine's own directory.
    """
    check_free(record.name, record.id)
    name = name_of(record.name)
    certs = certs or record.directory
    certificates = {each: certs / each for each in _PEMS if (certs / each).exists()}
    place = _certificates(name)
    if certificates:
        make_folder(place)
        for each, path in certificates.items():
            write(place / each, certificates_.read(path), durable=False)
    # What its user has written of it since stays.
    known = _read(name) if has(record) else {"Metadata": {"Description": f"Docker on the machine '{record.name}'"}}
    assert known is not None
    data = {
        **known,
        "Name": name,
        "Metadata": {
            **known["Metadata"],
            _OURS: {"id": record.id, "machine": record.name, "store": str(record.store)},
        },
        "Endpoints": {"docker": {"Host": address.url, "SkipTLSVerify": False}},
    }
    # Last, because this is what makes it one.
    make_folder(_meta(name).parent, PUBLIC)
    write(_meta(name), json.dumps(data).encode(), mode=0o644, durable=False)
    return name


def has(record: Record) -> bool:
    """Whether the machine has a context."""
    found = _read(name_of(record.name))
    ours = _ours(found) if found else None
    return ours is not None and ours.get("id") == record.id


def refresh(record: Record, *, certs: Path | None = None) -> None:
    """Bring the machine's context up to its certificates and address of now; one that has none gets none."""
    if record.address is not None and has(record):
        add(record, record.address, certs=certs)


def remove(record: Record) -> bool:
    """Remove the machine's context and return whether there was one. If it was in use, ``default`` is again."""
    there = has(record)
    if there:
        take(name_of(record.name))
    return there


def left() -> list[str]:
    """Return the names of contexts of ours whose machines are not noted any more."""
    found = []
    for path in sorted((home() / "contexts" / "meta").glob("*/meta.json")):
        with contextlib.suppress(*UNREADABLE):
            data = json_table(given.read(path), "it")
            name = text(data.get("Name"), "its name", empty=False)
            ours = _ours(data)
            if ours is not None and not _lives(ours) and _meta(name) == path:
                found.append(name)
    return found


def take(name: str) -> None:
    """Remove a context, whosever it is."""
    _leave(name)
    for each in (_meta(name).parent, _certificates(name).parent):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(each)


def _leave(name: str) -> None:
    """Have Docker use another context if it uses this one: it does nothing at all with one that is gone."""
    path = home() / "config.json"
    with contextlib.suppress(FileNotFoundError, Malformed):
        data = json_table(given.read(path), "it")
        if data.pop("currentContext", None) == name:
            write(path.resolve(), json.dumps(data, indent="\t").encode(), mode=path.stat().st_mode & 0o777)


def _lives(owner: Mapping[str, Any]) -> bool:
    """Whether the machine is still noted for which a context was made."""
    try:
        store = path_of(owner.get("store"), "its store")
        directory = store / "machines" / text(owner.get("machine"), "its machine", empty=False)
        if not (directory / RECORD).exists():
            return (directory / _THEIR_RECORD).exists()
        return bool(read_table(directory / RECORD).get("id") == owner.get("id"))
    except UNREADABLE:  # in doubt it is
        return True


def _read(name: str) -> dict[str, Any] | None:
    try:
        found = json_table(given.read(_meta(name)), "it")
        found["Metadata"] = table(found.get("Metadata") or {}, "'Metadata'")
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise _unreadable(name, reason(error)) from error
    return found


def _ours(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return our part of a context's metadata; None for a context that we did not make."""
    metadata = found.get("Metadata")
    ours = metadata.get(_OURS) if isinstance(metadata, Mapping) else None
    return ours if isinstance(ours, Mapping) else None


def _unreadable(name: str, reason: object) -> StoreError:
    return StoreError(
        f"The Docker context '{name}' cannot be read.",
        facts={"path": _meta(name), "reason": reason},
        hint=f"docker context rm {name}",
    )


def _meta(name: str) -> Path:
    return home() / "contexts" / "meta" / _digest(name) / "meta.json"


def _certificates(name: str) -> Path:
    return home() / "contexts" / "tls" / _digest(name) / "docker"


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()
