"""What is secret is taken out, and what only looks a little like it stays."""

from __future__ import annotations

import json
import time

import pytest

from pytest_machine.plugin.masking import Mask


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("DB_PASSWORD=hunter2 HOME=/root", "DB_PASSWORD=*** HOME=/root"),
        ('"password": "a \\"b\\" c", "port": 80', '"password": "***", "port": 80'),
        ("--token=abc --verbose", "--token=*** --verbose"),
        ("api_key: 1234\nnext", "api_key: ***\nnext"),
        ("Authorization: Bearer eyJ.x.y", "Authorization: Bearer ***"),
        ("postgres://app:s3cret@db:5432/x", "postgres://app:***@db:5432/x"),
        ("https://example.org:8080/path@x", "https://example.org:8080/path@x"),
        ("monkey=banana keyboard=us", "monkey=banana keyboard=us"),
        ("a key was pressed: enter", "a key was pressed: enter"),
        ("passed=3 failed=1", "passed=3 failed=1"),
    ],
)
def test_what_looks_like_a_secret(text: str, shown: str) -> None:
    assert Mask().over(text) == shown


def test_private_keys() -> None:
    whole = "a\n-----BEGIN OPENSSH PRIVATE KEY-----\nabc\ndef\n-----END OPENSSH PRIVATE KEY-----\nb"
    assert Mask().over(whole) == "a\n-----BEGIN OPENSSH PRIVATE KEY----- ***\nb"
    assert "abc" not in Mask().over(whole[:50])


def test_values_that_are_known_are_masked_wherever_they_are() -> None:
    mask = Mask(["xyzzy", ("plugh-1", "plugh-2")])
    mask.learn_environment(["MY_TOKEN=frotz", "PATH=/usr/bin", "SSH_KEY=rezrov", "PIN_SECRET=12"])
    text = "xyzzy plugh-2 frotz /usr/bin rezrov 12"
    assert mask.over(text) == "*** *** *** /usr/bin *** 12"


def test_json_stays_json() -> None:
    inspected = {
        "Env": ["A_PASSWORD=x y", "B=1"],
        "Cmd": ["--secret=abc", "run"],
        "Token": "t",
        "Ports": {"80/tcp": None},
    }
    masked = json.loads(Mask().over(json.dumps(inspected, indent=1)))
    assert masked["Token"] == "***"
    assert masked["Cmd"] == ["--secret=***", "run"]
    assert masked["Env"][1] == "B=1"


@pytest.mark.parametrize(
    "text",
    [
        "a.",
        "a",
        "a-b:",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "authorization ",
        'token="\\"',
        "token= ",
        "x://y:",
        "password ",
        "_key_key",
    ],
)
def test_no_text_takes_long(text: str) -> None:
    """What a machine prints is masked in a time that grows with its length and no faster."""
    whole = (text * 300_000)[: 256 << 10]
    begun = time.process_time()
    Mask(["secret"]).over(whole)
    assert time.process_time() - begun < 5
