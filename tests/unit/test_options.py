from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_machine.errors import BadSpec
from pytest_machine.model import Value
from pytest_machine.options import configure, from_environment, option, options, size


def port(value: Value) -> int:
    found = int(str(value))
    if not 0 < found < 65536:
        raise ValueError("a port is 1 to 65535")
    return found


@dataclass(frozen=True, kw_only=True)
class Fake:
    name: ClassVar[str] = "fake-er"
    memory: int | None = option(None, kind=size, help="memory limit")
    cpus: float = option(1.0, help="processors")
    count: int = option(1, help="how many")
    nested: bool = option(False, help="nest")
    image: str = option("bookworm", help="image", env="FAKE_PICTURE", flag="--picture")
    path: Path = option(Path, help="where")  # noqa: RUF009  # it returns a dataclass's field
    labels: tuple[str, ...] = option((), help="labels")
    port: int = option(22, kind=port, help="port")
    token: str = option("", help="token", secret=True)
    made: str = option(lambda: "fresh", help="made anew")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512m", 512 << 20),
        ("4g", 4 << 30),
        ("4G", 4 << 30),
        ("1.5GiB", 3 << 29),
        ("2kb", 2048),
        ("7", 7),
        (7, 7),
        ("1t", 1 << 40),
        (" 1 m ", 1 << 20),
    ],
)
def test_sizes(text: Value, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-1", "0", 0, -1, True, None, 1.5, "1x", "1 2", "0.1", ("1",), "1e3"])
def test_no_sizes(text: Value) -> None:
    with pytest.raises(ValueError, match="512m"):
        size(text)


@given(st.integers(1, 1 << 60))
def test_a_number_of_bytes_is_itself(number: int) -> None:
    assert size(number) == number
    assert size(str(number)) == pytest.approx(number, rel=1e-15)


@pytest.mark.parametrize(
    ("given", "field", "expected"),
    [
        ({"memory": "1k"}, "memory", 1024),
        ({"memory": None}, "memory", None),
        ({"cpus": "0.5"}, "cpus", 0.5),
        ({"cpus": 2}, "cpus", 2.0),
        ({"count": "3"}, "count", 3),
        ({"nested": "yes"}, "nested", True),
        ({"nested": "F"}, "nested", False),
        ({"nested": True}, "nested", True),
        ({"image": "sid"}, "image", "sid"),
        ({"path": "/a/b"}, "path", Path("/a/b")),
        ({"labels": "a, b,,c"}, "labels", ("a", "b", "c")),
        ({"labels": ["a", "b"]}, "labels", ("a", "b")),
        ({"port": "80"}, "port", 80),
        ({}, "made", "fresh"),
    ],
)
def test_values_are_read(given: dict[str, Value], field: str, expected: object) -> None:
    found = getattr(configure(Fake, given), field)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "given",
    [
        {"memory": "much"},
        {"cpus": "many"},
        {"cpus": True},
        {"count": "1.5"},
        {"nested": "perhaps"},
        {"nested": 1},
        {"nested": None},
        {"image": 3},
        {"labels": 3},
        {"port": "70000"},
    ],
)
def test_values_are_refused(given: dict[str, Value]) -> None:
    (key,) = given
    with pytest.raises(BadSpec, match=f"The option '{key}' of the driver 'fake-er' cannot be") as caught:
        configure(Fake, given)
    assert caught.value.facts["reason"]


def test_an_unknown_option_is_answered_with_the_next_best() -> None:
    with pytest.raises(BadSpec, match="did you mean 'memory'"):
        configure(Fake, {"memroy": "1g"})
    with pytest.raises(BadSpec, match="take it out"):
        configure(Fake, {"zzz": 1})


def test_a_secret_is_never_shown() -> None:
    with pytest.raises(BadSpec) as caught:
        configure(Fake, {"token": 4711})
    assert "4711" not in str(caught.value)
    assert "hunter2" not in repr(configure(Fake, {"token": "hunter2"}))


def test_names_in_the_environment_and_on_the_command_line() -> None:
    found = options(Fake)
    assert list(found)[:3] == ["memory", "cpus", "count"]
    assert (found["memory"].env, found["memory"].flag) == ("FAKE_ER_MEMORY", "--fake-er-memory")
    assert (found["image"].env, found["image"].flag) == ("FAKE_PICTURE", "--picture")
    assert found["made"].default == "fresh"
    assert found["token"].secret
    assert not found["image"].secret


def test_the_environment_is_read() -> None:
    environ = {"FAKE_ER_CPUS": "2", "FAKE_PICTURE": "sid", "FAKE_ER_COUNT": "", "FAKE_ER_ZZZ": "1"}
    assert from_environment(Fake, environ) == {"cpus": "2", "image": "sid"}
