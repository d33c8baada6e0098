"""What Docker Machine's commands have in common here: their way with flags, their exit codes, and what they work on.

Flags are read as Go's ``flag`` does: ``-x`` is as good as ``--x``, ``--x=y`` as ``--x y``; they may stand before or
after names, and ``--`` ends them. Errors go to standard error, and the exit code is 1, whatever is wrong.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pytest_machine.errors import MachineError, refused
from pytest_machine.support.text import visible

from .layout import HelpfulCommand, Switch

if TYPE_CHECKING:
    from pytest_machine.plugins import Registry
    from pytest_machine.store import Store

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
DEBUG = ("-D", "--debug", "-debug")


_UPDATE = click.Option(
    ["--update-config"],
    is_flag=True,
    expose_value=False,
    help="Read the flags and variables of the machines' driver anew, first of all",
)


class BadFlag(Exception):
    """A flag that there is not, or that cannot be read; in Go's words."""


class Failed(MachineError):
    """Something went wrong that Docker Machine has words for, which scripts look for."""


class Misnamed(Failed):
    """A machine that there is not, in Docker Machine's words; whoever typed it can mend it."""

    exit_code = 2


@dataclass
class Session:
    """What a call of the program works on."""

    storage: str = ""
    """The store's directory, if ``-s`` gave one."""
    debug: bool = False
    certificates: Mapping[str, str] = field(default_factory=dict)
    """Usual name → path, of those of the authority's and the client's files that ``--tls-*`` placed elsewhere."""
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What is let go at the end: connections that commands share would go on for a while."""

    @functools.cached_property
    def store(self) -> Store:
        """The command line's machines; raises `StoreError` where they cannot be."""
        from pytest_machine.owner import storage_path
        from pytest_machine.store import Store

        store = Store(Path(self.storage) if self.storage else storage_path())
        store.check()
        return store

    @functools.cached_property
    def registry(self) -> Registry:
        """The drivers."""
        from pytest_machine.plugins import Registry

        return Registry()


class Command(HelpfulCommand):
    """A command of Docker Machine's."""

    wrong_usage = 0
    """The exit code for a flag that there is not: Docker Machine's own, on which scripts may rely."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return its flags and arguments; with names of machines, the flag goes that is about these."""
        found = super().get_params(ctx)
        return [*found, _UPDATE] if any(map(_names_machines, self.params)) else found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read flags in Go's way; what cannot be read is told with the command's help."""
        try:
            args = _undebugged(ctx, args)
            if "--update-config" in args or "-update-config" in args:
                from .updating import update

                args = update(ctx, args, self.get_params(ctx))
            flags, words = read(args, self.get_params(ctx))
            return super().parse_args(ctx, [*flags, "--", *words])
        except (BadFlag, click.UsageError) as error:
            told_wrong(ctx, error, self.wrong_usage)
        except MachineError as error:  # of what --update-config gave
            tell(ctx, error)
            ctx.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what goes wrong is said on standard error."""
        if ctx.ensure_object(Session).debug:
            from .about import number

            click.echo(f"Docker Machine Version: {number()}", err=True)
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (MachineError, OSError) as error:
            tell(ctx, error)
            ctx.exit(self.code(error))

    def code(self, error: MachineError | OSError) -> int:  # noqa: ARG002  # what others go by
        """Return the exit code for an error: Docker Machine knows but one."""
        return 1


def _names_machines(param: click.Parameter) -> bool:
    return isinstance(param, click.Argument) and (
        param.name == "name" or str(param.metavar).startswith(("[NAME]", "NAME|"))
    )


class Ours(Command):
    """A command that Docker Machine never had: its exit code says who can mend what is wrong, 2 whoever typed it."""

    wrong_usage = 2

    def code(self, error: MachineError | OSError) -> int:
        """Return the error's own exit code."""
        return error.exit_code if isinstance(error, MachineError) else 1


def tell(ctx: click.Context, error: Exception) -> None:
    """Say on standard error what went wrong; with ``--debug``, all that led to it first."""
    if ctx.ensure_object(Session).debug:
        import traceback

        click.echo("".join(traceback.format_exception(error)), err=True)
    if isinstance(error, OSError) and not isinstance(error, MachineError):
        error = refused(error)
    click.echo(visible(str(error)), err=True)


def tell_unexpected(error: Exception, *, debug: bool) -> None:
    """Say that the program itself is wrong, in a sentence; with ``--debug``, all that led to it first."""
    if debug:
        import traceback

        click.echo(visible("".join(traceback.format_exception(error))), err=True)
    reason = visible(f"{type(error).__name__}: {error}", lines=False)[:500]
    click.echo(
        f"Unexpected error.\n  reason  {reason}\n"
        "hint: run it again with --debug, and report what it shows to the developers of pytest-machine",
        err=True,
    )


def argv0() -> list[str]:
    """Return what has to be typed to have this program again, word by word."""
    import shutil
    import sys

    context = click.get_current_context().find_root()
    name = context.info_name or ""
    typed = sys.argv[0]
    # A program on the PATH is given its whole path here, whatever was typed.
    if not os.path.dirname(typed) or " " in name or shutil.which(name) in (None, typed):  # noqa: PTH120  # "" is told
        return name.split()
    return [typed]


def _undebugged(ctx: click.Context, args: list[str]) -> list[str]:
    """Return the arguments without ``--debug``, which may stand anywhere before ``--``."""
    end = args.index("--") if "--" in args else len(args)
    if any(arg in DEBUG for arg in args[:end]):
        ctx.ensure_object(Session).debug = True
    return [*(arg for arg in args[:end] if arg not in DEBUG), *args[end:]]


def told_wrong(ctx: click.Context, error: Exception, code: int) -> NoReturn:
    """Say that the command was used wrongly, and how it is used; end the program."""
    click.echo(f"Incorrect Usage.\n\n{ctx.get_help()}")
    if ctx.parent is not None:
        click.echo()
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
            if not name or name.startswith("-"):
                raise BadFlag(f"bad flag syntax: {arg}")
            if name not in known:
                raise BadFlag(f"flag provided but not defined: -{name}")
            param, flag = known[name]
            flags += _one(param, flag, name, value if given else None, rest)
    return flags, words


def _one(param: click.Option, flag: str, name: str, value: str | None, rest: Iterator[str]) -> list[str]:
    if param.is_flag or isinstance(param, Switch):
        if value is not None:
            try:
                parse_bool(value)
            except ValueError as error:
                raise BadFlag(f'invalid boolean value "{value}" for -{name}: {error}') from None
        if isinstance(param, Switch):
            return [f"{flag}={'false' if value in _FALSE else 'true'}"]
        return [] if value in _FALSE else [flag]
    if value is None and (value := next(rest, None)) is None:
        raise BadFlag(f"flag needs an argument: -{name}")
    if isinstance(param.type, click.types.IntParamType):
        wrong = "" if re.fullmatch(r"[+-]?\d+", value) else "invalid syntax"
        if not wrong and not -(2**63) <= int(value[:25]) < 2**63:
            wrong = "value out of range"
        if wrong:
            raise BadFlag(f'invalid value "{value}" for flag -{name}: strconv.ParseInt: parsing "{value}": {wrong}')
    return [f"{flag}={value}"] if flag.startswith("--") else [flag, value]


def parse_bool(value: str) -> bool:
    """Return what Go's ``strconv.ParseBool`` does; raises `ValueError` in its words."""
    if value not in (*_TRUE, *_FALSE):
        raise ValueError(f'strconv.ParseBool: parsing "{value}": invalid syntax')
    return value in _TRUE
