"""A live line for each machine that takes its time, for somebody who sits at a terminal.

It is drawn by `rich` on standard error, and only where that is a terminal that can move its cursor: not in a pipe, not
under ``TERM=dumb``; ``NO_COLOR`` is heard. It appears when a step has lasted, and vanishes without a trace, so that
what scripts read is the same with it and without. `rich` is imported by the thread that draws, and only then: a quick
command does not wait for it, and where it is not installed nothing is drawn.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from pytest_machine.support import clock

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars

# What is over before anybody could wonder needs no line.
_PATIENCE = 1.0
_EVERY = 0.1


_active: Progress | None = None


def say(text: str) -> None:
    """Write a line to standard output, between two drawings if there are any."""
    if _active is None:
        click.echo(text)
    else:
        _active.say(text)


class Progress:
    """What is going on, by whom; a context manager. Told from any thread."""

    def __init__(self) -> None:
        self._doing: dict[str, tuple[str, float]] = {}
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._drawer: threading.Thread | None = None
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        global _active  # noqa: PLW0603  # there is one terminal
        if _is_terminal() and _active is None:
            _active = self
            self._drawer = threading.Thread(target=self._draw, name="progress", daemon=True)
            self._drawer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _active  # noqa: PLW0603  # there is one terminal
        self._over.set()
        if self._drawer is not None:
            self._drawer.join()
            _active = None

    def tell(self, who: str, what: str) -> None:
        """Note what a machine is at now; empty: it is done."""
        with self._lock:
            if what:
                since = self._doing[who][1] if who in self._doing else clock.monotonic()
                self._doing[who] = (what, since)
            else:
                self._doing.pop(who, None)

    @contextlib.contextmanager
    def step(self, who: str, what: str) -> Iterator[None]:
        """Note it for as long as the block lasts."""
        self.tell(who, what)
        try:
            yield
        finally:
            self.tell(who, "")

    def say(self, text: str) -> None:
        """Write a line to standard output, between two drawings."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
            click.echo(text)
            if self._bars is not None:
                self._bars.start()

    def _draw(self) -> None:
        while not self._over.wait(_EVERY):
            with self._lock:
                lasted = any(clock.monotonic() - since > _PATIENCE for _, since in self._doing.values())
            if lasted:
                break
        if self._over.is_set():
            return
        try:
            from rich.console import Console
        except ImportError:
            return
        if self._over.is_set():  # it was imported for longer than the rest took
            return
        console = Console(stderr=True)
        if console.is_terminal and not console.is_dumb_terminal:
            self._draw_on(console)

    def _draw_on(self, console: Console) -> None:
        from rich.progress import Progress as Bars
        from rich.progress import SpinnerColumn, TaskID, TextColumn

        # Standard output is not redirected: it may be a pipe, and is never ours.
        bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        tasks: dict[str, TaskID] = {}
        with self._lock:
            self._bars = bars
            bars.start()
        try:
            while not self._over.wait(_EVERY):
                with self._lock:
                    for who in tasks.keys() - self._doing.keys():
                        bars.remove_task(tasks.pop(who))
                    for who, (what, since) in self._doing.items():
                        line = f"{who}: {what}, {clock.monotonic() - since:.0f} s"
                        if who in tasks:
                            bars.update(tasks[who], description=line)
                        else:
                            tasks[who] = bars.add_task(line, total=None)
        finally:
            with self._lock:
                self._bars = None
                bars.stop()


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "")
    except ValueError:  # it is closed
        return False
