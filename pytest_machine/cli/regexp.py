"""Go's regular expressions, which people write behind ``--filter name=``, as Python's.

The two agree on nearly all. What Python has besides is refused, so that a filter means here what it means there.
"""

from __future__ import annotations

import re
import warnings

from .command import Failed

_TOKEN = re.compile(
    r"""\\Q(?P<quoted>.*?)(?:\\E|\Z)
    | \\(?:x\{(?P<hex>[0-9a-fA-F]{1,8})\} | (?P<octal>0[0-7]{0,2}|[1-7][0-7]{1,2}) | (?P<escape>.))
    | (?P<set>\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\])
    | (?P<flags>\([?](?=[a-zA-Z-]+[:)])[a-zA-Z-]+[:)]) | (?P<group>\((?:[?](?:P?<|[^)])?)?)
    | (?P<repeat>(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})[?]?) | (?P<sign>[|)]) | (?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPES = frozenset("AbBdDsSwWaftnrvx")
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


def compiled(pattern: str) -> re.Pattern[str]:
    """Return what finds what Go's expression finds; raises `Failed` for one that Go, or Python, cannot read."""
    try:
        with warnings.catch_warnings():
            # Of signs in brackets that may mean something one day.
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile(_translated(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise _wrong(error.msg if isinstance(error, re.error) else "expression nests too deeply", pattern) from error


def _translated(pattern: str) -> str:
    out: list[str] = []
    # For each group that is open: the flags that were set in it, and hold up to its end, whatever `|` is between.
    opened: list[list[str]] = [[]]
    repeated = ""
    for found in _TOKEN.finditer(pattern):
        kind, text = str(found.lastgroup), found[0]
        if kind == "repeat" and repeated:  # to Python, `a++` is possessive
            raise _wrong("invalid nested repetition operator", repeated + text)
        repeated = text if kind == "repeat" else ""
        if kind == "sign" and (text == "|" or len(opened) > 1):
            out.append(")" * len(opened[-1]) + text)
            if text == "|":
                out += opened[-1]
            else:
                opened.pop()
        elif kind == "flags" and text.endswith(")"):
            opened[-1].append(f"{_flags(text)[:-1]}:")
            out.append(opened[-1][-1])
        elif kind in ("flags", "group"):
            opened.append([])
            out.append(_flags(text) if kind == "flags" else _group(text))
        else:
            out.append(_one(kind, found))
    return "".join(out) + ")" * len(opened[0])


def _one(kind: str, found: re.Match[str]) -> str:
    """Return what stands for itself."""
    text = found[0]
    if kind == "quoted":
        return re.escape(found[kind])
    if kind in ("hex", "octal"):
        return re.escape(chr(int(found[kind], 16 if kind == "hex" else 8)))
    if kind == "escape" and found[kind] == "z":
        return r"\Z"
    if kind == "escape" and found[kind].isalnum() and found[kind] not in _ESCAPES:
        raise _wrong("invalid escape sequence", text)
    if kind == "set":
        return re.sub(r"\[:(\^?)([a-z]+):\]", _class, text)
    return r"\{" if text == "{" else text


def _group(text: str) -> str:
    if text not in ("(", "(?:", "(?P<"):
        raise _wrong("invalid or unsupported Perl syntax", text)
    return text


def _flags(text: str) -> str:
    if not re.fullmatch(r"\(\?[ims]*(-[ims]+)?[:)]", text) or text == "(?)":
        raise _wrong("invalid or unsupported Perl syntax", text)
    return text


def _class(found: re.Match[str]) -> str:
    if found[2] not in _CLASSES:
        raise _wrong("invalid character class range", found[0])
    inside = _CLASSES[found[2]]
    if not found[1]:
        return inside
    # All others, one by one: inside of brackets there is no other way to say it.
    others = (chr(each) for each in range(128) if not re.match(f"[{inside}]", chr(each)))
    return "".join(map(re.escape, others)) + r"\x80-\U0010ffff"


def _wrong(what: str, where: str) -> Failed:
    return Failed(f"error parsing regexp: {what}: `{where}`")
