"""A random schedule of faults: drawn from a seed, so that what went wrong can go wrong again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .errors import BadSpec
from .fault import Fault, SupportsDraw, is_fault

Choice = Fault | type[Fault]
"""A fault as it is, or a kind of which one is drawn."""


_HINT = "lab.disturb(faults=[Partition, Pause], every=2.0)"


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a schedule."""

    at: float
    """Seconds from the beginning."""
    lasts: float
    """Seconds until it is healed."""
    fault: Fault

    def __str__(self) -> str:
        return f"{self.at:6.2f} s for {self.lasts:.2f} s: {self.fault!r}"


def steps(
    seed: int, machines: Sequence[str], faults: Sequence[Choice], *, every: float, stacked: int
) -> Iterator[Step]:
    """Return steps without end: one begins about each `every` seconds, at most `stacked` are in force at once.

    Equal arguments give equal steps, on every machine and in every process. Raises `BadSpec` for what is no schedule.
    """
    if not isinstance(faults, Sequence) or not all(is_fault(choice) for choice in faults):
        raise BadSpec(f"{faults!r} is no list of faults.", hint=_HINT)
    if not faults or not isinstance(every, (int, float)) or every <= 0 or not isinstance(stacked, int) or stacked < 1:
        raise BadSpec(
            "A schedule needs faults, a time between them, and at least one at once.",
            facts={"faults": len(faults), "every": every, "stacked": stacked},
            hint=_HINT,
        )
    if not isinstance(seed, int):
        raise BadSpec(f"A seed cannot be {seed!r}.", hint="lab.disturb(seed=1, faults=[Partition, Pause])")
    return _steps(seed, machines, faults, every=every, stacked=stacked)


def _steps(
    seed: int, machines: Sequence[str], faults: Sequence[Choice], *, every: float, stacked: int
) -> Iterator[Step]:
    lot = random.Random(seed)  # noqa: S311  # to be replayed
    now = 0.0
    ends: list[float] = []
    while True:
        now += every * lot.uniform(0.5, 1.5)
        ends = [end for end in ends if end > now]
        if len(ends) >= stacked:
            now = min(ends)
            ends.remove(now)
        lasts = every * lot.uniform(0.5, stacked)
        ends.append(now + lasts)
        yield Step(now, lasts, _drawn(lot, lot.choice(faults), machines))


def _drawn(lot: random.Random, choice: Choice, machines: Sequence[str]) -> Fault:
    if not isinstance(choice, type):
        return choice
    return choice.draw(lot, machines) if issubclass(choice, SupportsDraw) else choice()
