"""Time by clocks that tests do not fake: for waits, ages, certificates, and whatever is written down.

freezegun replaces `time.time` and `time.monotonic` wherever a module holds them, and a frozen clock never reaches a
deadline. time-machine changes `time.time` itself, and the clock CLOCK_REALTIME. Neither touches the clocks used here.
Ruff refuses the other functions elsewhere.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
import time
from collections.abc import Iterator
from datetime import UTC

# In a container, because freezegun replaces what is an attribute of a module.
_MONOTONIC, _TIME, _SLEEP = [time.monotonic], [time.time], [time.sleep]
# The class of Python's own, also if this is imported while freezegun's is in its place.
_DATETIME = [next(kind for kind in reversed(dt.datetime.mro()) if issubclass(kind, dt.datetime))]
# Linux's CLOCK_REALTIME_COARSE, which has no name in Python: right to some milliseconds.
_COARSE = 5


if sys.platform == "win32":

    def monotonic() -> float:
        """Return seconds that only ever grow, for durations and deadlines."""
        return _MONOTONIC[0]()

else:

    def monotonic() -> float:
        """Return seconds that only ever grow, for durations and deadlines."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)


if sys.platform == "linux":

    def now() -> float:
        """Return the Unix time."""
        return time.clock_gettime(_COARSE)

else:

    def now() -> float:
        """Return the Unix time."""
        machine = sys.modules.get("time_machine")
        return float(machine.escape_hatch.time.time()) if machine else _TIME[0]()


def stamp() -> str:
    """Return digits that sort by time, among all processes of this computer since it was booted."""
    return f"{int(monotonic() * 1e9):020}"


def utc() -> dt.datetime:
    """Return the current time in UTC."""
    return _DATETIME[0].fromtimestamp(now(), UTC)


@contextlib.contextmanager
def real_datetime() -> Iterator[None]:
    """Let `datetime.datetime` be Python's own for a block, for a library that looks it up there and keeps it."""
    faked = dt.datetime
    dt.datetime = _DATETIME[0]  # type: ignore[misc]
    try:
        yield
    finally:
        dt.datetime = faked  # type: ignore[misc]


def sleep(seconds: float) -> None:
    """Do nothing for so many seconds."""
    _SLEEP[0](seconds)
