"""Strict parsing of values from files, tags, providers and other people.

Every function returns the typed value or raises `Malformed` with one sentence that names the value and what was
expected. Whatever comes from outside passes through here before anything else sees it.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Mapping

from .text import visible

LONGEST = 4096
"""Characters of one text, unless the caller says otherwise; the longest path on Linux."""
LARGEST_DOCUMENT = 8 << 20
"""Bytes of one JSON document, unless the caller says otherwise; a record has some thousand."""

_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
# Year 9999, the last that `datetime` can show.
_LAST_TIME = 253_402_300_799.0


class Malformed(ValueError):
    """A value from outside is not what it has to be. The text names the value and what was expected."""


def _quoted(value: object) -> str:
    text = visible(repr(value), lines=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


def text(value: object, what: str, *, longest: int = LONGEST, empty: bool = True) -> str:
    """Return a text without control characters and surrogates, of at most `longest` characters."""
    if not isinstance(value, str):
        raise Malformed(f"{what} is {_quoted(value)}, which is not a text")
    if visible(value, lines=False) != value:
        raise Malformed(f"{what} is {_quoted(value)}, which has control characters")
    if len(value) > longest:
        raise Malformed(f"{what} has {len(value)} characters; at most {longest} are allowed")
    if not value and not empty:
        raise Malformed(f"{what} is empty")
    return value


def integer(value: object, what: str, *, least: int, most: int) -> int:
    """Return a whole number from `least` to `most`; neither a text nor a boolean is one."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Malformed(f"{what} is {_quoted(value)}, which is not a whole number from {least} to {most}")
    return value


def number(value: object, what: str, *, least: float, most: float) -> float:
    """Return a finite number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed(f"{what} is {_quoted(value)}, which is not a number")
    if not math.isfinite(value) or not least <= value <= most:
        raise Malformed(f"{what} is {_quoted(value)}, which is not a number from {least:g} to {most:g}")
    return float(value)


def time(value: object, what: str) -> float:
    """Return a Unix time in seconds, between 1970 and the year 9999."""
    return number(value, what, least=0.0, most=_LAST_TIME)


def boolean(value: object, what: str) -> bool:
    """Return true or false; a number or a text is neither."""
    if not isinstance(value, bool):
        raise Malformed(f"{what} is {_quoted(value)}, which is neither true nor false")
    return value


def port(value: object, what: str = "the port", *, zero: bool = False) -> int:
    """Return a TCP port from 1 to 65535; with `zero`, 0 too."""
    return integer(value, what, least=0 if zero else 1, most=65535)


def host(value: object, what: str = "the address") -> str:
    """Return an IPv4 or IPv6 address or a DNS host name."""
    found = text(value, what, longest=253, empty=False)
    try:
        ipaddress.ip_address(found)
    except ValueError:
        # Four numbers with dots that are no address would be taken for a name.
        if not _HOST.fullmatch(found) or re.fullmatch(r"[0-9.]+", found):
            raise Malformed(f"{what} is {_quoted(found)}, which is neither an IP address nor a host name") from None
    return found


def table(value: object, what: str) -> dict[str, object]:
    """Return a table whose keys are texts; the values are not looked at."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Malformed(f"{what} is {_quoted(value)}, which is not a table")
    return dict(value)


def texts(value: object, what: str, *, longest: int = LONGEST) -> tuple[str, ...]:
    """Return a list of texts."""
    if not isinstance(value, list | tuple):
        raise Malformed(f"{what} is {_quoted(value)}, which is not a list")
    return tuple(text(each, f"an entry of {what}", longest=longest) for each in value)


def json_value(data: bytes, what: str, *, largest: int = LARGEST_DOCUMENT) -> object:
    """Return the value of a JSON document: UTF-8, at most `largest` bytes, nested as deep as Python can follow."""
    if len(data) > largest:
        raise Malformed(f"{what} has {len(data)} bytes; at most {largest} are read")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Malformed(f"{what} is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"{what} is not JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise Malformed(f"{what} is nested too deep") from None
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise Malformed(f"{what} is not JSON: {error}") from None


def json_table(data: bytes, what: str, *, largest: int = LARGEST_DOCUMENT) -> dict[str, object]:
    """Return the table that a JSON document holds."""
    return table(json_value(data, what, largest=largest), what)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
