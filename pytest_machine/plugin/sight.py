"""A guard around every look at a machine that a report is made of: a failing look becomes a sentence in the report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pytest_machine.support.text import visible

TITLE = "machines: what could not be looked at"
_LONGEST = 300


@contextlib.contextmanager
def guarded(what: str, sections: list[tuple[str, str]]) -> Iterator[None]:
    """Run the block; whatever it raises is added to `sections` and goes no further.

    A machine can be the reason of any exception: of deep directories, of answers in another shape, of no memory left.
    Raised in a hook, it would end the run and take all reports with it.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001  # see above
        sections.append((TITLE, sentence(what, error)))


def sentence(what: str, error: Exception) -> str:
    """Return one line: what was looked at, and why it could not be."""
    reason = " ".join(str(error).split())
    said = visible(f"{what}: {type(error).__name__}{f': {reason}' if reason else ''}", lines=False)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
