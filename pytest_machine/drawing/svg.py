"""A scene as SVG: one text, with nothing from elsewhere, light and dark as the reader has it.

Every text is in a font whose letters are equally wide, so that how much room it takes is known here. Colours are
attributes first, for programs that know no style sheets; the sheet comes on top, and turns them over in the dark.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .grouping import Track, pieces, rows, tracks
from .prose import told
from .scene import CUT, LINK, Box, Bus, Scene

# Of a letter of 1 px: Courier and its like have 0.6, DejaVu's 0.602.
_LETTER = 0.61
_NAME, _SMALL = 13, 11
_LEADING = 15
_MARGIN = 18
_GAP = 22
"""Between two columns."""
_LONGEST = 30
"""Letters of a name, or of a line of a header."""
_MOST = 12
"""Tracks; the text has them all."""
_RAILS = 30
"""Between the two rails of a track."""

_BUSES = ("blue", "green", "violet", "ochre", "teal")
_LIGHT = {
    "paper": "#ffffff", "stripe": "#f4f5f7", "sheet": "#ffffff", "ink": "#1d2330", "soft": "#5b6472", "line": "#98a2b3",
    "cut": "#c62f2f", "impaired": "#9a6200", "link": "#4a5568",
    "blue": "#2f62c4", "green": "#23774f", "violet": "#8245b5", "ochre": "#8f6400", "teal": "#0e7484",
}  # fmt: skip
_DARK = {
    "paper": "#1a1e26", "stripe": "#21262f", "sheet": "#272d38", "ink": "#e8eaee", "soft": "#a8b1c0", "line": "#687388",
    "cut": "#ff7b76", "impaired": "#e8b64c", "link": "#b4bdcc",
    "blue": "#7ba6f7", "green": "#5cc492", "violet": "#c193ec", "ochre": "#d6b04a", "teal": "#52c1d1",
}  # fmt: skip


def _rules(colours: Mapping[str, str]) -> str:
    return " ".join(
        f".ptm-drawing .f-{name}{{fill:{value}}}.ptm-drawing .s-{name}{{stroke:{value}}}"
        for name, value in colours.items()
    )


STYLE = f"""\
.ptm-drawing text{{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,"Liberation Mono",monospace}}
{_rules(_LIGHT)}
@media (prefers-color-scheme:dark){{{_rules(_DARK)}}}
"""
"""What goes into a page's style sheet, once, for drawings without one of their own."""


def svg(scene: Scene, *, ident: str = "ptm", style: bool = True) -> str:
    """Return the picture: a whole file, or with ``style=False`` what goes into a page that has `STYLE`.

    `ident` is what its elements' ids begin with: of two in one page they must differ.
    """
    sheet = _Sheet()
    _Drawing(scene, sheet).draw()
    width, height = math.ceil(sheet.width + _MARGIN), math.ceil(sheet.height + _MARGIN)
    inner = "\n".join([f"<style>{STYLE}</style>" if style else "", _rect(0, 0, width, height, "paper"), *sheet.parts])
    title = _escape(scene.title or "A lab of machines")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ptm-drawing" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-labelledby="{ident}-title {ident}-desc">\n'
        f'<title id="{ident}-title">{title}</title>\n<desc id="{ident}-desc">{_escape(told(scene))}</desc>\n'
        f"{inner.lstrip()}\n</svg>\n"
    )


# ------------------------------------------------------------------------------------------------------- what is where


@dataclass(slots=True)
class _Sheet:
    """What has been drawn, and how far it reaches."""

    parts: list[str] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0

    def add(self, part: str, *, right: float = 0.0, bottom: float = 0.0) -> None:
        self.parts.append(part)
        self.width, self.height = max(self.width, right), max(self.height, bottom)

    def text(
        self, x: float, y: float, said: str, colour: str, *, size: int = _SMALL, bold: bool = False, longest: int = 200
    ) -> None:
        short = _short(said, longest)
        weight = ' font-weight="700"' if bold else ""
        whole = f"<title>{_escape(said)}</title>" if short != said else ""
        self.add(
            f'<text class="f-{colour}" fill="{_LIGHT[colour]}" x="{_n(x)}" y="{_n(y)}" font-family="monospace" '
            f'font-size="{size}"{weight}>{_escape(short)}{whole}</text>',
            right=x + _wide(short, size),
            bottom=y + 4,
        )


@dataclass(frozen=True, slots=True)
class _Row:
    box: Box
    top: float
    bottom: float

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


@dataclass(frozen=True, slots=True)
class _Column:
    bus: Bus
    colour: str
    lanes: tuple[tuple[str, ...], ...]
    """Its parts; of more than one, cut from each other."""
    x: float
    shifts: tuple[int, ...]
    """Each part's lane: 0 unless another part lies beside it."""

    def at(self, name: str) -> float:
        """Return where a machine sits on it."""
        part = next(number for number, part in enumerate(self.lanes) if name in part)
        return self.x + 12 * self.shifts[part]

    @property
    def right(self) -> float:
        return self.x + 12 * max(self.shifts, default=0)


class _Drawing:
    def __init__(self, scene: Scene, sheet: _Sheet) -> None:
        self._scene = scene
        self._sheet = sheet
        self._boxes = {box.name: box for box in scene.machines}
        self._tracks = tracks(scene)
        self._top = float(_MARGIN)
        self._rows: dict[str, _Row] = {}
        self._right = 0.0

    def draw(self) -> None:
        """Draw from the back to the front: stripes, lines, boxes and dots."""
        sheet, scene = self._sheet, self._scene
        if scene.title:
            sheet.text(_MARGIN, self._top + _NAME, scene.title, "ink", size=_NAME, bold=True, longest=100)
            self._top += _NAME + 14
        heads = [[bus.title, *bus.facts] for bus in scene.networks] + [track.words for track in self._shown]
        head = max(map(len, heads), default=0)
        first = self._top + (head * _LEADING + 18 if head else 0)
        wide = max((_wide(_short(line, _LONGEST), _size(n)) for b in scene.machines for n, line in _said(b)), default=0)
        left, width = float(_MARGIN), max(110.0, wide + 24)
        self._lay_rows(first)
        x = left + width + _GAP + 8
        columns, x = self._lay_columns(x)
        places, x = self._lay_tracks(x)
        self._right = max(x - _GAP, left + width)
        for number, row in enumerate(self._rows.values()):
            if not number % 2:
                sheet.add(_rect(left - 8, row.top - 5, self._right - left + 16, row.bottom - row.top + 10, "stripe"),
                          right=self._right + 8, bottom=row.bottom + 5)  # fmt: skip
        for row in self._rows.values():
            self._draw_drop(row, left + width, columns)
        for column in columns:
            self._draw_bus(column)
        for row in self._rows.values():
            self._draw_box(row, left, width)
        for track, at in zip(self._shown, places, strict=True):
            self._draw_track(track, at)
        if hidden := len(self._tracks) - len(self._shown):
            sheet.text(left, sheet.height + 18, f"and {hidden} more, which the text below has", "soft")

    @property
    def _shown(self) -> list[Track]:
        return self._tracks[:_MOST]

    def _lay_rows(self, y: float) -> None:
        for name in rows(self._scene):
            box = self._boxes[name]
            lines = max([len(_said(box)), *(2 * len(each) - 1 for each in box.places.values())])
            height = max(36, lines * _LEADING + 12)
            self._rows[name] = _Row(box, y, y + height)
            y += height + 10

    def _lay_columns(self, x: float) -> tuple[list[_Column], float]:
        found = []
        for bus, colour in zip(self._scene.networks, itertools.cycle(_BUSES)):
            members = [name for name, row in self._rows.items() if bus.name in row.box.places]
            parts = pieces(members, self._scene, bus.name) if members else []
            column = _Column(bus, colour, tuple(map(tuple, parts)), x, _shifts(parts, list(self._rows)))
            addresses = [each for row in self._rows.values() for each in row.box.places.get(bus.name, ())]
            head = max(_wide(_short(line, _LONGEST), _SMALL + 1) for line in (bus.title, *bus.facts))
            there = max((_wide(each, _SMALL) for each in addresses), default=0) + 10 + column.right - x
            found.append(column)
            x += max(head, there, 40) + _GAP
        return found, x

    def _lay_tracks(self, x: float) -> tuple[list[float], float]:
        found = []
        for track in self._shown:
            found.append(x)
            head = max(_wide(_short(line, _LONGEST), _SMALL) for line in track.words)
            x += max(head, _RAILS + 14) + _GAP
        return found, x

    # A machine, and its way to its networks.

    def _draw_drop(self, row: _Row, x: float, columns: Sequence[_Column]) -> None:
        on = [column.at(row.box.name) for column in columns if row.box.name in itertools.chain(*column.lanes)]
        end = max(on, default=x)
        self._sheet.add(_line(x, row.middle, end, row.middle, "line", width=1.5))
        if self._shown and end < self._right:
            self._sheet.add(_line(end, row.middle, self._right, row.middle, "line", width=1, dash="1 5"))

    def _draw_box(self, row: _Row, x: float, width: float) -> None:
        box, sheet = row.box, self._sheet
        off = box.state != "running"
        colour = "cut" if off or box.notes else "line"
        dash = ' stroke-dasharray="5 4"' if off else ""
        sheet.add(
            f'<rect class="f-sheet s-{colour}" fill="{_LIGHT["sheet"]}" stroke="{_LIGHT[colour]}" stroke-width="1.5"'
            f'{dash} x="{_n(x)}" y="{_n(row.top)}" width="{_n(width)}" height="{_n(row.bottom - row.top)}" rx="6"/>'
        )
        lines = _said(box)
        y = row.middle - (len(lines) * _LEADING) / 2 + 11.5
        for number, line in lines:
            colour = "ink" if number == 0 else "soft" if line == box.address else "cut"
            sheet.text(x + 12, y, line, colour, size=_size(number), bold=number == 0, longest=_LONGEST)
            y += _LEADING

    # A network.

    def _draw_bus(self, column: _Column) -> None:
        sheet, colour = self._sheet, column.colour
        top = self._top
        head = [column.bus.title, *column.bus.facts]
        for number, line in enumerate(head):
            sheet.text(column.x - 4, top + 12 + number * _LEADING, line, colour if number == 0 else "soft",
                       size=_SMALL + (number == 0), bold=number == 0, longest=_LONGEST)  # fmt: skip
        if not column.lanes:
            return
        start = top + 18 + (len(head) - 1) * _LEADING
        whole = len(column.lanes) == 1
        for number, part in enumerate(column.lanes):
            ys = [self._rows[name].middle for name in part]
            x = column.at(part[0])
            begin = start if number == 0 and x == column.x else min(ys) - 9
            dash = "6 4" if column.bus.own else ""
            sheet.add(_line(x, begin, x, max(ys) if whole else max(ys) + 9, colour, width=4, dash=dash))
        below: dict[float, float] = {}
        for part in sorted(column.lanes, key=lambda part: self._rows[part[0]].top):
            x, first = column.at(part[0]), self._rows[part[0]]
            if x in below or x != column.x:
                end = first.middle - 9
                sheet.add(_line(x, below.get(x, start), x, end, "cut", width=1.5, dash="3 3"))
                # Between two rows, so that it lies on no other line; the first has none before it.
                self._draw_cross(x, max(first.top - 5, start + 12))
            below[x] = self._rows[part[-1]].middle + 9
        for part in column.lanes:
            for name in part:
                row = self._rows[name]
                sheet.add(_circle(column.at(name), row.middle, 5, colour))
                for number, address in enumerate(row.box.places[column.bus.name]):
                    sheet.text(column.right + 9, row.middle - 5 + 18 * number, address, "ink")

    def _draw_cross(self, x: float, y: float, size: float = 4.5) -> None:
        colour = _LIGHT["cut"]
        self._sheet.add(
            f'<circle class="f-paper s-cut" cx="{_n(x)}" cy="{_n(y)}" r="{_n(size * 1.9)}" fill="{_LIGHT["paper"]}" '
            f'stroke="{colour}" stroke-width="1.5"/>'
            f'<path class="s-cut" stroke="{colour}" stroke-width="2.5" stroke-linecap="round" '
            f'd="M{_n(x - size)} {_n(y - size)}L{_n(x + size)} {_n(y + size)}M{_n(x - size)} {_n(y + size)}'
            f'L{_n(x + size)} {_n(y - size)}"/>'
        )

    # What is wrong between machines.

    def _draw_track(self, track: Track, x: float) -> None:
        sheet, colour = self._sheet, track.kind
        for number, line in enumerate(track.words):
            sheet.text(x, self._top + 12 + number * _LEADING, line, colour, bold=number == 0, longest=_LONGEST)
        left, right = x + 6, x + 6 + _RAILS
        ones = [self._rows[name].middle for name in track.ones]
        others = [self._rows[name].middle for name in track.others]
        a, b = _between(ones, others)
        for at, ys, end in ((left, ones, a), (right, others, b)):
            low, high = min(*ys, end), max(*ys, end)
            if low < high:
                sheet.add(_line(at, low, at, high, colour, width=2.5))
        dash = "4 3" if colour == CUT else ""
        sheet.add(_line(left, a, right, b, colour, width=2, dash=dash))
        for at, ys in ((left, ones), (right, others)):
            for y in ys:
                sheet.add(_circle(at, y, 5, colour))
        if not (track.both and colour in (CUT, LINK)):
            self._draw_arrow((left, a), (right, b), colour)
            if track.both:
                self._draw_arrow((right, b), (left, a), colour)
        if colour == CUT:
            self._draw_cross((left + right) / 2, (a + b) / 2)

    def _draw_arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        tip = (end[0] - 5 * math.cos(angle), end[1] - 5 * math.sin(angle))
        wings = [(tip[0] - 8 * math.cos(angle + s), tip[1] - 8 * math.sin(angle + s)) for s in (-0.45, 0.45)]
        points = " ".join(f"{_n(px)},{_n(py)}" for px, py in (tip, *wings))
        self._sheet.add(f'<polygon class="f-{colour}" fill="{_LIGHT[colour]}" points="{points}"/>')


def _said(box: Box) -> list[tuple[int, str]]:
    """Return the lines of a machine's box, with their numbers."""
    state = [box.state] if box.state != "running" else []
    lines = [box.name, *([box.address] if box.address else []), *state, *box.notes]
    return list(enumerate(lines))


def _size(number: int) -> int:
    return _SMALL if number else _NAME


def _shifts(parts: Sequence[Sequence[str]], order: Sequence[str]) -> tuple[int, ...]:
    """Return a lane for each part of a network, so that no two that lie beside each other have the same."""
    spans = [(order.index(part[0]), order.index(part[-1])) for part in parts]
    found: list[int] = []
    for number, (low, high) in enumerate(spans):
        taken = {found[i] for i in range(number) if spans[i][0] <= high and low <= spans[i][1]}
        found.append(next(lane for lane in itertools.count() if lane not in taken))
    return tuple(found)


def _between(ones: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Return at which heights the line between two rails begins and ends: level where it can be."""
    low, high = max(min(ones), min(others)), min(max(ones), max(others))
    if low < high:
        # Never at a row itself, where dots are.
        ys = sorted({y for y in (*ones, *others) if low <= y <= high})
        middle = len(ys) // 2
        level = (ys[middle - 1] + ys[middle]) / 2
        return level, level
    return (max(ones), min(others)) if max(ones) <= min(others) else (min(ones), max(others))


# -------------------------------------------------------------------------------------------------------------- pieces


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect class="f-{colour}" fill="{_LIGHT[colour]}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" '
        f'height="{_n(height)}" rx="4"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path class="s-{colour}" stroke="{_LIGHT[colour]}" stroke-width="{_n(width)}"{dashed} fill="none" '
        f'd="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}"/>'
    )


def _circle(x: float, y: float, radius: float, colour: str) -> str:
    return (
        f'<circle class="f-{colour} s-paper" fill="{_LIGHT[colour]}" stroke="{_LIGHT["paper"]}" stroke-width="1.5" '
        f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"/>'
    )


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _wide(text: str, size: float) -> float:
    """Return how wide a text is; letters of the East and signs like them are two wide, what is put over others none."""
    cells = sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
    return cells * size * _LETTER


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _escape(text: str) -> str:
    """Return a text as XML has it; what XML can have in no way (control characters, halves of pairs) is `�`."""
    clean = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
    return clean.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
