"""What OpenSSH itself understands of our words: ``ssh -G`` shows it without connecting."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_machine.login import Login, configuration
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
