"""``env`` and ``config``: what makes a Docker client talk to a machine."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

import click

from pytest_machine.errors import MachineError
from pytest_machine.support import clock

from .command import Command, Failed, Session, argv0

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_machine.model import Address

    from .noted import Noted

# Compose on Windows takes a path for a volume's name without it.
_COMPOSE = ("COMPOSE_CONVERT_WINDOWS_PATHS",) if os.name == "nt" else ()


_UNREACHED = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH)

# What OpenSSL finds wrong with a certificate → Go's words for it.
_UNTRUSTED = {
    9: "certificate has expired or is not yet valid",
    10: "certificate has expired or is not yet valid",
    **dict.fromkeys((2, 18, 19, 20, 21), "certificate signed by unknown authority"),
}

# Seconds: a third of what a client's certificate is good for is 275 days.
_YOUNG = 180 * 86400

_ADVICE = (
    "You can attempt to regenerate them using 'docker-machine regenerate-certs [name]'.\n"
    "Be advised that this will trigger a Docker daemon restart which might stop running containers."
)
_NO_SHELL = (
    "The default lines below are for a sh/bash shell, you can specify the shell you're using, with the --shell flag.\n"
)


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.option("--swarm", is_flag=True, help="Display the classic Swarm's config instead of the Docker daemon's")
@click.option(
    "--shell", help="For which shell: bash, fish, powershell, cmd, tcsh, emacs; default is the one that this is run in"
)
@click.option("-u", "--unset", is_flag=True, help="Unset variables instead of setting them")
@click.option("--no-proxy", is_flag=True, help="Add the machine's address to NO_PROXY")
@click.pass_context
def env(
    ctx: click.Context, names: tuple[str, ...], *, swarm: bool, shell: str | None, unset: bool, no_proxy: bool
) -> None:
    """Display the commands to set up the environment for the Docker client.

    Argument is a machine name.
    """
    from pytest_machine.client_environment import extended

    from .shells import render_env

    variables = _unset(names) if unset else _set(ctx.ensure_object(Session), names, swarm)
    chosen = shell or _shell()
    if no_proxy:
        variables.append(extended(os.environ, _host(variables)))
    text = render_env(variables, shell=chosen, command=[*argv0(), *sys.argv[1:]], unset=unset)
    click.echo(text, nl=not text.endswith("\n"))


def _shell() -> str:
    from pytest_machine.errors import UsageError

    from .shells import detect_shell

    try:
        return detect_shell(os.environ, windows=os.name == "nt")
    except UsageError as error:
        click.echo(_NO_SHELL)
        raise Failed(error.message) from error


def _host(variables: list[tuple[str, str]]) -> str:
    """Return the address in ``DOCKER_HOST``; empty where that is unset."""
    return dict(variables)["DOCKER_HOST"].removeprefix("tcp://").rpartition(":")[0].strip("[]")


def _checked(machine: Noted, swarm: bool, prefix: str) -> str:
    """Return where the machine's Docker is reached, or its classic Swarm, once it has answered over TLS."""
    from . import noted

    try:
        address = noted.running(machine)
        if not swarm:
            _answer(machine, address)
            return address.url
        return _swarm(machine, address)
    except Failed as error:
        raise Failed(f"{prefix}: {error}") from error


def _renew(machine: Noted, *, unless_young: bool = False) -> bool:
    """Renew the machine's certificates where that is due; return whether it was.

    To read one costs a tenth of a second, which this command has not got: one that was written lately is young.
    """
    if machine.foreign is not None:
        return False
    with contextlib.suppress(FileNotFoundError):
        if unless_young and clock.now() - (machine.certificates / "cert.pem").stat().st_mtime < _YOUNG:
            return False
    return machine.machine().renew()


def _answer(machine: Noted, address: Address) -> None:
    from pytest_machine.knock import ping
    from pytest_machine.waiting import NotYet

    from . import noted

    try:
        _renew(machine, unless_young=True)
        try:
            ping(address, certs=machine.certificates)
        except (OSError, NotYet):
            if not _renew(machine):
                raise
            ping(noted.running(machine), certs=machine.certificates)
    except (OSError, NotYet, MachineError) as error:
        place = address.url.removeprefix("tcp://")
        why = _dialled(place, error, machine.certificates)
        raise Failed(
            "Error checking and/or regenerating the certs: "
            f'There was an error validating certificates for host "{place}": {why}\n{_ADVICE}\n'
        ) from error


def _dialled(place: str, error: Exception, certs: Path) -> str:
    """Return what went wrong, as Go says it; `certs` is where the certificates should be."""
    import socket
    import ssl

    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {place.rpartition(':')[0]}: no such host"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _UNTRUSTED.get(error.verify_code)
        return f"x509: {why}" if why else str(error)
    if isinstance(error, FileNotFoundError):
        # Python's own names no file where it is of certificates.
        missing = [name for name in ("ca.pem", "cert.pem", "key.pem") if not (certs / name).exists()]
        return f"open {error.filename or certs / (missing or [''])[0]}: no such file or directory"
    if isinstance(error, TimeoutError):
        return f"dial tcp {place}: i/o timeout"
    if isinstance(error, OSError) and error.errno in _UNREACHED:
        return f"dial tcp {place}: connect: {str(error.strerror).lower()}"
    return str(error)


def _swarm(machine: Noted, address: Address) -> str:
    from dataclasses import replace

    if not machine.swarm.get("Master"):
        raise Failed(f'"{machine.name}" is not a swarm master. The --swarm flag is intended for use with swarm masters')
    url = machine.swarm_url(address)
    port = url.rpartition(":")[2]
    if not port.isdecimal():
        raise Failed(f"There was an error parsing the url: {machine.swarm.get('Host')}")
    try:
        _answer(machine, replace(address, engine_port=int(port), engine=""))
    except Failed:
        _answer(machine, address)
        raise Failed(
            "Connection to Swarm cannot be checked but the certs are valid. Maybe swarm is not started"
        ) from None
    return url


def _unset(names: tuple[str, ...]) -> list[tuple[str, str]]:
    if names:
        raise Failed("Error: Expected no machine name when the -u flag is present")
    known = ("DOCKER_TLS_VERIFY", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME", *_COMPOSE)
    return [(name, "") for name in known]


def _set(session: Session, names: tuple[str, ...], swarm: bool) -> list[tuple[str, str]]:
    from . import noted

    machine = noted.one(session, names)
    return [
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_HOST", _checked(machine, swarm, "Error checking TLS connection")),
        ("DOCKER_CERT_PATH", str(machine.certificates)),
        ("DOCKER_MACHINE_NAME", machine.name),
        *((name, "true") for name in _COMPOSE),
    ]


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.option("--swarm", is_flag=True, help="Display the classic Swarm's config instead of the Docker daemon's")
@click.pass_context
def config(ctx: click.Context, names: tuple[str, ...], *, swarm: bool) -> None:
    """Print the connection config for machine: docker $(docker-machine config NAME) ps.

    Argument is a machine name.
    """
    from . import noted

    machine = noted.one(ctx.ensure_object(Session), names)
    url = _checked(machine, swarm, "Error running connection boilerplate")
    directory = machine.certificates
    click.echo("--tlsverify")
    for flag, name in (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem")):
        click.echo(f'--{flag}="{directory / name}"')
    click.echo(f"-H={url}")
