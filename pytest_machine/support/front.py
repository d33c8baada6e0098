"""Which front end runs: pytest or the command line; a hint is worded for it."""

from __future__ import annotations

import sys


def worded(*, tests: str, program: str) -> str:
    """Return the hint for the front end that runs: `tests` under pytest, `program` under the command line."""
    return tests if "pytest" in sys.modules else program
