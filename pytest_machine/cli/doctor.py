"""``doctor``: which drivers can make machines here, and what mends those that cannot."""

from __future__ import annotations

import click

from pytest_machine.support.text import visible

from .command import Ours


@click.command(cls=Ours)
def doctor() -> None:
    """Say which drivers can make machines here.

    Of one that cannot, why not, and what mends that.
    """
    from pytest_machine.errors import MachineError
    from pytest_machine.plugins import Registry

    registry = Registry()
    width = max(len(name) for name in registry.names())
    usable = 0
    for name in registry.names():
        try:
            driver = registry.driver(name)()
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
            click.echo(f"{name:<{width}}  yes  {driver.isolation}")
    if not usable:
        raise click.exceptions.Exit(1)
