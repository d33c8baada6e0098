"""What needs templates and shells: ``env``, ``inspect -f``."""

from __future__ import annotations

import os
import subprocess

import pytest

from .conftest import Program


def test_env(program: Program) -> None:
    program.make("a")
    url = program.here("url", "a").out.strip()
    said = program.here("env", "--shell", "bash", "a")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[:4] == [
        'export DOCKER_TLS_VERIFY="1"',
        f'export DOCKER_HOST="{url}"',
        f'export DOCKER_CERT_PATH="{program.store.load("a").directory}"',
        'export DOCKER_MACHINE_NAME="a"',
    ]
    assert '# eval "$(python -m pytest_machine env --shell bash a)"' in said.out


@pytest.mark.skipif(os.name == "nt", reason="a Unix shell reads it")
def test_a_shell_reads_it(program: Program) -> None:
    program.make("a")
    shown = program.here("env", "a", "--shell=sh", "--no-proxy").out
    read = subprocess.run(
        ["sh", "-c", f'{shown}\necho "$DOCKER_HOST $DOCKER_CERT_PATH"; echo "$NO_PROXY$no_proxy"'],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        check=True,
    ).stdout.splitlines()
    assert read[0] == f"{program.here('url', 'a').out.strip()} {program.store.load('a').directory}"
    assert read[1] == "127.0.0.1"


def test_unset(program: Program) -> None:
    said = program.here("env", "-u", "--shell", "bash")
    assert said.out.splitlines()[:4] == [
        "unset DOCKER_TLS_VERIFY",
        "unset DOCKER_HOST",
        "unset DOCKER_CERT_PATH",
        "unset DOCKER_MACHINE_NAME",
    ]
    assert program.here("env", "-u", "a").err == "Error: Expected no machine name when the -u flag is present\n"


def test_env_of_one_that_is_stopped(program: Program) -> None:
    program.make("default")
    assert program.here("stop").code == 0
    said = program.here("env", "--shell", "bash")
    assert (said.code, said.out, said.err) == (1, "", "Error checking TLS connection: Host is not running\n")


def test_inspect_by_a_template(program: Program) -> None:
    program.make("a")
    said = program.here("inspect", "a", "-f", "{{.DriverName}} {{.Driver.SSHUser}} {{.Driver.IPAddress}}")
    assert (said.code, said.out) == (0, "fake root 127.0.0.1\n")
    assert program.here("inspect", "-f", "{{.Nix", "a").code == 1


def test_a_clients_certificate_is_renewed_before_it_ends(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_machine import certs

    program.make("a")
    mine = program.store.load("a").directory / "cert.pem"
    before = mine.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(certs, "PAIR_DAYS", 1 / 24)
        (program.store.certificates / "cert.pem").unlink()
        certs.Authority.ensure(program.store.certificates).copy_client(mine.parent)
    old = mine.read_bytes()
    assert not certs.lasts(mine)
    assert program.here("env", "--shell", "sh", "a").code == 0
    assert mine.read_bytes() == old, "one that was written today is not looked at: that takes too long"
    os.utime(mine, (1e9, 1e9))
    assert program.here("env", "--shell", "sh", "a").code == 0
    assert mine.read_bytes() not in (old, before)
    assert certs.lasts(mine)
