"""``provision``, ``regenerate-certs``, ``upgrade``: what is done to machines that run, over SSH."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from .command import Command, Failed, Session

if TYPE_CHECKING:
    from pytest_machine.machine import Machine

    from .noted import Noted

    _Work = Callable[[Machine, Callable[[str], None]], Sequence[str]]


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_context
def provision(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Make machines the Docker hosts again that they are meant to be; what is so already is left alone."""
    from . import noted

    machines = noted.several(ctx.ensure_object(Session), names)
    _all(machines, _provision, "Nothing to change")


@click.command(cls=Command, name="regenerate-certs")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-f", "--force", is_flag=True, help="Ask nothing.")
@click.option("--client-certs", is_flag=True, help="Also renew the client's certificate, if it ends soon.")
@click.pass_context
def regenerate_certs(ctx: click.Context, names: tuple[str, ...], *, force: bool, client_certs: bool) -> None:
    """Give machines new certificates, and restart their Docker with them."""
    from . import noted

    if not (force or _agreed()):
        return
    session = ctx.ensure_object(Session)
    click.echo("Regenerating TLS certificates")
    machines = noted.several(session, names)
    if client_certs:
        click.echo("Regenerating local certificates")
    _all(machines, _regenerate, "")


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_context
def upgrade(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Move machines' Docker to the newest release that their packages offer; one that is stopped is started."""
    from . import noted

    machines = noted.several(ctx.ensure_object(Session), names)
    _all(machines, _upgrade, "Docker is at the newest release already")


def _agreed() -> bool:
    click.echo("Regenerate TLS machine certs?  Warning: this is irreversible. (y/n): ", nl=False)
    answer = sys.stdin.readline()
    if not answer:
        raise Failed("EOF")
    return answer.strip().lower().startswith("y")


def _provision(machine: Machine, tell: Callable[[str], None]) -> Sequence[str]:
    return machine.provision(tell=tell)


def _regenerate(machine: Machine, tell: Callable[[str], None]) -> Sequence[str]:
    return machine.regenerate_certs(tell=tell)


def _upgrade(machine: Machine, tell: Callable[[str], None]) -> Sequence[str]:
    return machine.upgrade(tell=tell)


def _all(machines: Sequence[Noted], work: _Work, unchanged: str) -> None:
    """Do something to each, all at once. Of several, it is said which one a line is about."""
    from . import noted

    noted.together(machines, lambda machine: _worked_on(machine, work, unchanged, named=len(machines) > 1))


def _worked_on(machine: Noted, work: _Work, unchanged: str, *, named: bool) -> None:
    """Do something to a machine that runs, over SSH, and say what was changed."""
    from pytest_machine.driver import SupportsPower
    from pytest_machine.model import State

    from . import noted
    from .context import refresh

    machine = noted.current(machine)
    there = machine.machine()

    def tell(text: str) -> None:
        noted.say(f"({machine.name}) {text}" if named else text)

    seen = noted.look(machine)
    if seen.state is not State.RUNNING:
        if work is not _upgrade or not isinstance(there.driver, SupportsPower):
            noted.running(machine)  # it raises, and says why
            raise Failed(noted.NOT_RUNNING)  # or it runs by now, of all times
        tell("Starting machine so machine can be upgraded...")
        there.start()
    if seen.address is None or seen.address.ssh_port:  # one without SSH is refused in a moment
        tell("Waiting for SSH to be available...")
    changed = work(there, tell)
    refresh(machine)
    for each in changed:
        tell(each)
    if not changed and unchanged:
        tell(unchanged)
