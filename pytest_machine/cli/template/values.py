"""The values that a template meets, as Go has them from JSON, and how Go prints them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from .errors import Wrong


class Struct(dict[str, object]):
    """A map as Go's structs are: printed without its keys, and to ask it for one that it does not have is an error."""

    def __init__(self, kind: str, fields: Mapping[str, object]) -> None:
        super().__init__(fields)
        self.kind = kind
        """What Go calls its type."""


class Fraction(float):
    """A number that the template itself says, with a point."""


class Absent:
    """What a key that is not there gives: it prints as such, and counts as nothing."""

    def __bool__(self) -> bool:
        return False


ABSENT = Absent()


def field_of(value: object, name: str) -> object:
    """Return a field, or `ABSENT` for a key that is not there."""
    if isinstance(value, Struct) and name not in value:
        raise Wrong(f"can't evaluate field {name} in type {value.kind}")
    if isinstance(value, dict):
        return given(value[name]) if name in value else ABSENT
    if value is None or isinstance(value, Absent):
        raise Wrong(f"nil pointer evaluating interface {{}}.{name}")
    raise Wrong(f"can't evaluate field {name} in type {type_name(value)}")


def given(value: object) -> object:
    """Return a value of the data as Go has it from JSON."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def true(value: object) -> bool:
    """Return whether a value counts as true."""
    return not isinstance(value, Absent) and bool(value)


def type_name(value: object) -> str:
    """Return what Go calls the type of a value."""
    names = {bool: "bool", int: "int", float: "float64", Fraction: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "interface {}")


# How Go prints.


def printed(value: object) -> str:
    """Return a value as an action prints it."""
    return "<no value>" if value is None or isinstance(value, Absent) else plain(value)


def plain(value: object) -> str:
    """Return a value as ``%v`` prints it."""
    if value is None or isinstance(value, Absent):
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return shortest(value) if isinstance(value, float) else str(value)
    if isinstance(value, Struct):
        return f"{{{' '.join(plain(given(each)) for each in value.values())}}}"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{plain(given(each))}' for key, each in sorted(value.items()))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(plain(given(each)) for each in value)}]"
    return str(value)


def shortest(value: float) -> str:
    """Return it in the fewest digits that mean it, with an exponent from a million on."""
    if not math.isfinite(value):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[repr(value)]
    digits, _, exponent = f"{value:.17e}".partition("e")
    for precision in range(18):
        shortest = f"{value:.{precision}e}"
        if float(shortest) == value:
            digits, _, exponent = shortest.partition("e")
            break
    if -4 <= int(exponent) < 6:
        decimals = max(0, len(digits.lstrip("-").replace(".", "")) - 1 - int(exponent))
        return f"{value:.{decimals}f}"
    return f"{digits}e{exponent}"


def _quoted(value: object) -> str:
    return json.dumps(value if isinstance(value, str) else plain(value), ensure_ascii=False)


_VERB = re.compile(r"%([-+# 0]*)(\d+)?(?:\.(\d+))?(.)", re.DOTALL)


def printf(form: object, *values: object) -> str:
    """Return values by a format, with what Go says in the text where one does not fit."""
    if not isinstance(form, str):
        raise TypeError("a format is a string")
    left = list(values)

    def put(found: re.Match[str]) -> str:
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb}(MISSING)"
        text = _verb(verb, left.pop(0), precision, flags)
        size = int(width or 0)
        if "-" in flags:
            return text.ljust(size)
        if "0" in flags and verb in "dfgxob":
            return text.zfill(size)
        return text.rjust(size)

    done = _VERB.sub(put, form)
    return done + (f"%!(EXTRA {', '.join(f'{type_name(each)}={plain(each)}' for each in left)})" if left else "")


def _verb(verb: str, value: object, precision: str | None, flags: str) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole = number and not isinstance(value, float)
    if verb == "v":
        return plain(value)
    if verb == "q" and isinstance(value, str):
        return _quoted(value)
    if verb == "s" and isinstance(value, (str, list, tuple, dict)):
        return plain(value)[: int(precision) if precision else None]
    if verb == "t" and isinstance(value, bool):
        return plain(value)
    if verb == "T":
        return type_name(value)
    if verb in "xX" and isinstance(value, str):
        text = value.encode().hex()
        return text if verb == "x" else text.upper()
    if verb in "cUdxXob" and whole:
        assert isinstance(value, int)
        return _whole(verb, value, flags)
    if verb in "fFeEgG" and isinstance(value, float):
        if verb in "gG" and precision is None:
            return shortest(value)
        return f"{value:.{precision or 6}{verb}}"
    return f"%!{verb}({type_name(value)}={plain(value)})"


def _whole(verb: str, value: int, flags: str) -> str:
    if verb == "U":
        return f"U+{value:04X}"
    if verb == "c":
        return chr(value if 0 <= value <= 0x10FFFF else 0xFFFD)
    return ("+" if "+" in flags and value >= 0 else "") + format(value, verb)
