"""What the operating system refuses, in words: the path, its reason, and what to do."""

from __future__ import annotations

import errno
import os

import pytest

from pytest_machine.errors import refused
from pytest_machine.plugin.keeper import reported

NAMES = (
    *(
        "ENOSPC",
        "EDQUOT",
        "EROFS",
        "EMFILE",
        "ENFILE",
        "ENOLCK",
        "EACCES",
        "EPERM",
        "ENAMETOOLONG",
        "ENOTDIR",
        "EISDIR",
    ),
    *("ENOENT", "ELOOP", "EIO", "ESTALE", "EBUSY", "ENOTEMPTY"),
)


@pytest.mark.parametrize("path", ["/a/b c", "/a/it's", b"/a/\xff", None])
@pytest.mark.parametrize("name", NAMES)
def test_path_reason_and_hint(name: str, path: str | bytes | None) -> None:
    number = getattr(errno, name)
    error = refused(OSError(number, os.strerror(number), path))
    assert error.facts == {"reason": os.strerror(number), "errno": name}
    assert error.hint
    assert "{" not in error.hint
    assert str(error).replace("\n", "").isprintable()
    if path is None:
        assert error.message == "The system refuses what a command needs."
    else:
        assert "/a/" in error.message


def test_without_a_number() -> None:
    assert refused(OSError("odd\x1b")).facts == {"reason": "odd\\x1b"}


@pytest.mark.parametrize("name", NAMES)
def test_a_fixture_says_it_without_a_traceback(name: str) -> None:
    number = getattr(errno, name)
    with pytest.raises(pytest.fail.Exception) as caught, reported():
        raise OSError(number, os.strerror(number), "/a/b")
    assert "hint: " in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert not caught.value.pytrace
