"""Hides our own frames in tracebacks of failed tests, and those of libraries in errors that come through ours.

pytest leaves out modules that have ``__tracebackhide__``. They have it while pytest makes the report, so nothing has to
be written in each function, and no function can be forgotten. ``--full-trace`` shows everything.
"""

from __future__ import annotations

import contextlib
import sys
import sysconfig
import traceback
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
    marked = [vars(module) for name, module in list(sys.modules.items()) if is_ours(name)]
    if any(_is_called(str(place.get("__name__"))) for place, _ in _frames(error)):
        libraries = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
        marked += [place for each in _chain(error) for place, file in _frames(each) if file.startswith(libraries)]
    marked = [place for place in marked if _KEY not in place]
    for place in marked:
        place[_KEY] = True
    try:
        yield
    finally:
        for place in marked:
            place.pop(_KEY, None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it."""
    seen: set[int] = set()
    last: BaseException | None = error
    while last is not None and id(last) not in seen:
        yield last
        seen.add(id(last))
        last = last.__cause__ or last.__context__


def _frames(error: BaseException) -> Iterator[tuple[dict[str, object], str]]:
    """Yield the module's namespace and the file of each frame of a traceback."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame.f_globals, frame.f_code.co_filename


def is_ours(module: str) -> bool:
    """Return whether a module is one of this package's, without its suites."""
    return _is(module, _PACKAGE) and not _is(module, _SHOWN)


def _is_called(module: str) -> bool:
    """Return whether a module is one that tests call: the hooks of the plugin are in each traceback."""
    return is_ours(module) and not _is(module, f"{_PACKAGE}.plugin")


def _has_machines(item: pytest.Item) -> bool:
    if concern(item):
        return True
    used = sys.modules.get(f"{__package__}.used")  # once a fixture has given a machine, asked for while a test ran
    return used is not None and bool(used.of(item))


def _is(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")
