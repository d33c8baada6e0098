"""Every error that this package raises on purpose.

::

    MachineError                     message, facts and a hint (a command to type)
    ├ UsageError                     you can fix it (exit 2)
    │ ├ UnknownMachine MachineExists UnknownDriver BadSpec
    │ └ Unsupported                  a capability is missing; names who has it
    ├ DriverError                    the outside world refused (exit 1)
    │ ├ DriverUnavailable            this driver cannot run here
    │ └ EngineFailed                 the machine runs, and its Docker ends again and again
    ├ NotRunning                     the machine is there, but not running
    │ └ MachineOff(ConnectionError)  it is stopped or paused
    ├ ConnectFailed                  SSH never answered (not: the command failed)
    ├ CommandFailed                  the command ran and failed; ``.result``
    ├ ProvisionFailed                the machine could not be made a Docker host
    ├ TransferFailed                 a machine sent something other than the file or directory that was asked for
    ├ LimitExceeded                  a machine sends or holds more than is taken from it; the message names the limit
    ├ CertificateInvalid             a certificate is not valid yet, or any more: waiting does not help
    ├ WaitTimeout(TimeoutError)      what, how long, what was last seen
    ├ StoreError                     a record or a key on disk is missing or broken
    └ CleanupFailed(ExceptionGroup)  everything was tried; these could not be destroyed

A class exists only where a caller branches on it. Every message has one form, which people and scripts can rely on: a
sentence that quotes 'names', the facts aligned below it, and a last line ``hint:`` with something to type.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Self

from .support.secrets import masked
from .support.text import visible

if TYPE_CHECKING:
    from .model import Result


def _text(message: str, facts: Mapping[str, object], hint: str) -> str:
    width = max((len(name) for name in facts), default=0)
    lines = [message]
    lines += [f"  {name:<{width}}  {value}" for name, value in facts.items()]
    if hint:
        lines.append(f"hint: {hint}")
    # Facts are often a machine's words, or a file's: neither may speak to the terminal.
    return masked(visible("\n".join(lines)))


class MachineError(Exception):
    """The root: ``message`` (one sentence), ``facts`` (aligned below it) and ``hint`` (a command to type)."""

    exit_code: ClassVar[int] = 1
    transient: bool = False
    """Whether the same call may succeed when it is made again: only such a failure is retried."""

    def __init__(
        self,
        message: str,
        *,
        facts: Mapping[str, object] | None = None,
        hint: str = "",
        transient: bool | None = None,
    ) -> None:
        super().__init__(masked(message))
        self.facts = {name: masked(value) if isinstance(value, str) else value for name, value in (facts or {}).items()}
        self.hint = masked(hint)
        if transient is not None:
            self.transient = transient

    @property
    def message(self) -> str:
        """The sentence alone."""
        return visible(str(self.args[0]))

    def __str__(self) -> str:
        return _text(self.message, self.facts, self.hint)


def refused(error: OSError) -> MachineError:
    """Return what the operating system refused as an error of ours: with the path, its reason and what to do."""
    from .support.reasons import hint, reason_of, sentence

    number = {"errno": errno.errorcode.get(error.errno, error.errno)} if error.errno else {}
    return MachineError(sentence(error), facts={"reason": reason_of(error), **number}, hint=hint(error))


def damaged(path: object, reason: object, hint: str) -> StoreError:
    """Return that a file is not what it has to be: which one, why, and what to type."""
    from .support.text import visible

    return StoreError(
        f"The file '{visible(str(path), lines=False)}' is damaged.",
        facts={"reason": visible(str(reason), lines=False)},
        hint=hint,
    )


class UsageError(MachineError):
    """Something that was asked for cannot be: the caller can fix it."""

    exit_code = 2


class UnknownMachine(UsageError):
    """No machine of that name in the store."""


class MachineExists(UsageError):
    """The name is taken."""


class UnknownDriver(UsageError):
    """No driver of that name is installed."""


class BadSpec(UsageError):
    """A machine was asked for in words that make no sense: an unknown option, a size that is none."""

    option: str = ""
    """The driver's option whose value is wrong, if it is one."""


class Unsupported(UsageError):
    """The driver does not have the capability that was asked for; the message names the drivers that do."""


class DriverError(MachineError):
    """The outside world refused: a command failed, an API said no."""

    transient = True


class DriverUnavailable(DriverError):
    """The driver cannot run here; the hint is the remedy."""

    transient = False


class EngineFailed(DriverError):
    """The machine boots, but its Docker daemon ends whenever it is started; the facts hold its last words."""

    transient = False


class NotRunning(MachineError):
    """The machine exists, but what was asked needs it running."""


class MachineOff(NotRunning, ConnectionError):
    """The machine is stopped or paused. A `ConnectionError`, so that waits go on: it may be started again."""


class ConnectFailed(MachineError):
    """SSH to the machine never came about: nothing is known of the command."""

    transient = True


class CommandFailed(MachineError):
    """A command ran in the machine and its return code was not 0."""

    transient = True

    def __init__(
        self, message: str, *, result: Result, facts: Mapping[str, object] | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, facts=facts, hint=hint)
        self.result = result


class ProvisionFailed(MachineError):
    """The machine runs, but could not be made a Docker host."""


class TransferFailed(MachineError):
    """A machine sent something other than the file or directory that was asked for, or only a part of it."""


class LimitExceeded(MachineError):
    """A machine sends or holds more than is taken from it; the message names the limit."""


class CertificateInvalid(MachineError):
    """A certificate is not valid yet, or any more; the facts say by which clock. Waiting does not help."""


class WaitTimeout(MachineError, TimeoutError):
    """A named condition did not come true in time; the facts say how long was waited and what was last seen."""

    transient = True
    stdout: str = ""
    """Of a command in a machine: what it had printed by then."""
    stderr: str = ""
    """And on its error stream."""


class StoreError(MachineError):
    """A file of the store is missing, unreadable or not ours."""


class CleanupFailed(MachineError, ExceptionGroup[Exception]):
    """Everything was tried; ``.exceptions`` holds why some things could not be destroyed."""

    def __new__(cls, message: str, exceptions: Sequence[Exception], *, hint: str = "") -> Self:  # noqa: ARG004, D102
        return super().__new__(cls, message, exceptions)

    def __init__(self, message: str, exceptions: Sequence[Exception], *, hint: str = "") -> None:
        ExceptionGroup.__init__(self, message, exceptions)
        self.facts = {}
        self.hint = hint

    def derive(self, excs: Sequence[Exception], /) -> CleanupFailed:  # type: ignore[override]  # never a BaseException
        """Return the same failure with fewer reasons (`except*` asks for it)."""
        return CleanupFailed(self.message, excs, hint=self.hint)

    def __str__(self) -> str:
        reasons = "\n".join("- " + str(error).replace("\n", "\n  ") for error in self.exceptions)
        return _text(f"{self.message}\n{reasons}", {}, self.hint)
