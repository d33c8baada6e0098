"""``--update-config``, on any command that names machines: their driver's flags and variables are read anew.

For credentials that were rotated, an address that has moved: what is given replaces what was noted when the machine was
made, and the command goes on with it. What is not given stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from .command import Session, read

if TYPE_CHECKING:
    from pytest_machine.model import Value

FLAGS = ("--update-config", "-update-config")


def update(
    ctx: click.Context, args: Sequence[str], params: Sequence[click.Parameter], *, stop: bool = False
) -> list[str]:
    """Note what is given anew of the machines that are named, and return the arguments without it.

    With `stop`, the first word is the one machine's name, and what follows is another program's.
    """
    from .noted import DEFAULT

    session = ctx.ensure_object(Session)
    rest = [arg for arg in args if arg not in FLAGS]
    # Which flags there are follows from the drivers, and these from the names among the arguments.
    there = session.store.names()
    likely = [name for name in there if name in rest or name == DEFAULT]
    fields = _fields(session, likely)
    flags, words = read(rest, [*params, *(click.Option([flag]) for flag in fields)], stop=stop)
    given: dict[str, list[str]] = {}
    left = []
    for flag in flags:
        name, _, value = flag.partition("=")
        if name in fields:
            given.setdefault(name, []).append(value)
        else:
            left.append(flag)
    for name in [word for word in (words[:1] if stop else words) if word in there] or [
        name for name in there if name == DEFAULT
    ]:
        _note(session, name, given)
    return [*left, "--", *words]


def _fields(session: Session, names: Sequence[str]) -> set[str]:
    from pytest_machine.options import options

    drivers = {session.store.load(name).driver for name in names}
    return {option.flag for driver in drivers for option in options(session.registry.driver(driver)).values()} - {""}


def _note(session: Session, name: str, given: Mapping[str, Sequence[str]]) -> None:
    import typing

    from pytest_machine.options import configure, from_environment, options

    store = session.store
    with store.lock(name):
        record = store.load(name)
        kind = session.registry.driver(record.driver)
        known = options(kind)
        anew: dict[str, Value] = from_environment(kind)
        for option in known.values():
            if values := given.get(option.flag):
                anew[option.name] = tuple(values) if typing.get_origin(option.type) is tuple else values[-1]
        configure(kind, {**record.options, **store.secrets(name), **anew})
        secret = {key: value for key, value in anew.items() if known[key].secret}
        if secret:
            store.save_secrets(name, {**store.secrets(name), **secret})
        plain = {key: value for key, value in anew.items() if key not in secret}
        store.save(record.with_(options={**record.options, **plain}))
