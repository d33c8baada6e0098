"""What a template can call: Go's own functions, and those that Docker Machine has besides."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from urllib.parse import quote_plus

from pytest_machine.support.text import visible_json

from .values import ABSENT, Absent, Fraction, Struct, given, plain, printf, true, type_name


def _spaced(*values: object) -> str:
    """Join as Go's Sprint: with a space between two of which neither is a string."""
    out = ""
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            out += " "
        out += plain(value)
    return out


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = given(value[key]) if key in value else ABSENT
        elif isinstance(value, (list, str)) and isinstance(key, int) and not isinstance(key, bool):
            if not 0 <= key < len(value):
                raise LookupError(f"index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else given(value[key])
        else:
            raise TypeError(
                "index of nil pointer" if not true(value) else f"can't index item of type {type_name(value)}"
            )
    return value


def _slice(value: object, *bounds: object) -> object:
    if not isinstance(value, (str, list)):
        raise TypeError(f"can't slice item of type {type_name(value)}")
    if len(bounds) > 2:
        raise TypeError("cannot 3-index slice a string" if isinstance(value, str) else "too many slice indexes")
    whole: list[int] = []
    for bound in bounds:
        if not isinstance(bound, int) or isinstance(bound, bool):
            raise TypeError(f"cannot index slice/array with type {type_name(bound)}")
        if not 0 <= bound <= len(value):
            raise LookupError(f"index out of range: {bound}")
        whole.append(bound)
    start, end = [*whole, *[0, len(value)][len(whole) :]]
    if start > end:
        raise LookupError(f"invalid slice index: {start} > {end}")
    return value[start:end]


def _len(value: object) -> int:
    if not isinstance(value, (str, list, tuple, dict)):
        raise TypeError(f"len of type {type_name(value)}")
    return len(value.encode()) if isinstance(value, str) else len(value)


def _same(one: object, other: object) -> bool:
    nothing = [each is None or isinstance(each, Absent) for each in (one, other)]
    if any(nothing):
        return all(nothing)
    if isinstance(one, bool) != isinstance(other, bool):
        raise TypeError("incompatible types for comparison")
    if isinstance(one, str) != isinstance(other, str) or _apart(one, other):
        raise TypeError("incompatible types for comparison")
    return one == other


def _apart(one: object, other: object) -> bool:
    """Return whether these are a whole number and one with a point, which Go does not compare.

    With a number of the data, which to Go has always a point, it would not either: there we know what is meant.
    """
    return (isinstance(one, int) and isinstance(other, Fraction)) or (
        isinstance(one, Fraction) and isinstance(other, int)
    )


def _eq(one: object, *others: object) -> bool:
    if not others:
        raise TypeError("missing argument for comparison")
    return any(_same(one, other) for other in others)


def _less(one: object, other: object) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one < other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)) and not _apart(one, other):
        return one < other
    raise TypeError("incompatible types for comparison")


def _html(*values: object) -> str:
    text = _spaced(*values)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(character, entity)
    return text


def _js(*values: object) -> str:
    said = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
    return "".join(said.get(each, each if each >= " " else f"\\u{ord(each):04X}") for each in _spaced(*values))


def _whole(value: object) -> object:
    """Return a value as it was in the data: JSON writes no `.0` where Go's does not."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(value[key]) for key in (value if isinstance(value, Struct) else sorted(value))}
    if isinstance(value, (list, tuple)):
        return [_whole(each) for each in value]
    return None if isinstance(value, Absent) else value


def _json(value: object) -> str:
    return _safe(json.dumps(_whole(value), ensure_ascii=False, separators=(",", ":")))


def _prettyjson(value: object) -> str:
    return _safe(json.dumps(_whole(value), ensure_ascii=False, indent=4))


def pretty(value: object) -> str:
    """Return JSON as Go's ``json.MarshalIndent`` writes it by 4 spaces, keys in the order in which they are."""
    return _safe(json.dumps(value, ensure_ascii=False, indent=4))


def _safe(text: str) -> str:
    """Return JSON that HTML cannot take for its own, as Go writes it."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return visible_json(text)


FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "and": lambda first, *values: [first, *values][-1],
    "eq": _eq,
    "ge": lambda one, other: not _less(one, other),
    "gt": lambda one, other: _less(other, one),
    "html": _html,
    "index": _index,
    "js": _js,
    "json": _json,
    "le": lambda one, other: not _less(other, one),
    "len": _len,
    "lt": _less,
    "ne": lambda one, other: not _same(one, other),
    "not": lambda value: not true(value),
    "or": lambda first, *values: [first, *values][-1],
    "prettyjson": _prettyjson,
    "print": _spaced,
    "printf": printf,
    "println": lambda *values: " ".join(map(plain, values)) + "\n",
    "slice": _slice,
    "urlquery": lambda *values: quote_plus(_spaced(*values)),
}
