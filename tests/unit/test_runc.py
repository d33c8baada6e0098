"""The driver `runc` as an object: which options it takes, and that it can be made when the world has moved on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import BadSpec, UsageError
from pytest_machine.model import Value
from pytest_machine.options import configure


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("address", "front", "4 octets"),
        ("address", 5, "4 octets"),
        ("subnet", "front", "4 octets"),
        ("subnet", "10.99.0.1/24", "host bits"),
        ("subnet", "10.99.0.0/30", "no room"),
        ("memory", "1m", "in less than '32m'"),
        ("memory", "much", "a number with a unit"),
        ("disk", 3, "'16m' at least"),
        ("cpus", 0.001, "0.01 is the least"),
        ("cpus", "many", "could not convert"),
        ("cpus", float("inf"), "a number of cores"),
        ("cpus", True, "a number of cores"),
        ("pids", float("inf"), "infinity"),
    ],
)
def test_options_that_cannot_be(option: str, value: Value, reason: str) -> None:
    with pytest.raises(BadSpec, match=f"The option '{option}' of the driver 'runc' cannot be") as refused:
        configure(RuncDriver, {option: value})
    assert reason in str(refused.value)
    assert "hint: " in str(refused.value)


def test_options_that_can_be() -> None:
    made = configure(
        RuncDriver, {"subnet": "10.99.0.0/24", "address": "10.99.0.9", "memory": "32m", "disk": "16m", "cpus": "0.5"}
    )
    assert (made.subnet, made.address) == ("10.99.0.0/24", "10.99.0.9")
    assert (made.memory, made.disk, made.cpus) == (32 << 20, 16 << 20, 0.5)


def test_it_is_made_to_destroy_a_machine_whose_engine_is_gone(tmp_path: Path) -> None:
    """Only who makes another such machine is told."""
    build = tmp_path / "docker-27.5.1.tgz"
    build.touch()
    assert configure(RuncDriver, {"engine": str(build)}).image == "trixie"
    build.unlink()
    for options, refusal in (
        ({"engine": str(build)}, "There is no static build of Docker"),
        ({"engine": "1.2.3"}, "There is no machine image with Docker '1.2.3'"),
        ({"image": "bookworm", "engine": "28.5"}, "The image 'bookworm' has no Docker '28.5'"),
        ({"image": "potato"}, "There is no machine image 'potato'"),
    ):
        made = configure(RuncDriver, options)
        with pytest.raises(UsageError, match=refusal):
            made.check()
