"""What is drawn: a lab at one moment, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CUT = "cut"
"""Nothing gets through."""
IMPAIRED = "impaired"
"""What gets through is late, lost, doubled, wrong."""
LINK = "link"
"""No fault: so the link was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A machine."""

    name: str
    state: str = "running"
    """In the words of `pytest_machine.model.State`."""
    address: str = ""
    """Where it is reached from here."""
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Network that it sits on → its addresses there."""
    notes: tuple[str, ...] = ()
    """What is wrong with it by itself, a line each: ``loses 30 %``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bus:
    """A network."""

    name: str
    subnets: tuple[str, ...] = ()
    mtu: int = 0
    """Bytes; 0: as everywhere."""
    isolated: bool = False
    """Whether no way leads out of it."""
    own: str = ""
    """Whose own network it is, where it is a driver's and none of the lab's."""

    @property
    def title(self) -> str:
        """What it is called in a picture."""
        return f"{self.own}'s own" if self.own else self.name

    @property
    def facts(self) -> list[str]:
        """What is known of it, a line each."""
        rest = [f"MTU {self.mtu}"] if self.mtu else []
        rest += ["isolated"] if self.isolated else []
        return [*self.subnets, *([", ".join(rest)] if rest else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What holds for packets that one machine sends to another."""

    sender: str
    receiver: str
    kind: str = CUT
    """`CUT`, `IMPAIRED` or `LINK`."""
    label: str = "cut"
    """What happens to them: ``loss 30 %``."""
    where: str = ""
    """Which packets alone: ``port 5432``."""
    network: str | None = None
    """On one network alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A lab at one moment."""

    title: str = ""
    machines: tuple[Box, ...] = ()
    networks: tuple[Bus, ...] = ()
    lines: tuple[Line, ...] = ()
    faults: tuple[str, ...] = ()
    """Everything that is in force, in the words of who injected it."""
