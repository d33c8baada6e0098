"""Capabilities are told by their methods, so that an option of a driver must not have the name of one."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from pytest_machine import driver
from pytest_machine.plugins import Registry

PROTOCOLS = [found for name, found in vars(driver).items() if name.startswith("Supports") and inspect.isclass(found)]


@pytest.mark.parametrize("name", Registry().names())
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.__name__)
def test_no_option_is_taken_for_a_capability(protocol: type, name: str) -> None:
    methods = {each for each in vars(protocol) if not each.startswith("_")}
    assert not methods & {each.name for each in fields(Registry().driver(name))}  # type: ignore[arg-type]
