"""Wait for a named condition until a deadline, over tenacity.

Every wait has a name, a bound, and says what it last saw: "Too many retries" helped nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .errors import ConnectFailed, MachineError, WaitTimeout

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")


class NotYet(Exception):
    """Raised by a check that did not find what is waited for; its text is what was last seen."""


def wait(check: Callable[[], T], what: str, *, timeout: float, every: float = 0.02, longest: float = 1.0) -> T:
    """Call `check` until it returns, and return what it returned.

    `NotYet`, `OSError`, `ConnectFailed` and `WaitTimeout` mean "again"; everything else passes through. `every` is the
    pause after the first try, in seconds; pauses then grow by a tenth up to `longest`, so that a wait ends at most
    about a tenth of its length late. At `timeout`, seconds, `check` gets one last try, and then it is `WaitTimeout`.
    A check bounds its own time.
    """
    # Late, because a plain run of tests never waits for anything.
    from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

    growing = wait_exponential(multiplier=every, exp_base=1.1, max=longest)

    def pause(state: RetryCallState) -> float:
        return max(0.0, min(growing(state), timeout - (state.seconds_since_start or 0.0)))

    retrying = Retrying(
        # WaitTimeout is a TimeoutError, which is an OSError.
        retry=retry_if_exception_type((NotYet, OSError, ConnectFailed)),
        stop=stop_after_delay(timeout),
        wait=pause,
    )
    begun = time.monotonic()
    try:
        return retrying(check)
    except RetryError as error:
        last = error.last_attempt.exception()
        waited = f"{time.monotonic() - begun:.1f} s, {error.last_attempt.attempt_number} tries"
        raise WaitTimeout(
            f"{what} did not come about within {timeout:g} s.",
            facts={"waited": waited, "last seen": _seen(last)},
            hint="allow a longer timeout if what was last seen looks like a beginning",
        ) from last


def _seen(error: BaseException | None) -> str:
    text = str(error or "")
    if isinstance(error, MachineError):
        text = " ".join(map(str, filter(None, (error.message, error.facts.get("reason")))))
    return " ".join(text.split()) or type(error).__name__
