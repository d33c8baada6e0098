"""Text from machines, files and providers, made safe to show to people."""

from __future__ import annotations

import json
import os
import re
import unicodedata

# Categories of Unicode that move the cursor, change the terminal or reorder text: control, format, surrogate, private
# use, unassigned, line separator, paragraph separator.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str, *, lines: bool = True) -> str:
    r"""Return `text` with every control character written as an escape such as ``\x1b``.

    The result can be printed in a terminal: it cannot move the cursor, change colours or reorder what is read. With
    `lines`, line feeds and tabs stay as they are; without, they are escaped too, so that the result is one line.
    """
    return (_ODD if lines else _ODD_IN_A_LINE).sub(_shown, text)


# Of most texts nothing has to be looked at one by one.
_ODD = re.compile(r"[^\x20-\x7e\n\t]")
_ODD_IN_A_LINE = re.compile(r"[^\x20-\x7e]")


def _shown(found: re.Match[str]) -> str:
    character = found[0]
    if unicodedata.category(character) not in _INVISIBLE:
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def visible_json(text: str) -> str:
    r"""Return a JSON document with every control character in its texts written as JSON does: ``\u202e``."""
    return _ODD.sub(lambda found: found[0] if _shown(found) == found[0] else json.dumps(found[0])[1:-1], text)


def decoded(data: bytes | bytearray) -> str:
    """Return bytes from outside as text: UTF-8, with a replacement character for what is not UTF-8."""
    return data.decode("utf-8", "replace")


def shell_word(word: str | os.PathLike[str]) -> str:
    """Return a path or another word as a shell reads it; with control characters, in bash's ``$'…'``.

    Every printed command that has a path takes it from here.
    """
    import shlex

    text = os.fspath(word)
    if visible(text, lines=False) == text:
        return shlex.quote(text)
    shown = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and chr(byte) not in "'\\" else f"\\x{byte:02x}" for byte in os.fsencode(text)
    )
    return f"$'{shown}'"
