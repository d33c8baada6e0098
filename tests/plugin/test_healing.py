"""A test that leaves a fault behind is healed, and told so; whatever happened in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run

FAULT = """
import pathlib, pytest
from pytest_machine import Kill, Pause

LOG = pathlib.Path("log")

class Broken:
    def __init__(self, name="it", fails=False):
        self.name, self.fails = name, fails
    def __repr__(self):
        return f"Broken({self.name!r})"
    def inject(self, field):
        self.note("broke")
    def heal(self, field):
        self.note("healed")
        if self.fails:
            raise OSError(f"{self.name} cannot be healed")
    def note(self, what):
        with LOG.open("a") as log:
            print(what, self.name, file=log)

def log():
    return LOG.read_text().splitlines() if LOG.exists() else []
"""
# An inner run of this process would take them for errors, as the outer one does.
WARN = ("-W", "always::pytest.PytestWarning")


@pytest.fixture(autouse=True)
def _here(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inner.path)


def test_what_is_healed_in_order_is_no_matter(run: Run) -> None:
    result = run(
        FAULT
        + """
def test_block(lab):
    with lab.inject(Broken()) as injection:
        assert injection.active and lab.faults == [injection]
    assert not injection.active and lab.faults == []
    assert log() == ["broke it", "healed it"]

def test_kind(lab):
    with lab.inject(Broken):
        pass

def test_by_hand(lab):
    first, second = lab.inject(Broken("1")), lab.inject(Broken("2"))
    first.heal()
    first.heal()
    assert lab.faults == [second]
    lab.heal()
    lab.heal()
    assert log()[-4:] == ["broke 1", "broke 2", "healed 1", "healed 2"]
""",
        passed=3,
    )
    result.stdout.no_fnmatch_line("*left behind*")


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        ("pass", {"passed": 2}),
        ("assert not 'this'", {"failed": 1, "passed": 1}),
        ("raise SystemExit(1)", {"failed": 1, "passed": 1}),
        ("pytest.skip('no more')", {"skipped": 1, "passed": 1}),
    ],
)
def test_what_a_test_leaves_is_healed_before_the_next(run: Run, end: str, outcome: dict[str, int]) -> None:
    source = f"""
@pytest.mark.machine(reuse="module", reset=False)
def test_leaves(lab):
    lab.inject(Broken("1"))
    lab.inject(Pause("machine"))
    {end}

@pytest.mark.machine(reuse="module", reset=False)
def test_next(lab):
    assert lab.faults == []
    assert log() == ["broke 1", "healed 1"]
    assert lab[0].state == "running"
"""
    result = run(FAULT + source, *WARN, **outcome, warnings=1)
    result.stdout.fnmatch_lines(
        ["*PytestWarning: test_it.py::test_leaves left behind*, which were healed: Broken('1'), Pause(*"]
    )


def test_what_fixtures_leave(run: Run) -> None:
    """One of the test is healed after its own end; one of a wider scope is in force for as long as that lasts."""
    source = """
@pytest.fixture(scope="module")
def wide(module_lab):
    with module_lab.inject(Broken("wide")):
        yield

@pytest.fixture
def careful(module_lab):
    with module_lab.inject(Broken("careful")):
        yield
        assert log()[-1] == "broke careful"

@pytest.fixture
def careless(lab):
    lab.inject(Broken("careless"))

def test_1(wide, careful, module_lab):
    assert [each.fault.name for each in module_lab.faults] == ["wide", "careful"]

def test_2(wide, module_lab):
    assert [each.fault.name for each in module_lab.faults] == ["wide"]

def test_3(lab, careless):
    assert log()[-1] == "broke careless"

def test_4():
    assert log()[-1] == "healed careless"
"""
    result = run(FAULT + source, *WARN, passed=4, warnings=1)
    result.stdout.fnmatch_lines(["*PytestWarning: *test_3 left behind what it had injected, which was healed: *"])
    assert Path("log").read_text().splitlines()[-1] == "healed wide"


def test_where_warnings_are_errors_it_is_one(run: Run) -> None:
    source = "\ndef test_leaves(lab):\n    lab.inject(Broken)\n"
    result = run(FAULT + source, "-W", "error", failed=1)
    result.stdout.fnmatch_lines(["*PytestWarning: *left behind*"])
    assert Path("log").read_text().splitlines() == ["broke it", "healed it"]


def test_what_cannot_be_healed_is_an_error(run: Run) -> None:
    source = """
def test_passes(lab):
    lab.inject(Broken("a", fails=True))

def test_fails(lab):
    lab.inject(Broken("b", fails=True))
    assert not "this"
"""
    result = run(FAULT + source, *WARN, failed=2, warnings=2)
    result.stdout.fnmatch_lines(
        ["*OSError: a cannot be healed", "*Besides: b cannot be healed", "*could not be healed*"]
    )


def test_what_is_not_injected_whole_is_healed_at_once(run: Run) -> None:
    source = """
class Half(Broken):
    def inject(self, field):
        super().inject(field)
        raise RuntimeError("no")

def test_half(lab):
    with pytest.raises(RuntimeError):
        lab.inject(Half("half"))
    assert lab.faults == [] and log() == ["broke half", "healed half"]
"""
    run(FAULT + source)


@pytest.mark.parametrize("given", ["'Partition'", "None", "object()", "dict"])
def test_what_is_no_fault(run: Run, given: str) -> None:
    source = f"""
from pytest_machine.errors import BadSpec
def test_it(lab):
    with pytest.raises(BadSpec, match="is no fault"):
        lab.inject({given})
    assert lab.faults == []
"""
    run(FAULT + source)


def test_wrong_schedules_are_said_before_the_block_begins(run: Run) -> None:
    source = """
from pytest_machine.errors import BadSpec, UnknownMachine
def test_it(lab):
    for wrong in ({"every": 0}, {"stacked": 0}, {"faults": Kill}, {"faults": [dict]}, {"seed": "x"}):
        with pytest.raises(BadSpec):
            lab.disturb(**{"faults": [Pause], **wrong})
    with pytest.raises(UnknownMachine):
        lab.disturb(faults=[Kill("zz")])
"""
    run(FAULT + source)


def test_a_schedule_that_is_left_going_ends_with_its_test(run: Run) -> None:
    source = """
import time

@pytest.mark.machine(reuse="module", reset=False)
def test_leaves(lab):
    lab.disturb(seed=7, faults=[Broken("1")], every=0.05).__enter__()
    while not log():
        time.sleep(0.01)

@pytest.mark.machine(reuse="module", reset=False)
def test_next(lab):
    assert lab.disturbances == [] and lab.faults == []
    before = log()
    time.sleep(0.3)
    assert log() == before and before.count("broke 1") == before.count("healed 1")
"""
    result = run(FAULT + source, *WARN, passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*PytestWarning: test_it.py::test_leaves left a schedule of faults going*seed 7*"])


def test_a_schedule_of_a_wider_fixture_goes_on(run: Run) -> None:
    source = """
import time

@pytest.fixture(scope="module")
def wild(module_lab):
    with module_lab.disturb(seed=7, faults=[Broken("1")], every=0.05):
        yield module_lab

@pytest.mark.parametrize("turn", range(2))
def test_it(wild, turn):
    assert wild.disturbances
    before = len(log())
    while len(log()) < before + 2:
        time.sleep(0.01)
"""
    run(FAULT + source, passed=2)


def test_shared_by_workers(inner: pytest.Pytester) -> None:
    """Machines that several processes have in turn are healed before the next has them."""
    inner.makepyfile(
        test_it=FAULT
        + """
@pytest.mark.parametrize("x", range(6))
@pytest.mark.machine(reuse="session", reset=False)
def test_leaves(lab, x):
    assert lab[0].state == "running"
    lab.inject(Pause("machine"))
"""
    )
    result = inner.runpytest_subprocess("-n2", "-p", "xdist")
    result.assert_outcomes(passed=6, warnings=6)


def test_faults_are_on_the_page(run: Run) -> None:
    run(FAULT + "\ndef test_it(lab):\n    with lab.inject(Pause): pass\n", "--machine-timeline=page.html")
    page = Path("page.html").read_text("utf-8")
    assert 'class="bar fault"' in page
    assert "Pause(): in force for" in page
