"""Machines of the driver ``none``: an address, and nothing else, as Docker Machine has them."""

from __future__ import annotations

import pytest

from tests.conftest import alone

from .conftest import Program


def test_its_life(program: Program) -> None:
    said = program("create", "-d", "none", "--url", "tcp://192.0.2.1:2376", "far")
    assert said.code == 0
    assert said.out.splitlines()[-3:] == [
        "Running pre-create checks...",
        "Creating machine...",
        (
            "To see how to connect your Docker Client to the Docker Engine running on this virtual machine, "
            "run: python -m pytest_machine env far"
        ),
    ]
    assert program("status", "far").out == "Running\n"
    assert program("url", "far").out == "tcp://192.0.2.1:2376\n"
    assert program("ip", "far").out == "192.0.2.1:2376\n"
    assert program("inspect", "-f", "{{.DriverName}}", "far").out == "none\n"
    assert program("inspect", "-f", "{{json .Driver.SSHUser}}{{json .Driver.SSHKeyPath}}", "far").out == '""""\n'
    assert program("rm", "-y", "far").out.endswith("Successfully removed far\n")
    assert program.store.names() == []


def test_what_is_no_address_is_taken(program: Program) -> None:
    """Scripts of Docker Machine's days say ``--url none``."""
    assert program("create", "-d", "none", "--url", "none", "x").code == 0
    assert program("url", "x").out == "none\n"
    assert program("ip", "x").out == "\n"


def test_it_needs_an_address(program: Program) -> None:
    said = program("create", "-d", "none", "x")
    assert said.code == 1
    assert said.err.startswith(
        "Error setting machine configuration from flags provided: --url option is required when no driver is selected\n"
    )
    assert program.store.names() == []


@pytest.mark.parametrize(("verb", "done"), [("stop", "stopped"), ("kill", "killed"), ("restart", "restarted")])
def test_its_power_is_not_ours(program: Program, verb: str, done: str) -> None:
    program("create", "-d", "none", "--url", "tcp://192.0.2.1:2376", "far")
    said = program(verb, "far")
    assert (said.code, said.err) == (1, f"hosts without a driver cannot be {done}\n")
    assert program("start", "far").err == 'Machine "far" is already running.\n'


@pytest.mark.parametrize("command", ["provision", "upgrade", "ssh"])
def test_nothing_is_done_to_it(program: Program, command: str) -> None:
    program("create", "-d", "none", "--url", "tcp://192.0.2.1:2376", "far")
    said = program(command, "far")
    assert (said.code, said.out) == (1, "")
    assert "far" in said.err


def test_its_certificates_are_the_stores(program: Program) -> None:
    program("create", "-d", "none", "--url", "tcp://192.0.2.1:2376", "far")
    for name in ("ca.pem", "cert.pem", "key.pem"):
        mine = program.store.path / "machines" / "far" / name
        assert mine.read_bytes() == (program.store.certificates / name).read_bytes()
    assert not (program.store.path / "machines" / "far" / "server.pem").exists()


@alone
def test_prune_has_nothing_to_ask_about_it(program: Program) -> None:
    program("create", "-d", "none", "--url", "tcp://192.0.2.1:2376", "far")
    said = program("prune", "--dry-run")
    assert "none" not in said.out
    assert program.store.names() == ["far"]
