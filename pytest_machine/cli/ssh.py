"""``ssh``: a shell or a command in a machine."""

from __future__ import annotations

import os
import subprocess

import click

from .command import Command, Failed, Session


class Ssh(Command):
    """What follows the name is for ``ssh`` and the machine: nothing of it is read here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read nothing but a wish for help."""
        if args[:1] in (["-h"], ["-help"], ["--help"]):
            return click.Command.parse_args(self, ctx, ["--help"])
        return click.Command.parse_args(self, ctx, ["--", *args])


@click.command(cls=Ssh)
@click.argument("words", metavar="[NAME] [SSH FLAG...] [COMMAND...]", nargs=-1)
@click.pass_context
def ssh(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Log into or run a command on a machine with SSH.

    Arguments are [machine-name] [command]. The exit code is the command's.
    """
    from pytest_machine.model import State

    from . import noted

    machine = noted.one(ctx.ensure_object(Session), words[:1])
    if noted.look(machine).state is not State.RUNNING:
        raise Failed(f'Error: Cannot run SSH command: Host "{machine.name}" is not running')
    argv = [*machine.machine().connection.argv, *words[1:]]
    try:
        if os.name == "nt":  # there, a program that replaces another is one that nobody waits for
            ctx.exit(subprocess.call(argv))
        os.execvp(argv[0], argv)  # noqa: S606  # no shell is what is wanted
    except FileNotFoundError as error:
        raise Failed("There is no 'ssh' here.", hint="install OpenSSH's client") from error
