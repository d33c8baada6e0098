"""``ls`` and ``active``: all machines at a glance, whatever is wrong with one of them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from pytest_machine.support import clock
from pytest_machine.support.text import visible

from .command import Command, Failed, Session
from .layout import aligned

if TYPE_CHECKING:
    from pytest_machine.errand import Errand
    from pytest_machine.model import Id, Seen

    from .noted import Noted

_TIMEOUT = 10
# Seconds: a year, which systems can still wait for.
_LONGEST = 365 * 86400
_TIMED_OUT = "Timeout"
_UNREACHED = "Cannot connect to the docker engine endpoint"
_DEFAULT = (
    "table {{ .Name }}\t{{ .Active }}\t{{ .DriverName}}\t{{ .State }}\t{{ .URL }}\t{{ .Swarm }}\t{{ .DockerVersion }}"
    "\t{{ .Error}}"
)
_JSON = "json"
# Field → what stands above it.
_HEAD: Mapping[str, str] = {
    "Name": "NAME",
    "Active": "ACTIVE",
    "ActiveHost": "ACTIVE_HOST",
    "ActiveSwarm": "ACTIVE_SWARM",
    "DriverName": "DRIVER",
    "State": "STATE",
    "URL": "URL",
    "SwarmOptions": "SWARM_OPTIONS",
    "Swarm": "SWARM",
    "EngineOptions": "ENGINE_OPTIONS",
    "Error": "ERRORS",
    "DockerVersion": "DOCKER",
    "ResponseTime": "RESPONSE",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is shown of one machine."""

    name: str
    host: bool = False
    """Whether ``DOCKER_HOST`` is its engine's address."""
    master: bool = False
    """Whether ``DOCKER_HOST`` is that of the classic Swarm whose master it is."""
    asked: bool = False
    """Whether its driver has answered: otherwise nothing is said of what it would have told."""
    driver: str
    state: str
    url: str = ""
    swarm: str = ""
    docker: str = ""
    error: str = ""
    seconds: float = 0.0
    """How long it took to find out."""
    noted: Noted | None = None
    """None: it cannot be read."""

    @property
    def active(self) -> str:
        """What the column says."""
        return "* (swarm)" if self.master else "*" if self.host else "-" if self.asked else ""

    @property
    def fields(self) -> dict[str, object]:
        """What a template can name."""
        from .config import ENGINE, SWARM
        from .template import Struct

        machine = self.noted
        found = {
            "Name": self.name,
            "Active": self.active,
            "ActiveHost": self.host,
            "ActiveSwarm": self.master,
            "DriverName": self.driver,
            "State": self.state,
            "URL": self.url,
            "SwarmOptions": Struct("*swarm.Options", {**SWARM, **machine.swarm}) if machine else None,
            "Swarm": self.swarm,
            "EngineOptions": Struct("*engine.Options", {**ENGINE, **machine.engine}) if machine else None,
            "Error": self.error,
            "DockerVersion": self.docker,
            "ResponseTime": _duration(self.seconds),
        }
        # Some of it is what engines and drivers said.
        return {key: visible(value, lines=False) if isinstance(value, str) else value for key, value in found.items()}


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="")
@click.option("-q", "--quiet", is_flag=True, help="Show names alone; no machine is asked")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    help="Show those alone of which driver=, state=, name= (a regular expression), label= or swarm= is so",
)
@click.option("-t", "--timeout", type=int, default=_TIMEOUT, help="Seconds to wait for machines' answers")
@click.option("-f", "--format", help="A Go template of what to show of each machine, or: json")
@click.pass_context
def ls(
    ctx: click.Context,
    names: tuple[str, ...],  # noqa: ARG001  # the reference passes over them, too
    *,
    quiet: bool,
    filters: tuple[str, ...],
    timeout: int,
    format: str | None,
) -> None:
    r"""List machines.

    They are asked at the same time; one that has not answered in time is shown with the state Timeout.

    Of filters that name the same, one must be so; of those that name different things, all. Machines that cannot be
    read are always shown. A format that begins with "table " has a head, and columns where it has \t; "json" is a list
    of all machines with all that a template could name.
    """
    session = ctx.ensure_object(Session)
    timeout = min(timeout, _LONGEST)
    wanted = _filters(filters)
    machines, broken = _machines(session)
    machines = _matching(machines, wanted, timeout)
    if quiet:
        for machine in machines:
            click.echo(machine.name)
        return
    show = _shower(format or _DEFAULT)
    show(_sorted([*_rows(machines, timeout), *broken]))


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="")
@click.option("-t", "--timeout", type=int, default=_TIMEOUT, help="Seconds to wait for machines' answers")
@click.pass_context
def active(ctx: click.Context, names: tuple[str, ...], *, timeout: int) -> None:
    """Print which machine is active: the one that DOCKER_HOST speaks of."""
    if names:
        raise Failed("Error: Too many arguments given")
    machines, broken = _machines(ctx.ensure_object(Session))
    found = _sorted([*_rows(machines, min(timeout, _LONGEST)), *broken])
    for row in found:
        if row.host or row.master:
            click.echo(row.name)
            return
    if any(row.state == _TIMED_OUT for row in found):
        raise Failed("Error getting active host: timeout")
    raise Failed("No active host found")


# What is shown.


def _shower(format: str) -> Callable[[Sequence[Row]], None]:
    """Return what shows rows; raises `TemplateError` for a format that cannot be read."""
    if format == _JSON:
        return _show_json
    from .template import Template

    table = format.startswith("table")
    body = format.removeprefix("table").strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    template = Template(f"{body}\n")

    def show(rows: Sequence[Row]) -> None:
        from .template import Struct

        shown = [template.render(_HEAD)] if table else []
        try:
            for row in rows:
                shown.append(template.render(Struct("commands.HostListItem", row.fields)))  # noqa: PERF401  # up to what cannot be shown
        finally:
            text = "".join(shown)
            click.echo(aligned(text, least=5, padding=3) if table else text, nl=False)

    return show


def _show_json(rows: Sequence[Row]) -> None:
    import json

    click.echo(json.dumps([row.fields for row in rows], indent=4, ensure_ascii=False))


def _duration(seconds: float) -> str:
    """Return it as Go prints it, to the millisecond."""
    thousandths = round(seconds * 1000)
    if not thousandths:
        return "0s"
    if thousandths < 1000:
        return f"{thousandths}ms"
    minutes, rest = divmod(thousandths, 60_000)
    shown = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{shown}s" if minutes else f"{shown}s"


def _sorted(rows: Sequence[Row]) -> list[Row]:
    from . import noted

    return sorted(rows, key=lambda row: noted.natural(row.name))


# What is filtered.


def _filters(texts: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        key, given, value = text.partition("=")
        if not given:
            raise Failed("Unsupported filter syntax")
        if key.lower() not in ("swarm", "driver", "state", "name", "label"):
            raise Failed(f"Unsupported filter key '{key.lower()}'")
        found.setdefault(key.lower(), []).append(value)
    return found


def _matching(machines: Sequence[Noted], wanted: Mapping[str, Sequence[str]], timeout: float) -> list[Noted]:
    """Return those that are wanted; the state is asked for last, and of those alone that are left."""
    masters = _masters(machines)
    found = [
        machine
        for machine in machines
        if _among(machine.record.driver, wanted.get("driver"))
        and _named(machine.name, wanted.get("name"))
        and _labelled(machine.engine, wanted.get("label"))
        and ("swarm" not in wanted or _among(masters.get(_discovery(machine), ""), wanted["swarm"]))
    ]
    if "state" not in wanted:
        return found
    states = _states(found, timeout)
    return [machine for machine in found if _among(states[machine.name], wanted["state"])]


def _among(found: str, wanted: Sequence[str] | None) -> bool:
    return wanted is None or found.casefold() in map(str.casefold, wanted)


def _named(name: str, wanted: Sequence[str] | None) -> bool:
    from .regexp import compiled

    return wanted is None or any(compiled(pattern).search(name) for pattern in wanted)


def _labelled(engine: Mapping[str, object], wanted: Sequence[str] | None) -> bool:
    labels = engine.get("Labels")
    found = dict(str(label).partition("=")[::2] for label in labels) if isinstance(labels, list) else {}
    return wanted is None or any(
        name in found and (not given or found[name].casefold() == value.casefold())
        for name, given, value in (text.partition("=") for text in wanted)
    )


def _states(machines: Sequence[Noted], timeout: float) -> dict[str, str]:
    """Return every machine's state in Docker Machine's words; one that is not known in time has none."""
    from . import noted

    deadline = clock.monotonic() + timeout
    found = {}
    for group in _groups(machines):
        looking = _looking(group)
        for machine in group:
            found[machine.name] = ""
            if looking.wait(max(0.0, deadline - clock.monotonic())):
                try:
                    found[machine.name] = noted.WORDS[looking.result()[machine.record.id].state]
                except Exception as error:  # noqa: BLE001  # a stranger's driver may raise anything
                    click.echo(noted.words(error))
    return found


def _discovery(machine: Noted) -> str:
    return str(machine.swarm.get("Discovery") or "")


def _masters(machines: Sequence[Noted]) -> dict[str, str]:
    """Return the name of every classic Swarm's master, by how its machines find each other."""
    return {_discovery(machine): machine.name for machine in machines if machine.swarm.get("Master")}


# What is asked.


def _machines(session: Session) -> tuple[list[Noted], list[Row]]:
    """Return all machines, in the order of their names, and rows for those that cannot be read."""
    from . import noted

    machines: list[Noted] = []
    broken: list[Row] = []
    for name in noted.names(session):
        try:
            machines.append(noted.load(session, name))
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one, the others are shown
            broken.append(Row(name=name, driver="not found", state="Error", error=_flat(error)))
    return machines, broken


def _rows(machines: Sequence[Noted], timeout: float) -> list[Row]:
    """Return what there is to show of every machine, within `timeout` seconds."""
    begun = clock.monotonic()
    masters = _masters(machines)
    asked = []
    for group in _groups(machines):
        looking = _looking(group)
        asked += [(machine, _telling(machine, looking, timeout)) for machine in group]
    found = []
    for machine, answer in asked:
        row = _row(machine, answer, begun, timeout)
        if discovery := _discovery(machine):
            master = masters.get(discovery, "")
            row = replace(row, swarm=f"{master} (master)" if machine.swarm.get("Master") else master)
        found.append(row)
    return found


def _groups(machines: Sequence[Noted]) -> list[list[Noted]]:
    """Return the machines by their drivers: each is asked one question about all of its machines."""
    groups: list[list[Noted]] = []
    for machine in machines:
        for group in groups:
            if group[0].driver == machine.driver:
                group.append(machine)
                break
        else:
            groups.append([machine])
    return groups


def _looking(group: Sequence[Noted]) -> Errand[Mapping[Id, Seen]]:
    from pytest_machine import answers
    from pytest_machine.errand import Errand

    return Errand(functools.partial(answers.look, group[0].driver, [machine.record for machine in group]))


def _telling(machine: Noted, looking: Errand[Mapping[Id, Seen]], timeout: float) -> Errand[Row]:
    from pytest_machine.errand import Errand

    return Errand(functools.partial(_told, machine, looking, timeout))


def _told(machine: Noted, looking: Errand[Mapping[Id, Seen]], timeout: float) -> Row:
    from pytest_machine.engine import refused, told
    from pytest_machine.model import State

    from . import noted

    begun = clock.monotonic()
    # One of which its provider is slow to speak must not hide its neighbours: after a while each is asked alone.
    seen = looking.result()[machine.record.id] if looking.wait(timeout / 2) else noted.look(machine)
    row = Row(name=machine.name, asked=True, driver=machine.record.driver, state=noted.WORDS[seen.state], noted=machine)
    if seen.state is State.ABSENT:
        return replace(row, error=f"The machine '{machine.name}' is gone.")
    address = seen.address or machine.record.address
    if seen.state is not State.RUNNING or address is None:
        detail = "" if seen.state is State.STOPPED else " ".join(seen.detail.split())
        return replace(row, docker="Unknown", error=detail, seconds=clock.monotonic() - begun)
    docker, role = told(address, certs=machine.certificates, timeout=min(5.0, timeout * 0.4))
    why = "" if docker else refused(address, certs=machine.certificates, timeout=min(2.0, timeout * 0.1)) or _UNREACHED
    here = os.environ.get("DOCKER_HOST")
    return replace(
        row,
        host=address.url == here,
        master=bool(machine.swarm.get("Master")) and machine.swarm_url(address) == here,
        url=address.url,
        swarm=role,
        docker=f"v{docker}" if docker else "Unknown",
        error="" if docker else f"Unable to query docker version: {why}",
        seconds=clock.monotonic() - begun,
    )


def _row(machine: Noted, answer: Errand[Row], begun: float, timeout: float) -> Row:
    name, driver = machine.name, machine.record.driver
    if not answer.wait(max(0.0, begun + timeout - clock.monotonic())):
        return Row(name=name, driver=driver, state=_TIMED_OUT, seconds=timeout)
    try:
        return answer.result()
    except Exception as error:  # noqa: BLE001  # a stranger's driver may raise anything; the others are shown
        seconds = clock.monotonic() - begun
        return Row(
            name=name, asked=True, driver=driver, state="Error", docker="Unknown", error=_flat(error), seconds=seconds
        )


def _flat(error: BaseException) -> str:
    from . import noted

    return " ".join(noted.words(error).split())
