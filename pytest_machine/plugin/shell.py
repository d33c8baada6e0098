"""``--machine-shell=failed``: a shell in the machine at the moment at which a test fails, like ``--pdb`` for Python."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, cast

import pytest

from pytest_machine.ssh import LOST

from . import used

if TYPE_CHECKING:
    from _pytest.capture import CaptureManager

_OPTION = "--machine-shell=failed"


class Shell:
    """Hands the terminal over to the failed test's first machine, and takes it back."""

    def __init__(self, config: pytest.Config) -> None:
        """Raises `pytest.UsageError` where there is no terminal to hand over."""
        self._capture = cast("CaptureManager | None", config.pluginmanager.getplugin("capturemanager"))
        if hasattr(config, "workerinput") or config.getoption("numprocesses", None):
            raise pytest.UsageError(
                f"{_OPTION} needs the terminal, which the workers of pytest-xdist do not have.\n"
                f"hint: pytest -n0 {_OPTION}"
            )
        if not self._is_terminal():
            raise pytest.UsageError(
                f"{_OPTION} needs a terminal to type in, and the standard input is none.\n"
                "hint: run it in a terminal, or keep the machine and log in later: --machine-keep=failed"
            )

    def _is_terminal(self) -> bool:
        if self._capture:
            self._capture.suspend(in_=True)
        try:
            return os.isatty(0) and os.isatty(1)
        finally:
            if self._capture:
                self._capture.resume()

    def pytest_exception_interact(
        self, node: pytest.Item | pytest.Collector, report: pytest.CollectReport | pytest.TestReport
    ) -> None:
        """Open a shell for a test that failed and has a machine."""
        if not isinstance(node, pytest.Item) or not (uses := used.of(node)):
            return
        machine = uses[0].machine
        if self._capture:
            self._capture.suspend(in_=True)
        try:
            reporter = node.config.pluginmanager.getplugin("terminalreporter")
            writer = node.config.get_terminal_writer()
            writer.line()
            if reporter is not None:
                writer.sep(">", f"{report.outcome}: {node.nodeid}")
            report.toterminal(writer)
            writer.sep(">", f"a shell in '{machine.name}'; exit goes on with the run")
            for use in uses[1:]:
                argv = " ".join(_argv(use.machine.connection.argv))
                writer.line(f"'{use.machine.name}', from another terminal: {argv}")
            writer.flush()
            sys.stdout.flush()
            code = subprocess.call(_argv(machine.connection.argv))
            if code == LOST:
                writer.line(f"SSH to '{machine.name}' failed.")
                writer.line("hint: what it printed is in the report; --machine-keep=failed lets you look at it longer")
            writer.sep("<", "back to the run")
        finally:
            if self._capture:
                self._capture.resume()


def _argv(argv: list[str]) -> list[str]:
    """Return a login of its own: BatchMode is for programs, and the master of the connection may be stuck."""
    kept = [word for word in argv if not word.startswith(("-oBatchMode=", "-oControlPath="))]
    return [kept[0], "-t", "-oControlPath=none", *kept[1:]]
