"""Values from outside: what is accepted, what is refused, and that nothing but `Malformed` is raised."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_machine.support import parsing
from pytest_machine.support.parsing import Malformed
from pytest_machine.support.text import visible

PARSERS: list[Callable[[object], object]] = [
    lambda value: parsing.text(value, "x"),
    lambda value: parsing.integer(value, "x", least=0, most=9),
    lambda value: parsing.number(value, "x", least=0, most=9),
    lambda value: parsing.time(value, "x"),
    lambda value: parsing.boolean(value, "x"),
    parsing.port,
    parsing.host,
    lambda value: parsing.table(value, "x"),
    lambda value: parsing.texts(value, "x"),
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def refusal(parse: Callable[[Any], object], value: object) -> str:
    """Return why a value is refused; empty if it is not. Any error but `Malformed` fails the test."""
    try:
        parse(value)
    except Malformed as error:
        return str(error)
    return ""


@given(ANYTHING)
def test_a_parser_returns_or_raises_malformed(value: object) -> None:
    for parse in PARSERS:
        said = refusal(parse, value)
        assert visible(said, lines=False) == said


@given(st.binary(max_size=64))
def test_any_bytes_are_json_or_malformed(data: bytes) -> None:
    said = refusal(lambda given: parsing.json_value(given, "x"), data)
    assert visible(said, lines=False) == said


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" * 200_000, id="deep"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b"1" * (sys.get_int_max_str_digits() + 1), id="long number"),
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"", id="empty"),
        pytest.param(b"{} " * 2, id="two"),
        pytest.param(json.dumps({"a": "x" * 99}).encode(), id="large"),
    ],
)
def test_what_is_no_table_in_json(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"^the file "):
        parsing.json_table(data, "the file", largest=90 if b"xxx" in data else 1 << 20)


@pytest.mark.parametrize("value", ["10.0.0.1", "fd00::1", "fe80::1%eth0", "host", "a.b-c.example.", "_srv.example"])
def test_hosts(value: str) -> None:
    assert parsing.host(value) == value


@pytest.mark.parametrize(
    "value", ["", "10.0.0.256", "10.0.0", "a b", "a\nb", "-oProxyCommand=x", "a..b", "é", "a/b", "x" * 254, 5, None]
)
def test_no_hosts(value: object) -> None:
    with pytest.raises(Malformed):
        parsing.host(value)


@pytest.mark.parametrize("value", [0, 65536, -1, True, "22", 22.0, None])
def test_no_ports(value: object) -> None:
    with pytest.raises(Malformed):
        parsing.port(value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode →", "plain ünïcode →"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\r\x08b", "a\\x0d\\x08b"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_control_characters_are_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_line_feeds_stay_unless_one_line_is_wanted() -> None:
    assert visible("a\n\tb") == "a\n\tb"
    assert visible("a\n\tb", lines=False) == "a\\x0a\\x09b"


@given(st.text(st.characters()))
def test_what_is_visible_can_be_printed_and_stays(text: str) -> None:
    shown = visible(text)
    assert all(
        character in "\n\t" or character.isprintable() or unicodedata.category(character) == "Zs" for character in shown
    )
    assert visible(shown) == shown
    shown.encode()
