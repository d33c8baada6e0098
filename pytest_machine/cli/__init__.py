"""The command line: a module per family of commands, imported when its command is used.

Nothing here imports docker or cryptography, so that ``--help`` answers at once; commands import what they need inside.
"""

from __future__ import annotations

import importlib

import click

from pytest_machine.errors import MachineError

# Command → module of this package, which has the command under the same name.
COMMANDS = {
    "doctor": "doctor",
    "image": "image",
    "prune": "prune",
    "rm": "rm",
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

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error of ours ends the program with its exit code and no traceback."""
        try:
            return super().invoke(ctx)
        except MachineError as error:
            click.echo(str(error), err=True)
            ctx.exit(error.exit_code)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pytest-machine")
def main() -> None:
    """Throwaway Docker hosts for tests."""
