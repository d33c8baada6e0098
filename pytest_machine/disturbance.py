"""Disturbance: a random schedule of faults, carried out in the background while a test works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

from .errors import CleanupFailed, MachineError, NotRunning, UnknownMachine, Unsupported, WaitTimeout
from .schedule import Step
from .support import clock

if TYPE_CHECKING:
    from .breaking import Breaking, Injection


# Seconds in which the step that is being taken, and the healing of what is in force, have ended.
_ENDING = 180.0


class Disturbance:
    """A schedule that is being carried out. A context manager: at the end of the block it is over, and all is healed.

    ``seed`` says which; `done` what has been done of it, step by step.
    """

    def __init__(self, breaking: Breaking, seed: int, steps: Iterator[Step], *, tell: Callable[[str], None]) -> None:
        self.seed = seed
        self.done: list[Step] = []
        """The steps that have begun, in order."""
        self.refused: list[Step] = []
        """Those that could not be done here: `Unsupported`, said once for each kind."""
        self._breaking = breaking
        self._steps = steps
        self._tell = tell
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="machine-disturbance", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    @property
    def running(self) -> bool:
        """Whether it is being carried out."""
        return self._thread.is_alive() and not self.over

    @property
    def over(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._over.is_set()

    def stop(self) -> None:
        """End it, and heal what it injected; again: nothing happens. Raises what it met on its way."""
        self._over.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_ENDING)
            if self._thread.is_alive():
                raise WaitTimeout(
                    f"The schedule of faults (seed {self.seed}) did not end within {_ENDING:g} s.",
                    facts={"last seen": str(self.done[-1]) if self.done else "no step taken"},
                    hint="lab.destroy() ends it all",
                )
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        if error is not None:
            self._breaking.failing(error)
        try:
            self.stop()
        except Exception:
            if kind is None:
                raise

    def _run(self) -> None:
        begun = clock.monotonic()
        going: list[tuple[float, Injection]] = []
        errors: list[Exception] = []
        try:
            for step in self._steps:
                if not self._until(begun, step.at, going):
                    break
                self._begin(step, going)
        except Exception as error:  # noqa: BLE001  # of a thread: raised where somebody hears it
            errors.append(error)
        for _, injection in reversed(going):
            try:
                injection.heal()
            except (MachineError, OSError) as error:
                errors.append(error)
        if len(errors) == 1:
            self._error = errors[0]
        elif errors:
            self._error = CleanupFailed("A schedule of faults did not end well.", errors, hint="lab.heal()")

    def _begin(self, step: Step, going: list[tuple[float, Injection]]) -> None:
        try:
            injection = self._breaking.inject(step.fault, scheduled=True)
        except (Unsupported, UnknownMachine, NotRunning) as error:  # a test may destroy or stop what was drawn
            if not any(type(each.fault) is type(step.fault) for each in self.refused):
                self._tell(f"left out: {step.fault!r}: {error.message}")
            self.refused.append(step)
            return
        self.done.append(step)
        self._tell(", ".join([str(step), *injection.said]))
        going.append((step.at + step.lasts, injection))

    def _until(self, begun: float, when: float, going: list[tuple[float, Injection]]) -> bool:
        """Heal what is to be healed until then; return whether to go on."""
        while True:
            going.sort(key=lambda each: each[0])
            ends = going[0][0] if going and going[0][0] <= when else None
            if self._over.wait(max(0.0, (when if ends is None else ends) - (clock.monotonic() - begun))):
                return False
            if ends is None:
                return True
            _, injection = going.pop(0)
            injection.heal()
