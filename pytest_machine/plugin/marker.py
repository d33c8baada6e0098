"""What the ``machine`` marks of a test ask for: pure functions from marks to `Asked`, nothing is imported or made.

The rules (design.md, "Marker merging"), with *level* for the places a mark can stand: parameters, function, class,
module, in this order from near to wide.

- One unnamed mark alone on its level speaks of the test's machines, whichever they are: the nearest level wins,
  argument by argument. Where nothing else names machines, it asks for one (or ``count``).
- A mark with names, or several marks on one level, list machines. A name that a wider level listed is merged with it,
  again argument by argument; new names are added after the wider ones; unnamed ones take the place of a wider level's
  unnamed ones.
- Within a level marks are read as they stand in the source, top to bottom. The first machine is the test's ``machine``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from pytest_machine.driver import NEEDS
from pytest_machine.errors import BadSpec
from pytest_machine.model import Trouble, Value, check_name, names
from pytest_machine.options import size

REUSE = ("never", "class", "module", "package", "session", "runs")
"""How long equal machines may be shared, narrowest first."""
SHARE = ("run", "worker")
"""With whom a session's machine is shared under pytest-xdist: all workers of the run, or none."""
TEARDOWN = ("rm", "kill")
"""Destroyed in order, or at once."""

_OPTIONS = ("image", "engine", "memory", "cpus", "disk")
"""Arguments that are options of the driver, under their own names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One kind of machine as marks ask for it; None: no mark says."""

    name: str = ""
    driver: str | None = None
    count: int | None = None
    reuse: str | None = None
    share: str | None = None
    reset: bool | None = None
    """Whether a shared machine is made as new before the test gets it."""
    teardown: str | None = None
    networks: tuple[str, ...] | None = None
    needs: frozenset[str] | None = None
    timeout: float | None = None
    """Seconds until it must be ready."""
    preload: tuple[str, ...] | None = None
    registry_mirror: tuple[str, ...] | None = None
    insecure_registries: tuple[str, ...] | None = None
    engine_options: Mapping[str, object] | None = None
    engine_env: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    logs: tuple[str, ...] | None = None
    """Absolute paths in the machine that are brought home before it goes."""
    fail_on: frozenset[str] | None = None
    """What makes a test fail that would have passed: words of `Trouble`."""
    options: Mapping[str, Value] = field(default_factory=dict)

    def over(self, wider: Asked) -> Asked:
        """Return `wider` with what this one says instead; options are merged one by one."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(wider, **said | {"name": self.name or wider.name, "options": {**wider.options, **self.options}})


ARGUMENTS = (*(f.name for f in fields(Asked) if f.name != "name"), *_OPTIONS)
"""Every keyword that the mark takes."""


def read(given: Sequence[object], arguments: Mapping[str, object]) -> list[Asked]:
    """Return what one mark asks for, a machine for each of its names; raise `BadSpec` when it makes no sense."""
    for key in arguments:
        if key not in ARGUMENTS:
            close = difflib.get_close_matches(key, ARGUMENTS, n=1)
            raise BadSpec(
                f"The mark 'machine' takes no argument '{key}'.",
                facts={"arguments": names(ARGUMENTS)},
                hint=f"did you mean '{close[0]}='?"
                if close
                else f"a driver's own options go into options={{'{key}': …}}",
            )
    said = {key: _READERS[key](key, value) for key, value in arguments.items() if value is not None}
    options = dict(said.pop("options", {}))  # type: ignore[call-overload]  # `_table` made it
    for key in _OPTIONS:
        if key in said:
            if key in options:
                raise _bad(key, arguments[key], "options= says it too", f"say {key} once")
            options[key] = said.pop(key)
    asked = Asked(options=options, **said)  # type: ignore[arg-type]  # each reader gives its field's type
    return [replace(asked, name=_name(name)) for name in _once(given)] or [asked]


def merge(levels: Iterable[Sequence[Asked]]) -> list[Asked]:
    """Return the machines that the levels ask for together, widest level first; one entry a machine, each named.

    No level: one machine like any other.
    """
    found: list[Asked] = []
    alone = False  # whether `found` is a single unnamed mark: it speaks of what nearer levels list
    for level in filter(None, levels):
        if len(level) == 1 and not level[0].name:
            alone = alone or not found
            found = [level[0].over(wider) for wider in found] or [level[0]]
        else:
            found = _listed(level, common=found[0]) if alone else _listed(level, wider=found)
            alone = False
    return _each(found or [Asked()])


def single(levels: Iterable[Sequence[Asked]], asked: Asked) -> Asked:
    """Return what a factory's call asks for, as if it were the nearest level: one machine, named if the call named it.

    Of the levels, those marks count that speak of it: of its name, or of all of the test's machines.
    """
    found = Asked()
    for level in levels:
        for one in level:
            if one.name == asked.name if one.name else len(level) == 1:
                found = one.over(found)
    return replace(asked.over(found), count=None)


def _listed(level: Sequence[Asked], *, common: Asked | None = None, wider: Sequence[Asked] = ()) -> list[Asked]:
    seen: set[str] = set()
    for asked in level:
        if asked.name in seen - {""}:
            raise BadSpec(
                f"Two marks on one level both name a machine '{asked.name}'.",
                hint="give each machine a name of its own, or one mark count=2",
            )
        seen.add(asked.name)
    found = [asked for asked in wider if asked.name or "" not in seen]
    for asked in level:
        known = next((i for i, other in enumerate(found) if asked.name and other.name == asked.name), None)
        if known is None:
            found.append(asked.over(common) if common else asked)
        else:
            found[known] = asked.over(found[known])
    return found


def _each(asked: Iterable[Asked]) -> list[Asked]:
    """Return one entry a machine: ``node`` three times is ``node-1``, ``node-2``, ``node-3``."""
    kinds = list(asked)
    unnamed = sum(kind.count or 1 for kind in kinds if not kind.name)
    found: list[Asked] = []
    number = 0
    for kind in kinds:
        for i in range(kind.count or 1):
            if kind.name:
                name = f"{kind.name}-{i + 1}" if (kind.count or 1) > 1 else kind.name
            else:
                number += 1
                name = f"machine-{number}" if unnamed > 1 else "machine"
            found.append(replace(kind, name=name, count=None))
    _once([one.name for one in found])
    return found


def _bad(key: str, value: object, reason: str, hint: str) -> BadSpec:
    return BadSpec(f"The mark 'machine' cannot have {key}={value!r}.", facts={"reason": reason}, hint=hint)


def _once(given: Iterable[object]) -> list[object]:
    found: list[object] = []
    for name in given:
        if name in found:
            raise BadSpec(
                f"Two machines of one test are both called '{name}'.", hint="give each machine a name of its own"
            )
        found.append(name)
    return found


def _name(name: object) -> str:
    if isinstance(name, str):
        return check_name(name)
    raise BadSpec(
        f"A machine cannot be called {name!r}: a name is text.",
        hint="write @pytest.mark.machine('web', …); everything but names is given by keyword",
    )


def _text(key: str, value: object) -> object:
    if isinstance(value, str) and value:
        return value
    raise _bad(key, value, "it takes text", f"write {key}='…' or leave it out")


def _path(key: str, value: object) -> object:
    return _text(key, os.fspath(value) if isinstance(value, os.PathLike) else value)


def _count(key: str, value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise _bad(key, value, "it takes a whole number, 1 or more", "write count=3 for three machines")


def _number(key: str, value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return value
    raise _bad(key, value, "it takes a number greater than 0", f"write {key}=1.5 or leave it out")


def _size(key: str, value: object) -> object:
    try:
        size(value)  # type: ignore[arg-type]  # it refuses what it does not know
    except ValueError as error:
        raise _bad(key, value, str(error), f"write {key}='512m'") from error
    return value


def _flag(key: str, value: object) -> object:
    if isinstance(value, bool):
        return value
    raise _bad(key, value, "it takes True or False", f"write {key}=False or leave it out")


def _word(key: str, value: object) -> object:
    words = {"reuse": REUSE, "share": SHARE}.get(key, TEARDOWN)
    if value in words:
        return value
    raise _bad(key, value, f"it takes one of {names(words)}", _meant(key, value, words))


def _meant(key: str, value: object, words: Iterable[str]) -> str:
    words = list(words)
    close = difflib.get_close_matches(value, words, n=1) if isinstance(value, str) else []
    return f"did you mean '{close[0]}'?" if close else f"write {key}='{words[0]}' or leave it out"


def _texts(key: str, value: object) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list | tuple | set | frozenset):
        raise _bad(key, value, "it takes a list of names", f"write {key}=['…']")
    return tuple(str(_text(key, one)) for one in found)


def _networks(key: str, value: object) -> object:
    found = _texts(key, value)
    for name in found:
        try:
            check_name(name)
        except BadSpec as error:
            raise _bad(key, value, str(error.facts["allowed"]), "choose a name such as 'front'") from error
    return found


def _needs(key: str, value: object) -> object:
    found = frozenset(_texts(key, value))
    for need in sorted(found - NEEDS):
        words = sorted(str(word) for word in NEEDS)
        raise _bad(key, value, f"nothing is called '{need}'; there is {names(words)}", _meant(key, need, words))
    return found


def _logs(key: str, value: object) -> object:
    found = _texts(key, [os.fspath(one) for one in value] if isinstance(value, list | tuple) else value)
    for path in found:
        if not path.startswith("/"):
            raise _bad(key, value, f"'{path}' is no absolute path", "write logs=['/var/log/dockerd.log']")
    return found


def _fail_on(key: str, value: object) -> object:
    found = frozenset(_texts(key, value))
    for one in sorted(found - frozenset(Trouble)):
        words = [str(word) for word in Trouble]
        raise _bad(key, value, f"nothing is called '{one}'; there is {names(words)}", _meant(key, one, words))
    return found


def _table(key: str, value: object) -> object:
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}
    raise _bad(key, value, "it takes a table of the driver's options", "write options={'name': value}")


def _engine(key: str, value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # 20.10 is the number 20.1, and nobody would see why that Docker is not found.
        raise _bad(key, value, "it takes text: a number has lost its last zero", f"write {key}='{value}'")
    if isinstance(value, list | tuple):
        found = tuple(str(_engine(key, one)) for one in value)
        if not found or len(set(found)) < len(found):
            raise _bad(key, value, "it takes one or more, each once", f"write {key}=['20.10', '26.1']")
        return found
    return _path(key, value)


def _images(key: str, value: object) -> object:
    found = [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(found, list | tuple):
        raise _bad(key, value, "it takes a list of images and archives", f"write {key}=['busybox:1']")
    return tuple(str(_path(key, one)) for one in found)


def _pairs(key: str, value: object) -> object:
    if isinstance(value, Mapping) and all(isinstance(part, str) for pair in value.items() for part in pair):
        return dict(value)
    raise _bad(key, value, "it takes a table of texts", f"write {key}={{'name': 'value'}}")


def _settings(key: str, value: object) -> object:
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return dict(value)
    raise _bad(key, value, "it takes a table, as daemon.json is", f"write {key}={{'log-driver': 'json-file'}}")


_READERS = {
    "driver": _text,
    "count": _count,
    "reuse": _word,
    "share": _word,
    "reset": _flag,
    "teardown": _word,
    "image": _path,
    "engine": _engine,
    "memory": _size,
    "cpus": _number,
    "disk": _size,
    "networks": _networks,
    "needs": _needs,
    "options": _table,
    "timeout": _number,
    "preload": _images,
    "registry_mirror": _texts,
    "insecure_registries": _texts,
    "engine_options": _settings,
    "engine_env": _pairs,
    "labels": _pairs,
    "logs": _logs,
    "fail_on": _fail_on,
}
