"""``ls`` and ``active``: all machines at a glance, whatever is wrong with one of them."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from .command import Command, Failed, Session, told_help

if TYPE_CHECKING:
    from pytest_machine.errand import Errand
    from pytest_machine.model import Id, Seen

    from .noted import Noted

_TIMEOUT = 10
_HEAD = ("NAME", "ACTIVE", "DRIVER", "STATE", "URL", "SWARM", "DOCKER", "ERRORS")
_TIMED_OUT = "Timeout"
_PADDING = 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is shown of one machine."""

    name: str
    active: str = ""
    driver: str
    state: str
    url: str = ""
    swarm: str = ""
    docker: str = ""
    error: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """Its texts, in the table's order."""
        return self.name, self.active, self.driver, self.state, self.url, self.swarm, self.docker, self.error


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="")
@click.option("-q", "--quiet", is_flag=True, help="Show names alone; no machine is asked.")
@click.option("-t", "--timeout", type=click.IntRange(min=1), default=_TIMEOUT, metavar="SECONDS",
              help="How long to wait for machines' answers; default: 10.")  # fmt: skip
@click.pass_context
def ls(ctx: click.Context, names: tuple[str, ...], *, quiet: bool, timeout: int) -> None:
    """List machines.

    They are asked at the same time; one that has not answered in time is shown with the state Timeout.
    """
    if names:
        raise told_help(ctx, "Error: Too many arguments given")
    session = ctx.ensure_object(Session)
    if quiet:
        for name in session.store.names():
            click.echo(name)
        return
    table = [_HEAD, *(row.cells for row in rows(session, timeout))]
    widths = [max(len(line[column]) for line in table) + _PADDING for column in range(len(_HEAD))]
    for line in table:
        # The last column is not filled up, as the reference does not.
        click.echo("".join(text.ljust(width) for text, width in zip(line[:-1], widths[:-1], strict=True)) + line[-1])


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="")
@click.option("-t", "--timeout", type=click.IntRange(min=1), default=_TIMEOUT, metavar="SECONDS",
              help="How long to wait for machines' answers; default: 10.")  # fmt: skip
@click.pass_context
def active(ctx: click.Context, names: tuple[str, ...], *, timeout: int) -> None:
    """Show the machine that the environment's DOCKER_HOST speaks of."""
    if names:
        raise Failed("Error: Too many arguments given")
    found = rows(ctx.ensure_object(Session), timeout)
    for row in found:
        if row.active == "*":
            click.echo(row.name)
            return
    if any(row.state == _TIMED_OUT for row in found):
        raise Failed("Error getting active host: timeout")
    raise Failed("No active host found")


def rows(session: Session, timeout: float) -> list[Row]:
    """Return what there is to show of every machine, in the order of their names, within `timeout` seconds."""
    from pytest_machine.errors import MachineError

    from . import noted

    deadline = time.monotonic() + timeout
    machines: list[Noted] = []
    found: dict[str, Row] = {}
    names = session.store.names()
    for name in names:
        try:
            machines.append(noted.load(session, name))
        except MachineError as error:
            found[name] = Row(name=name, driver="not found", state="Error", error=_flat(error))
    for machine, answer in _asked(machines, timeout):
        found[machine.name] = _row(machine, answer, deadline)
    return [found[name] for name in names if name in found]


def _asked(machines: Sequence[Noted], timeout: float) -> list[tuple[Noted, Errand[Row]]]:
    """Ask about all at once: each driver one question about all of its machines, then each machine's own Docker."""
    from pytest_machine.errand import Errand

    groups: list[list[Noted]] = []
    for machine in machines:
        for group in groups:
            if group[0].driver == machine.driver:
                group.append(machine)
                break
        else:
            groups.append([machine])
    found = []
    for group in groups:
        looking = Errand(functools.partial(_look, group))
        found += [(machine, Errand(functools.partial(_told, machine, looking, timeout))) for machine in group]
    return found


def _look(group: Sequence[Noted]) -> Mapping[Id, Seen]:
    return group[0].driver.look([machine.record for machine in group])


def _told(machine: Noted, looking: Errand[Mapping[Id, Seen]], timeout: float) -> Row:
    from pytest_machine.engine import version
    from pytest_machine.model import State

    from . import noted

    # One of which its provider is slow to speak must not hide its neighbours: after a while each is asked alone.
    seen = looking.result()[machine.record.id] if looking.wait(timeout / 2) else noted.look(machine)
    row = Row(name=machine.name, active="-", driver=machine.record.driver, state=noted.WORDS[seen.state])
    if seen.state is State.ABSENT:
        return replace(row, error=f"The machine '{machine.name}' is gone.")
    address = seen.address or machine.record.address
    if seen.state is not State.RUNNING or address is None:
        return replace(row, docker="Unknown", error=" ".join(seen.detail.split()))
    docker = version(address, certs=machine.record.directory, timeout=min(5.0, timeout * 0.4))
    return replace(
        row,
        active="*" if address.url == os.environ.get("DOCKER_HOST") else "-",
        url=address.url,
        docker=f"v{docker}" if docker else "Unknown",
        error="" if docker else "Unable to query docker version: Docker does not answer",
    )


def _row(machine: Noted, answer: Errand[Row], deadline: float) -> Row:
    if not answer.wait(max(0.0, deadline - time.monotonic())):
        return Row(name=machine.name, driver=machine.record.driver, state=_TIMED_OUT)
    try:
        return answer.result()
    except Exception as error:  # noqa: BLE001  # a stranger's driver may raise anything; the others are shown
        return Row(name=machine.name, driver=machine.record.driver, state="Error", error=_flat(error))


def _flat(error: BaseException) -> str:
    from . import noted

    return " ".join(noted.words(error).split())
