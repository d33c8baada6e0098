"""Strict parsing of values from files, tags, providers and other people.

Every function returns the typed value or raises `Malformed` with one sentence that names the value and what was
expected. Whatever comes from outside passes through here before anything else sees it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from .text import visible

LONGEST = 4096
"""Characters of one text, unless the caller says otherwise; the longest path on Linux."""
LARGEST_DOCUMENT = 8 << 20
"""Bytes of one JSON document, unless the caller says otherwise; a record has some thousand."""

_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_SCOPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_LARGEST = sys.float_info.max
# Levels of lists and tables in a value that is passed on as it is.
_DEEPEST = 32
# Year 9999, the last that `datetime` can show.
_LAST_TIME = 253_402_300_799.0


class Malformed(ValueError):
    """A value from outside is not what it has to be. The text names the value and what was expected."""


def _quoted(value: object) -> str:
    try:
        text = visible(repr(value), lines=False)
    except (RecursionError, ValueError):  # nested as deep as Python follows, or a number of thousands of digits
        text = f"a {type(value).__name__}"
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


def lines(value: object, what: str) -> str:
    """Return a text of any length that may have any character, as the names of a machine's own files."""
    if not isinstance(value, str):
        raise Malformed(f"{what} is {_quoted(value)}, which is not a text")
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
    # A comparison holds for neither NaN nor infinity, and for a number of hundreds of digits.
    if not least <= value <= most:
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
        scope = str(getattr(ipaddress.ip_address(found), "scope_id", None) or "eth0")
        if not _SCOPE.fullmatch(scope):  # `ipaddress` takes any text after the percent sign
            raise Malformed(f"{what} is {_quoted(found)}, whose part after % is not the name of an interface")
    except ValueError as error:
        if isinstance(error, Malformed):
            raise
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


def path(value: object, what: str) -> Path:
    """Return an absolute path without control characters. Bytes that are not UTF-8 may be in it, as Python has them."""
    if not isinstance(value, str):
        raise Malformed(f"{what} is {_quoted(value)}, which is not a path")
    try:
        readable = os.fsencode(value).decode("utf-8", "replace")
    except UnicodeEncodeError:
        raise Malformed(f"{what} is {_quoted(value)}, which no file system can have") from None
    text(readable, what)
    # Of whichever system it comes: a tag may be read by another computer than the one that wrote it.
    if not (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        raise Malformed(f"{what} is {_quoted(value)}, which is not an absolute path")
    return Path(value)


def plain(value: object, what: str, *, _depth: int = 0) -> object:
    """Return a value as JSON has it: texts without surrogates and NUL, finite numbers, lists and tables of such."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
            raise Malformed(f"{what} is {_quoted(value)}, which is not Unicode text")
        return value
    if isinstance(value, int):
        return integer(value, what, least=-(1 << 63), most=(1 << 64) - 1)
    if isinstance(value, float):
        return number(value, what, least=-_LARGEST, most=_LARGEST)
    if _depth >= _DEEPEST:
        raise Malformed(f"{what} is nested deeper than {_DEEPEST} levels")
    if isinstance(value, list | tuple):
        return [plain(each, what, _depth=_depth + 1) for each in value]
    if isinstance(value, Mapping):
        return {str(plain(key, what)): plain(each, what, _depth=_depth + 1) for key, each in table(value, what).items()}
    raise Malformed(f"{what} is {_quoted(value)}, which JSON does not have")


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
