"""``--update-config``: credentials that were rotated, a host that has moved."""

from __future__ import annotations

import pytest

from .conftest import Program

KEY = {"CLOUD_API_KEY": "opensesame"}


@pytest.fixture
def made(program: Program) -> Program:
    assert program.here("create", "-d", "cloud", "--cloud-tags", "a", "web", **KEY).code == 0
    assert program.here("create", "-d", "cloud", "--cloud-tags", "b", "db", **KEY).code == 0
    # What was noted is good no more.
    for name in ("web", "db"):
        program.store.save_secrets(name, {"key": "old"})
    assert program.here("rm", "-y", "web").code == 1
    return program


def test_a_flag_replaces_what_was_noted(made: Program) -> None:
    said = made.here("rm", "-y", "--update-config", "--cloud-key", "opensesame", "web")
    assert (said.code, said.out.splitlines()[-1]) == (0, "Successfully removed web")
    assert made.store.secrets("db") == {"key": "old"}


def test_so_does_a_variable(made: Program) -> None:
    assert made.here("status", "-update-config", "web", "db", **KEY).code == 1  # one name is enough for it
    assert made.store.secrets("web") == made.store.secrets("db") == {"key": "opensesame"}
    assert made.here("rm", "-y", "web", "db").code == 0


def test_what_is_not_given_stays(made: Program) -> None:
    assert made.here("ip", "--cloud-quick=false", "web", "--update-config").code == 0
    record = made.store.load("web")
    assert (record.options["tags"], record.options["quick"]) == (("a",), "false")
    assert made.store.secrets("web") == {"key": "old"}
    assert made.here("ip", "--update-config", "--cloud-tags", "x", "--cloud-tags", "y", "web").code == 0
    assert made.store.load("web").options["tags"] == ("x", "y")


def test_help_has_it_where_machines_are_named(quick: Program) -> None:
    for command in ("rm", "ip", "ssh", "snapshot"):
        assert "--update-config" in quick(command, "--help").out
    for command in ("create", "ls", "image", "help", "import"):
        assert "--update-config" not in quick(command, "--help").out


def test_it_needs_to_be_asked_for(made: Program) -> None:
    said = made.here("ip", "--cloud-key", "opensesame", "web")
    assert "flag provided but not defined: -cloud-key" in said.err
    assert made.store.secrets("web") == {"key": "old"}


def test_the_flags_are_those_of_the_machines_own_driver(made: Program) -> None:
    assert made.here("create", "-d", "none", "--url", "tcp://192.0.2.1:2376", "far").code == 0
    said = made.here("ip", "--update-config", "--cloud-key", "opensesame", "far")
    assert "flag provided but not defined: -cloud-key" in said.err
    assert made.here("ip", "--update-config", "--url", "tcp://192.0.2.2:2376", "far").out == "192.0.2.2:2376\n"


def test_what_a_driver_cannot_read_changes_nothing(made: Program) -> None:
    said = made.here("ip", "--update-config", "--cloud-quick=perhaps", "web")
    assert "cloud" in said.err
    assert made.store.load("web").options.get("quick") != "perhaps"


def test_the_default_machine(program: Program) -> None:
    assert program.here("create", "-d", "none", "--url", "tcp://192.0.2.1:2376", "default").code == 0
    assert program.here("url", "--update-config", "--url", "tcp://192.0.2.2:2376").out == "tcp://192.0.2.2:2376\n"


def test_a_machine_that_there_is_not(program: Program) -> None:
    said = program.here("ip", "--update-config", "nobody")
    assert (said.code, said.err.splitlines()[0][:38]) == (1, 'Docker machine "nobody" does not exist')


def test_with_ssh_it_comes_first(program: Program) -> None:
    """What follows the name is for the machine, a word that is another machine's name too."""
    for name in ("far", "other"):
        assert program.here("create", "-d", "none", "--url", "tcp://192.0.2.1:2376", name).code == 0
    said = program("ssh", "--update-config", "--url", "tcp://192.0.2.2:2376", "far", "other", "--url=x")
    assert (said.code, "'far'" in said.err or '"far"' in said.err) == (1, True)
    assert program.here("url", "far").out == "tcp://192.0.2.2:2376\n"
    assert program.here("url", "other").out == "tcp://192.0.2.1:2376\n"
