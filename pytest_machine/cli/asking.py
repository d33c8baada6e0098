"""``ip``, ``url``, ``status``, ``inspect``: what is known of a machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from .command import Command, Failed, Session, told_help

if TYPE_CHECKING:
    from .noted import Noted


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_context
def ip(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Show machines' addresses, a line each, in the order in which they are named."""
    from . import noted

    def ask(machine: Noted) -> str:
        try:
            address = noted.running(machine)
            # Of an engine that is known by its address alone, the reference shows the port too.
            return urlsplit(address.engine).netloc if address.engine else address.ip
        except Failed as error:
            raise Failed(f"Error getting IP address: {error}") from error

    for found in noted.together(noted.several(ctx.ensure_object(Session), names), ask):
        click.echo(found)


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.pass_context
def url(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Show where a machine's Docker is reached, as DOCKER_HOST wants it."""
    from . import noted

    click.echo(noted.running(noted.one(ctx.ensure_object(Session), names)).url)


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.pass_context
def status(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Show what a machine does: Running, Paused, Saved, Stopped, Starting, Error."""
    from . import noted

    click.echo(noted.WORDS[noted.look(noted.one(ctx.ensure_object(Session), names)).state])


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.option(
    "-f", "--format", metavar="TEMPLATE", help="A Go template of what is to be shown: '{{.Driver.IPAddress}}'."
)
@click.pass_context
def inspect(ctx: click.Context, names: tuple[str, ...], *, format: str | None) -> None:  # the flag's name
    """Show all that is noted of a machine, as JSON. Secrets are not."""
    from . import noted

    if len(names) > 1:
        raise told_help(ctx, "Error: Expected one machine name as an argument")
    found = _known(noted.one(ctx.ensure_object(Session), names))
    if format:
        from .template import render

        click.echo(render(format, found))
    else:
        click.echo(json.dumps(found, indent=4, ensure_ascii=False))


def _known(machine: Noted) -> dict[str, object]:
    """Return what is noted as Docker Machine shows it: scripts know the names."""
    from pytest_machine.birth import KEY

    record, store = machine.record, machine.record.store
    directory = record.directory
    address = record.address
    certificates = store / "certs"
    driver = {
        "IPAddress": address.ip if address else "",
        "MachineName": record.name,
        "SSHUser": address.user if address else "",
        "SSHPort": address.ssh_port if address else 0,
        "SSHKeyPath": str(directory / KEY),
        "StorePath": str(store),
        "SwarmMaster": False,
        "SwarmHost": "",
        "SwarmDiscovery": "",
        "Id": record.id,
        "Options": {name: list(v) if isinstance(v, tuple) else v for name, v in record.options.items()},
    }
    authentication = {
        "CertDir": str(certificates),
        "CaCertPath": str(certificates / "ca.pem"),
        "CaPrivateKeyPath": str(certificates / "ca-key.pem"),
        "CaCertRemotePath": "/etc/docker/ca.pem",
        "ServerCertPath": str(directory / "server.pem"),
        "ServerKeyPath": str(directory / "server-key.pem"),
        "ClientKeyPath": str(certificates / "key.pem"),
        "ServerCertRemotePath": "/etc/docker/server.pem",
        "ServerKeyRemotePath": "/etc/docker/server-key.pem",
        "ClientCertPath": str(certificates / "cert.pem"),
        "ServerCertSANs": [],
        "StorePath": str(directory),
    }
    options = {"EngineOptions": _engine(machine), "SwarmOptions": _swarm(), "AuthOptions": authentication}
    return {
        "ConfigVersion": 3,
        "Driver": driver,
        "DriverName": record.driver,
        "HostOptions": {"Driver": "", "Memory": 0, "Disk": 0, **options},
        "Name": record.name,
    }


def _engine(machine: Noted) -> dict[str, object]:
    noted = machine.record.engine
    options = noted.get("options")
    given = dict(options) if isinstance(options, dict) else {}
    return {
        "InsecureRegistry": given.pop("insecure-registries", []),
        "Labels": given.pop("labels", []),
        "RegistryMirror": given.pop("registry-mirrors", []),
        "StorageDriver": given.pop("storage-driver", ""),
        # Names alone: the values may be secret.
        "Env": noted.get("env", []),
        "ArbitraryFlags": [f"{name}={_flat(value)}" for name, value in given.items()],
        "TlsVerify": True,
    }


def _flat(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _swarm() -> dict[str, object]:
    return {"IsSwarm": False, "Address": "", "Discovery": "", "Agent": False, "Master": False, "Host": ""}
