"""Secrets that this process knows, and one function that takes them out of everything that is shown or written.

The secret options of drivers are learned when a driver gets them (`pytest_machine.options.configure`).
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

MASK = "***"
# Shorter ones stand in too many innocent places; and a part of one must be longer to be its.
_SHORTEST, _SHORTEST_PART = 4, 8

_known: dict[str, None] = {}
_pattern: list[re.Pattern[str]] = []


def learn(value: object) -> None:
    """Take a value for a secret wherever it turns up; one that is too short is passed over."""
    if isinstance(value, list | tuple | set | frozenset):
        for each in value:
            learn(each)
    elif isinstance(value, str) and len(value) >= _SHORTEST and value not in _known:
        _known[value] = None
        forms = sorted({form for each in _known for form in _forms(each)}, key=len, reverse=True)
        _pattern[:] = [re.compile("|".join(map(_wrapped, forms)))]


def masked(text: str) -> str:
    """Return a text without the secrets, also where one is quoted, encoded or wrapped over several lines."""
    return _pattern[0].sub(MASK, text) if _pattern else text


def _wrapped(form: str) -> str:
    if len(form) < _SHORTEST_PART:
        return re.escape(form)
    # Terminals and tools break lines anywhere.
    return r"(?:\r?\n[ \t]*)?".join(map(re.escape, form))


def _forms(value: str) -> Iterator[str]:
    yield from (value, quote(value, safe=""), quote(value), quote_plus(value), shlex.quote(value))
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    yield from (line.strip() for line in value.splitlines() if len(line.strip()) >= _SHORTEST_PART)
    content = value.encode("utf-8", "surrogateescape")
    for offset in range(3):  # where it begins in what was encoded: "user:secret" is one text
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(bytes(offset) + content).decode()
            part = whole[-(-offset * 8 // 6) : (offset + len(content)) * 8 // 6]
            if len(part) >= _SHORTEST_PART:
                yield part
