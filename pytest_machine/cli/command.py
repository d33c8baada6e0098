"""What Docker Machine's commands have in common here: their way with flags, their exit codes, and what they work on.

Flags are read as Go's ``flag`` does: ``-x`` is as good as ``--x``, ``--x=y`` as ``--x y``; they may stand before or
after names, and ``--`` ends them. Errors go to standard error, and the exit code is 1, whatever is wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pytest_machine.errors import MachineError

if TYPE_CHECKING:
    from pytest_machine.plugins import Registry
    from pytest_machine.store import Store

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Switch(click.Option):
    """A flag without a value of which ``--x=false`` is not the same as nothing: text, empty where it is not given."""


class BadFlag(Exception):
    """A flag that there is not, or that cannot be read; in Go's words."""


class Failed(MachineError):
    """Something went wrong that Docker Machine has words for, which scripts look for."""


@dataclass
class Session:
    """What a call of the program works on."""

    storage: str = ""
    """The store's directory, if ``-s`` gave one."""
    debug: bool = False

    @functools.cached_property
    def store(self) -> Store:
        """The command line's machines."""
        from pytest_machine.owner import storage_path
        from pytest_machine.store import Store

        return Store(Path(self.storage) if self.storage else storage_path())

    @functools.cached_property
    def registry(self) -> Registry:
        """The drivers."""
        from pytest_machine.plugins import Registry

        return Registry()


class Command(click.Command):
    """A command of Docker Machine's."""

    wrong_usage = 0
    """The exit code for a flag that there is not: Docker Machine's own, on which scripts may rely."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read flags in Go's way; what cannot be read is told with the command's help."""
        try:
            flags, words = read(args, self.get_params(ctx))
            return super().parse_args(ctx, [*flags, "--", *words])
        except (BadFlag, click.UsageError) as error:
            told_wrong(ctx, error, self.wrong_usage)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what goes wrong is said on standard error."""
        session = ctx.ensure_object(Session)
        try:
            return super().invoke(ctx)
        except (MachineError, OSError) as error:
            if session.debug or isinstance(error, BrokenPipeError):
                raise
            click.echo(str(error), err=True)
            ctx.exit(1)


def told_wrong(ctx: click.Context, error: Exception, code: int) -> NoReturn:
    """Say that the command was used wrongly, and how it is used; end the program."""
    click.echo(f"Incorrect Usage.\n\n{ctx.get_help()}\n")
    click.echo(error.format_message() if isinstance(error, click.UsageError) else str(error), err=True)
    ctx.exit(code)


def told_help(ctx: click.Context, sentence: str) -> Failed:
    """Show the command's help, and return the error."""
    click.echo(ctx.get_help())
    return Failed(sentence)


def read(args: Sequence[str], params: Iterable[click.Parameter], *, stop: bool = False) -> tuple[list[str], list[str]]:
    """Return flags in the one form that click reads without doubt, and the words between them.

    With `stop`, flags end at the first word: what follows is another command's.
    """
    known = {
        name.lstrip("-"): (param, max(param.opts, key=len))
        for param in params
        if isinstance(param, click.Option)
        for name in param.opts
    }
    flags: list[str] = []
    words: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            words += rest
        elif not arg.startswith("-") or arg == "-":
            words.append(arg)
            if stop:
                words += rest
        else:
            name, given, value = arg.removeprefix("-").removeprefix("-").partition("=")
            if name not in known:
                raise BadFlag(f"flag provided but not defined: -{name}")
            param, flag = known[name]
            flags += _one(param, flag, name, value if given else None, rest)
    return flags, words


def _one(param: click.Option, flag: str, name: str, value: str | None, rest: Iterator[str]) -> list[str]:
    if param.is_flag or isinstance(param, Switch):
        if value is not None and value not in (*_TRUE, *_FALSE):
            raise BadFlag(f'invalid boolean value "{value}" for -{name}')
        if isinstance(param, Switch):
            return [f"{flag}={'false' if value in _FALSE else 'true'}"]
        return [] if value in _FALSE else [flag]
    if value is None and (value := next(rest, None)) is None:
        raise BadFlag(f"flag needs an argument: -{name}")
    return [f"{flag}={value}"] if flag.startswith("--") else [flag, value]
