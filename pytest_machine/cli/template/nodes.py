"""What a template is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that the template itself says."""

    value: object


@dataclass(frozen=True, slots=True)
class Name:
    """A function."""

    name: str


@dataclass(frozen=True, slots=True)
class Path:
    """Fields of the dot (`base` empty), of a variable, or of what is in parentheses."""

    base: str | Pipe
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each of which gets what the one before it gave; and the variables that get the last one's."""

    commands: tuple[tuple[Operand, ...], ...]
    names: tuple[str, ...] = ()
    declares: bool = False


Operand: TypeAlias = "Literal | Name | Path | Pipe"


@dataclass(slots=True)
class Node:
    """A text, or an action with all up to its ``end``."""

    kind: str
    """``text``, ``pipe``, ``if``, ``range``, ``with``, ``template``, ``break`` or ``continue``."""
    text: str = ""
    pipe: Pipe | None = None
    place: tuple[int, int, str] = (1, 0, "")
    """Line and column of an action, and what it says."""
    body: list[Node] = field(default_factory=list)
    other: list[Node] = field(default_factory=list)
