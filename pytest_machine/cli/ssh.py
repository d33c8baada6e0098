"""``ssh``: a shell or a command in a machine."""

from __future__ import annotations

import os

import click

from pytest_machine.errors import MachineError

from .command import BadFlag, Command, Failed, Session, tell, told_wrong


class Ssh(Command):
    """What follows the name is for ``ssh`` and the machine: nothing of it is read here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read nothing but a wish for help."""
        if args[:1] in (["-h"], ["-help"], ["--help"]):
            return click.Command.parse_args(self, ctx, ["--help"])
        if args[:1] in (["--update-config"], ["-update-config"]):
            return self._updated(ctx, args)
        return click.Command.parse_args(self, ctx, ["--", *args])

    def _updated(self, ctx: click.Context, args: list[str]) -> list[str]:
        from .updating import update

        try:
            return click.Command.parse_args(self, ctx, update(ctx, args, (), stop=True))
        except (BadFlag, click.UsageError) as error:
            told_wrong(ctx, error, self.wrong_usage)
        except MachineError as error:
            tell(ctx, error)
            ctx.exit(1)


@click.command(cls=Ssh)
@click.argument("words", metavar="[NAME] [SSH FLAG...] [COMMAND...]", nargs=-1)
@click.pass_context
def ssh(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Log into or run a command on a machine with SSH.

    Arguments are [machine-name] [command]. The exit code is the command's.
    """
    from . import noted
    from .remote import called, login

    machine = noted.one(ctx.ensure_object(Session), words[:1])
    try:
        address = noted.running(machine)
    except Failed as error:
        if error.message != noted.NOT_RUNNING:
            raise
        raise Failed(f'Error: Cannot run SSH command: Host "{machine.name}" is not running') from error
    try:
        argv = [*login(machine, address).argv, *words[1:]]
    except Failed as error:
        raise Failed(f"Error: Cannot run SSH command: {error.message}", hint=error.hint) from error
    try:
        if os.name == "nt":  # there, a program that replaces another is one that nobody waits for
            ctx.exit(called(argv))
        os.execvp(argv[0], argv)  # noqa: S606  # no shell is what is wanted
    except FileNotFoundError as error:
        raise Failed("There is no 'ssh' here.", hint="install OpenSSH's client") from error
