"""Throwaway Docker hosts for tests.

The public names, each imported when it is first used: pytest loads this package in every run of everybody who has it
installed, and a run without machines should not pay for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .driver import Driver as Driver
    from .errors import MachineError as MachineError
    from .hookspecs import hookimpl as hookimpl
    from .lab import Lab as Lab
    from .machine import Machine as Machine
    from .model import Record as Record
    from .model import Result as Result
    from .model import Seed as Seed
    from .model import Seen as Seen
    from .model import Spec as Spec
    from .model import State as State
    from .options import option as option
    from .plugin.machines import MachineFactory as MachineFactory
    from .plugin.machines import Machines as Machines
    from .plugins import Registry as Registry

_HOMES = {
    "Driver": "driver",
    "Lab": "lab",
    "Machine": "machine",
    "MachineError": "errors",
    "MachineFactory": "plugin.machines",
    "Machines": "plugin.machines",
    "Record": "model",
    "Registry": "plugins",
    "Result": "model",
    "Seed": "model",
    "Seen": "model",
    "Spec": "model",
    "State": "model",
    "hookimpl": "hookspecs",
    "option": "options",
}

__all__ = [
    "Driver",
    "Lab",
    "Machine",
    "MachineError",
    "MachineFactory",
    "Machines",
    "Record",
    "Registry",
    "Result",
    "Seed",
    "Seen",
    "Spec",
    "State",
    "hookimpl",
    "option",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    found: object = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
