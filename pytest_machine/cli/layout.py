"""How help and tables are laid out: as Docker Machine does it, because scripts read both.

It leaves that to Go's ``text/tabwriter``: cells end with a tab, and cells that stand below each other in lines that
follow each other are a column. A cell that ends no column, the last of its line, is not filled up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import click

_WIDTH = 100


def aligned(text: str, *, least: int, padding: int, fill: str = " ", tab: int = 8) -> str:
    """Return `text` with its cells in columns that are at least `least` wide, `padding` wider than their widest cell.

    A tab as `fill` makes every column's width a multiple of `tab`, and fills cells up with tabs.
    """
    lines = [line.split("\t") for line in text.split("\n")]
    widths: list[list[int]] = [[] for _ in lines]
    _measure(lines, widths, range(len(lines)), column=0, least=least, padding=padding)
    return "\n".join(_line(cells, widths[place], fill, tab) for place, cells in enumerate(lines))


def _measure(
    lines: Sequence[Sequence[str]], widths: list[list[int]], among: range, *, column: int, least: int, padding: int
) -> None:
    """Note for each of the lines how wide its columns are, from `column` on."""
    place = among.start
    while place < among.stop:
        end = place
        while end < among.stop and len(lines[end]) - 1 > column:
            end += 1
        if end > place:
            width = max(least, *(len(lines[each][column]) + padding for each in range(place, end)))
            for each in range(place, end):
                widths[each].append(width)
            _measure(lines, widths, range(place, end), column=column + 1, least=least, padding=padding)
        place = end + 1


def _line(cells: Sequence[str], widths: Sequence[int], fill: str, tab: int) -> str:
    written = ""
    for text, width in zip(cells, widths, strict=False):
        if fill == "\t":
            missing = -(-width // tab) * tab - len(text)
            written += text + "\t" * -(-missing // tab)
        else:
            written += text.ljust(width, fill)
    return written + cells[-1]


class Flag(click.Option):
    """A flag of which help shows what it is without being given, and which variable stands for it.

    `shown` and `variable` are shown alone: for a flag of which somebody else knows both. Everywhere else `default` and
    `envvar` do, and click reads them.
    """

    def __init__(self, declared: Sequence[str], *, shown: str = "", variable: str = "", **given: object) -> None:
        super().__init__(declared, **given)  # type: ignore[arg-type]  # click's own
        self.shown = shown
        self.variable = variable


class Switch(Flag):
    """A flag without a value of which ``--x=false`` is not the same as nothing: text, empty where it is not given."""


class Commas(click.types.StringParamType):
    """Texts of which a variable holds several, with commas between."""

    envvar_list_splitter = ","


def row(option: click.Option) -> str:
    """Return a flag as help shows it: two cells, names with what is given to them, and meaning."""
    names = sorted(option.opts, key=len, reverse=True)
    given = ", ".join(names)
    if option.multiple:
        given += f" [{names[0]} option {names[0]} option]"
    elif not option.is_flag and not isinstance(option, Switch):
        value = option.shown if isinstance(option, Flag) and option.shown else option.default
        value = value() if callable(value) else value
        # What click calls no value is an object of its own.
        given += f' "{value}"' if isinstance(value, (str, int)) and value != "" else " "
    variable = (isinstance(option, Flag) and option.variable) or option.envvar
    return f"{given}\t{option.help or ''}" + (f" [${variable}]" if variable else "")


def command_help(ctx: click.Context, command: click.Command) -> str:
    """Return the help of one command."""
    rows = [row(param) for param in _flags(ctx, command)]
    if isinstance(command, HelpfulCommand) and command.sorted_flags:
        rows.sort()
    summary, description = _described(command)
    usage = f"Usage: {ctx.command_path}{' [OPTIONS]' if rows else ''} "
    parts = [usage + ("COMMAND [arg...]" if isinstance(command, click.Group) else "[arg...]"), "", summary]
    if description:
        parts += ["", "Description:", *description]
    if rows:
        parts += ["", "Options:", "   ", *(f"   {each}" for each in rows)]
    if isinstance(command, click.Group):
        parts += ["", "Commands:", *_commands(ctx, command)]
    return _tabbed(parts)


def program_help(ctx: click.Context, program: click.Group, version: str) -> str:
    """Return the help of the program itself."""
    summary, _ = _described(program)
    name = ctx.command_path
    parts = [f"Usage: {name} [OPTIONS] COMMAND [arg...]", "", summary, "", f"Version: {version}", "", "Options:"]
    parts += [f"  {row(param)}" for param in program.get_params(ctx) if isinstance(param, click.Option)]
    parts += ["  ", "Commands:", *_commands(ctx, program), "  "]
    return _tabbed([*parts, f"Run '{name} COMMAND --help' for more information on a command."])


def _tabbed(lines: Iterable[str]) -> str:
    return aligned("\n".join(lines), least=0, padding=1, fill="\t")


def _commands(ctx: click.Context, group: click.Group) -> Iterator[str]:
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        if found is not None and not found.hidden:
            yield f"  {name}\t{_described(found)[0]}"


def _flags(ctx: click.Context, command: click.Command) -> Iterator[click.Option]:
    for param in command.get_params(ctx):
        # That there is `--help` is known to whoever reads this.
        if isinstance(param, click.Option) and not param.hidden and param is not command.get_help_option(ctx):
            yield param


def _described(command: click.Command) -> tuple[str, list[str]]:
    """Return the first sentence of a command's docstring, and the rest of it in lines."""
    import textwrap

    summary, _, rest = (command.help or "").strip().partition("\n\n")
    lines: list[str] = []
    for paragraph in filter(None, map(str.strip, rest.split("\n\n"))):
        lines += textwrap.wrap(
            " ".join(paragraph.split()), _WIDTH, initial_indent="   ", subsequent_indent="   ", break_long_words=False
        )
    return " ".join(summary.split()), lines


class HelpfulCommand(click.Command):
    """A command whose help is laid out like Docker Machine's."""

    sorted_flags = False
    """Whether flags are shown by their names rather than as they are declared."""

    def get_help(self, ctx: click.Context) -> str:
        """Return the help."""
        return command_help(ctx, self)


class HelpfulGroup(HelpfulCommand, click.Group):
    """The same for a command that has commands."""

    command_class = HelpfulCommand
