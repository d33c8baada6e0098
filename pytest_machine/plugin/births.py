"""How the plugin has machines made: seen by the user, tried again, and with something to look at when it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pytest_machine.birth import Witness
from pytest_machine.errors import MachineError

if TYPE_CHECKING:
    from pytest_machine.driver import Driver
    from pytest_machine.lab import Lab
    from pytest_machine.machine import Machine
    from pytest_machine.model import Record, Spec

    from .evidence import Evidence
    from .journal import Journal
    from .progress import Progress

# Seconds to look at a machine that could not be made; several at once take no longer.
_LOOK = 6.0


class Births(Witness):
    """Makes machines for the keeper."""

    def __init__(
        self, journal: Journal, progress: Progress, look: Callable[[Evidence, str], None], *, retries: int
    ) -> None:
        """`look` gets what was seen of each machine that could not be made, and why it could not."""
        self._journal = journal
        self._progress = progress
        self._look = look
        self._retries = retries
        self.again: list[str] = []
        """Why machines had to be made again, a line each."""

    @property
    def progress(self) -> Progress:
        """What shows how many machines are ready."""
        return self._progress

    def create(self, lab: Lab, specs: Sequence[Spec]) -> list[Machine]:
        """Make machines in a lab, all or none; what a second try may help is tried again."""
        for left in range(self._retries, -1, -1):
            try:
                with self._progress.show(lab.store.path, len(specs)):
                    return lab.create(*specs)
            except MachineError as error:
                # What could not be taken back, or is still being made, would be in the way of a second try.
                stays = {spec.name for spec in specs}.intersection(lab.store.names())
                if not left or not error.transient or stays or getattr(error, "__notes__", None):
                    raise
                self.again.append(f"{', '.join(spec.name for spec in specs)}: {error.message}")
        raise AssertionError  # the last round returns or raises

    def phase(self, record: Record, what: str, begun: float, ended: float) -> None:
        """Note it; a machine whose Docker answers is ready."""
        self._journal.note(what, record, begun, ended)
        if what == "waiting":
            self._progress.tick(record.store)

    def failed(self, record: Record, driver: Driver, error: BaseException) -> None:
        """Keep its console and its daemon's log: they are all that will be left of it."""
        from .evidence import gather

        why = error.message if isinstance(error, MachineError) else f"{type(error).__name__}: {error}"
        self._journal.note("failed", record, record.created, text=why)
        self._look(gather(record, driver, seconds=_LOOK), why)
