from __future__ import annotations

import os

import pytest

from pytest_machine.cli.command import Session
from pytest_machine.cli.remote import place


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("a", "a"),
        ("", ""),
        ("/a:b", "/a:b"),
        ("./a:b", "./a:b"),
        ("a/b:c", "a/b:c"),
        ("localhost:/a", "/a"),
        ("localhost:a", "a"),
        ("localhost:", "."),
        # What would be a machine's, or an option, is neither: they said where it is.
        ("jo@localhost:a:b", "a:b" if os.name == "nt" else "./a:b"),
        ("localhost:-a", "-a" if os.name == "nt" else "./-a"),
        ("-a", "-a" if os.name == "nt" else "./-a"),
    ],
)
def test_paths_here(typed: str, word: str) -> None:
    found = place(Session(), typed)
    assert found.machine is None
    assert found.word == word


@pytest.mark.skipif(os.name != "nt", reason="elsewhere 'C' is a machine")
def test_a_drive_is_no_machine() -> None:
    assert place(Session(), r"C:\a b").word == r"C:\a b"
