"""What fixtures hand out: `Machines`, the machines of one test, and `MachineFactory`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, overload

if TYPE_CHECKING:
    from pytest_machine.lab import Lab
    from pytest_machine.machine import Machine
    from pytest_machine.swarm import Swarm


class MachineFactory(Protocol):
    """What ``machine_factory`` is: call it with the mark's arguments."""

    def __call__(self, name: str = "", /, **arguments: object) -> Machine:
        """Return a machine that is ready; it is destroyed at the end of the factory's scope at the latest."""
        ...


class Machines(Sequence["Machine"]):
    """The machines of one test, in the order of its marks: by index, by name, in a loop."""

    def __init__(self, lab: Lab, machines: Iterable[Machine]) -> None:
        self.lab = lab
        """Where they live, with their networks."""
        self.swarm: Swarm | None = None
        """The Swarm that their marks ask for, formed."""
        self._machines = tuple(machines)

    @overload
    def __getitem__(self, key: int | str) -> Machine: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Machine]: ...
    def __getitem__(self, key: int | str | slice) -> Machine | Sequence[Machine]:
        return self.lab[key] if isinstance(key, str) else self._machines[key]

    def __len__(self) -> int:
        return len(self._machines)

    def __repr__(self) -> str:
        return f"<Machines {', '.join(machine.name for machine in self)}>"
