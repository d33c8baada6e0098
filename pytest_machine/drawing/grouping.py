"""Many pairs as few groups: what a reader can take in of who is cut from whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .scene import CUT, Scene

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """The same happens between each of the ones and each of the others."""

    ones: tuple[str, ...]
    others: tuple[str, ...]
    both: bool
    """Whether both ways; otherwise to what the ones send."""
    kind: str
    label: str
    where: str
    network: str | None

    @property
    def words(self) -> list[str]:
        """What happens, a line each."""
        on = f"on {self.network}" if self.network is not None else ""
        return [word for word in (self.label, self.where, on) if word]


def tracks(scene: Scene) -> list[Track]:
    """Return what holds between machines, in as few groups as come easily; nothing twice, nothing left out."""
    order = {box.name: number for number, box in enumerate(scene.machines)}
    alike: dict[tuple[str, str, str, str | None], set[Pair]] = {}
    for line in scene.lines:
        if line.sender in order and line.receiver in order and line.sender != line.receiver:
            key = (line.kind, line.label, line.where, line.network)
            alike.setdefault(key, set()).add((line.sender, line.receiver))
    found = []
    for (kind, label, where, network), pairs in alike.items():
        both = {pair for pair in pairs if pair[::-1] in pairs}
        for is_both, some in ((True, both), (False, pairs - both)):
            found += [
                Track(ones=ones, others=others, both=is_both, kind=kind, label=label, where=where, network=network)
                for ones, others in _groups(some, order, both=is_both)
            ]
    return found


def _groups(
    pairs: set[Pair], order: dict[str, int], *, both: bool
) -> Iterable[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield groups of senders and groups of receivers, of which each sender has each receiver, until none is left."""
    left = set(pairs)
    for name in order:
        while others := tuple(b for b in order if (name, b) in left):
            ones = tuple(a for a in order if a not in others and all((a, b) in left for b in others))
            yield ones, others
            for a in ones:
                for b in others:
                    left.discard((a, b))
                    if both:
                        left.discard((b, a))


def pieces(members: Sequence[str], scene: Scene, network: str) -> list[list[str]]:
    """Return the parts into which cuts have broken a network: within each all reach each other, and nobody else.

    One part: it is whole, or what is cut on it divides it into no such parts.
    """
    cut = {
        (line.sender, line.receiver)
        for line in scene.lines
        if line.kind == CUT and not line.where and line.network in (None, network)
    }

    def apart(a: str, b: str) -> bool:
        return (a, b) in cut and (b, a) in cut

    found: list[list[str]] = []
    left = list(members)
    while left:
        part = [left.pop(0)]
        for one in part:
            near = [other for other in left if not apart(one, other)]
            part += near
            left = [other for other in left if other not in near]
        if any(apart(a, b) for a in part for b in part):
            return [list(members)]
        found.append([name for name in members if name in part])
    return found


def rows(scene: Scene) -> list[str]:
    """Return the machines' names, those together that reach each other."""
    names = [box.name for box in scene.machines]
    everywhere = Scene(lines=tuple(line for line in scene.lines if line.network is None))
    parts = pieces(names, everywhere, "")
    if len(parts) > 1:
        return [name for part in parts for name in part]
    for bus in scene.networks:
        parts = pieces([box.name for box in scene.machines if bus.name in box.places], scene, bus.name)
        if len(parts) > 1:
            # Who is not on it stays behind whom it came behind.
            rank = {name: number for number, part in enumerate(parts) for name in part}
            last, found = 0, {}
            for name in names:
                last = found[name] = rank.get(name, last)
            return sorted(names, key=found.__getitem__)
    return names
