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
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from pytest_machine import plan
from pytest_machine.arguments import MEANT, OPTIONS, Wrong, driver_options, each_of, flag, texts, word
from pytest_machine.arguments import read as value_of
from pytest_machine.errors import BadSpec
from pytest_machine.model import Trouble, Value, check_name, names
from pytest_machine.plan import Topology
from pytest_machine.roles import ROLES, Roles, assign, meeting

REUSE = ("never", "class", "module", "package", "session", "runs")
"""How long equal machines may be shared, narrowest first."""
SHARE = ("run", "worker")
"""With whom a session's machine is shared under pytest-xdist: all workers of the run, or none."""
TEARDOWN = ("rm", "kill")
"""Destroyed in order, or at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One kind of machine as marks ask for it; None: no mark says."""

    name: str = ""
    driver: str | None = None
    named: bool | None = None
    """Whether a mark, and not a setting, names the driver; None: not completed yet."""
    count: int | None = None
    reuse: str | None = None
    share: str | None = None
    reset: bool | None = None
    """Whether a shared machine is made as new before the test gets it."""
    teardown: str | None = None
    networks: tuple[str, ...] | None = None
    swarm: bool | None = None
    """Whether it is a member of the test's Swarm; with a role it is, too."""
    role: str | None = None
    router: bool | None = None
    """Whether it passes packets on between its networks."""
    topology: Topology | None = None
    """What is declared of the whole lab that it is a part of."""
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


ARGUMENTS = (*(f.name for f in fields(Asked) if f.name not in ("name", "named")), *OPTIONS)
"""Every keyword that the mark takes."""


def read(given: Sequence[object], arguments: Mapping[str, object], folders: Sequence[Path] = ()) -> list[Asked]:
    """Return what one mark asks for, a machine for each of its names; raise `BadSpec` when it makes no sense.

    `folders` are where a file that it names may be, the nearest first.
    """
    if arguments.get("topology") is not None:
        return _declared(given, arguments, folders)
    for key in arguments:
        if key not in ARGUMENTS:
            raise BadSpec(
                f"The mark 'machine' takes no argument '{key}'.",
                facts={"arguments": names(ARGUMENTS)},
                hint=_meant(key, arguments[key]),
            )
    said = {key: _value(key, value) for key, value in arguments.items() if value is not None}
    try:
        options = driver_options(said)
    except KeyError as error:
        key = str(error.args[0])
        raise _bad(key, arguments[key], "options= says it too", f"say {key} once") from None
    if said.get("swarm") is False and "role" in said:
        raise _bad("role", said["role"], "swarm=False says that it has none", "leave out one of them")
    asked = Asked(options=options, **said)  # type: ignore[arg-type]  # each reader gives its field's type
    return [replace(asked, name=_name(name)) for name in _once(given)] or [asked]


def _meant(key: str, value: object) -> str:
    """Return the hint for an argument that there is not."""
    word = MEANT.get(key)
    if word == "name":
        name = value if isinstance(value, str) else "web"
        return f"a machine's name has no keyword, and is its host name: @pytest.mark.machine('{name}', …)"
    if word is None:
        word = next(iter(difflib.get_close_matches(key, ARGUMENTS, n=1)), None)
    if word is None:
        return f"a driver's own options go into options={{'{key}': …}}"
    if word == "networks" and isinstance(value, str):
        return f"did you mean networks=['{value}']?"
    return f"did you mean '{word}='?"


def _declared(given: Sequence[object], arguments: Mapping[str, object], folders: Sequence[Path]) -> list[Asked]:
    """Return the machines of a topology; what the mark says besides holds for those whose role does not say it."""
    declared = _topology(arguments["topology"], folders)
    for key in ("count", "networks", "router"):
        if arguments.get(key) is not None:
            raise _bad(key, arguments[key], "the topology says it", f"say it there, of a role: Role({key}=…)")
    if given:
        raise BadSpec(
            "A mark with a topology names no machines: they are the topology's.",
            facts={"named": ", ".join(map(repr, given)), "the topology's": names(declared.members)},
            hint="say what is special of one of them in a mark of its own, on a function or class",
        )
    declared.check()
    (common,) = read((), {key: value for key, value in arguments.items() if key != "topology"})
    found = []
    for role_name, role in declared.roles.items():
        said = {"networks": list(role.networks), "router": role.router or None, **role.arguments}
        try:
            asked = read(declared.of_role(role_name), said)
        except BadSpec as error:
            raise BadSpec(error.message, facts={**error.facts, "role": role_name}, hint=error.hint) from error
        found += [replace(one.over(common), topology=declared) for one in asked]
    return found


def _topology(value: object, folders: Sequence[Path]) -> Topology:
    if isinstance(value, Topology):
        return value
    if not isinstance(value, str | os.PathLike):
        raise _bad("topology", value, "it takes a Topology, or the path of a TOML file", "write topology='lab.toml'")
    places = [folder / value for folder in folders or [Path()]]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise BadSpec(
            f"There is no topology '{os.fspath(value)}'.",
            facts={"looked in": ", ".join(dict.fromkeys(str(place.parent) for place in places))},
            hint="write its path as seen from the test's folder, or from pytest's rootdir",
        )
    return _read(found, found.stat().st_mtime_ns)


@functools.lru_cache
def _read(place: Path, _: int) -> Topology:
    return Topology.read(place)


def check(asked: Sequence[Asked]) -> None:
    """Raise `BadSpec` when a test's machines do not go together: what their topology declares, who routes."""
    declared = [one.topology for one in asked if one.topology is not None]
    if any(one != declared[0] for one in declared):
        raise BadSpec("A test has one topology.", hint="declare all of its machines in one: Topology(roles={...})")
    members = {one.name: one.networks or () for one in asked}
    routers = [one.name for one in asked if one.router]
    if declared:
        declared[0].check(members, routers)
    else:
        plan.check_routers(members, routers, ())


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


def swarm(machines: Sequence[Asked], *, wanted: bool = False) -> Roles | None:
    """Return who is what in the Swarm that a test's machines are to form; None: they are to form none.

    `wanted`: something else than a mark asks for one, of all machines then. Raises `BadSpec` for one that cannot be.
    """
    members = [one for one in machines if one.swarm or (one.swarm is None and one.role)]
    if not members and wanted:
        members = [one for one in machines if one.swarm is None]
        if not members:
            raise BadSpec(
                "A Swarm is asked for, and its machines by marks are to form none.",
                facts={"machines": names(one.name for one in machines)},
                hint="leave out swarm=False, or the fixture 'swarm'",
            )
    if not members:
        return None
    meeting({one.name: one.networks or () for one in members})
    return assign({one.name: one.role or "" for one in members})


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


def value(key: str, given: object) -> object:
    """Return the value of an argument in its one form; raise `Wrong`."""
    return value_of(key, given, _READERS)


def _value(key: str, given: object) -> object:
    try:
        return value(key, given)
    except Wrong as error:
        raise _bad(key, given, error.reason, error.said(lambda example: f"{key}={example!r}")) from error


def _logs(value: object) -> object:
    found = texts([os.fspath(one) for one in value] if isinstance(value, list | tuple) else value)
    for path in found:
        if not path.startswith("/"):
            raise Wrong(f"'{path}' is no absolute path", example=["/var/log/dockerd.log"])
    return found


_READERS: Mapping[str, Callable[[object], object]] = {
    "reuse": lambda value: word(value, REUSE),
    "share": lambda value: word(value, SHARE),
    "reset": flag,
    "router": flag,
    "teardown": lambda value: word(value, TEARDOWN),
    "swarm": flag,
    "role": lambda value: word(value, ROLES),
    "logs": _logs,
    "fail_on": lambda value: each_of(value, Trouble),
}
"""What only a test can ask for."""
