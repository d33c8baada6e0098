"""``ip``, ``url``, ``status``, ``inspect``: what is known of a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from pytest_machine.errors import MachineError
from pytest_machine.support.text import visible

from .command import Command, Failed, Session, told_help

if TYPE_CHECKING:
    from .noted import Noted


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_context
def ip(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Get the IP addresses of machines, a line each, in the order in which they are named.

    Arguments are machine names.
    """
    from . import noted

    def ask(machine: Noted) -> str | MachineError:
        try:
            address = noted.running(machine)
        except MachineError as error:
            return error
        # Of an engine that is known by its address alone, the reference shows the port too.
        return urlsplit(address.engine).netloc if address.engine else address.ip

    found = noted.together(noted.several(ctx.ensure_object(Session), names), ask)
    for each in found:
        if isinstance(each, str):
            click.echo(each)
    if errors := [f"Error getting IP address: {each}" for each in found if isinstance(each, MachineError)]:
        raise Failed("\n".join(errors))


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.pass_context
def url(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Get the URL of a machine: where its Docker is reached, as DOCKER_HOST wants it.

    Argument is a machine name.
    """
    from . import noted

    click.echo(noted.running(noted.one(ctx.ensure_object(Session), names)).url)


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.pass_context
def status(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Get the status of a machine.

    Argument is a machine name. It is Running, Paused, Saved, Stopped, Starting or Error.
    """
    from . import noted

    click.echo(noted.WORDS[noted.look(noted.one(ctx.ensure_object(Session), names)).state])


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.option("-f", "--format", help="A Go template of what is to be shown: '{{.Driver.IPAddress}}'")
@click.pass_context
def inspect(ctx: click.Context, names: tuple[str, ...], *, format: str | None) -> None:  # the flag's name
    """Inspect information about a machine: all that is noted of it, as JSON.

    Argument is a machine name. Secrets are not shown.
    """
    from . import noted
    from .template import Template, TemplateUnread, pretty

    if len(names) > 1:
        raise told_help(ctx, "Error: Expected one machine name as an argument")
    machine = noted.current(noted.one(ctx.ensure_object(Session), names))
    if not format:
        click.echo(pretty(machine.config))
        return
    try:
        template = Template(format)
    except TemplateUnread as error:
        raise Failed(f"template parsing error: {error}") from error
    click.echo(visible(template.render(machine.config)))
