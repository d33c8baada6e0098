"""What a machine can be asked for with, by name: readers that check a value and return it in its one form.

Marks, settings and ``machines.toml`` say the same words (`machine(memory="1g", networks=["front"])`); each of them says
in its own way what was wrong.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping

from .driver import NEEDS
from .errors import BadSpec
from .model import check_name, names
from .options import size

_BYTES = 1 << 20
"""A size without a unit below this one was meant in megabytes."""

OPTIONS = ("image", "engine", "memory", "cpus", "disk")
"""Arguments that are options of the driver, under their own names."""


MEANT = {
    "ram": "memory",
    "mem": "memory",
    "memory_limit": "memory",
    "cpu": "cpus",
    "cores": "cpus",
    "processors": "cpus",
    "network": "networks",
    "net": "networks",
    "nets": "networks",
    "hostname": "name",
    "host": "name",
    "name": "name",
    "names": "name",
    "storage": "disk",
    "disk_size": "disk",
    "os": "image",
    "docker": "engine",
    "docker_version": "engine",
    "version": "engine",
    "number": "count",
    "scope": "reuse",
    "provider": "driver",
    "images": "preload",
    "mirror": "registry_mirror",
}
"""Words of other tools, and ours for them; ``name`` stands for a machine's name, which has no keyword."""

_ABILITIES = {
    "freeze": "pause",
    "suspend": "pause",
    "unpause": "pause",
    "snapshot": "snapshots",
    "restore": "snapshots",
    "network": "networks",
    "poweroff": "power",
    "stop": "power",
    "start": "power",
    "vm": "own-kernel",
    "kernel": "own-kernel",
    "userns": "user-namespace",
    "oom": "incidents",
}


class Wrong(ValueError):
    """A value that cannot be: why, and what could be; without an `example`, `hint` says what to do."""

    def __init__(self, reason: str, *, example: object = None, optional: bool = False, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.example = example
        self.optional = optional
        """Whether it helps, too, to leave it out."""
        self.hint = hint

    def said(self, write: Callable[[object], str]) -> str:
        """Return the hint; `write` writes a value as it stands where the user has written one."""
        if self.hint:
            return self.hint
        return f"write {write(self.example)}" + (" or leave it out" if self.optional else "")


def word(value: object, words: Iterable[str]) -> str:
    """Return the value if it is one of the words."""
    words = list(words)
    if isinstance(value, str) and value in words:
        return value
    raise Wrong(f"it takes one of {names(words)}", example=words[0], optional=True, hint=_meant(value, words))


def flag(value: object) -> bool:
    """Return a truth value."""
    if isinstance(value, bool):
        return value
    meant = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    known = meant.get(str(value).strip().lower())
    raise Wrong("it takes True or False", example=known is not False, optional=known is False)


def each_of(value: object, words: Iterable[str]) -> frozenset[str]:
    """Return a list's words, if there are no others than these."""
    found, known = frozenset(texts(value)), [str(each) for each in words]
    for one in sorted(found - frozenset(known)):
        raise Wrong(
            f"nothing is called '{one}'; there is {names(sorted(known))}",
            example=[min(known)],
            optional=True,
            hint=f"did you mean '{_ABILITIES[one]}'?" if _ABILITIES.get(one) in known else _meant(one, known),
        )
    return found


def texts(value: object) -> tuple[str, ...]:
    """Return a list of texts; one text is a list of one."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list | tuple | set | frozenset):
        raise Wrong("it takes a list of names", example=["…"])
    return tuple(text(one) for one in found)


def text(value: object) -> str:
    """Return a text that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise Wrong("it takes text", example="…", optional=True)


def path(value: object) -> str:
    """Return a path, or any other text, as text."""
    return text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _meant(value: object, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(value, list(words), n=1) if isinstance(value, str) else []
    return f"did you mean '{close[0]}'?" if close else ""


_MOST_MACHINES = 1000
"""How many machines one mark or one table of machines.toml may ask for: more is a mistake."""


def _count(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_MACHINES:
        return value
    raise Wrong(f"it takes a whole number from 1 to {_MOST_MACHINES}", example=3)


def _number(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return value
    raise Wrong("it takes a number greater than 0", example=1.5, optional=True)


def _size(value: object) -> object:
    try:
        size(value)  # type: ignore[arg-type]  # it refuses what it does not know
    except ValueError as error:
        raise Wrong(str(error), example="512m") from error
    return value


def _memory(value: object) -> object:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and int(value) < _BYTES:
        raise Wrong(f"'{value}' is {value} bytes", example=f"{value.strip()}m")
    return _size(value)


def _networks(value: object) -> object:
    found = texts(value)
    for name in found:
        try:
            check_name(name)
        except BadSpec as error:
            raise Wrong(str(error.facts["allowed"]), hint="choose a name such as 'front'") from error
    return found


def _table(value: object) -> object:
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}
    raise Wrong("it takes a table of the driver's options", example={"name": "value"})


def _engine(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # 20.10 is the number 20.1, and nobody would see why that Docker is not found.
        raise Wrong("it takes text: a number has lost its last zero", example=str(value))
    if isinstance(value, list | tuple):
        found = tuple(str(_engine(one)) for one in value)
        if not found or len(set(found)) < len(found):
            raise Wrong("it takes one or more, each once", example=["20.10", "26.1"])
        return found
    return path(value)


def _images(value: object) -> object:
    found = [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(found, list | tuple):
        raise Wrong("it takes a list of images and archives", example=["busybox:1"])
    return tuple(path(one) for one in found)


def _pairs(value: object) -> object:
    if isinstance(value, Mapping) and all(isinstance(part, str) for pair in value.items() for part in pair):
        return dict(value)
    raise Wrong("it takes a table of texts", example={"name": "value"})


def _settings(value: object) -> object:
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return dict(value)
    raise Wrong("it takes a table, as daemon.json is", example={"log-driver": "json-file"})


READERS: Mapping[str, Callable[[object], object]] = {
    "driver": text,
    "count": _count,
    "image": path,
    "engine": _engine,
    "memory": _memory,
    "cpus": _number,
    "disk": _size,
    "networks": _networks,
    "needs": lambda value: each_of(value, NEEDS),
    "options": _table,
    "timeout": _number,
    "preload": _images,
    "registry_mirror": texts,
    "insecure_registries": texts,
    "engine_options": _settings,
    "engine_env": _pairs,
    "labels": _pairs,
}
"""What describes a machine, wherever it is asked for."""


def read(key: str, value: object, further: Mapping[str, Callable[[object], object]] | None = None) -> object:
    """Return a value in its one form; `further` are readers of words that only the caller knows. Raises `Wrong`."""
    return {**READERS, **(further or {})}[key](value)


def driver_options(said: dict[str, object]) -> dict[str, object]:
    """Take the driver's options out of what was said, those that are arguments too; return them.

    Raises `KeyError` with the name of one that was said twice.
    """
    given = said.pop("options", None)
    found = dict(given) if isinstance(given, Mapping) else {}
    for key in OPTIONS:
        if key in said:
            if key in found:
                raise KeyError(key)
            found[key] = said.pop(key)
    return found
