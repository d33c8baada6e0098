"""``context``: machines as Docker contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import Failed, Ours, Session

if TYPE_CHECKING:
    from .noted import Noted


@click.command(cls=Ours)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--rm", "take", is_flag=True, help="Take the contexts away again; the machines stay")
@click.pass_context
def context(ctx: click.Context, names: tuple[str, ...], *, take: bool) -> None:
    """Make machines Docker contexts.

    Arguments are machine names. The contexts are used by docker --context NAME, or docker context use NAME; the way
    back to what Docker used before is docker context use default. A context has its machine's name, but for 'default'
    and names of one character, which Docker does not allow: machine-NAME.
    """
    from . import noted

    for machine in noted.several(ctx.ensure_object(Session), names):
        if take:
            click.echo(f'Docker context of "{machine.name}" was {"removed" if remove(machine) else "not there"}')
        else:
            add(machine)


def add(machine: Noted) -> None:
    """Make the machine a context, and say what it is called."""
    from pytest_machine import contexts

    from . import noted

    machine = noted.current(noted.load(machine.session, machine.name))  # it may have been made just now
    address = machine.record.address
    if address is None:
        raise Failed(noted.NOT_RUNNING)
    name = contexts.add(machine.record, address, certs=machine.certificates)
    click.echo(
        f'Docker context "{name}" leads to the machine "{machine.name}". To use it, run: docker context use {name}'
    )


def refresh(machine: Noted) -> None:
    """Bring the machine's context, if it has one, up to what is noted of it now: call it after whatever changes that.

    The machine is as it should be by then: a context that cannot be written is told, and is no error.
    """
    from pytest_machine import contexts
    from pytest_machine.errors import MachineError

    from . import noted

    try:
        now = noted.load(machine.session, machine.name)
        contexts.refresh(now.record, certs=now.certificates)
    except (MachineError, OSError) as error:
        click.echo(f'The Docker context of "{machine.name}" stays as it was: {error}', err=True)


def remove(machine: Noted) -> bool:
    """Remove the machine's context; return whether there was one. One that cannot be read is nobody's of ours."""
    from pytest_machine import contexts
    from pytest_machine.errors import MachineError

    try:
        return contexts.remove(machine.record)
    except (MachineError, OSError) as error:
        click.echo(f'The Docker context of "{machine.name}" stays: {error}', err=True)
        return False
