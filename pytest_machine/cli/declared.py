"""``machines.toml``: machines as they are to be, in the words of the mark ``machine``.

::

    [machines.web]
    driver = "runc"
    memory = "1g"
    networks = ["front"]

    [machines.node]
    count = 3                       # node-1, node-2, node-3

The machines of one file are a lab of their own. Its id is made of the file's place, so that whoever comes next, after a
crash too, knows what was made from it without any note besides the machines' own records.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_machine import daemon
from pytest_machine.arguments import READERS, Wrong, driver_options
from pytest_machine.arguments import read as value_of
from pytest_machine.errors import BadSpec, UsageError
from pytest_machine.model import Engine, Id, Spec, check_name, names
from pytest_machine.support.files import reason
from pytest_machine.support.given import read_text

if TYPE_CHECKING:
    from pytest_machine.driver import Driver
    from pytest_machine.model import Record
    from pytest_machine.plugins import Registry

    from .noted import Noted

FILE = "machines.toml"
_FOR_TESTS = ("reuse", "share", "reset", "teardown", "logs", "fail_on", "router", "topology")
"""What the mark takes besides: it makes sense only where there is a test."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One machine of a file."""

    spec: Spec
    driver: Driver


def lab_of(file: Path) -> Id:
    """Return the id of the lab that a file's machines are, the same at every call on this computer."""
    from pytest_machine.owner import host_id

    return Id(hashlib.sha256(os.fsencode(f"{host_id()}\0{file.resolve()}")).hexdigest()[:10])


def read(file: Path, registry: Registry) -> list[Declared]:
    """Return the machines of a file, in its order; raises `UsageError` with the place in the file that is wrong."""
    found: dict[str, Declared] = {}
    for kind, given in _tables(file).items():
        place = f"machines.{kind}"
        said = _said(file, place, given)
        count = said.pop("count", 1)
        assert isinstance(count, int)
        for number in range(1, count + 1):
            name = f"{kind}-{number}" if count > 1 else kind
            _check_name(file, place, name)
            if name in found:
                raise _bad(file, place, f"two machines are called '{name}'", "give each a name of its own")
            found[name] = _declared(file, place, name, dict(said), registry)
    return list(found.values())


def _tables(file: Path) -> Mapping[str, Mapping[str, object]]:
    try:
        content = tomllib.loads(read_text(file, "it"))
    except FileNotFoundError:
        raise UsageError(
            f"There is no file '{file}'.", hint="name one with -f FILE, or write one: [machines.web]"
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # TOML's own among them, and Malformed
        why = "it is nested too deep" if isinstance(error, RecursionError) else reason(error)
        raise UsageError(
            f"The file '{file}' cannot be read.", facts={"reason": why}, hint="it is TOML: https://toml.io"
        ) from error
    for key in content.keys() - {"machines"}:
        raise _bad(file, key, "a file has tables of machines alone", f"write [machines.{key}]")
    machines = content.get("machines")
    if not isinstance(machines, dict) or not machines:
        raise _bad(file, "machines", "no machine is named", "write [machines.web]")
    for name, given in machines.items():
        if not isinstance(given, dict):
            raise _bad(file, f"machines.{name}", "a machine is a table", f"write [machines.{name}]")
    return machines


def _said(file: Path, place: str, given: Mapping[str, object]) -> dict[str, object]:
    said: dict[str, object] = {}
    for key, value in given.items():
        where = f"{place}.{key}"
        if key in _FOR_TESTS:
            raise _bad(file, where, "only a test's machine can have it", f"take it out, or mark a test: {key}=…")
        if key not in READERS:
            close = difflib.get_close_matches(key, READERS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"a driver's own options: options = {{ {key} = … }}"
            raise _bad(file, where, f"there is {names(READERS)}", hint)
        try:
            said[key] = value_of(key, value)
        except Wrong as error:
            hint = error.said(lambda example, key=key: f"{key} = {_toml(example)}")  # type: ignore[misc]
            raise _bad(file, where, f"{error.reason}; it is {_toml(value)}", hint) from error
        if key == "engine" and not isinstance(said[key], str):
            raise _bad(file, where, "a machine has one engine", 'write engine = "26.1"')
    return said


def _declared(file: Path, place: str, name: str, said: dict[str, object], registry: Registry) -> Declared:
    from pytest_machine.options import from_environment
    from pytest_machine.preloads import absolute

    def texts(key: str) -> tuple[str, ...]:
        found = said.get(key, ())
        assert isinstance(found, tuple)
        return found

    def table(key: str) -> Mapping[str, str]:
        found = said.get(key, {})
        assert isinstance(found, Mapping)
        return found

    try:
        options = driver_options(said)
    except KeyError as error:
        key = error.args[0]
        raise _bad(file, f"{place}.{key}", "options say it too", f"say {key} once") from None
    needs = said.get("needs", frozenset())
    timeout = said.get("timeout", 300.0)
    assert isinstance(needs, frozenset)
    assert isinstance(timeout, int | float)
    try:
        kind = _driver(said, needs | ({"networks"} if texts("networks") else set()), registry)
        spec = Spec(
            name=name,
            driver=kind.name,
            options={**from_environment(kind), **options},  # type: ignore[dict-item]  # the driver checks them
            networks=texts("networks"),
            needs=needs,
            engine=Engine(
                registry_mirror=texts("registry_mirror"),
                insecure_registries=texts("insecure_registries"),
                options=table("engine_options"),
                env=table("engine_env"),
                labels=table("labels"),
            ),
            preload=tuple(absolute(one, file.resolve().parent) for one in texts("preload")),
            timeout=float(timeout),
        )
        return Declared(spec=spec, driver=registry.configure(spec))
    except UsageError as error:
        # Its own words, and where in the file they come from.
        raise type(error)(
            error.message, facts={"where": f"{place} in '{file}'", **error.facts}, hint=error.hint
        ) from error


def _driver(said: Mapping[str, object], needs: frozenset[str], registry: Registry) -> type[Driver]:
    asked = str(said.get("driver") or os.environ.get("MACHINE_DRIVER", ""))
    return registry.driver(asked) if asked else registry.choose(needs)


def _check_name(file: Path, place: str, name: str) -> None:
    try:
        check_name(name)
    except BadSpec as error:
        raise _bad(file, place, f"no machine can be called '{name}': {error.facts['allowed']}", error.hint) from error


def _bad(file: Path, where: str, reason: str, hint: str) -> BadSpec:
    return BadSpec(f"'{where}' in '{file}' cannot be.", facts={"reason": reason}, hint=hint)


def _toml(value: object) -> str:
    """Return a value as it stands in such a file."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_toml(one)}' for key, one in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str | bool | int | float):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def differences(declared: Declared, noted: Noted) -> dict[str, str]:
    """Return in what a machine is not as it is declared: the word, and what it is and what the file says.

    Secrets are left out: credentials that were rotated make no other machine.
    """
    from pytest_machine.options import options

    spec, record = declared.spec, noted.record
    if spec.driver != record.driver:
        return {"driver": _pair(record.driver, spec.driver)}
    found: dict[str, str] = {}
    for name, option in options(type(declared.driver)).items():
        is_, wanted = getattr(noted.driver, name), getattr(declared.driver, name)
        if not option.secret and is_ != wanted:
            found[name] = _pair(is_, wanted)
    if sorted(spec.networks) != sorted(record.networks):
        found["networks"] = _pair(list(record.networks), list(spec.networks))
    is_engine = daemon.read(record.directory)
    wanted_engine = daemon.read_files(daemon.files(spec.engine))
    for name in ("registry_mirror", "insecure_registries", "options", "labels"):
        if getattr(is_engine, name) != getattr(wanted_engine, name):
            key = "engine_options" if name == "options" else name
            found[key] = _pair(getattr(is_engine, name), getattr(wanted_engine, name))
    if is_engine.env != wanted_engine.env:
        # Their values may be secret.
        found["engine_env"] = _pair(sorted(is_engine.env), sorted(wanted_engine.env))
    if not _same_preload(spec, record):
        found["preload"] = f"is not {_toml(list(spec.preload))} as that is today"
    return found


def _same_preload(spec: Spec, record: Record) -> bool:
    from pytest_machine import birth, preloads

    if record.preload:
        wanted = preloads.sources(spec.preload)
        return record.preload == preloads.key(wanted, {"driver": spec.driver, **daemon.storage(spec.engine)})
    return birth.loaded(record) == list(spec.preload)


def _pair(is_: object, wanted: object) -> str:
    return f"is {_toml(is_)}, and in the file {_toml(wanted)}"
