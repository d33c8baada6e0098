"""Who may not talk to whom: halves, one alone, a bridge, a ring of majorities.

A pure value, a set of (sender, receiver), so that what a partition cuts can be computed, compared and drawn without a
machine. How it is cut is somebody else's (`pytest_machine.faults.network`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from .errors import BadSpec
from .model import meant

Pairs = frozenset[tuple[str, str]]
"""(sender, receiver): what the first sends does not arrive at the second."""


def names_of(machines: object) -> tuple[str, ...]:
    """Return the names of a lab's machines, of some machines, or the names themselves; one name alone is one."""
    if isinstance(machines, str):
        return (machines,)
    if isinstance(machines, Iterable):
        return tuple(str(getattr(each, "name", each)) for each in machines)
    return (str(getattr(machines, "name", machines)),)


def one_way(senders: object, receivers: object) -> Pairs:
    """Return the cut of all that the ones send to the others; the other way stays open."""
    return frozenset((a, b) for a in names_of(senders) for b in names_of(receivers) if a != b)


def both_ways(pairs: Pairs) -> Pairs:
    """Return the same cut, and its opposite."""
    return pairs | {(b, a) for a, b in pairs}


def groups(*sides: object) -> Pairs:
    """Return the cut between all of these groups, both ways; within a group all stay together."""
    named = [names_of(side) for side in sides]
    found = [name for side in named for name in side]
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise BadSpec(
            f"The machine '{twice[0]}' cannot be on two sides of a partition.",
            facts={f"side {number}": ", ".join(side) for number, side in enumerate(named, 1)},
            hint="name each machine once; bridge(lab) cuts all but one who talks to both sides",
        )
    return both_ways(
        frozenset(pair for i, side in enumerate(named) for other in named[i + 1 :] for pair in one_way(side, other))
    )


def halves(machines: object, *, seed: int | None = None) -> Pairs:
    """Return the cut into two halves; of an odd number the second is the majority. `seed` shuffles them first."""
    known = _order(machines, seed, least=2, what="Halves")
    middle = len(known) // 2
    return groups(known[:middle], known[middle:])


def isolate(machines: object, *alone: object) -> Pairs:
    """Return the cut of some machines, each by itself, from all others; without a name, of the first."""
    known = _order(machines, None, least=2, what="A machine alone")
    chosen = [name for one in alone for name in names_of(one)] or [known[0]]
    _know(known, chosen)
    return both_ways(frozenset((name, other) for name in chosen for other in known if other != name))


def bridge(machines: object, middle: object = None, *, seed: int | None = None) -> Pairs:
    """Return the cut into two halves, but for one that talks to both: `middle`, or the one in their middle."""
    known = _order(machines, seed, least=3, what="A bridge")
    (chosen,) = names_of(middle) if middle is not None else (known[len(known) // 2],)
    _know(known, [chosen])
    return halves([name for name in known if name != chosen])


def majorities_ring(machines: object, *, seed: int | None = None) -> Pairs:
    """Return the cut by which everybody sees a majority and no two see the same one.

    They are put in a ring, and each keeps as many neighbours on either side as a majority takes. That needs five
    machines: of fewer, a majority and its neighbours are nearly all.
    """
    known = _order(machines, seed, least=5, what="A ring of majorities")
    count = len(known)
    majority = count // 2 + 1
    reach = majority // 2  # each side, so that 2 * reach + itself >= majority
    near = {(known[i], known[(i + step) % count]) for i in range(count) for step in range(-reach, reach + 1)}
    return frozenset((a, b) for a in known for b in known if (a, b) not in near)


def _order(machines: object, seed: int | None, *, least: int, what: str) -> Sequence[str]:
    known = list(names_of(machines))
    if len(known) < least or len(set(known)) < len(known):
        raise BadSpec(
            f"{what} takes at least {least} different machines.",
            facts={"given": ", ".join(known) or "none"},
            hint=f"@pytest.mark.machine(count={least})",
        )
    if seed is not None:
        random.Random(seed).shuffle(known)  # noqa: S311  # what can be replayed is not secret
    return known


def _know(known: Sequence[str], chosen: Sequence[str]) -> None:
    for name in chosen:
        if name not in known:
            raise BadSpec(
                f"There is no machine '{name}' among those that are to be cut.",
                facts={"machines": ", ".join(known)},
                hint=meant(name, known) or f"isolate(lab, '{known[0]}')",
            )
