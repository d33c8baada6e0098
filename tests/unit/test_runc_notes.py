"""The list of what a preloaded machine's Docker has on disk: a damaged list leads nowhere."""

from __future__ import annotations

import pytest

from pytest_machine.drivers.runc.preload import parsed
from pytest_machine.support.parsing import Malformed


def test_the_list_as_it_is_written() -> None:
    notes = [["image", 0o700, None, None], ["image/db", 0o600, None, "\xff\x00"], ["l", 0, "../x/diff", None]]
    assert parsed(notes) == [tuple(each) for each in notes]


@pytest.mark.parametrize(
    "data",
    [
        None, {}, [None], [[]], [["a", 0, None]], [[1, 0, None, None]], [["a", "0", None, None]],
        [["a", -1, None, None]],
        [["a", 0o10000, None, None]], [["a", True, None, None]], [["a", 0, 1, None]], [["a", 0, None, 1]],
        [["a", 0, None, "\u0100"]], [["", 0, None, None]], [["..", 0, None, None]], [["/etc/x", 0, None, ""]],
        [["a/b", 0, None, ""]], [["a", 0, None, None], ["a/../../b", 0, None, ""]],
        [["a", 0, None, None], ["a/..", 0, None, ""]],
        [["a", 0, "/etc", None], ["a/passwd", 0, None, "x"]], [["a\0b", 0, None, ""]], [["a", 0, "", None]],
    ],
)  # fmt: skip
def test_a_damaged_list_is_refused(data: object) -> None:
    with pytest.raises(Malformed):
        parsed(data)
