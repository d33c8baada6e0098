"""``prune``: destroys what belongs to nobody any more."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

import click

from pytest_machine.support.text import visible

from .command import Ours

if TYPE_CHECKING:
    from pytest_machine.reaper import Found

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _age(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Return the seconds of an age, written ``90``, ``30m``, ``2h`` or ``7d``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
    if match is None:
        raise click.BadParameter(f"'{value}' is no age; write 90, 30m, 2h or 7d.", ctx, param)
    return float(match[1]) * _UNITS[match[2] or "s"]


@click.command(cls=Ours)
@click.option("--dry-run", is_flag=True, help="Say what would go; destroy nothing.")
@click.option(
    "--older-than", callback=_age, default="0", metavar="AGE", help="Only what was made longer ago: 30m, 2h, 7d."
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also machines made by hand, kept on purpose or waiting for another run; never those of a living run.",
)
def prune(*, dry_run: bool, older_than: float, everything: bool) -> None:
    """Destroy what belongs to nobody any more.

    Those whose test run has ended, those whose time is over, those whose creation was broken off, and those whose store
    is gone; Docker contexts whose machine is gone, too. They are found in the runs' stores and by the tags that drivers
    put on all they make. Machines of a run that lives are never touched. Exit code 1: something could not be destroyed
    or asked.
    """
    from pytest_machine import contexts
    from pytest_machine.plugins import Registry
    from pytest_machine.reaper import prune as work

    found = work(Registry(), destroy=not dry_run, older_than=older_than, everything=everything)
    for each in found:
        click.echo(visible(_line(each, dry_run=dry_run), lines=False))
        if each.error:
            click.echo(visible(textwrap.indent(each.error, "  ")), err=True)
    orphans = contexts.left()
    for name in orphans:
        if not dry_run:
            contexts.take(name)
        click.echo(f"context '{name}' {'would be ' if dry_run else ''}destroyed: its machine is gone")
    if not orphans and not any(each.doomed or each.error or each.damaged for each in found):
        click.echo("Nothing is left behind.")
    if any(each.error for each in found):
        click.echo("hint: see to the reasons above, then again: pytest-machine prune", err=True)
        raise click.exceptions.Exit(1)


def _line(found: Found, *, dry_run: bool) -> str:
    if found.kind in ("driver", "run"):
        return f"{found.kind} '{found.name}': {found.why}"
    said = "stays"
    if found.error:
        said = "could not be destroyed"
    elif found.doomed:
        said = "would be destroyed" if dry_run else "destroyed"
    where = " ".join(word for word in (found.driver, found.id) if word)
    return f"{found.kind} '{found.name}'" + (f" ({where})" if where else "") + f" {said}: {found.why}"
