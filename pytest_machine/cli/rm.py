"""``rm``: removes machines, those of the command line and those that a test run kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from pytest_machine.support.text import visible

from .command import Command, Failed, Session, told_help

if TYPE_CHECKING:
    from pytest_machine.kept import Kept
    from pytest_machine.reaper import Found

    from .noted import Noted

_WARNING = "WARNING: This action will delete both local reference and remote instance."
_FORGOTTEN = "The machine itself is somebody else's: this action will delete the local reference alone."


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="NAME|ID...")
@click.option("-f", "--force", is_flag=True, help="Ask nothing, and go on where something is wrong")
@click.option("-y", "yes", is_flag=True, help="Ask nothing")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing")
@click.pass_context
def rm(ctx: click.Context, names: tuple[str, ...], *, force: bool, yes: bool, dry_run: bool) -> None:
    """Remove machines, and all that belongs to them.

    Arguments are machine names.

    A machine whose access was imported is forgotten here, and stays where it is.
    Machines that a test run kept (--machine-keep) go by name or id, and nothing is asked where only such are named.
    A machine that cannot be removed stays noted, whatever the flags: nothing is left behind unseen. Only of one that
    Docker Machine made with a driver that is not here, -f forgets what is noted.
    A machine whose record is damaged goes with -f, by its name or id: its driver finds it by its tag.
    """
    from . import noted

    if not names:
        raise told_help(ctx, "Error: Expected to get one or more machine names as arguments")
    session = ctx.ensure_object(Session)
    names = tuple(dict.fromkeys(names))
    there = noted.names(session)
    kept = _kept([name for name in names if name not in there])
    if dry_run:
        _told(session, names, kept, force=force)
        return
    if len(kept) < len(names):
        click.echo(f"About to remove {', '.join(names)}")
        click.echo(_FORGOTTEN if all(_imported(session, name) for name in names) else _WARNING)
        if not (force or yes or agreed()):
            return
    left = False
    errors = []
    for name, error, stays in _removed(session, names, kept, force=force):
        errors.append(_unremoved(name, error, force=force))
        left = left or stays
    if errors and not (force and not left):
        raise Failed("\n".join(errors))
    for text in errors:
        click.echo(text, err=True)


def _told(session: Session, names: Sequence[str], kept: dict[str, Kept], *, force: bool) -> None:
    """Say what would be removed, locally and remotely; raises for what could not even be found, unless forced."""
    from pytest_machine.errors import MachineError
    from pytest_machine.reaper import rescuable

    from . import noted

    errors = []
    for name in names:
        try:
            click.echo(_plan(noted.load(session, name)) if name not in kept else _plan_kept(kept[name]))
        except MachineError as error:
            reason = str(error)
            if force and name not in kept:
                try:
                    found = rescuable(name, session.store, session.registry)
                except MachineError as other:
                    found, reason = None, str(other)
                if found is not None:
                    click.echo(_plan_rescue(session, name, found))
                    continue
            errors.append(_unremoved(name, reason, force=force))
    if errors and not force:
        raise Failed("\n".join(errors))
    for text in errors:
        click.echo(text, err=True)


def _unremoved(name: str, error: str, *, force: bool) -> str:
    return f'Error removing host "{name}": {error}' + (f'\nCan\'t remove "{name}"' if force else "")


def _plan(machine: Noted) -> str:
    from pytest_machine.driver import SupportsAdoption
    from pytest_machine.model import State

    from . import noted

    record = machine.record
    what = f"{record.driver}, {record.id}"
    if isinstance(machine.driver, SupportsAdoption):
        remote = f"stays as it is: it was there before us ({what})"
    else:
        try:
            seen = noted.look(machine)
            gone = seen.state is State.ABSENT
            remote = f"is gone already ({what})" if gone else f"would be destroyed ({what}, {noted.WORDS[seen.state]})"
        except Exception as error:  # noqa: BLE001  # a stranger's driver may raise anything; the real thing would try
            remote = f"would be destroyed ({what}), if it can be: {' '.join(noted.words(error).split())}"
    return f"{machine.name}\n  local   would be removed: {record.directory}\n  remote  {remote}"


def _plan_rescue(session: Session, name: str, found: Sequence[Found]) -> str:
    """Return what would go of a machine whose record is damaged, or whose tag alone is left."""
    local = "none is left"
    if name in session.store.names():
        local = f"would be removed: {visible(str(session.store.path / 'machines' / name), lines=False)}"
    lines = [f"  remote  would be destroyed ({each.driver}, {each.id}), found by its tag" for each in found]
    # Two ways to ask one driver find one machine twice.
    lines = list(dict.fromkeys(lines))
    return "\n".join([name, f"  local   {local}", *(lines or ["  remote  no driver has a machine of it"])])


def _plan_kept(kept: Kept) -> str:
    record = kept.record
    return (
        f"{record.name}, kept because of {kept.because}\n  local   would be removed: {record.directory}\n"
        f"  remote  would be destroyed ({record.driver}, {record.id})"
    )


def _imported(session: Session, name: str) -> bool:
    """Return whether a machine would only be forgotten; in doubt it would not."""
    from pytest_machine.errors import MachineError

    from . import noted

    try:
        return noted.load(session, name).imported
    except MachineError:
        return False


def agreed() -> bool:
    """Ask whether to go on, and return whether somebody said yes."""
    click.echo("Are you sure? (y/n): ", nl=False)
    # One word, as the reference reads it: "yes, but" is no agreement.
    answer = sys.stdin.readline().split()
    return len(answer) == 1 and answer[0].lower().startswith("y")


def _removed(
    session: Session, names: Sequence[str], kept: dict[str, Kept], *, force: bool
) -> Iterator[tuple[str, str, bool]]:
    """Remove them one by one; yield those that could not be: name, reason, and whether there is something left."""
    from pytest_machine.reaper import release

    from . import noted

    gone: set[str] = set()
    for name in names:
        there = name in kept or name in noted.names(session)
        try:
            if name in kept:
                # Named twice, by its name and by its id, it goes once.
                if kept[name].record.id not in gone:
                    release(kept[name])
                    gone.add(kept[name].record.id)
                    click.echo(kept[name].record.name)
            else:
                _remove(session, name, force=force)
        except Exception as error:  # noqa: BLE001  # a stranger's driver may raise anything; the others go all the same
            yield name, noted.words(error), there


def _remove(session: Session, name: str, *, force: bool) -> None:
    from pytest_machine.errors import MachineError
    from pytest_machine.foreign import is_foreign
    from pytest_machine.model import State
    from pytest_machine.reaper import rescue

    from . import context, noted

    if force and is_foreign(session.store.path / "machines" / name):
        _forget(session, name)
        return
    try:
        machine = noted.load(session, name)
    except MachineError:
        if not (force and rescue(name, session.store, session.registry)):
            raise
        click.echo(f"Successfully removed {name}")
        return
    if machine.imported:
        machine.machine().destroy()
        click.echo(f'The machine "{name}" is somebody else\'s: only its local reference was removed')
        return
    try:
        gone = noted.look(machine).state is State.ABSENT
    except Exception:  # noqa: BLE001  # whether it can be removed is what counts
        gone = False
    machine.machine().destroy()
    context.remove(machine)
    if gone:
        click.echo(f'The machine "{name}" was gone already: only its local reference was left')
    click.echo(f"Successfully removed {name}")


def _forget(session: Session, name: str) -> None:
    """Remove a machine that Docker Machine made, and at least what is noted of it, readable or not."""
    from pytest_machine.errors import DriverError, StoreError

    from . import context, noted
    from .foreign import forget

    try:
        machine = noted.load(session, name)
        context.remove(machine)
        machine.machine().destroy()
    except (DriverError, StoreError) as error:
        click.echo(f'WARNING: What there is of "{name}" elsewhere stays: {error.message}')
        forget(session.store.path, name)
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
