"""The fixtures: machines of a test, and of each wider scope. What they are like is in the marks (`levels`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from docker import DockerClient

    from pytest_machine.lab import Lab
    from pytest_machine.machine import Machine
    from pytest_machine.swarm import Swarm

    from .machines import MachineFactory, Machines

SCOPES = ("class", "module", "session")
"""The wider scopes that have machines of their own, narrowest first."""


TEST = frozenset({"machine", "machines", "lab", "docker_client"})
"""Those that give a test the machines of its marks."""


def wide(scope: str) -> set[str]:
    """Return the names of a wider scope's fixtures."""
    return {f"{scope}_machine", f"{scope}_lab", f"{scope}_machine_factory"}


OF_TEST = TEST | {"machine_factory"}
"""The fixtures that give a test machines of its own."""
ALL = OF_TEST.union(*map(wide, SCOPES))


def uses_machine(item: pytest.Item) -> bool:
    """Return whether a test asks for a machine by one of these fixtures, itself or through others."""
    return not ALL.isdisjoint(getattr(item, "fixturenames", ()))


def marked(item: pytest.Item) -> bool:
    """Return whether the mark ``machine`` stands on a test, its class, its module or its package."""
    return item.get_closest_marker("machine") is not None


def concern(item: pytest.Item) -> bool:
    """Return whether a test has anything to do with machines: by its fixtures or by a mark."""
    return uses_machine(item) or marked(item)


def imply(item: pytest.Item) -> None:
    """Give a test that has the mark and none of the fixtures the fixture ``machine``. Idempotent.

    Without a machine of its own the test would talk to the Docker of the user. Doctests and methods of
    `unittest.TestCase` have fixtures, too; for an item that has none, `require` refuses the mark.
    """
    names: list[str] | None = getattr(item, "fixturenames", None)
    if names is None or uses_machine(item) or not marked(item):
        return
    # Before the first fixture of the test itself, which may use Docker; behind those of wider scopes, as pytest sorts.
    known = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    own = [i for i, name in enumerate(names) if name in known and known[name][-1].scope == "function"]
    place = own[0] if own else len(names)
    # A new list: pytest has one for all parameters of a function, and the mark may be of one of them.
    item.fixturenames = [*names[:place], "machine", *names[place:]]  # type: ignore[attr-defined]  # it has them


def require(item: pytest.Item) -> None:
    """Give a test whose mark came after its collection the machine now; fail for an item that cannot have fixtures."""
    if not marked(item) or uses_machine(item):
        return
    request: pytest.FixtureRequest | None = getattr(item, "_request", None)
    if request is None:
        refuse(item, "It cannot have fixtures.", "take the mark off it, or write it as a test function")
    else:
        imply(item)
        request.getfixturevalue("machine")


def refuse_misspelt(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Raise `pytest.UsageError` for a mark that nobody has registered and that is nearly called ``machine``."""
    seen = {mark.name: item.nodeid for item in items for mark in item.iter_markers()}
    near = [name for name in seen if name != "machine" and name[:1] in "mM" and 5 <= len(name) <= 9]
    if not near:
        return
    import difflib

    registered = {line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers")}
    for name in near:
        if name not in registered and difflib.SequenceMatcher(None, name.lower(), "machine").ratio() > 0.8:
            raise pytest.UsageError(
                f"There is no mark '{name}', and '{seen[name]}' would get no machine.\n"
                "hint: did you mean @pytest.mark.machine? A mark of your own is registered in the option 'markers'"
            )


def refuse(item: pytest.Item, reason: str, hint: str) -> NoReturn:
    """Fail a test that has the mark and gets no machine."""
    text = f"'{item.nodeid}' has the mark 'machine' and gets no machine.\n  reason  {reason}\nhint: {hint}"
    raise pytest.fail.Exception(text, pytrace=False)


def _of_test(request: pytest.FixtureRequest) -> Machines:
    from . import leasing  # not before a machine is wanted: it brings half of the plugin

    return leasing.of_test(request.node)


def _of_scope(request: pytest.FixtureRequest) -> Machines:
    from . import leasing

    return leasing.of_scope(request.node)


def _factory(request: pytest.FixtureRequest) -> MachineFactory:
    from . import leasing

    return leasing.factory(request.node)


@pytest.fixture
def machines(request: pytest.FixtureRequest) -> Machines:
    """All machines that the test's marks ask for: by index, by name, in a loop."""
    return _of_test(request)


@pytest.fixture
def machine(machines: Machines) -> Machine:
    """A throwaway Docker host for the test, ready; the first of several."""
    return machines[0]


@pytest.fixture
def lab(machines: Machines) -> Lab:
    """The test's machines and their networks: lab["web"]."""
    return machines.lab


@pytest.fixture
def swarm(request: pytest.FixtureRequest, machines: Machines) -> Swarm:
    """The Swarm of the test's machines, ready: swarm.manager.docker."""
    from . import leasing

    return leasing.swarm(request.node, machines)


@pytest.fixture
def docker_client(machine: Machine) -> DockerClient:
    """A docker.DockerClient that talks to the test's machine."""
    return machine.docker


@pytest.fixture
def machine_factory(request: pytest.FixtureRequest) -> MachineFactory:
    """A function that takes the mark's arguments and makes a machine, gone at the end of the test."""
    return _factory(request)


@pytest.fixture(scope="class")
def class_lab(request: pytest.FixtureRequest) -> Lab:
    """The class's machines, as its marks ask for them, and their networks."""
    return _of_scope(request).lab


@pytest.fixture(scope="class")
def class_machine(request: pytest.FixtureRequest) -> Machine:
    """A throwaway Docker host for the class; the first of several."""
    return _of_scope(request)[0]


@pytest.fixture(scope="class")
def class_swarm(request: pytest.FixtureRequest, class_lab: Lab) -> Swarm:  # noqa: ARG001  # it shows whose it is
    """The Swarm of the class's machines, ready."""
    from . import leasing

    return leasing.swarm(request.node, _of_scope(request))


@pytest.fixture(scope="class")
def class_machine_factory(request: pytest.FixtureRequest) -> MachineFactory:
    """A function that takes the mark's arguments and makes a machine, gone at the end of the class."""
    return _factory(request)


@pytest.fixture(scope="module")
def module_lab(request: pytest.FixtureRequest) -> Lab:
    """The module's machines, as its marks ask for them, and their networks."""
    return _of_scope(request).lab


@pytest.fixture(scope="module")
def module_machine(request: pytest.FixtureRequest) -> Machine:
    """A throwaway Docker host for the module; the first of several."""
    return _of_scope(request)[0]


@pytest.fixture(scope="module")
def module_swarm(request: pytest.FixtureRequest, module_lab: Lab) -> Swarm:  # noqa: ARG001  # it shows whose it is
    """The Swarm of the module's machines, ready."""
    from . import leasing

    return leasing.swarm(request.node, _of_scope(request))


@pytest.fixture(scope="module")
def module_machine_factory(request: pytest.FixtureRequest) -> MachineFactory:
    """A function that takes the mark's arguments and makes a machine, gone at the end of the module."""
    return _factory(request)


@pytest.fixture(scope="session")
def session_lab(request: pytest.FixtureRequest) -> Lab:
    """The run's machines, as the settings ask for them, and their networks."""
    return _of_scope(request).lab


@pytest.fixture(scope="session")
def session_machine(request: pytest.FixtureRequest) -> Machine:
    """A throwaway Docker host for the whole run."""
    return _of_scope(request)[0]


@pytest.fixture(scope="session")
def session_machine_factory(request: pytest.FixtureRequest) -> MachineFactory:
    """A function that takes the mark's arguments and makes a machine, gone at the end of the run."""
    return _factory(request)
