"""A driver's options are the fields of its dataclass: validation, help, environment names and docs all come from them.

::

    @dataclass(frozen=True, kw_only=True)
    class RuncDriver:
        memory: int | None = option(None, kind=size, help="memory limit, such as 512m")

A value may come from a marker (typed), from a flag or from an environment variable (text); `configure` accepts all.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar

from .errors import BadSpec
from .model import Value, names
from .support import secrets

T = TypeVar("T")

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?\s*", re.IGNORECASE)


def size(value: Value) -> int:
    """Return bytes for ``512m``, ``4g``, ``1.5GiB`` or a number of bytes; units are powers of 1024, as Docker's."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    found = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if found <= 0:
        raise ValueError("a size is a number with a unit, such as '512m' or '4g'")
    return found


def duration(value: Value) -> float:
    """Return seconds for ``90``, ``30m``, ``2h``, ``7d`` or a plain number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", value) if isinstance(value, str) else None
    found = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if found <= 0:
        raise ValueError("a time is a number with a unit, such as '90s', '30m' or '2h'")
    return found


def option(
    default: Any,
    *,
    help: str,
    kind: Callable[[Value], object] | None = None,
    env: str = "",
    flag: str | None = "",
    secret: bool = False,
) -> Any:
    """Return a dataclass field that is a driver's option.

    `kind` turns what was given into the field's value and raises `ValueError` with the reason; without it the field's
    annotation says what is accepted. `env` and `flag` name a variable and flag where the usual ones (the driver's name
    and the field's) are not the ones that people know; ``flag=None``: the command line has none for it. A `secret` is
    kept apart from the record and shown nowhere.
    """
    metadata = {"help": help, "kind": kind, "env": env, "flag": flag, "secret": secret}
    if callable(default):
        return field(default_factory=default, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of one driver, as help pages and docs show it."""

    name: str
    help: str
    default: object
    env: str
    flag: str
    """Empty: there is none."""
    secret: bool
    type: object
    kind: Callable[[Value], object] | None


def options(driver: type) -> dict[str, Option]:
    """Return the options of a driver class by field name, in order."""
    hints = typing.get_type_hints(driver)
    return {f.name: _option(driver, f, hints[f.name]) for f in fields(driver)}


def _option(driver: type, f: Field[Any], hint: object) -> Option:
    prefix = str(getattr(driver, "name", driver.__name__))
    default = (
        f.default if f.default is not MISSING else f.default_factory() if f.default_factory is not MISSING else None
    )
    return Option(
        name=f.name,
        help=f.metadata.get("help", ""),
        default=None if default is MISSING else default,
        env=f.metadata.get("env") or f"{prefix}_{f.name}".upper().replace("-", "_"),
        flag=_flag(f.metadata.get("flag", ""), prefix, f.name),
        secret=bool(f.metadata.get("secret")),
        type=hint,
        kind=f.metadata.get("kind"),
    )


def _flag(given: str | None, prefix: str, name: str) -> str:
    return "" if given is None else given or f"--{prefix}-{name}".replace("_", "-")


def configure(driver: type[T], given: Mapping[str, Value]) -> T:
    """Return the driver with the options given; raise `BadSpec` for one that it does not have or cannot read."""
    known = options(driver)
    name = str(getattr(driver, "name", driver.__name__))
    values: dict[str, object] = {}
    for key, value in given.items():
        if key not in known:
            import difflib

            close = difflib.get_close_matches(key, known, n=1)
            raise BadSpec(
                f"The driver '{name}' has no option '{key}'.",
                facts={"options": names(known)},
                hint=f"did you mean '{close[0]}'?" if close else "take it out, or choose another driver",
            )
        if known[key].secret:
            secrets.learn(value)
        try:
            values[key] = _read(known[key], value)
        except (ValueError, TypeError, OverflowError) as error:  # the last: infinity is no whole number
            shown = "(secret)" if known[key].secret else repr(value)
            wrong = BadSpec(
                f"The option '{key}' of the driver '{name}' cannot be {shown}.",
                facts={"reason": error, "meaning": known[key].help},
                hint=f"give {key}= another value, or leave it out",
            )
            wrong.option = key
            raise wrong from error
    return driver(**values)


def from_environment(driver: type, environ: Mapping[str, str] = os.environ) -> dict[str, Value]:
    """Return the options that the environment sets, as text, by field name."""
    return {o.name: environ[o.env] for o in options(driver).values() if environ.get(o.env)}


def _read(wanted: Option, value: Value) -> object:
    if value is None:
        if wanted.default is None:
            return None
        raise ValueError("it needs a value")
    if wanted.kind is not None:
        return wanted.kind(value)
    return _as(wanted.type, value)


def _as(hint: object, value: Value) -> object:
    """Return `value` as the annotation wants it; text is read, anything else must already be of the type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return _as(next(part for part in typing.get_args(hint) if part is not type(None)), value)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, list | tuple):
            return tuple(str(part) for part in value)
        raise ValueError("it takes a list")
    if hint is bool:
        return _as_bool(value)
    if hint is str and isinstance(value, str | os.PathLike):
        return str(value)
    if hint in (int, float) and isinstance(value, str | int | float) and not isinstance(value, bool):
        return int(value) if hint is int else float(value)
    if isinstance(hint, type) and issubclass(hint, os.PathLike) and isinstance(value, str | os.PathLike):
        return hint(value)  # type: ignore[call-arg]  # a Path takes text
    raise ValueError(f"it takes {getattr(hint, '__name__', hint)}")


def _as_bool(value: Value) -> bool:
    if isinstance(value, bool):
        return value
    # What Go's ParseBool takes, because Docker Machine's variables are read so, and the words that people type.
    words = {"1": True, "t": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "f": False, "false": False, "no": False, "off": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError("it is 'true' or 'false'")
