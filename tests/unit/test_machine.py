from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_machine import errors
from pytest_machine.drivers.runc import RuncDriver
from pytest_machine.errors import UsageError
from pytest_machine.machine import Machine
from pytest_machine.model import Record
from pytest_machine.plugins import Registry
from pytest_machine.store import Store


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "Nothing was said to wait for."),
        ({"container": "web"}, "Nothing was said to wait for."),
        ({"log": "ready"}, "'ready' can only be waited for in a container's log"),
        ({"log": "(", "container": "web"}, "'(' is no regular expression."),
        ({"http": "/health"}, "'/health' is no page that could be waited for."),
        ({"http": 8080}, "'8080' is no page that could be waited for."),
        ({"port": "80"}, "'80' is no port."),
    ],
)
def test_nonsense_is_not_waited_for(make_record: Callable[..., Record], asked: dict[str, Any], says: str) -> None:
    record = make_record()
    machine = Machine(record, driver=RuncDriver(), store=Store(record.store), registry=Registry())
    with pytest.raises(UsageError) as refused:
        machine.wait_for(**asked)
    assert str(refused.value).startswith(says)
    assert "hint: machine.wait_for(" in str(refused.value)


def test_the_errors_are_said_to_be_public() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()
    said = re.findall(r"^from pytest_machine\.errors import (.*)$", page, re.MULTILINE)
    named = {name.strip() for line in said for name in line.split(",")}
    assert {"CommandFailed", "WaitTimeout", "Unsupported", "UsageError"} <= named <= set(vars(errors))
