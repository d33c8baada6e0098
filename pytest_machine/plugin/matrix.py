"""``engine=["20.10", "26.1"]``: the test runs once on each, as if it were parametrized by hand.

The versions of one run of a test are a parameter of ours, by the machine's name. A mark that has a list is settled by
it wherever marks are read for that test; what has no such parameter (a wider scope's own machine) cannot have a list.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from _pytest.nodes import Node

from pytest_machine.errors import BadSpec, EngineFailed, MachineError
from pytest_machine.model import Engine, Spec, Value

from .fixtures import ALL, OF_TEST
from .marker import Asked, merge

PARAMETER = "machine engine"
"""No fixture or argument can be called so."""


def parametrize(metafunc: pytest.Metafunc, levels: Iterable[Sequence[Asked]]) -> None:
    """Make a run of the test for each version that its marks list: for several machines, for each combination."""
    listed = {one.name: versions for one in merge(levels) if len(versions := engines(one)) > 0}
    names = set(metafunc.fixturenames)
    if not listed or (names & ALL and not names & OF_TEST):  # with none of them it gets the fixture `machine`
        return
    runs = [dict(zip(listed, versions, strict=True)) for versions in itertools.product(*listed.values())]
    metafunc.fixturenames.append(PARAMETER)
    metafunc.parametrize(PARAMETER, runs, ids=["docker-" + "-".join(map(_short, run.values())) for run in runs])


def engines(asked: Asked) -> tuple[str, ...]:
    """Return the versions that are listed for a machine; none when it has one engine, or says nothing of it."""
    found = asked.options.get("engine")
    return found if isinstance(found, tuple) else ()


def settled(node: Node, asked: Asked) -> Asked:
    """Return a machine with the one version that this run of the test has; raises `BadSpec` where there is none."""
    if not engines(asked):
        return asked
    versions = run(node)
    if not versions:
        if isinstance(node, pytest.Item) and OF_TEST.isdisjoint(getattr(node, "fixturenames", ())):
            return asked  # it makes none
        raise BadSpec(
            "A list of engines is for a test's own machines, in a mark on a function, a class or a module.",
            facts={"engine": ", ".join(engines(asked))},
            hint="use the fixture 'machine' (with reuse='module', tests share it), or name one engine",
        )
    # A factory's machines have names of their own: they are as the first that has a list.
    return replace(
        asked, options={**asked.options, "engine": versions.get(asked.name) or next(iter(versions.values()))}
    )


def run(node: Node) -> Mapping[str, str]:
    """Return which machine has which of its listed engines in this run of a test; nothing when none has a list."""
    found: Mapping[str, str] = getattr(getattr(node, "callspec", None), "params", {}).get(PARAMETER, {})
    return found


def _short(engine: str) -> str:
    """Return a version, or the file's name of a static build."""
    return PurePosixPath(engine).name.removesuffix(".tgz").removesuffix(".tar.gz").removeprefix("docker-")


class Matrix:
    """Finds out whether a version of a list cannot run here, or whether something else is at fault."""

    def __init__(self, boot: Callable[[Spec], object]) -> None:
        self._boot = boot
        self._failures: dict[tuple[str, str], EngineFailed | None] = {}

    def skip(self, specs: Sequence[Spec], error: EngineFailed) -> None:
        """Skip the test when one of its engines never runs on this kernel; return when that is not the reason.

        By experiment: a machine with that version and no settings of the user's must fail in the same way, and one with
        the default version must run. Else the settings are at fault, or we are.
        """
        for spec in specs:
            if (reason := self._failure(spec)) and not self._failure(replace(spec, options=_default(spec))):
                raise pytest.skip.Exception(
                    f"Docker '{spec.options['engine']}' cannot run on this kernel ({platform.release()}): "
                    f"{reason.facts.get('it said', reason.message)}"
                ) from error

    def _failure(self, spec: Spec) -> EngineFailed | None:
        key = (spec.driver, str(sorted(spec.options.items(), key=str)))
        if key not in self._failures:
            plain = replace(spec, name="probe", engine=Engine(), preload=(), networks=(), router=False, topology=None)
            self._failures[key] = None
            try:
                self._boot(plain)
            except EngineFailed as error:
                self._failures[key] = error
            except MachineError:
                # It says nothing of the version, so neither does a skip; the first error is the one to show.
                self._failures[key] = None
        return self._failures[key]


def _default(spec: Spec) -> dict[str, Value]:
    return {name: value for name, value in spec.options.items() if name not in ("engine", "image")}
