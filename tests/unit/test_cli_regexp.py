"""Go's regular expressions find what they find in Go; what it has not, is refused."""

from __future__ import annotations

import contextlib
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_machine.cli.command import Failed
from pytest_machine.cli.regexp import compiled


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        ("^web-[0-9]+$", "web-10", "web-x"),
        ("^[[:alpha:]]+$", "web", "web1"),
        ("^[^[:digit:]x]$", "a", "7"),
        ("^[[:^alpha:]]+$", "1-2", "a"),
        ("^[[:punct:]a]+$", "a-[]`", "b"),
        (r"\Aweb\z", "web", "webs"),
        (r"^\Qa.b\E.$", "a.bc", "axbc"),
        (r"\Qa.b", "xa.b", "a-b"),
        ("^w(?i)EB$", "web", "Web"),
        ("^((?i)A|B)c|D$", "Bc", "BC"),
        ("(?i)a|WEB", "web", "x"),
        ("^(?i:w)eb", "Web", "WEB"),
        ("^a(?i)b(?-i)c", "aBc", "abC"),
        ("^(?:a|b){2}$", "ab", "a"),
        ("^(?P<n>a)$", "a", "b"),
        ("^a{,2}$", "a{,2}", "aa"),
        (r"^\x{61}\142\103$", "abC", "abc"),
        ("^[[a]$", "[", "b"),
        ("^[]a]$", "]", "b"),
        ("^[a&&b||~~]$", "&", "c"),
        ("^a+?b$", "aab", "b"),
    ],
)
def test_it_finds_what_gos_finds(pattern: str, found: str, not_found: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(pattern).search(found)
        assert not compiled(pattern).search(not_found)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?<!a)b", "invalid or unsupported Perl syntax: `(?<`"),
        ("(?#a)", "invalid or unsupported Perl syntax: `(?#`"),
        ("(?P<a>x)(?P=a)", "invalid or unsupported Perl syntax: `(?P`"),
        ("(?x)a", "invalid or unsupported Perl syntax: `(?x)`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        ("[[:letter:]]", "invalid character class range: `[:letter:]`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a++", "invalid nested repetition operator: `++`"),
        ("(", "missing ), unterminated subpattern: `(`"),
        ("[a", "unterminated character set: `[a`"),
    ],
)
def test_what_go_has_not_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(Failed) as caught:
        compiled(pattern)
    assert caught.value.message == f"error parsing regexp: {said}"


PIECES = ["(", ")", "(?i)", "(?:", "[", "]", "[:alpha:]", "\\", "Q", "E", "z", "1", "|", "*", "{2}", "a", "-", "^"]


@given(st.lists(st.sampled_from(PIECES)).map("".join) | st.text())
def test_whatever_is_written_is_read_or_refused(pattern: str) -> None:
    with contextlib.suppress(Failed):
        compiled(pattern).search("web")
