"""Lines for whoever watches the run: said by any of its processes, written by the one that has the terminal.

A worker of pytest-xdist has no terminal, and xdist carries only what it knows. So a worker leaves a file in the run's
directory, and the controller, which may be waiting for workers at that moment, looks there from a thread.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_machine.store import write
from pytest_machine.support import clock, files

if TYPE_CHECKING:
    from .keeper import Keeper

_PULSE = 0.25


class Notices:
    """Says lines while tests run; under ``-q`` it says none."""

    def __init__(self, config: pytest.Config, keeper: Keeper) -> None:
        self._config = config
        self._keeper = keeper
        self._over = threading.Event()
        self._listener: threading.Thread | None = None

    def say(self, line: str) -> None:
        """Say a line now."""
        if not self._keeper.worker:
            self._write(line)
            return
        place = self._keeper.directory / "notices"
        with contextlib.suppress(OSError):  # not worth a test's failure
            place.mkdir(mode=0o700, exist_ok=True)
            name = f"{clock.stamp()}-{secrets.token_hex(2)}.line"
            write(place / name, f"{self._keeper.worker}: {line}".encode(), durable=False)

    def listen(self) -> None:
        """Write what workers say from now on; again: nothing happens."""
        if self._listener is None:
            self._listener = threading.Thread(target=self._listen, name="machine-notices", daemon=True)
            self._listener.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Write what is left and stop."""
        self._over.set()
        if self._listener is not None:
            self._listener.join()

    def _listen(self) -> None:
        place = self._keeper.directory / "notices"
        while not self._over.wait(_PULSE):
            self._pass_on(place)
        self._pass_on(place)

    def _pass_on(self, place: Path) -> None:
        for path in sorted(place.glob("[!.]*.line")):
            with contextlib.suppress(*files.UNREADABLE):
                line = files.read_text(path)
                path.unlink()
                self._write(line)

    def _write(self, line: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or self._config.get_verbosity() < 0:
            return
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            reporter.ensure_newline()
            reporter.write_line(f"machine: {line}")
