"""Wait for a named condition until a deadline.

Every wait has a name, a bound, and says what it last saw: "Too many retries" helped nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .errors import CertificateInvalid, ConnectFailed, MachineError, WaitTimeout
from .support import clock
from .support.validity import untimely

T = TypeVar("T")

# Seconds that a daemon which restarts with new certificates may go on with the old ones.
_PATIENCE = 2.0


class NotYet(Exception):
    """Raised by a check that did not find what is waited for; its text is what was last seen."""


def wait(check: Callable[[], T], what: str, *, timeout: float, every: float = 0.02, longest: float = 1.0) -> T:
    """Call `check` until it returns, and return what it returned.

    `NotYet`, `OSError`, `ConnectFailed` and `WaitTimeout` mean "again"; everything else passes through. `every` is the
    pause after the first try, in seconds; pauses then grow by a tenth up to `longest`, so that a wait ends at most
    about a tenth of its length late. At `timeout`, seconds, `check` gets one last try, and then it is `WaitTimeout`.
    A check bounds its own time.

    A certificate that is not valid yet, or any more, ends the wait: no further try changes that.
    """
    begun, tries, pause = clock.monotonic(), 0, every
    refused: float | None = None
    while True:
        tries += 1
        try:
            return check()
        except (NotYet, OSError, ConnectFailed) as error:  # WaitTimeout is a TimeoutError, which is an OSError
            waited = clock.monotonic() - begun
            if not (reason := untimely(error)):
                refused = None
            elif refused is None:
                refused = waited
            elif waited - refused >= _PATIENCE:
                raise CertificateInvalid(
                    f"{what} does not come about.",
                    facts={"reason": reason, "waited": f"{waited:.1f} s"},
                    hint="set the clock right, or renew the certificates: docker-machine regenerate-certs NAME",
                ) from error
            if waited >= timeout:
                raise WaitTimeout(
                    f"{what} did not come about within {timeout:g} s.",
                    facts={"waited": f"{waited:.1f} s, {tries} tries", "last seen": _seen(error)},
                    hint="allow a longer timeout if what was last seen looks like a beginning",
                ) from error
        clock.sleep(max(0.0, min(pause, timeout - waited)))
        pause = min(pause * 1.1, longest)


def _seen(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, MachineError):
        text = " ".join(map(str, filter(None, (error.message, error.facts.get("reason")))))
    return " ".join(text.split()) or type(error).__name__
