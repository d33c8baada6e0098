"""The contract of faults: what goes wrong on purpose, and is put right again whatever happens.

A fault is a value that says what; the same one may be in force several times. It gets a narrow view of the lab,
so that it can break machines and nothing else, and leaves what undoes it *in* the machine before it does anything
there: whoever comes later, another process too, heals a machine without knowing what befell it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Self, TypeVar, runtime_checkable

from .errors import BadSpec
from .model import DiskTrouble, Isolation, Result, State, Value
from .topology import names_of

T = TypeVar("T")


class Host(Protocol):
    """What a fault sees of one machine."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def state(self) -> State:
        """What it is doing now."""
        ...

    @property
    def isolation(self) -> Isolation:
        """What stands between it and its host."""
        ...

    @property
    def options(self) -> Mapping[str, Value]:
        """The options that it was made with."""
        ...

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where the other machines reach it, by network; its driver's own network has the empty name."""
        ...

    @property
    def addresses6(self) -> Mapping[str, str]:
        """The same for IPv6, of those networks that have it."""
        ...

    @property
    def facts(self) -> dict[str, object]:
        """What was found out about it since it booted, by whom ever: a place to keep it, emptied by a boot."""
        ...

    def shell(self, script: str, *, check: bool = True, timeout: float = 30.0) -> Result:
        """Run a shell script in it as root, whoever we log in as."""
        ...

    def upset(self, script: str, *, undo: str, key: str = "") -> Result:
        """Run a shell script in it as root, once what undoes it lies in the machine.

        `undo` is a script too, which may be run at any time, again and again, and succeeds where there is nothing to
        undo. `key` is its name, by default the injection's: a later one of the same name takes its place.
        """
        ...

    def settle(self, key: str = "") -> None:
        """Run what undoes it, and forget it; again, or not running: nothing happens."""
        ...

    def engine_answers(self) -> None:
        """Wait until its Docker answers."""
        ...

    def kill(self) -> None:
        """Cut its power."""
        ...

    @property
    def disk(self) -> bool:
        """Whether it has a disk of its own that can have trouble from outside, so that `trouble` and `crash` work."""
        ...

    def trouble(self, trouble: DiskTrouble) -> bool:
        """Put exactly this trouble in force at its disk; return whether its file system can be relied on."""
        ...

    def crash(self) -> None:
        """Cut its power; what it has not yet written to its disk is lost."""
        ...

    def start(self) -> None:
        """Power it on and wait until its Docker answers; it runs already: nothing happens."""
        ...

    def restart(self) -> None:
        """Shut it down in order and power it on."""
        ...

    def pause(self) -> None:
        """Freeze it."""
        ...

    def resume(self) -> None:
        """Let it go on; it is not paused: nothing happens."""
        ...


class Field(Protocol):
    """What one injection sees of a lab."""

    @property
    def token(self) -> str:
        """This injection's own name, unique and fit for a file's."""
        ...

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The lab's machines by name, in their order."""
        ...

    @property
    def active(self) -> Sequence[Fault]:
        """All faults in force, in the order of their injection: this one among them until it is healed."""
        ...

    def chosen(self, names: Sequence[str]) -> list[Host]:
        """Return the hosts of these names, or of none the lab's last machine; raises `UnknownMachine`."""
        ...

    def having(self, need: str) -> list[str]:
        """Return the drivers that have a capability or isolation, for `Unsupported`."""
        ...

    def say(self, text: str) -> None:
        """Note how it is done, where that is not the best way; the timeline shows it, and whoever looks at it."""
        ...

    def each(self, hosts: Sequence[Host], work: Callable[[Host], T]) -> list[T]:
        """Do something to several hosts at once; all are tried, then the first error is raised."""
        ...


class Told:
    """What a fault's class may inherit: it is shown, compared and hashed by what it was given, its public fields."""

    def _fields(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __repr__(self) -> str:
        words = [f"{name}={value!r}" for name, value in self._fields().items() if value not in (None, (), False)]
        return f"{type(self).__name__}({', '.join(words)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))


class OfMachines(Told):
    """A fault that befalls machines, given by name or themselves; none: the lab's last one."""

    def __init__(self, *machines: object) -> None:
        self.machines = tuple(name for one in machines for name in names_of(one))

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return one of a machine that is drawn by lot."""
        return cls(lot.choice(machines))

    def hosts(self, field: Field) -> list[Host]:
        """Return those that it befalls, without any that the lab no longer has."""
        there = [name for name in self.machines if name in field.hosts]
        return field.chosen(there) if there or not self.machines else []

    def befalls(self, field: Field, host: Host) -> bool:
        """Return whether it befalls this one."""
        return any(each.name == host.name for each in self.hosts(field))

    def still(self, field: Field, host: Host) -> bool:
        """Return whether a fault of this kind is in force at a machine: after its own healing, another one."""
        return any(isinstance(each, type(self)) and each.befalls(field, host) for each in field.active)


def number(given: object, what: str, hint: str) -> float:
    """Return a number; raises `BadSpec` for what is none, such as the name of a machine that was given in its place."""
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise BadSpec(f"{what} cannot be {given!r}: it is a number, and machines follow it.", hint=hint)
    return float(given)


def chance(given: object, what: str) -> float:
    """Return how likely something is, between 0 and 1; raises `BadSpec`."""
    found = number(given, what, "0.1 is one in ten: Loss(0.1, 'a')")
    if not 0 < found <= 1:
        raise BadSpec(f"{what} cannot be {found:g}: it is a part of all packets.", hint="0.1 is one in ten")
    return found


def seconds(given: object, what: str) -> float:
    """Return a time that is not negative; raises `BadSpec`."""
    found = number(given, what, "seconds: Delay(0.1, 'a')")
    if not 0 <= found < 3600:
        raise BadSpec(f"{what} cannot be {found:g} s.", hint="seconds, less than an hour: 0.1")
    return found


class Fault(Protocol):
    """Something that goes wrong on purpose. Its class can be called without arguments: then it takes what is there."""

    def inject(self, field: Field) -> None:
        """Let it happen; in force when this returns. Raises `Unsupported` where it cannot be, with the reason.

        When it raises, `heal` follows.
        """
        ...

    def heal(self, field: Field) -> None:
        """Undo it; undone when this returns. Again, or half injected, or on machines that are gone: no error."""
        ...


def is_fault(given: object) -> bool:
    """Return whether it is a `Fault`, or a kind of them."""
    return callable(getattr(given, "inject", None)) and callable(getattr(given, "heal", None))


@runtime_checkable
class SupportsRenewal(Protocol):
    """The fault does not outlive a machine's boot, and can be put in force again after one."""

    def renew(self, field: Field, host: Host) -> None:
        """Put it in force again on a machine that has booted."""
        ...


@runtime_checkable
class SupportsDraw(Protocol):
    """The fault can be drawn by lot, for a random schedule."""

    @classmethod
    def draw(cls, lot: random.Random, machines: Sequence[str]) -> Self:
        """Return one for a lab with these machines; the same for the same lot."""
        ...
