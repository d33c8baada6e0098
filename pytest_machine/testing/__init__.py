"""For authors of drivers and of whatever stands on them: `DriverSuite`, `FakeDriver`, and oracles for what was left.

Each name is imported when it is asked for: a fake machine needs no pytest, nor does a reaper that destroys one.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bench import Specimen as Specimen
    from .fake import FakeDriver as FakeDriver
    from .host import census as census
    from .host import host_leftovers as host_leftovers
    from .suite import DriverSuite as DriverSuite

__all__ = ["DriverSuite", "FakeDriver", "Specimen", "census", "host_leftovers"]

_WHERE = {
    "DriverSuite": "suite",
    "FakeDriver": "fake",
    "Specimen": "bench",
    "census": "host",
    "host_leftovers": "host",
}
_ASSERTING = ("bench", "life", "abilities", "lab_tests", "suite")


if not TYPE_CHECKING:  # a type checker would take every name for one that there is

    def __getattr__(name: str) -> object:
        if name not in _WHERE:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        if _WHERE[name] in _ASSERTING and not any(f"{__name__}.{module}" in sys.modules for module in _ASSERTING):
            import pytest

            # So that a failed assertion of the suite shows its values, as one in a test file does.
            pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _ASSERTING))
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
