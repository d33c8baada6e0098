"""What OpenSSH itself understands of our words: ``ssh -G`` shows it without connecting."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_machine.errors import BadSpec, StoreError
from pytest_machine.login import Login, configuration, quote
from pytest_machine.model import Address

pytestmark = pytest.mark.real


def understood(*argv: str) -> dict[str, str]:
    done = subprocess.run([*argv[:1], "-G", *argv[1:]], capture_output=True, text=True, check=True)
    # Of what is given once; the files' names may have blanks.
    return {line.split(maxsplit=1)[0]: line.partition(" ")[2] for line in done.stdout.splitlines()}


def login(name: str, ip: str, port: int, **changes: object) -> Login:
    directory = Path("/tmp/100% sure") / name
    return Login(
        name=name,
        address=Address(ip=ip, user=f"u-{name}", ssh_port=port),
        key=directory / "key",
        known_hosts=directory / "known_hosts",
        **changes,  # type: ignore[arg-type]
    )


LOGINS = [
    login("Web-1.example", "10.0.0.1", 22),
    login("web", "10.0.0.2", 2222, known_as="[10.0.0.9]:2222"),
    login("six", "fd00::1", 22, trust=True),
    login("theirs", "10.0.0.3", 22, agent=True),
    login("link", "fe80::1%eth0", 22, control=Path("/tmp/100% sure/s")),
]


@pytest.mark.parametrize("made", LOGINS, ids=lambda made: made.name)
def test_both_ways_say_the_same(made: Login, tmp_path: Path) -> None:
    config = tmp_path / "a config"
    config.write_text(configuration(LOGINS))
    by_name = understood("ssh", "-F", str(config), made.name)
    assert by_name["hostname"] == made.address.ip
    assert by_name["port"] == str(made.address.ssh_port)
    assert by_name["user"] == made.address.user
    # OpenSSH shows these as they are written, and takes %% for % when it opens them.
    assert (by_name["identityfile"].replace("%%", "%") == str(made.key)) is not made.agent
    assert by_name["userknownhostsfile"].replace("%%", "%") == str(made.known_hosts)
    assert by_name["globalknownhostsfile"] == "/dev/null"
    assert by_name["stricthostkeychecking"] == ("accept-new" if made.trust else "true")
    assert by_name.get("hostkeyalias", "") == made.known_as
    assert (by_name["identitiesonly"], by_name.get("identityagent")) == (
        ("no", None) if made.agent else ("yes", "none")
    )
    assert by_name["batchmode"] == "yes"
    by_flags = understood(*made.argv)
    assert {**by_flags, "host": made.name} == {**by_name, "host": made.name}


def test_nobody_else_has_an_entry(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(configuration(LOGINS))
    for name in ("Web-1Xexample", "we", "webb"):
        assert understood("ssh", "-F", str(config), name)["hostname"].lower() == name.lower()
        assert "key" not in understood("ssh", "-F", str(config), name)["identityfile"]


ODD = [
    'a"b',
    "a'b",
    "a\\b",
    "a\\",
    "100% %h",
    "a#b",
    " blank ",
    "a$b",
    "$HOME",
    "~a",
    "a\udcffb",
    "ä",
    "a,b",
    "-oX=y",
    "a=b",
]


@pytest.mark.parametrize("name", ODD)
def test_paths_reach_openssh_as_they_are(name: str, tmp_path: Path) -> None:
    """In the configuration and as flags."""
    directory = Path("/tmp") / name
    made = Login(
        name="web",
        address=Address(ip="10.0.0.1"),
        key=directory / "key",
        known_hosts=directory / "known_hosts",
        control=directory / "s",
    )
    config = tmp_path / "config"
    config.write_bytes(os.fsencode(configuration([made])))
    for argv in (["ssh", "-F", str(config), "web"], made.argv):
        done = subprocess.run([*argv[:1], "-G", *argv[1:]], capture_output=True, check=True)
        lines = os.fsdecode(done.stdout).replace("%%", "%").splitlines()
        assert f"identityfile {directory}/key" in lines
        assert f"userknownhostsfile {directory}/known_hosts" in lines
        assert f"controlpath {directory}/s" in lines


@pytest.mark.parametrize("name", ["${HOME}", "a${X}b", "a\nProxyCommand touch it", "a\rb", "a\0b"])
def test_paths_that_openssh_cannot_be_given(name: str) -> None:
    with pytest.raises(StoreError, match="OpenSSH cannot be given") as caught:
        quote(Path("/tmp") / name)
    assert "MACHINE_STORAGE_PATH" in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"address": Address(ip="10.0.0.1", ssh_port="22\n  ProxyCommand x")},  # type: ignore[arg-type]
        {"address": Address(ip="10.0.0.1", ssh_port=0)},
        {"address": Address(ip="10.0.0.1", ssh_port=65536)},
        {"address": Address(ip="10.0.0.1", user="${USER}")},
        {"address": Address(ip="10.0.0.1", user="%h")},
        {"address": Address(ip="fe80::1%a;b")},
        {"address": Address(ip="%h")},
        {"address": Address(ip="${HOST}")},
        {"name": "a\nHost *"},
        {"name": "-x"},
        {"name": "*"},
        {"name": "a b"},
        {"known_as": "a b"},
        {"known_as": "a\nb"},
        {"known_as": "-x"},
    ],
    ids=repr,
)
def test_values_that_would_be_something_else_for_openssh(changes: dict[str, object]) -> None:
    given = {"address": Address(ip="10.0.0.1"), "key": Path("/k"), "known_hosts": Path("/h"), **changes}
    with pytest.raises(BadSpec, match="OpenSSH cannot be given"):
        Login(**given)  # type: ignore[arg-type]
