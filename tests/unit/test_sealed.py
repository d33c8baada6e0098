from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_machine import sealed
from pytest_machine.errors import BadSpec, StoreError

CHEAP = 1 << 4
KEY = b"-----BEGIN PRIVATE KEY-----\n" + os.urandom(200)


def opened(text: bytes, passphrase: str = "pass") -> bytes:
    return sealed.unseal(text, passphrase, called="web.access")


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=300), st.text(min_size=1))
def test_there_and_back(content: bytes, passphrase: str) -> None:
    text = sealed.seal(content, passphrase, cost=CHEAP)
    assert sealed.is_sealed(text)
    assert opened(text, passphrase) == content
    assert text.isascii()
    assert max(map(len, text.splitlines())) < 160


def test_the_same_is_never_sealed_alike() -> None:
    assert sealed.seal(KEY, "pass", cost=CHEAP) != sealed.seal(KEY, "pass", cost=CHEAP)


def test_the_cost_is_what_the_file_says_and_what_owasp_asks() -> None:
    assert b"\nscrypt 131072 8 1 " in sealed.seal(KEY, "pass")


def test_a_wrong_passphrase() -> None:
    with pytest.raises(BadSpec, match=r"^The passphrase does not open 'web.access'\.\n"):
        opened(sealed.seal(KEY, "pass", cost=CHEAP), "Pass")


def test_damage_anywhere_is_called_damage() -> None:
    text = sealed.seal(KEY, "pass", cost=CHEAP)
    begin = text.index(b"scrypt")
    for place in range(begin, len(text) - 1):
        broken = text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]
        with pytest.raises(StoreError, match=r"^The file 'web.access' is damaged\.\n"):
            opened(broken)
    for end in range(begin, len(text) - 1):
        with pytest.raises(StoreError, match=r"^The file 'web.access' is damaged\.\n"):
            opened(text[:end])
    with pytest.raises(StoreError, match="damaged"):
        opened(text + b"QUJD\n")


def test_what_a_mail_does_to_lines_is_no_damage() -> None:
    text = sealed.seal(KEY, "pass", cost=CHEAP)
    assert opened(text.replace(b"\n", b"\r\n") + b"\r\n\r\n") == KEY


def test_what_was_altered_on_purpose_does_not_open() -> None:
    first, how, *rest = sealed.seal(KEY, "pass", cost=CHEAP).rstrip().split(b"\n")
    words = how.split(b" ")
    for number in (4, 5):
        salt = bytearray(sealed._bytes(words[number]))
        salt[0] ^= 1
        altered = [*words[:number], sealed._text(bytes(salt)), *words[number + 1 : -1]]
        line = b" ".join(altered)
        digest = sealed._digest(first, line, sealed._bytes(b"".join(rest)))
        with pytest.raises(BadSpec, match="does not open"):
            opened(b"\n".join([first, line + b" " + digest, *rest]))


@pytest.mark.parametrize("how", [b"16777216 8 1", b"17 8 1", b"0 8 1", b"-2 8 1", b"16 1024 1", b"16 8 9"])
def test_a_file_cannot_make_us_work_for_hours(how: bytes) -> None:
    first, old, *rest = sealed.seal(KEY, "pass", cost=CHEAP).rstrip().split(b"\n")
    line = old.replace(b"16 8 1", how).rpartition(b" ")[0]
    digest = sealed._digest(first, line, sealed._bytes(b"".join(rest)))
    with pytest.raises(StoreError, match="no version of this program"):
        opened(b"\n".join([first, line + b" " + digest, *rest]))


@pytest.mark.parametrize("text", [b"", b"PK\3\4", b"\0" * 100, b"pytest-machine seale"])
def test_what_is_none_of_ours(text: bytes) -> None:
    with pytest.raises(StoreError, match="is none that 'export' makes"):
        opened(text)


def test_a_newer_version() -> None:
    text = sealed.seal(KEY, "pass", cost=CHEAP).replace(b"sealed 1", b"sealed 2", 1)
    with pytest.raises(StoreError, match="of a version that this program does not know") as caught:
        opened(text)
    assert caught.value.hint == "pip install --upgrade pytest-machine"


def test_too_long() -> None:
    with pytest.raises(StoreError, match="is damaged"):
        opened(b"pytest-machine sealed 1\n" + b"A" * sealed.LONGEST)
