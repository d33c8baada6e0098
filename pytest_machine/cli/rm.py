"""``rm``: removes machines, those of the command line and those that a test run kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from .command import Command, Failed, Session, told_help

if TYPE_CHECKING:
    from pytest_machine.kept import Kept


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="NAME|ID...")
@click.option("-f", "--force", is_flag=True, help="Ask nothing, and go on where something is wrong.")
@click.option("-y", "yes", is_flag=True, help="Ask nothing.")
@click.pass_context
def rm(ctx: click.Context, names: tuple[str, ...], *, force: bool, yes: bool) -> None:
    """Remove machines, and all that belongs to them.

    Machines that a test run kept (--machine-keep) go by name or id, and nothing is asked where only such are named.
    A machine that cannot be removed stays noted, whatever the flags: nothing is left behind unseen.
    """
    if not names:
        raise told_help(ctx, "Error: Expected to get one or more machine names as arguments")
    session = ctx.ensure_object(Session)
    names = tuple(dict.fromkeys(names))
    kept = _kept([name for name in names if name not in session.store.names()])
    if len(kept) < len(names):
        click.echo(f"About to remove {', '.join(names)}")
        click.echo("WARNING: This action will delete both local reference and remote instance.")
        if not (force or yes or _agreed()):
            return
    left = False
    errors = []
    for name, error, stays in _removed(session, names, kept):
        errors.append(f'Error removing host "{name}": {error}\nCan\'t remove "{name}"')
        left = left or stays
    if errors and not (force and not left):
        raise Failed("\n".join(errors))
    for text in errors:
        click.echo(text, err=True)


def _agreed() -> bool:
    click.echo("Are you sure? (y/n): ", nl=False)
    answer = sys.stdin.readline()
    return answer.strip().lower().startswith("y")


def _removed(session: Session, names: Sequence[str], kept: dict[str, Kept]) -> Iterator[tuple[str, str, bool]]:
    """Remove them one by one; yield those that could not be: name, reason, and whether there is something left."""
    from pytest_machine.reaper import release

    from . import noted

    gone: set[str] = set()
    for name in names:
        there = name in kept or name in session.store.names()
        try:
            if name in kept:
                # Named twice, by its name and by its id, it goes once.
                if kept[name].record.id not in gone:
                    release(kept[name])
                    gone.add(kept[name].record.id)
                    click.echo(kept[name].record.name)
            else:
                _remove(session, name)
        except Exception as error:  # noqa: BLE001  # a stranger's driver may raise anything; the others go all the same
            yield name, noted.words(error), there


def _remove(session: Session, name: str) -> None:
    from pytest_machine.model import State

    from . import noted

    machine = noted.load(session, name)
    try:
        gone = noted.look(machine).state is State.ABSENT
    except Exception:  # noqa: BLE001  # whether it can be removed is what counts
        gone = False
    machine.machine().destroy()
    if gone:
        click.echo(f'The machine "{name}" was gone already: only its local reference was left')
    click.echo(f"Successfully removed {name}")


def _kept(names: Sequence[str]) -> dict[str, Kept]:
    """Return the machines that test runs kept and that are meant; raises when a name stands for several."""
    from pytest_machine.errors import UsageError
    from pytest_machine.kept import everywhere

    if not names:
        return {}
    there = list(everywhere())
    found: dict[str, Kept] = {}
    for wanted in names:
        meant = [each for each in there if wanted in (each.record.id, each.record.name)]
        if len(meant) > 1:
            raise UsageError(
                f"There are {len(meant)} kept machines called '{wanted}'.",
                facts={each.record.id: each.because for each in meant},
                hint=f"name one by its id: {meant[0].remove}",
            )
        if meant:
            found[wanted] = meant[0]
    return found
