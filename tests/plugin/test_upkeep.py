"""A test may end, stop or wreck what it shares: the next one has a working machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def play(run: Run, inner: pytest.Pytester) -> Run:
    """Run a test module as `run` does; what stays for later runs may stay."""

    def play(source: str, *args: str, **outcomes: int) -> pytest.RunResult:
        if 'reuse="runs"' not in source:
            return run(source, *args, **outcomes)
        inner.makepyfile(test_it=source)
        result = inner.runpytest_inprocess(*args)
        result.assert_outcomes(**outcomes)
        return result

    return play


HEAD = """
import pytest
from pytest_machine.machine import Machine
from pytest_machine.model import State

def outside(machine):
    return Machine.load(machine.name, store=machine._store, registry=machine._registry)

def well(machine):
    assert machine.state is State.RUNNING
    assert machine.docker.ping()
    assert machine.env

# The last one is left alone.
WAYS = {
    "destroyed": lambda machine: machine.destroy(),
    "stopped": lambda machine: machine.stop(),
    "gone behind our back": lambda machine: machine.driver.destroy(machine.record),
    "killed": lambda machine: machine.kill(),
    "destroyed by another shell": lambda machine: outside(machine).destroy(),
    "paused": lambda machine: machine.pause(),
    "stopped behind our back": lambda machine: machine.driver.stop(machine.record),
    "well": well,
}
ways = pytest.mark.parametrize("way", WAYS)
"""


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "with xdist"])
@pytest.mark.parametrize("scope", ["class", "module", "package", "session", "runs"])
def test_a_shared_machine(play: Run, scope: str, workers: tuple[str, ...]) -> None:
    """By `reuse=`: every test begins with a working one, with a reset and without."""
    play(
        HEAD
        + f"""
class TestIt:
    @pytest.mark.machine("web", reuse="{scope}")
    @ways
    def test_it(self, machine, lab, way):
        well(machine)
        assert lab.machines == [machine]
        WAYS[way](machine)

    @pytest.mark.machine("web", reuse="{scope}", reset=False)
    @ways
    def test_without_a_reset(self, machine, lab, way):
        well(machine)
        assert lab.machines == [machine]
        WAYS[way](machine)
""",
        *workers,
        passed=16,
    )


@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_a_machine_of_a_scope(play: Run, scope: str) -> None:
    """With the fixtures that prepare it: they are set up again exactly when the machine is another one."""
    play(
        HEAD
        + f"""
seeded = []

@pytest.fixture(scope="{scope}")
def web({scope}_machine, {scope}_lab):
    seeded.append({scope}_machine.id)
    yield {scope}_machine
    {scope}_machine.docker.ping()  # it cannot, on a machine that is gone

@pytest.mark.filterwarnings("default")
class TestIt:
    before = ""

    @ways
    def test_it(self, web, {scope}_lab, way):
        well(web)
        assert {scope}_lab.machines == [web]
        assert seeded[-1] == web.id
        again = TestIt.before.startswith(("destroyed", "gone"))
        if TestIt.before:
            assert (len(seeded) > TestIt.count) is again
        TestIt.before, TestIt.count = way, len(seeded)
        WAYS[way](web)

    def test_by_the_lab(self, web, {scope}_lab):
        {scope}_lab.remove(web)

    def test_unconcerned(self): ...

    def test_dynamic(self, request):
        well(request.getfixturevalue("{scope}_machine"))
""",
        passed=11,
    )


def test_what_a_fixture_made_by_the_factory(play: Run) -> None:
    play(
        HEAD
        + """
@pytest.fixture(scope="module")
def db(module_machine_factory):
    return module_machine_factory("db")

@pytest.fixture(scope="module")
def cache(module_machine_factory):
    return module_machine_factory("cache")

seen = set()

@ways
def test_it(db, cache, way):
    well(db)
    well(cache)
    seen.add(cache.id)
    assert len(seen) == 1, "it is no other one for its neighbour's sake"
    WAYS[way](db)
""",
        passed=8,
    )


def test_a_name_is_free_again(play: Run) -> None:
    play(
        HEAD
        + """
def test_it(machine, machine_factory, lab, module_machine_factory):
    machine.destroy()
    assert "machine" not in lab
    again = machine_factory("machine")
    assert lab["machine"] is again and again.id != machine.id
    well(again)
    outside(again).destroy()
    well(machine_factory("machine"))
    lab["machine"].driver.destroy(lab["machine"].record)
    well(machine_factory("machine"))
    one = module_machine_factory("one")
    one.destroy()
    well(module_machine_factory("one"))

def test_later(module_machine_factory):
    module_machine_factory("two")
""",
        passed=2,
    )


@pytest.mark.parametrize("first", ["fixture", "reuse"])
@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_a_scopes_fixture_and_reuse_are_two_machines(play: Run, scope: str, first: str) -> None:
    """In either order: what a fixture prepared stays, and what a test did is gone."""
    of_fixture = """
    def test_fixture_{0}(self, seeded):
        assert (seeded._store.path / "mark").exists()
        assert seeded.snapshots() == ["seeded"]
"""
    of_reuse = f"""
    @pytest.mark.machine(reuse="{scope}")
    def test_reuse_{{0}}(self, machine):
        ids.add(machine.id)
        assert len(ids) == 1
        assert not disk(machine).exists(), "it was reset, and no fixture has seeded it"
        disk(machine).touch()
"""
    parts = [of_fixture, of_reuse] if first == "fixture" else [of_reuse, of_fixture]
    play(
        HEAD
        + f"""
ids = set()

def disk(machine):
    return machine.driver.directory / "machines" / machine.id / "disk" / "mark"

@pytest.fixture(scope="{scope}")
def seeded({scope}_machine):
    disk({scope}_machine).touch()
    {scope}_machine.snapshot("seeded")
    ({scope}_machine._store.path / "mark").touch()
    return {scope}_machine

class TestIt:
"""
        + "".join(part.format(number) for number in (1, 2) for part in parts)
        + """
    def test_last(self, seeded):
        assert disk(seeded).exists()
        assert seeded.id not in ids
""",
        passed=5,
    )


@pytest.mark.parametrize("reuse", ["never", "class", "module", "package", "session", "runs"])
def test_a_third_machine_of_the_factory_is_in_the_lab(play: Run, reuse: str) -> None:
    play(
        HEAD
        + f"""
marks = [pytest.mark.machine("a", reuse="{reuse}"), pytest.mark.machine("b", reuse="{reuse}")]

class TestIt:
    pytestmark = marks

    def test_one(self, lab, machine_factory):
        c = machine_factory("c")
        assert lab["c"] is c
        assert {{m.name for m in lab}} == {{"a", "b", "c"}}
        well(c)
        with pytest.raises(pytest.fail.Exception, match="two machines called 'a'"):
            machine_factory("a")

    def test_factory_first(self, machine_factory, lab):
        assert len(lab) == 2, "what a test has added goes with it"
        well(machine_factory("c"))
        lab.create(lab["c"].record and __import__("pytest_machine.model").model.Spec(name="d", driver="fake"))

    def test_last(self, lab):
        assert len(lab) == 2
""",
        passed=3,
    )
