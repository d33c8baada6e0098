"""What third parties may add, by pluggy.

Anyone can: a package by an entry point in the group ``pytest_machine``, a test suite in its ``conftest.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:  # pytest reads this in every run of everybody
    from .driver import Driver
    from .provisioner import Provisioner

PROJECT = "pytest_machine"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def pytest_machine_drivers() -> Iterable[type[Driver]]:
    """Return driver classes: frozen dataclasses with the five methods of `pytest_machine.driver.Driver`.

    A class whose ``name`` is a built-in driver's takes its place.
    """
    return ()


@hookspec
def pytest_machine_provisioners() -> Iterable[type[Provisioner]]:
    """Return provisioner classes, made without arguments: see `pytest_machine.provisioner.Provisioner`.

    A class whose ``name`` is a built-in provisioner's (``hostname``, ``certificates``, ``engine``, ``daemon``) takes
    its place; any other acts after these.
    """
    return ()
