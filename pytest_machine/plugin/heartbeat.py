"""A thread that looks after a run while the tests have all the others: is its reaper there, is it called off?

Two system calls every half second. A reaper that somebody killed is started again. A worker of pytest-xdist notices
that the run was called off, or that its controller is dead: both would leave it in its test for five seconds, and then
kill it in the middle of its teardown.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_machine.errors import MachineError

if TYPE_CHECKING:
    from pytest_machine.owner import Run

_EVERY = 0.5


class Heartbeat:
    """Beats from now until `stop`. `end` is called once when the run is over for this process; by itself it never is.

    With a `controller`, the owner's name of that process, the run is over when that is dead or has called it off.
    """

    def __init__(self, run: Run, *, controller: str = "", end: Callable[[], object] = lambda: None) -> None:
        self._run = run
        self._controller = controller
        self._end = end
        self._stopped = threading.Event()
        threading.Thread(target=self._beat, name="machine-heartbeat", daemon=True).start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()

    def _beat(self) -> None:
        from pytest_machine import owner, reaper

        while not self._stopped.wait(_EVERY):
            # A full disk, or a lock that somebody holds too long: next time, then.
            with contextlib.suppress(OSError, MachineError):
                if self._controller and (
                    self._run.called_off or not owner.alive(self._run.directory, self._controller)
                ):
                    self._end()
                    return
                reaper.tend(self._run.directory)


def interrupt_main(number: signal.Signals) -> None:
    """Let the main thread handle a signal now, also while it waits for something."""
    if hasattr(signal, "pthread_kill"):
        # Not `interrupt_main`: that is noticed only when the wait is over.
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(number)
