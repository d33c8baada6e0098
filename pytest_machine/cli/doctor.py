"""``doctor``: which drivers can make machines here, and what mends those that cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pytest_machine.support.text import visible

from .command import Ours, Session

if TYPE_CHECKING:
    from pytest_machine.store import Store


@click.command(cls=Ours)
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Say which drivers can make machines here.

    Of one that cannot, why not, and the remedy. Machines whose records are damaged are named, too.
    """
    from pytest_machine import answers
    from pytest_machine.errors import MachineError
    from pytest_machine.options import configure, from_environment
    from pytest_machine.plugins import Registry

    registry = Registry()
    width = max(len(name) for name in registry.names())
    usable = 0
    for name in registry.names():
        try:
            kind = registry.driver(name)
            driver = configure(kind, from_environment(kind))
            driver.check()
        except MachineError as error:
            click.echo(f"{name:<{width}}  no   {error.message}")
            for fact, value in error.facts.items():
                click.echo(visible(f"{'':<{width}}       {fact}: {value}"))
            if error.hint:
                click.echo(visible(f"{'':<{width}}       hint: {error.hint}"))
        except Exception as error:  # noqa: BLE001  # a stranger's driver: the others are to be told of all the same
            click.echo(visible(f"{name:<{width}}  no   Its check failed: {type(error).__name__}: {error}"))
            click.echo(f"{'':<{width}}       hint: report this to whoever made the driver '{name}'")
        else:
            usable += 1
            click.echo(f"{name:<{width}}  yes  {answers.isolation(driver)}")
    try:
        _damage(ctx.ensure_object(Session).store)
    except MachineError as error:
        click.echo(str(error))
    if not usable:
        raise click.exceptions.Exit(1)


def _damage(store: Store) -> None:
    """Say which machines of a store have records that cannot be read, and how to get rid of each."""
    from pytest_machine.support.text import shell_word

    for name, error in store.broken().items():
        click.echo(f"machine '{name}': {error.message}")
        for fact, value in error.facts.items():
            click.echo(f"  {fact}: {visible(str(value), lines=False)}")
        click.echo(f"  hint: {error.hint}")
    for path in store.strangers():
        click.echo(f"directory '{visible(path.name, lines=False)}': its name is not that of a machine")
        click.echo(f"  hint: rm -r -- {shell_word(path)}")
