"""How many machines are ready while they are created, on a terminal: ``2 of 3 machines ready, 1.2 s``.

A worker of pytest-xdist has no terminal. It keeps a file with its counts in the run's directory, and the controller
shows the sum of all workers.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from pytest_machine.store import write
from pytest_machine.support import clock, files, parsing

from .statusline import StatusLine

_EVERY = 0.1
# Seconds: machines that are ready sooner need no line.
_PATIENCE = 0.3


@dataclass(slots=True)
class Count:
    """Machines that are being created."""

    ready: int
    count: int
    begun: float
    """`clock.monotonic`, which all processes of a computer share."""

    @classmethod
    def read(cls, path: Path) -> Count:
        """Return what a worker has written; raises ValueError or OSError."""
        table = parsing.json_table(files.read(path), "a count")
        ready, count, begun = table.get("ready"), table.get("count"), table.get("begun")
        if not (isinstance(ready, int) and isinstance(count, int) and isinstance(begun, float)):
            raise ValueError("no count of machines")  # noqa: TRY004  # of the file, not of an argument
        return cls(ready, count, begun)


class Progress:
    """The counts of this process, or in the controller of pytest-xdist those of its workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._line = StatusLine(config)
        self._worker = str(getattr(config, "workerinput", {}).get("workerid", ""))
        self._directory: Path | None = None
        self._going: dict[Path, Count] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listener: threading.Thread | None = None

    def open(self, run: Path) -> None:
        """Keep the counts of workers in the run's directory."""
        self._directory = run / "progress"

    def tick(self, store: Path) -> None:
        """Count one more machine of a lab as ready; `store` is the lab's."""
        with self._lock:
            if found := self._going.get(store):
                found.ready += 1
        self._save()

    @contextlib.contextmanager
    def show(self, store: Path, count: int) -> Iterator[None]:
        """Show the line while machines of a lab are created in this block."""
        with self._lock:
            self._going[store] = Count(0, count, clock.monotonic())
        self._save()
        over = threading.Event()
        ticker: threading.Thread | None = None
        if not self._worker and self._line.open():
            ticker = threading.Thread(target=self._tick, args=(lambda: list(self._going.values()), over), daemon=True)
            ticker.start()
        try:
            yield
        finally:
            with self._lock:
                del self._going[store]
            self._save()
            over.set()
            if ticker is not None:
                ticker.join()

    def listen(self) -> None:
        """Show the counts of the workers from now on. Idempotent."""
        if self._listener is None and self._line.open():
            self._listener = threading.Thread(
                target=self._tick, args=(self._of_workers, self._over), name="machine-progress", daemon=True
            )
            self._listener.start()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Forget the counts of a worker that has ended: one that was killed has left its file."""
        if self._directory is not None:
            name: str = node.gateway.id  # type: ignore[attr-defined]  # xdist's WorkerController
            with contextlib.suppress(OSError):
                (self._directory / f"{name}.json").unlink(missing_ok=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Show no more."""
        self._over.set()
        if self._listener is not None:
            self._listener.join()

    def pytest_unconfigure(self) -> None:
        """Let go of the terminal."""
        self._line.close()

    def _save(self) -> None:
        """Write a worker's counts where the controller reads them."""
        if not self._worker or self._directory is None:
            return
        path = self._directory / f"{self._worker}.json"
        with self._lock, contextlib.suppress(OSError):  # progress is not worth a test's failure
            if total := summed(self._going.values()):
                self._directory.mkdir(mode=0o700, exist_ok=True)
                write(path, json.dumps(asdict(total)).encode(), durable=False)
            else:
                path.unlink(missing_ok=True)

    def _of_workers(self) -> list[Count]:
        found = []
        for path in self._directory.glob("[!.]*.json") if self._directory is not None else ():
            with contextlib.suppress(*files.UNREADABLE):
                found.append(Count.read(path))
        return found

    def _tick(self, counts: Callable[[], Iterable[Count]], over: threading.Event) -> None:
        """Draw the line until it is over, and remove it."""
        while not over.wait(_EVERY):
            total = summed(counts())
            if total is not None and (lasted := clock.monotonic() - total.begun) > _PATIENCE:
                self._line.draw(said(total.ready, total.count, lasted))
            else:
                self._line.erase()
        self._line.erase()


def summed(counts: Iterable[Count]) -> Count | None:
    """Return the sum, begun when the first of them did; None: no machine is being created."""
    known = list(counts)
    if not known:
        return None
    return Count(sum(c.ready for c in known), sum(c.count for c in known), min(c.begun for c in known))


def said(ready: int, count: int, seconds: float) -> str:
    """Return the line."""
    machines = "machine" if count == 1 else "machines"
    return f"{ready} of {count} {machines} ready, {seconds:.1f} s"
