"""What a machine says of itself, read as shells would read it."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_machine import facts
from pytest_machine.facts import os_release, read
from pytest_machine.provisioner import Facts

SAID = """\
arch=x86_64
manager=systemd
refused=sudo: a password is required
engine=Docker version 20.10.24+dfsg1, build 297e128
os-release=
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/?a=b&c=d"
"""


def test_what_a_machine_says() -> None:
    assert read(SAID) == Facts(
        os="debian", version="12", codename="bookworm", pretty="Debian GNU/Linux 12 (bookworm)", arch="x86_64",
        manager="systemd", root=False, refused="sudo: a password is required", engine="20.10.24+dfsg1",
    )  # fmt: skip


def test_one_that_says_nothing() -> None:
    found = read("arch=x86_64\nroot=yes\nos-release=\n")
    assert (found.os, found.pretty, found.engine, found.root) == ("", "", "", True)


def test_an_engine_that_says_something_else_is_still_one() -> None:
    found = read("engine=dockerd: error while loading shared libraries: libx.so\nunfinished=yes\nos-release=\n")
    assert found.engine.startswith("dockerd: error")
    assert found.unfinished


def test_boot2docker_has_an_init_of_its_own() -> None:
    found = read("root=\nos-release=\nNAME=Boot2Docker\nID=boot2docker\nID_LIKE=tcl\nVERSION_ID=19.03.12\n")
    assert found.manager == "boot2docker"
    assert facts.directory(found) == "/var/lib/boot2docker/etc/docker"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("X=plain", "plain"),
        ('X="two words"', "two words"),
        ("X='single'", "single"),
        ("X='it is \"so\"'", 'it is "so"'),
        ('X="a=b=c"', "a=b=c"),
        ("X=a=b", "a=b"),
        (r'X="\$5 and \"x\" and \\ and \`"', '$5 and "x" and \\ and `'),
        ("X=", ""),
        ('X=""', ""),
        ("  X=indented  ", "indented"),
        ('X="', '"'),
    ],
)
def test_values(line: str, value: str) -> None:
    assert os_release(f"# a comment\n{line}\nno assignment\n1X=none\n")["X"] == value


@pytest.mark.real
@given(value=st.text(st.characters(exclude_characters="\0\n\r", max_codepoint=0x7E, min_codepoint=0x20), max_size=30))
def test_a_shell_reads_the_same(value: str) -> None:
    """In both kinds of quotes, as their writers may write them."""
    escaped = "".join(f"\\{c}" if c in '$"\\`' else c for c in value)
    for quoted in (f'"{escaped}"', shlex.quote(value)):
        if "'\"'\"'" in quoted:
            continue  # os-release(5) knows no two quotes behind each other
        line = f"X={quoted}"
        done = subprocess.run(["sh", "-c", f'{line}\nprintf %s "$X"'], capture_output=True, text=True, check=True)
        assert os_release(line)["X"] == done.stdout == value
