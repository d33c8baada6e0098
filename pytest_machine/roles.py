"""Who is what in a Swarm, and on which network its members meet: pure functions, before anything is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import BadSpec
from .model import names

ROLES = ("manager", "worker")


@dataclass(frozen=True, slots=True)
class Roles:
    """The members of a Swarm by name. The first manager founds it."""

    managers: tuple[str, ...]
    workers: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """All of them, managers first."""
        return (*self.managers, *self.workers)


def assign(said: Mapping[str, str]) -> Roles:
    """Return who is what, from what each member was said to be; an empty text says nothing.

    Where nobody is said to be a manager, the first who may be is it; all others are workers. Raises `BadSpec` when
    there is nobody to be the manager.
    """
    managers = [name for name, role in said.items() if role == "manager"]
    managers = managers or [name for name, role in said.items() if not role][:1]
    if not managers:
        raise BadSpec(
            "A Swarm of workers alone cannot be: somebody has to take its orders.",
            facts={"workers": names(said)},
            hint="make one of them a manager: @pytest.mark.machine(..., role='manager')",
        )
    return Roles(tuple(managers), tuple(name for name in said if name not in managers))


def meeting(networks: Mapping[str, Sequence[str]]) -> str:
    """Return the first network that all members sit on, from those of each; empty: their driver's own, if none has any.

    Raises `BadSpec` when there is no such network.
    """
    found = list(networks.values())
    if not any(found):
        return ""
    shared = [name for name in found[0] if all(name in each for each in found)]
    if not shared:
        raise BadSpec(
            "The machines of a Swarm do not share a network, so they could not talk to each other.",
            facts={f"'{name}' is on": names(each) for name, each in networks.items()},
            hint="give each of them one more: @pytest.mark.machine(..., networks=['swarm'])",
        )
    return shared[0]
