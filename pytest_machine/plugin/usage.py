"""Tells errors in how this package is used from everything else: no machine has to be looked at for one."""

from __future__ import annotations

import re
from types import ModuleType, TracebackType

import pytest

import pytest_machine
from pytest_machine.errors import UsageError

from .frames import is_ours

# Python's own words for a call that does not fit: Machine.run() got an unexpected keyword argument 'cwd'.
_CALL = re.compile(r"(?:(\w+)\.)?(\w+)\(\) (?:got|missing|takes) ")


def is_wrong(error: BaseException) -> bool:
    """Return whether an error is about a call, a name or an argument of this package that cannot be."""
    if isinstance(error, pytest.fail.Exception):  # a fixture's: what it was before pytest shows it without a traceback
        return isinstance(error.__context__, UsageError)
    if isinstance(error, ImportError):
        return is_ours(error.name or "")
    if isinstance(error, AttributeError):
        where = error.obj if isinstance(error.obj, ModuleType) else type(error.obj)
        return is_ours(str(getattr(where, "__module__", None) or getattr(where, "__name__", "")))
    if isinstance(error, TypeError):
        found = _CALL.match(str(error))
        public = found is not None and (found[1] or found[2]) in pytest_machine.__all__
        return public or is_ours(_module(error.__traceback__))
    return isinstance(error, UsageError)


def _module(traceback: TracebackType | None) -> str:
    """Return the name of the module in which an error was raised."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))
