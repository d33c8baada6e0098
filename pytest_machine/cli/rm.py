"""``rm``: removes machines that were kept on purpose."""

from __future__ import annotations

import click


@click.command()
@click.argument("machines", nargs=-1, required=True, metavar="NAME|ID...")
def rm(machines: tuple[str, ...]) -> None:
    """Remove machines that a test run kept (--machine-keep), by name or id.

    All are looked up first: when one cannot be told, nothing is removed.
    """
    from pytest_machine.errors import UnknownMachine, UsageError
    from pytest_machine.kept import everywhere
    from pytest_machine.model import names
    from pytest_machine.reaper import release

    kept = list(everywhere())
    doomed = []
    for wanted in dict.fromkeys(machines):
        found = [each for each in kept if wanted in (each.record.id, each.record.name)]
        if not found:
            raise UnknownMachine(
                f"There is no kept machine '{wanted}'.",
                facts={"kept": names(f"{each.record.name} {each.record.id}" for each in kept)},
                hint="pytest-machine prune --dry-run",
            )
        if len(found) > 1:
            raise UsageError(
                f"There are {len(found)} kept machines called '{wanted}'.",
                facts={each.record.id: each.because for each in found},
                hint=f"name one by its id: {found[0].remove}",
            )
        doomed += found
    for each in {each.record.id: each for each in doomed}.values():
        release(each)
        click.echo(each.record.name)
