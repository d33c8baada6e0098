"""``version`` and ``help``."""

from __future__ import annotations

import click

from pytest_machine.support.text import visible

from .command import Command, Failed, Session


def number() -> str:
    """Return which version this is."""
    from importlib import metadata

    return f"{metadata.version('pytest-machine')}, build pytest-machine"


def line(ctx: click.Context) -> str:
    """Return the line that says which program this is; scripts take its third word."""
    return f"{ctx.find_root().info_name} version {number()}"


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]", nargs=-1)
@click.pass_context
def version(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Show this program's version, or that of a machine's Docker."""
    if not names:
        click.echo(line(ctx))
        return
    from pytest_machine.engine import version as ask

    from . import noted

    machine = noted.one(ctx.ensure_object(Session), names)
    found = ask(noted.running(machine), certs=machine.certificates)
    if not found:
        raise Failed("Unable to query docker version: Cannot connect to the docker engine endpoint")
    click.echo(visible(found, lines=False))


@click.command(cls=Command)
@click.argument("names", metavar="[COMMAND]", nargs=-1)
@click.pass_context
def help(ctx: click.Context, names: tuple[str, ...]) -> None:  # noqa: A001  # the command's name
    """Show what commands there are, or the help of one."""
    root = ctx.find_root()
    if not names:
        click.echo(root.get_help())
        return
    assert isinstance(root.command, click.Group)
    name, found, _ = root.command.resolve_command(root, list(names))
    assert found is not None
    with found.make_context(name, [], parent=root, resilient_parsing=True) as below:
        click.echo(below.get_help())
