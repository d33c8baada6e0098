"""The answers of drivers are checked in one place: a wrong one is a sentence that names the driver, no traceback."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from pytest_machine import answers
from pytest_machine.errors import DriverError
from pytest_machine.model import Address, Isolation, Record, Seen, State, new_id
from pytest_machine.support import clock

PACKAGE = Path(answers.__file__).parent
CHECKED = [
    name
    for name, found in vars(answers).items()
    if inspect.isfunction(found) and found.__module__ == answers.__name__ and not name.startswith("_")
]
WRONG = {
    "None": None,
    "a number": 7,
    "a text": "text",
    "bytes": b"bytes",
    "an object": object(),
    "a list of None": [None],
    "a mapping to None": {"x": None},
    "a list of objects": [object()],
}


class Odd:
    """A driver that answers every question with one value."""

    name = "odd"

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def __getattr__(self, name: str) -> Any:
        answer = self.__dict__["_answer"]
        return answer if name == "isolation" else lambda *_, **__: answer


def record() -> Record:
    return Record(
        id=new_id(), name="web", driver="odd", options={}, store=Path("store"), host="here", created=clock.now()
    )


def ask(name: str, driver: Odd) -> object:
    """Call the function of one question, with a record, and anything for its other arguments."""
    parameters = list(inspect.signature(getattr(answers, name)).parameters)[1:]
    values = {"record": record(), "records": [record()]}
    return getattr(answers, name)(driver, *(values.get(each, "x") for each in parameters))


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", [each for each in CHECKED if each != "look"])
def test_a_wrong_answer_names_the_driver(name: str, wrong: str) -> None:
    """Where a text or a number is what the contract says, it is returned."""
    driver = Odd(WRONG[wrong])
    kind = inspect.signature(getattr(answers, name)).return_annotation
    if (kind, wrong) in {("str", "a text"), ("int", "a number")}:
        assert ask(name, driver) == WRONG[wrong]
        return
    with pytest.raises(DriverError, match=r"The driver 'odd' returned .* from ") as error:
        ask(name, driver)
    assert {"seen": "look"}.get(name, name) in error.value.message
    assert not error.value.transient


@pytest.mark.parametrize("wrong", ["None", "a number", "a text", "a list of None"])
def test_a_look_that_is_no_mapping(wrong: str) -> None:
    with pytest.raises(DriverError, match=r"The driver 'odd' returned .* from look\(\), and not a mapping"):
        ask("look", Odd(WRONG[wrong]))


@pytest.mark.parametrize(
    "seen",
    [
        Seen(state="running"),  # type: ignore[arg-type]
        Seen(state=State.RUNNING, address="10.0.0.1"),  # type: ignore[arg-type]
        Seen(state=State.RUNNING, networks=None),  # type: ignore[arg-type]
        Seen(state=State.RUNNING, networks={"front": 1}),  # type: ignore[dict-item]
    ],
    ids=["state", "address", "networks", "an address on a network"],
)
def test_a_wrong_part_of_what_is_seen(seen: Seen) -> None:
    one = record()
    driver: Any = Odd({one.id: seen})
    with pytest.raises(DriverError, match="'odd'"):
        answers.seen(driver, one)


def test_one_wrong_answer_hides_no_other() -> None:
    one, other = record(), record()
    whole = Seen(state=State.RUNNING, address=Address(ip="10.0.0.1"))
    driver: Any = Odd({one.id: None, other.id: whole})
    found = answers.look(driver, [one, other])
    assert found[one.id].state is State.ERROR
    assert found[other.id] == whole


def test_right_answers_pass() -> None:
    driver: Any = Odd(Isolation.PRIVILEGED)
    assert answers.isolation(driver) is Isolation.PRIVILEGED
    empty: Any = Odd({})
    assert answers.look(empty, []) == {}
    nothing: Any = Odd([])
    assert answers.find(nothing) == ()


def test_the_core_asks_drivers_here_only() -> None:
    """Each call of a driver whose answer is read, in all modules outside of drivers and their tests."""
    methods = set(CHECKED) - {"seen"}
    found = []
    for path in PACKAGE.rglob("*.py"):
        if (
            path.is_relative_to(PACKAGE / "drivers")
            or path.is_relative_to(PACKAGE / "testing")
            or path.stem == "answers"
        ):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in methods:
                owner = ast.unparse(node.value)
                if owner == "driver" or owner.endswith((".driver", "_driver")):
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}")
    assert not found
