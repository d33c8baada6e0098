"""Whether anything may be asked of the network (``PYTEST_MACHINE_OFFLINE``, which ``--machine-offline`` sets).

Our own doing only: machines on this host have their addresses all the same, and what a test does in them is its affair.
"""

from __future__ import annotations

import os

from .errors import DriverUnavailable

VARIABLE = "PYTEST_MACHINE_OFFLINE"


def offline() -> bool:
    """Return whether nothing may be downloaded."""
    return os.environ.get(VARIABLE, "").lower() not in ("", "0", "no", "false")


def refuse(what: str, *, hint: str) -> None:
    """Raise `DriverUnavailable` when `what` (a sentence begins so) would have to be downloaded and may not be."""
    if offline():
        raise DriverUnavailable(
            f"{what} is not on this computer, and nothing may be downloaded.",
            facts={"because of": f"--machine-offline, or the variable {VARIABLE}"},
            hint=hint,
        )
