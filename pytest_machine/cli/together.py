"""``up`` and ``down``: the machines of a ``machines.toml``, made as they are declared, and removed.

``up`` looks first and does second. What is wrong with the file, or in its way, ends it before anything is made; what a
killed ``up`` has begun is ended by the next one, because each step is taken from what there is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import Failed, Ours, Session

if TYPE_CHECKING:
    from pytest_machine.driver import Driver
    from pytest_machine.lab import Lab
    from pytest_machine.model import Id

    from .declared import Declared
    from .noted import Noted
    from .progress import Progress

_FILE = "machines.toml"


class _Is(StrEnum):
    """What there is of a machine that is declared; the words are what is said of it."""

    MISSING = "is not there"
    BROKEN = "was broken off while it was made"
    GONE = "is gone: only its local reference is left"
    OFF = "is there, and does not run"
    THERE = "is there"


@dataclass
class _Plan:
    """A machine that is declared, and what there is of it."""

    declared: Declared
    state: _Is
    noted: Noted | None = None
    differs: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.declared.spec.name

    def made(self, *, recreate: bool) -> bool:
        """Return whether it is to be made."""
        return self.state in (_Is.MISSING, _Is.BROKEN, _Is.GONE) or bool(recreate and self.differs)


@click.command(cls=Ours)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-f", "--file", metavar="FILE", default=_FILE, help=f"What machines there are to be; default: {_FILE}.")
@click.option("--recreate", is_flag=True, help="Remove machines that differ from the file, and make them anew.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; do nothing.")
@click.pass_context
def up(ctx: click.Context, names: tuple[str, ...], *, file: str, recreate: bool, dry_run: bool) -> None:
    """Make the machines that a file declares, all or those that are named.

    Those that are missing are made at the same time, all or none; those that are there stay as they are, and are
    started if they do not run. One that differs from the file is told of, and made anew with --recreate alone. Exit
    code 1: something differs, or could not be made.
    """
    from pytest_machine.lab import Lab

    from .create import witness
    from .declared import lab_of, read
    from .progress import Progress

    session, path = ctx.ensure_object(Session), Path(file)
    declared = _named(read(path, session.registry), names, file)
    id_ = lab_of(path)
    if dry_run:
        plans = _plans(session, id_, declared, file)
        for each in plans:
            click.echo(_foretold(each, recreate=recreate))
        for each in plans:
            if each.made(recreate=recreate):
                each.declared.driver.check()
        _differ(plans, file, recreate=recreate)
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone(session, id_, file))
        for one in declared:
            stack.enter_context(_create_lock(session, one))
        plans = _plans(session, id_, declared, file)
        making = [each for each in plans if each.made(recreate=recreate)]
        for driver in {type(each.declared.driver): each.declared.driver for each in making}.values():
            driver.check()
        _clear(making)
        _start([each for each in plans if each not in making and each.state is _Is.OFF])
        drivers = [each.driver for each in declared]
        progress = stack.enter_context(Progress())
        seen = witness(progress, words=False)
        lab = Lab.load(store=session.store, registry=session.registry, id=id_, drivers=drivers, witness=seen)
        _make(lab, making, progress)
    for each in plans:
        if each not in making:
            click.echo(f'"{each.name}" {"was started" if each.state is _Is.OFF else "is there"}')
    _differ(plans, file, recreate=recreate)


@click.command(cls=Ours)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-f", "--file", metavar="FILE", default=_FILE, help=f"Whose machines are removed; default: {_FILE}.")
@click.option("-y", "yes", is_flag=True, help="Ask nothing.")
@click.pass_context
def down(ctx: click.Context, names: tuple[str, ...], *, file: str, yes: bool) -> None:
    """Remove what 'up' has made from a file, all or the machines that are named; others are left alone.

    What counts is what is noted, and not what the file says today: a machine that was taken out of the file goes too.
    """
    from pytest_machine.errors import UsageError

    from . import noted, rm
    from .declared import lab_of

    session, path = ctx.ensure_object(Session), Path(file)
    if not path.exists():
        raise UsageError(f"There is no file '{file}'.", hint="name one with -f FILE")
    id_ = lab_of(path)
    with _alone(session, id_, file):
        there = [record.name for record in session.store.records() if record.lab == id_]
        for name in names:
            if name not in there:
                raise UsageError(
                    f"'up' has made no machine '{name}' from '{file}'.",
                    facts={"machines": ", ".join(f"'{each}'" for each in there) or "none"},
                    hint=f"docker-machine rm {name}" if name in session.store.names() else "docker-machine ls",
                )
        going = [name for name in there if not names or name in names]
        if going and not yes:
            click.echo(f"About to remove {', '.join(going)}")
            click.echo("WARNING: This action will delete both local reference and remote instance.")
            if not rm.agreed():
                return
        machines = [noted.load(session, name) for name in going]
        if machines:
            noted.together(machines, _remove)
        if len(going) == len(there):
            _remove_networks(session, id_, [machine.driver for machine in machines], path)
    if not going:
        click.echo(f"Nothing is there that 'up' has made from '{file}'.")


def _named(declared: list[Declared], names: Sequence[str], file: str) -> list[Declared]:
    from pytest_machine.errors import UsageError

    known = [each.spec.name for each in declared]
    for name in names:
        if name not in known:
            raise UsageError(
                f"There is no machine '{name}' in '{file}'.",
                facts={"machines": ", ".join(f"'{each}'" for each in known)},
                hint=f"write [machines.{name}]",
            )
    return [each for each in declared if not names or each.spec.name in names]


@contextlib.contextmanager
def _alone(session: Session, id_: Id, file: str) -> Iterator[None]:
    """Keep a second 'up' or 'down' of the same file out; the kernel lets go when this process dies."""
    from filelock import FileLock, Timeout

    locks = session.store.make("locks")
    try:
        held = FileLock(locks / f".{id_}.up").acquire(blocking=False)
    except Timeout:
        raise Failed(f"Another process is at work on the machines of '{file}'.") from None
    with held:
        yield


def _create_lock(session: Session, declared: Declared) -> contextlib.AbstractContextManager[None]:
    from .create import alone

    return alone(session.store, declared.spec.name)


def _plans(session: Session, id_: Id, declared: Sequence[Declared], file: str) -> list[_Plan]:
    from . import noted

    plans = [_plan(session, id_, each, file) for each in declared]
    there = {each.name: each for each in plans if each.noted is not None and each.state is _Is.THERE}
    if there:
        seen = noted.together([each.noted for each in there.values() if each.noted], noted.look)
        for plan, each in zip(there.values(), seen, strict=True):
            plan.state = _state(each.state)
    return plans


def _plan(session: Session, id_: Id, declared: Declared, file: str) -> _Plan:
    """Return what there is of a machine by its record alone; raises `UsageError` when it is not this file's."""
    from pytest_machine.errors import MachineExists

    from . import noted
    from .create import check_free
    from .declared import differences

    name, store = declared.spec.name, session.store
    if name not in store.names():
        check_free(store, name)
        return _Plan(declared, _Is.MISSING)
    found = noted.load(session, name, given=declared.spec.options)
    if found.record.lab != id_:
        raise MachineExists(
            f"There is already a machine '{name}', which 'up' has not made from '{file}'.",
            facts={"driver": found.record.driver, "directory": found.record.directory},
            hint=f"give the one in the file another name, or: docker-machine rm {name}",
        )
    if found.record.ready is None:
        return _Plan(declared, _Is.BROKEN, found)
    return _Plan(declared, _Is.THERE, found, differences(declared, found))


def _state(state: object) -> _Is:
    from pytest_machine.model import State

    return {State.ABSENT: _Is.GONE, State.RUNNING: _Is.THERE}.get(state, _Is.OFF)  # type: ignore[call-overload,no-any-return]


def _clear(making: Sequence[_Plan]) -> None:
    """Remove what there is of machines that are made anew."""
    from . import noted

    old = [each.noted for each in making if each.noted is not None]
    for each in old:
        click.echo(f'Removing what there is of "{each.name}"...')
    if old:
        noted.together(old, lambda machine: machine.machine().destroy())


def _start(plans: Sequence[_Plan]) -> None:
    from . import noted

    if plans:
        for each in plans:
            click.echo(f'Starting "{each.name}"...')
        noted.together([each.noted for each in plans if each.noted], _start_one)


def _start_one(machine: Noted) -> None:
    from pytest_machine.model import State

    from . import noted

    if noted.look(machine).state is State.PAUSED:
        machine.machine().resume()
    else:
        machine.machine().start()


def _make(lab: Lab, making: Sequence[_Plan], progress: Progress) -> None:
    if making:
        click.echo(f"Creating {', '.join(each.name for each in making)}...")
        for each in making:
            progress.tell(each.name, "creating")
        for machine in lab.create(*(each.declared.spec for each in making)):
            place = machine.ip or machine.url  # an engine at a Unix socket has no address
            progress.say(f'"{machine.name}" is up, in {machine.seconds:.1f} s ({machine.record.driver}, {place})')
    lab.mend()
    lab.close()


def _differ(plans: Sequence[_Plan], file: str, *, recreate: bool) -> None:
    """Raise when machines are left that are not as the file has them."""
    left = [each for each in plans if each.differs and not each.made(recreate=recreate)]
    if not left:
        return
    facts = {f"{each.name}.{key}": text for each in left for key, text in each.differs.items()}
    names = " ".join(each.name for each in left)
    where = "" if file == _FILE else f" -f '{file}'"
    raise Failed(
        f"Not as '{file}' has them, and left as they are: {', '.join(each.name for each in left)}.",
        facts=facts,
        hint=f"docker-machine up{where} --recreate {names}: that makes them anew, and what is in them is lost",
    )


def _foretold(plan: _Plan, *, recreate: bool) -> str:
    if plan.state is _Is.OFF:
        return f'"{plan.name}" {plan.state}: it would be started'
    if plan.state is _Is.THERE and plan.made(recreate=recreate):
        return f'"{plan.name}" {plan.state}, and differs: it would be made anew ({", ".join(plan.differs)})'
    if plan.made(recreate=recreate):
        return f'"{plan.name}" {plan.state}: it would be made ({plan.declared.spec.driver})'
    return f'"{plan.name}" {plan.state}: it would be left as it is'


def _remove(machine: Noted) -> None:
    machine.machine().destroy()
    click.echo(f"Successfully removed {machine.name}")


def _remove_networks(session: Session, id_: Id, drivers: Sequence[Driver], path: Path) -> None:
    """Remove the networks of a lab without machines: those of its drivers, and of those that the file names.

    Whoever was killed between the last machine and the networks has left none of the former.
    """
    from pytest_machine.errors import MachineError
    from pytest_machine.lab import Lab

    from .declared import read

    with contextlib.suppress(MachineError):
        drivers = [*drivers, *(each.driver for each in read(path, session.registry))]
    Lab.load(store=session.store, registry=session.registry, id=id_, drivers=drivers).destroy()
