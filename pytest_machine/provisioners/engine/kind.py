"""What one family of systems is, for whoever installs Docker there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_machine.guest import Step
from pytest_machine.provisioner import Facts


@dataclass(frozen=True, slots=True)
class Family:
    """Systems that install Docker in the same way. Nothing in it asks anybody anything; every `Step` is bounded."""

    name: str
    ids: tuple[str, ...]
    """Those ``ID`` and ``ID_LIKE`` of os-release that are of this family."""
    install: Callable[[Facts], list[Step]] | None = None
    """What brings Docker; None: it is a part of the system."""
    fetcher: str = ""
    """What installs curl."""
    mend: tuple[Step, ...] = ()
    """What puts the packages right after an installation that was broken off."""
    owned: str = ""
    """What prints the engine's packages, "NAME VERSION" a line, that with dockerd first; empty: it has none."""
    upgrade: Callable[[tuple[str, ...]], list[Step]] = lambda _: []
    """What moves packages to their newest release."""
