"""One line of status below pytest's output on a terminal, which vanishes without a trace."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest


class StatusLine:
    """Draws below the line that pytest is writing; what pytest writes meanwhile removes it first.

    There is none in a file or a pipe, on a terminal that cannot move its cursor, under ``-q`` and in a worker of
    pytest-xdist, whose controller owns the terminal.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lock = threading.RLock()
        self._descriptor: int | None = None
        self._column: int | None = None  # of pytest's cursor, while the line is shown
        self._guards = False

    def open(self) -> bool:
        """Find the terminal; return whether there is one. Idempotent."""
        with self._lock:
            if self._descriptor is None and (found := self._terminal()) is not None:
                self._descriptor = found
                if not self._guards:
                    self._guards = True
                    self._guard()
            return self._descriptor is not None

    def draw(self, text: str) -> None:
        """Show the text in place of the one before."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._descriptor is None:
                return
            if self._column is None:
                writer = self._config.get_terminal_writer()
                writer.flush()
                if (column := writer.width_of_current_line) < 0:  # pytest rewrites its line: the column is not known
                    return
                self._column = column
                os.write(self._descriptor, b"\n")
            os.write(self._descriptor, f"\r\x1b[K{text}".encode())

    def erase(self) -> None:
        """Remove the line, and put the cursor back to where pytest goes on. Idempotent."""
        with self._lock:
            if self._descriptor is None or self._column is None:
                return
            back = f"\x1b[{self._column}C" if self._column else ""
            self._column = None
            with contextlib.suppress(OSError):
                os.write(self._descriptor, f"\r\x1b[K\x1b[A{back}".encode())

    def close(self) -> None:
        """Remove the line for good."""
        with self._lock:
            self.erase()
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _guard(self) -> None:
        """Remove the line before whatever pytest writes."""
        writer = self._config.get_terminal_writer()
        for name in ("write", "write_raw"):
            setattr(writer, name, self._guarded(getattr(writer, name)))

    def _guarded(self, write: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(write)
        def guarded(*args: Any, **kwargs: Any) -> None:
            with self._lock:
                self.erase()
                write(*args, **kwargs)

        return guarded

    def _terminal(self) -> int | None:
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        capture = self._config.pluginmanager.getplugin("capturemanager")
        if reporter is None or hasattr(self._config, "workerinput") or self._config.get_verbosity() < 0:
            return None
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            try:
                if not reporter.isatty or os.environ.get("TERM") == "dumb":
                    return None
                return os.dup(1)
            except (OSError, AttributeError, ValueError):
                return None
