"""The engine: Docker, installed where there is none, and moved to a newer release when that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pytest_machine.connection import Connection
from pytest_machine.errors import ProvisionFailed
from pytest_machine.facts import INSTALLING, probe
from pytest_machine.guest import Guest, Step
from pytest_machine.provisioner import Facts, Tell, Wanted

from .families import family
from .kind import Family
from .script import by_script

__all__ = ["EngineProvisioner", "steps"]

_BEGIN = Step("noting that Docker is being installed", f"mkdir -p /etc/docker && : >{INSTALLING}", seconds=60)
_END = Step("noting that Docker is installed", f"rm -f {INSTALLING}", seconds=60)


class EngineProvisioner:
    """Installs Docker by the distribution's packages, or by a script where an address of one is given."""

    name: ClassVar[str] = "engine"

    def provision(self, connection: Connection, facts: Facts, wanted: Wanted, *, tell: Tell) -> Sequence[str]:
        """Install it; nothing where an engine is, unless that is what is left of an installation of ours."""
        its = family(facts)
        if facts.engine and not facts.unfinished:
            return []
        guest = Guest(connection, facts)
        tell("Installing Docker...")
        for step in steps(facts, wanted):
            guest.do(step, tell=tell if step.seconds > 60 else None)
        found = probe(connection)
        if not found.engine:
            raise ProvisionFailed(
                "The machine could not be made a Docker host: there is no 'dockerd' after it was installed.",
                facts={"installed by": "a script" if wanted.install_url else f"the packages of '{its.name}'"},
                hint="see what there is: docker-machine ssh NAME 'command -v docker dockerd'",
            )
        return [f"installed Docker {found.engine}"]

    def upgrade(self, connection: Connection, facts: Facts, wanted: Wanted, *, tell: Tell) -> Sequence[str]:  # noqa: ARG002  # packages alone decide
        """Move the engine's packages, and no others, to the newest that the machine's repositories offer."""
        its = family(facts)
        if not its.owned:
            tell(f"Docker is a part of '{facts.pretty}', and is upgraded with it")
            return []
        guest = Guest(connection, facts)
        before = _versions(guest, its)
        if not before:
            raise ProvisionFailed(
                "The engine cannot be upgraded: its 'dockerd' belongs to no package.",
                facts={"version": facts.engine or "none"},
                hint="upgrade it the way in which it was installed",
            )
        tell("Upgrading docker...")
        for step in its.upgrade(tuple(before)):
            guest.do(step, tell=tell)
        after = _versions(guest, its)
        return [
            f"upgraded {name}: {before[name]} → {version}"
            for name, version in after.items()
            if name in before and before[name] != version
        ]


def steps(facts: Facts, wanted: Wanted) -> list[Step]:
    """Return what is done in a machine without Docker, so that it has one; raises `ProvisionFailed`."""
    its = family(facts)
    if not its.install:
        raise ProvisionFailed(
            f"The machine could not be made a Docker host: Docker is a part of '{facts.pretty}', but not here.",
            hint="look at the machine: docker-machine ssh NAME 'command -v dockerd'",
        )
    found = by_script(wanted.install_url, its.fetcher) if wanted.install_url else its.install(facts)
    return [_BEGIN, *its.mend, *found, _END]


def _versions(guest: Guest, its: Family) -> dict[str, str]:
    """Return the engine's packages that are installed, with their versions; the one that has dockerd comes first."""
    said = guest.do(Step("asking for the engine's packages", its.owned, seconds=120))
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
