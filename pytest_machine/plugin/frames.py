"""Hides our own frames in tracebacks of failed tests: pytest leaves out modules that have ``__tracebackhide__``.

The modules are marked while pytest makes the report, so nothing has to be written in each function, and no function can
be forgotten. ``--full-trace`` shows everything.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

from .fixtures import concern

_PACKAGE = __name__.partition(".")[0]
_SHOWN = f"{_PACKAGE}.testing"
"""The suites for drivers: their tests are what failed."""
_KEY = "__tracebackhide__"


@contextlib.contextmanager
def hidden(item: pytest.Item, error: BaseException) -> Iterator[None]:
    """Hide frames of this package for a while, if a test has to do with machines and its error has a traceback."""
    if not _has_machines(item) or (isinstance(error, pytest.fail.Exception) and not error.pytrace):
        yield
        return
    marked = []
    for name, module in list(sys.modules.items()):
        if is_ours(name) and _KEY not in vars(module):
            vars(module)[_KEY] = True
            marked.append(module)
    try:
        yield
    finally:
        for module in marked:
            vars(module).pop(_KEY, None)


def is_ours(module: str) -> bool:
    """Return whether a module is one of this package's, without its suites."""
    return _is(module, _PACKAGE) and not _is(module, _SHOWN)


def _has_machines(item: pytest.Item) -> bool:
    if concern(item):
        return True
    used = sys.modules.get(f"{__package__}.used")  # once a fixture has given a machine, asked for while a test ran
    return used is not None and bool(used.of(item))


def _is(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")
