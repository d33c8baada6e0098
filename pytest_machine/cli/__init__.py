"""The command line: a module per family of commands, imported when its command is used.

Nothing here imports docker or cryptography, so that ``--help`` answers at once; commands import what they need inside.
"""

from __future__ import annotations

import importlib

import click

from pytest_machine.errors import MachineError

from .command import BadFlag, Session, read, told_wrong

# Command → module of this package, which has the command under the same name.
COMMANDS = {
    "active": "ls",
    "config": "shown",
    "create": "create",
    "doctor": "doctor",
    "env": "shown",
    "help": "about",
    "image": "image",
    "inspect": "asking",
    "ip": "asking",
    "kill": "power",
    "ls": "ls",
    "provision": "provision",
    "prune": "prune",
    "regenerate-certs": "provision",
    "restart": "power",
    "rm": "rm",
    "ssh": "ssh",
    "start": "power",
    "status": "asking",
    "stop": "power",
    "upgrade": "provision",
    "url": "asking",
    "version": "about",
}


class Program(click.Group):
    """A group that finds its commands in `COMMANDS` and shows our errors as they are: a sentence, facts, a hint."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands' names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command's module and return the command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{COMMANDS[cmd_name]}")
        found = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(found, click.Command), cmd_name
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the flags before the command in Go's way; without any command, show what there is."""
        try:
            flags, words = read(args, self.get_params(ctx), stop=True)
        except BadFlag as error:
            told_wrong(ctx, error, 0)
        return super().parse_args(ctx, [*flags, *words] or ["--help"])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; one that there is not ends the program."""
        name = {"h": "help"}.get(args[0], args[0])
        if name not in COMMANDS and not ctx.resilient_parsing:
            program = ctx.find_root().info_name
            click.echo(f"{program}: '{name}' is not a {program} command. See '{program} --help'.", err=True)
            ctx.exit(1)
        return super().resolve_command(ctx, [name, *args[1:]])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error of ours ends the program with its exit code and no traceback."""
        try:
            return super().invoke(ctx)
        except MachineError as error:
            if ctx.ensure_object(Session).debug:
                raise
            click.echo(str(error), err=True)
            ctx.exit(error.exit_code)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .about import line

        click.echo(line(ctx))
        ctx.exit()


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-v", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@click.option("-D", "--debug", is_flag=True, envvar="MACHINE_DEBUG", help="Show errors with all that led to them.")
@click.option(
    "-s", "--storage-path", metavar="DIR", help="Where machines are kept. [$MACHINE_STORAGE_PATH, ~/.docker/machine]"
)
@click.pass_context
def main(ctx: click.Context, *, debug: bool, storage_path: str | None) -> None:
    """Throwaway Docker hosts: for tests, and by hand."""
    ctx.obj = Session(storage_path or "", debug)
