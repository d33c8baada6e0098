"""A live line while machines come up, for somebody who sits at a terminal: ``2 of 3 machines ready, 1.2 s``.

It stands below the line that pytest is writing and vanishes without a trace. Nobody else sees anything of it: not a
file or a pipe, not ``-q``, not a worker of pytest-xdist, whose controller owns the terminal.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest

from pytest_machine.support import clock

_EVERY = 0.1
# What is ready before anybody could read the line needs none.
_PATIENCE = 0.3


class Progress:
    """Writes to the terminal of this run, past the capture of output."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ready = 0
        self._lock = threading.Lock()

    def tick(self) -> None:
        """One more is ready."""
        with self._lock:
            self._ready += 1

    @contextlib.contextmanager
    def show(self, count: int) -> Iterator[None]:
        """Show the line while machines are made in this block."""
        self._ready = 0
        terminal = self._terminal()
        if terminal is None:
            yield
            return
        descriptor, column = terminal
        over = threading.Event()
        ticker = threading.Thread(target=self._write, args=(descriptor, column, count, over), daemon=True)
        ticker.start()
        try:
            yield
        finally:
            over.set()
            ticker.join()
            os.close(descriptor)

    def _write(self, descriptor: int, column: int, count: int, over: threading.Event) -> None:
        begun = clock.monotonic()
        if over.wait(_PATIENCE):
            return
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\n")
            while True:
                line = said(self._ready, count, clock.monotonic() - begun)
                os.write(descriptor, f"\r\x1b[K{line}".encode())
                if over.wait(_EVERY):
                    break
            # Back to the end of the line above, where pytest goes on.
            back = f"\x1b[{column}C" if column else ""
            os.write(descriptor, f"\r\x1b[K\x1b[A{back}".encode())

    def _terminal(self) -> tuple[int, int] | None:
        """Return a descriptor of the terminal and the column that pytest's cursor is in; None when nobody looks."""
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        capture = self._config.pluginmanager.getplugin("capturemanager")
        if reporter is None or hasattr(self._config, "workerinput") or self._config.get_verbosity() < 0:
            return None
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            try:
                if not reporter.isatty or os.environ.get("TERM") == "dumb":
                    return None
                reporter.flush()
                return os.dup(1), int(getattr(reporter, "_tw").width_of_current_line)  # noqa: B009  # it has no other way
            except (OSError, AttributeError, ValueError):
                return None


def said(ready: int, count: int, seconds: float) -> str:
    """Return the line."""
    machines = "machine" if count == 1 else "machines"
    return f"{ready} of {count} {machines} ready, {seconds:.1f} s"
