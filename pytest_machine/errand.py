"""Errand: a call in a thread of its own, which whoever sent it may walk away from.

A driver's call cannot be interrupted, and may hang for as long as its provider likes. So the caller waits beside it: at
a deadline, or at Ctrl-C, it leaves, and what the call brings home later goes to somebody who clears it away. The
threads are daemons: none keeps a process from ending, as those of `concurrent.futures` do.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from .support import clock

T = TypeVar("T")


def _nothing(_: object) -> None:
    pass


class Errand(Generic[T]):
    """Runs `work` at once. `late` gets what it returned if by then nobody waits for it any more.

    With a `turn`, it waits for that first: a semaphore says how many are at work at once.
    """

    def __init__(
        self,
        work: Callable[[], T],
        *,
        late: Callable[[T], object] = _nothing,
        turn: threading.Semaphore | None = None,
        name: str = "machine",
    ) -> None:
        self._work = work
        self._late = late
        self._turn = turn or contextlib.nullcontext()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._left = False
        self._value: T
        self._error: BaseException | None = None
        threading.Thread(target=self._go, name=name, daemon=True).start()

    def _go(self) -> None:
        try:
            with self._turn:
                value = self._work()
        except BaseException as error:  # noqa: BLE001  # raised by `result`, where somebody waits for it
            self._error = error
        else:
            self._value = value
            with self._lock:
                left = self._left
                if not left:
                    self._ended.set()
            if left:
                # Nobody is there to be told; what it could not clear away is still in a store.
                with contextlib.suppress(Exception):
                    self._late(value)
        self._ended.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the call has ended, and what came late is cleared away; return whether it has."""
        return self._ended.wait(timeout)

    def result(self) -> T:
        """Return what the call returned, or raise what it raised; waits for it."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._value

    def leave(self) -> bool:
        """Walk away: what it still brings goes to `late`. Return whether it was still on its way."""
        with self._lock:
            self._left = not self._ended.is_set()
            return self._left


def wait_all(errands: Iterable[Errand[Any]], timeout: float) -> bool:
    """Wait until all have ended, `timeout` seconds at most; return whether they have."""
    deadline = clock.monotonic() + timeout
    return all(errand.wait(max(0.0, deadline - clock.monotonic())) for errand in errands)
