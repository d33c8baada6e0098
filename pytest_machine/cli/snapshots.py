"""``snapshot`` and ``restore``: a machine's disk, kept under a name and brought back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

from .command import Ours, Session

DEFAULT = "default"
"""The snapshot that is meant where none is named, as with machines."""


@click.command(cls=Ours)
@click.argument("name")
@click.argument("snapshot", default=DEFAULT)
@click.option("-l", "--list", "listing", is_flag=True, help="Show the snapshots that there are; make none.")
@click.pass_context
def snapshot(ctx: click.Context, name: str, snapshot: str, *, listing: bool) -> None:
    """Save a machine's disk as SNAPSHOT ('default'). No built-in driver has snapshots yet.

    A snapshot of that name is replaced. A driver of another package may have snapshots.
    """
    from . import noted

    machine = noted.load(ctx.ensure_object(Session), name).machine()
    with _by_hand():
        if listing:
            for each in machine.snapshots():
                click.echo(each)
            return
        machine.snapshot(_checked(snapshot))
    click.echo(f'Snapshot "{snapshot}" of "{name}" is kept: {ctx.find_root().info_name} restore {name} {snapshot}')


@click.command(cls=Ours)
@click.argument("name")
@click.argument("snapshot", default=DEFAULT)
@click.pass_context
def restore(ctx: click.Context, name: str, snapshot: str) -> None:
    """Restore a machine's disk from SNAPSHOT ('default'). No built-in driver has snapshots yet.

    What was written after the snapshot is lost.
    """
    from . import noted

    machine = noted.load(ctx.ensure_object(Session), name).machine()
    with _by_hand():
        machine.restore(_checked(snapshot))
    click.echo(f'"{name}" is as snapshot "{snapshot}" has it.')


@contextlib.contextmanager
def _by_hand() -> Iterator[None]:
    """Let a hint for tests be one for whoever types commands."""
    from pytest_machine.errors import Unsupported

    try:
        yield
    except Unsupported as error:
        hint = "docker-machine create -d DRIVER NAME" if error.facts.get("drivers that have it") else error.hint
        raise Unsupported(error.message, facts=error.facts, hint=hint) from error


def _checked(snapshot: str) -> str:
    """Return the name if every driver can keep something under it: it may become a file's, or a provider's."""
    from pytest_machine.errors import BadSpec
    from pytest_machine.model import check_name

    try:
        return check_name(snapshot)
    except BadSpec as error:
        raise BadSpec(
            f"A snapshot cannot be called '{snapshot}'.", facts=error.facts, hint="choose a name such as 'before'"
        ) from error
