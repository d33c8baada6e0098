"""What a lab looked like when its test failed: in the report, among the files, on the page; on fake machines."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from .conftest import Run

LAB = """
import pytest
from pytest_machine import Kill, Pause

pytestmark = [pytest.mark.machine("web"), pytest.mark.machine("db")]
"""
WARN = ("-W", "always::pytest.PytestWarning")
SECTION = "*- lab when the test failed -*"


@pytest.fixture(autouse=True)
def _here(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inner.path)


def texts(file: Path) -> list[str]:
    picture = ET.fromstring(file.read_text("utf-8"))
    return [str(element.text) for element in picture.iter("{http://www.w3.org/2000/svg}text")]


def figures(page: str) -> list[str]:
    return re.findall(r"<figure>.*?</figure>", Path(page).read_text("utf-8"), re.DOTALL)


def test_what_was_in_force_when_it_failed(run: Run) -> None:
    """Though the end of the block has healed it before anybody looks."""
    source = """
def test_split(lab):
    with lab.inject(Pause("db")), lab.inject(Kill("web")):
        assert not "this"
"""
    result = run(LAB + source, "--machine-artifacts=art", "--machine-timeline=page.html", failed=1)
    file = Path("art/test_it.py/test_split/lab.svg").absolute()
    result.stdout.fnmatch_lines(
        [
            SECTION,
            "web: stopped",
            "db: paused",
            "in force: Pause(machines=('db',))",
            "in force: Kill(machines=('web',))",
            "fake's own: web 127.0.0.1, db 127.0.0.1",
            f"drawing: {file}",
        ]
    )
    said = texts(file)
    assert said[0] == "test_it.py::test_split"
    assert {"web", "db", "fake's own", "paused", "stopped"} <= set(said)
    (figure,) = figures("page.html")
    assert "as it was then" in figure
    assert ">paused</text>" in figure


def test_what_the_test_itself_left_is_drawn_too(run: Run) -> None:
    source = """
def test_leaves(lab):
    lab.inject(Pause("db"))
    assert not "this"

@pytest.fixture
def broken(lab):
    with lab.inject(Kill("web")):
        raise RuntimeError("not today")

def test_fixture(broken): ...
"""
    result = run(LAB + source, *WARN, failed=1, errors=1, warnings=1)
    result.stdout.fnmatch_lines([SECTION, "web: stopped", SECTION, "db: paused"])
    result.stdout.no_fnmatch_line("drawing: *")


def test_what_was_over_by_then_is_not(run: Run) -> None:
    source = """
def test_later(lab):
    with pytest.raises(ValueError), lab.inject(Pause("db")):
        raise ValueError
    assert not "this"
"""
    result = run(LAB + source, failed=1)
    result.stdout.no_fnmatch_line(SECTION)
    result.stdout.no_fnmatch_line("db: paused")


def test_the_cause_of_an_error_counts(run: Run) -> None:
    source = """
def test_raises(lab):
    try:
        with lab.inject(Pause("db")):
            raise ValueError
    except ValueError as error:
        raise RuntimeError("that was it") from error
"""
    run(LAB + source, failed=1).stdout.fnmatch_lines([SECTION, "db: paused"])


def test_of_one_machine_there_is_nothing_to_draw(run: Run) -> None:
    source = "def test_it(machine): assert 0"
    result = run(source, "--machine-artifacts=art", "--machine-timeline=page.html", failed=1)
    result.stdout.no_fnmatch_line("*lab when the test failed*")
    assert not list(Path("art").rglob("*.svg"))
    assert figures("page.html") == []


def test_labs_of_passing_tests_are_on_the_page_once(run: Run) -> None:
    source = """
@pytest.mark.machine(reuse="module")
@pytest.mark.parametrize("x", range(3))
def test_shared(lab, x): ...

def test_like_it(lab): ...

@pytest.mark.machine("third")
def test_another(lab, tmp_path):
    path = lab.draw(tmp_path / "new" / "lab.svg", title="as it is")
    assert path == tmp_path / "new" / "lab.svg"
    assert "as it is" in path.read_text("utf-8")
    with lab.inject(Pause("third")):
        assert ">paused<" in lab.draw(str(path)).read_text("utf-8")
"""
    run(LAB + source, "--machine-timeline=page.html", passed=5)
    first, second = figures("page.html")
    assert first.count("<code>") == 2
    assert "test_shared[0]" in first
    assert "test_like_it" in first
    assert "test_another" in second


def test_machines_whose_packets_cannot_be_captured(run: Run) -> None:
    source = "\ndef test_fails(lab): assert 0\n\ndef test_passes(lab): ...\n"
    result = run(LAB + source, "--machine-pcap=failed", failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*- machine 'web': packets -*",
            "none were captured: SSH to 'root@127.0.0.1' failed.",
            "*- machine 'db': packets -*",
            "no packets of 'web': SSH to 'root@127.0.0.1' failed.",
        ]
    )


def test_a_wrong_word_for_when(inner: pytest.Pytester) -> None:
    inner.makepyfile("def test_it(machine): ...")
    result = inner.runpytest_inprocess("--machine-pcap=sometimes")
    result.stderr.fnmatch_lines(
        ["*'--machine-pcap' cannot be 'sometimes': it takes one of 'never', 'failed', 'always'.*"]
    )
