"""``start``, ``stop``, ``restart``, ``kill``: machines' power, many at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .command import Command, Failed, Session

if TYPE_CHECKING:
    from .noted import Noted

_AGAIN = "{} machines may have new IP addresses. You may need to re-run the `docker-machine env` command."


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_context
def start(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Start machines, and wait until their Docker answers.

    Arguments are machine names.
    """
    from . import noted

    noted.together(noted.several(ctx.ensure_object(Session), names), _start)
    click.echo(_AGAIN.format("Started"))


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_context
def restart(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Restart machines.

    Arguments are machine names. They are shut down in order; one that is stopped is started.
    """
    from . import noted

    noted.together(noted.several(ctx.ensure_object(Session), names), _restart)
    click.echo(_AGAIN.format("Restarted"))


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_context
def stop(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Stop machines: they are shut down in order, and their disks stay.

    Arguments are machine names.
    """
    from . import noted

    noted.together(noted.several(ctx.ensure_object(Session), names), _stop)


@click.command(cls=Command)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_context
def kill(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Kill machines: their power is cut, and their disks stay.

    Arguments are machine names.
    """
    from . import noted

    noted.together(noted.several(ctx.ensure_object(Session), names), _kill)


def _start(machine: Noted) -> None:
    from pytest_machine.model import State

    from . import noted
    from .context import refresh

    noted.say(f'Starting "{machine.name}"...')
    state = noted.look(machine).state
    if state is State.RUNNING:
        raise Failed(f'Machine "{machine.name}" is already running.')
    if state is State.PAUSED:
        machine.machine().resume()
    else:
        with _able(machine, "start", "started"):
            machine.machine().start()
        refresh(machine)
    noted.say(f'Machine "{machine.name}" was started.')


def _stop(machine: Noted) -> None:
    from . import noted

    noted.say(f'Stopping "{machine.name}"...')
    _not_stopped(machine)
    with _able(machine, "stop", "stopped"):
        machine.machine().stop()
    noted.say(f'Machine "{machine.name}" was stopped.')


def _kill(machine: Noted) -> None:
    from . import noted

    noted.say(f'Killing "{machine.name}"...')
    _not_stopped(machine)
    with _able(machine, "kill", "killed"):
        machine.machine().kill()
    noted.say(f'Machine "{machine.name}" was killed.')


def _restart(machine: Noted) -> None:
    from pytest_machine.model import State

    from . import noted
    from .context import refresh

    noted.say(f'Restarting "{machine.name}"...')
    if noted.look(machine).state is State.RUNNING:
        with _able(machine, "restart", "restarted"):
            machine.machine().restart()
        refresh(machine)
    else:
        _start(machine)


@contextlib.contextmanager
def _able(machine: Noted, verb: str, done: str) -> Iterator[None]:
    """Say in the reference's words that a driver cannot do it."""
    from pytest_machine.errors import Unsupported

    driver = machine.record.driver
    try:
        yield
    except Unsupported as error:
        if driver == "none":
            raise Failed(f"hosts without a driver cannot be {done}") from error
        if machine.foreign is not None and not machine.foreign.options:
            raise _theirs(machine.name, driver, verb, done) from error
        raise Failed(f"{driver} driver does not support {verb}") from error


def _theirs(name: str, driver: str, verb: str, done: str) -> Failed:
    """Return what is said of a machine that Docker Machine made by a driver that is not here."""
    from pytest_machine.foreign import no_driver

    from .foreign import VBOX

    if driver != "virtualbox":
        return Failed(f"The machine '{name}' cannot be {done} from here: {no_driver(driver)}")
    how = {
        "start": f"startvm {name} --type headless",
        "stop": f"controlvm {name} acpipowerbutton",
        "restart": f"controlvm {name} reset",
        "kill": f"controlvm {name} poweroff",
    }
    return Failed(
        f"The machine '{name}' cannot be {done} from here: there is no driver 'virtualbox' yet, and Docker Machine's "
        "machines in VirtualBox are used as they run.",
        hint=f"{VBOX} {how[verb]}",
    )


def _not_stopped(machine: Noted) -> None:
    from pytest_machine.model import State

    from . import noted

    if noted.look(machine).state is State.STOPPED:
        raise Failed(f'Machine "{machine.name}" is already stopped.')
