"""``env`` and ``config``: what makes a Docker client talk to a machine."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from .command import Command, Failed, Session

if TYPE_CHECKING:
    from .noted import Noted

# Compose on Windows takes a path for a volume's name without it.
_COMPOSE = ("COMPOSE_CONVERT_WINDOWS_PATHS",) if os.name == "nt" else ()


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.option("--shell", metavar="SHELL", help="bash, fish, powershell, cmd, tcsh, emacs; default: what this one is.")
@click.option("-u", "--unset", is_flag=True, help="Unset the variables instead.")
@click.option("--no-proxy", is_flag=True, help="Except the machine from proxies, by NO_PROXY.")
@click.pass_context
def env(ctx: click.Context, names: tuple[str, ...], *, shell: str | None, unset: bool, no_proxy: bool) -> None:
    """Show the commands that make a shell's Docker client talk to a machine."""
    from .shells import detect_shell, render_env
    from .shells import no_proxy as excepted

    variables = _unset(names) if unset else _set(ctx.ensure_object(Session), names)
    if no_proxy:
        variables.append(excepted(os.environ, _host(variables)))
    windows = os.name == "nt"
    chosen = shell or detect_shell(os.environ, windows=windows)
    program = (ctx.find_root().info_name or "").split()
    text = render_env(variables, shell=chosen, command=[*program, *sys.argv[1:]], unset=unset)
    click.echo(text, nl=not text.endswith("\n"))


def _host(variables: list[tuple[str, str]]) -> str:
    """Return the address in ``DOCKER_HOST``; empty where that is unset."""
    return dict(variables)["DOCKER_HOST"].removeprefix("tcp://").rpartition(":")[0].strip("[]")


def _checked(machine: Noted, prefix: str) -> str:
    """Return where the machine's Docker is reached, once it has answered over TLS."""
    from pytest_machine.engine import ping
    from pytest_machine.waiting import NotYet

    from . import noted

    try:
        address = noted.running(machine)
    except Failed as error:
        raise Failed(f"{prefix}: {error}") from error
    try:
        ping(address, certs=machine.record.directory)
    except (OSError, NotYet) as error:
        place = address.url.removeprefix("tcp://")
        raise Failed(
            f"{prefix}: Error checking and/or regenerating the certs: "
            f'There was an error validating certificates for host "{place}": {error}'
        ) from error
    return address.url


def _unset(names: tuple[str, ...]) -> list[tuple[str, str]]:
    if names:
        raise Failed("Error: Expected no machine name when the -u flag is present")
    known = ("DOCKER_TLS_VERIFY", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME", *_COMPOSE)
    return [(name, "") for name in known]


def _set(session: Session, names: tuple[str, ...]) -> list[tuple[str, str]]:
    from . import noted

    machine = noted.one(session, names)
    return [
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_HOST", _checked(machine, "Error checking TLS connection")),
        ("DOCKER_CERT_PATH", str(machine.record.directory)),
        ("DOCKER_MACHINE_NAME", machine.name),
        *((name, "true") for name in _COMPOSE),
    ]


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.pass_context
def config(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Show the flags that make a Docker client talk to a machine: docker $(docker-machine config NAME) ps."""
    from . import noted

    machine = noted.one(ctx.ensure_object(Session), names)
    url = _checked(machine, "Error running connection boilerplate")
    directory = machine.record.directory
    click.echo("--tlsverify")
    for flag, name in (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem")):
        click.echo(f'--{flag}="{directory / name}"')
    click.echo(f"-H={url}")
