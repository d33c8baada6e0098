"""Columns as Go's tabwriter makes them."""

from __future__ import annotations

import pytest

from pytest_machine.cli.layout import aligned


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("no cells\nat all", "no cells\nat all"),
        ("a\tb\nlonger\tc", "a        b\nlonger   c"),
        # At least so wide; what is last in a line is not filled up.
        ("a\tb\n", "a    b\n"),
        ("a\t\tc", "a         c"),
        ("a\tb\t\naaaa\tbbbb\t", "a      b      \naaaa   bbbb   "),
        # A line without a cell in a column ends the column.
        ("a\tb\nnone\nlonger\tc", "a    b\nnone\nlonger   c"),
        ("a\tx\nlonger\tmuch longer\tz\nb\ty", "a        x\nlonger   much longer   z\nb        y"),
        ("é\tb\nabcd\tc", "é      b\nabcd   c"),
    ],
)
def test_blanks(text: str, shown: str) -> None:
    assert aligned(text, least=5, padding=3) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  ip\tx\n  ls\ty", "  ip\tx\n  ls\ty"),
        ("  ip\tx\n  regenerate-certs\ty", "  ip\t\t\tx\n  regenerate-certs\ty"),
        ("1234567\tx", "1234567\tx"),
        ("12345678\tx", "12345678\tx"),
        ("1234567\tx\n12345678\ty", "1234567\t\tx\n12345678\ty"),
    ],
)
def test_tabs(text: str, shown: str) -> None:
    assert aligned(text, least=0, padding=1, fill="\t") == shown
