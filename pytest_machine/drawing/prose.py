"""A scene in words: for a report in a terminal, and for whoever does not see the picture."""

from __future__ import annotations

from .grouping import Track, tracks
from .scene import CUT, Scene


def told(scene: Scene) -> str:
    """Return who sits where and what is wrong, in a few lines; what is wrong comes first."""
    parts = []
    if wrong := _wrong(scene):
        parts.append("\n".join(wrong))
    parts.append("\n".join(_places(scene)))
    return "\n\n".join(part for part in parts if part)


def _wrong(scene: Scene) -> list[str]:
    cuts_first = sorted(tracks(scene), key=lambda track: track.kind != CUT)
    found = [f"{arrow(track)}: {', '.join(track.words)}" for track in cuts_first]
    for box in scene.machines:
        found += [f"{box.name}: {said}" for said in (*([box.state] if box.state != "running" else []), *box.notes)]
    found += [f"in force: {fault}" for fault in scene.faults]
    return found


def arrow(track: Track) -> str:
    """Return between whom something happens: ``a, b | c``."""
    sign = ("|" if track.kind == CUT else "<->") if track.both else "->"
    return f"{', '.join(track.ones)} {sign} {', '.join(track.others)}"


def _places(scene: Scene) -> list[str]:
    found = []
    for bus in scene.networks:
        on = [
            f"{box.name} {' '.join(box.places[bus.name])}".strip() for box in scene.machines if bus.name in box.places
        ]
        facts = f" ({', '.join(bus.facts)})" if bus.facts else ""
        what = bus.title if bus.own else f"network '{bus.name}'"
        found.append(f"{what}{facts}: {', '.join(on) or 'nobody'}")
    alone = [box.name for box in scene.machines if not box.places]
    return [*found, *([f"on no network: {', '.join(alone)}"] if alone and scene.networks else [])]
