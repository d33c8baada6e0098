"""``--machine-timeline=FILE.html``: the life of every machine of a run as a page that needs nothing but a browser.

Drawn with HTML, CSS and SVG alone: no script, nothing from elsewhere, light and dark as the reader has it. Whatever is
drawn is also said: in the bars' titles and, as text and numbers, in the tables below.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from pytest_machine.drawing import STYLE

from .journal import PHASES, Event, pieces, times

_STYLE = Path(__file__).with_name("timeline.css")
_TICKS = 8
# Pictures of labs in a page; a run of thousands of tests must not make one that no browser opens.
_PICTURES = 40
# Tests that are named below a picture.
_NAMED = 3
_KINDS = {
    "creating": "being made",
    "waiting": "waiting for its Docker",
    "passed": "a test",
    "failed": "a failed test",
    "resetting": "being reset",
    "destroying": "being destroyed",
    "fault": "a fault in force",
}


def page(events: Iterable[Event]) -> str:
    """Return the whole page."""
    known = sorted(events, key=lambda event: event.begun)
    lives = _by_machine(known)
    body = _chart(lives, known) if lives else "<p>No machine was made.</p>"
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Machines of a test run</title>
<style>
{_STYLE.read_text("utf-8")}{STYLE}</style>
</head>
<body>
<header>
<h1>Machines of a test run</h1>
<p class="when">{_when(known)}</p>
</header>
<main>
{_numbers(lives, known)}
{body}
{_pictures(known)}
{_tables(lives, known)}
</main>
<footer>pytest-machine</footer>
</body>
</html>
"""


def _by_machine(events: Sequence[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        if event.machine:
            found.setdefault(event.machine, []).append(event)
    return found


def _when(events: Sequence[Event]) -> str:
    if not events:
        return ""
    return time.strftime("%A, %d %B %Y, %H:%M:%S", time.localtime(events[0].begun))


def _numbers(lives: dict[str, list[Event]], events: Sequence[Event]) -> str:
    made = [life for life in lives.values() if _ready(life) is not None]
    seconds = sorted(ready for life in made if (ready := _ready(life)) is not None)
    cards = [("machines", str(len(made)))]
    if seconds:
        cards += [("ready after, median", _seconds(seconds[len(seconds) // 2]))]
        cards += [("ready after, longest", _seconds(seconds[-1]))]
    cards += [(name, _seconds(spent)) for name, spent in times(events).items() if spent >= 0.005]
    if events:
        cards.append(("first to last", _seconds(max(e.ended for e in events) - events[0].begun)))
    items = "\n".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in cards)
    return f'<dl class="numbers" aria-label="The numbers">\n{items}\n</dl>'


def _ready(life: Sequence[Event]) -> float | None:
    """Return how long a machine took to be ready; None: it never was."""
    waited = [event.ended for event in life if event.kind == "waiting"]
    begun = [event.begun for event in life if event.kind == "creating"]
    return waited[0] - begun[0] if waited and begun else None


def _chart(lives: dict[str, list[Event]], events: Sequence[Event]) -> str:
    start = events[0].begun
    span = max(max(event.ended for event in events) - start, 0.001)
    step = _step(span)
    ticks = [index * step for index in range(int(span / step + 1e-9) + 1)]
    axis = "".join(f'<span style="left:{100 * tick / span:.3f}%">{_tick(tick, step)}</span>' for tick in ticks)
    rows = "\n".join(_row(life, start, span, step) for life in lives.values())
    legend = "".join(f'<li><i class="{kind}"></i>{words}</li>' for kind, words in _KINDS.items())
    return f"""\
<section aria-labelledby="lives">
<h2 id="lives">Their lives</h2>
<ul class="legend" aria-hidden="true">{legend}<li><b class="mark befell">▼</b>something befell it</li></ul>
<div class="scroll">
<div class="chart">
<div class="row axis" aria-hidden="true"><div class="who"></div><div class="lane">{axis}</div></div>
{rows}
</div>
</div>
</section>"""


def _row(life: Sequence[Event], start: float, span: float, step: float) -> str:
    first = life[0]
    kept = any(event.kind == "kept" for event in life)
    stillborn = _ready(life) is None
    own = [event for event in life if event.kind != "test"] or life
    begun, ended = min(e.begun for e in own), start + span if kept else max(e.ended for e in life)
    what = first.detail.get("driver", "") + (f", {first.worker}" if first.worker else "")
    badge = '<em class="kept">kept</em>' if kept else '<em class="stillborn">not made</em>' if stillborn else ""
    line = f'<span class="life{" kept" if kept else ""}" style="{_at(begun, ended, start, span)}"></span>'
    bars = "".join(_bars(life, start, span))
    lanes = _lanes([event for event in life if event.kind == "fault"])
    for number, lane in enumerate(lanes):
        for event in lane:
            title = f"{event.text}: in force for {_seconds(event.seconds)}"
            place = f"{_at(event.begun, event.ended, start, span)};--lane:{number}"
            # What is too short for a word has none: the title and the table say it.
            bars += _bar("fault", event.text if event.seconds > span / 20 else "", title, place)
    return (
        f'<div class="row"><div class="who" title="{escape(first.machine)}"><strong>{escape(first.name)}</strong>'
        f"{badge}<small>{escape(what)}</small></div>"
        f'<div class="lane" style="--step:{100 * step / span:.4f}%;--lanes:{len(lanes)}">{line}{bars}</div></div>'
    )


def _bars(life: Sequence[Event], start: float, span: float) -> Iterator[str]:
    for event in life:
        if event.kind in PHASES:
            title = f"{_KINDS[event.kind]}: {_seconds(event.seconds)}"
            yield _bar(event.kind, "", title, _at(event.begun, event.ended, start, span))
        elif event.kind == "test":
            outcome = event.detail.get("outcome", "passed")
            for begun, ended in _while_it_was_there(event, life):
                title = f"{event.text}: {outcome}, {_seconds(ended - begun)}"
                name = ("✗ " if outcome == "failed" else "") + event.text.rpartition("::")[2]
                yield _bar(outcome, name, title, _at(begun, ended, start, span))
        elif event.kind in ("incident", "failed"):
            left = 100 * (event.ended - start) / span
            sign, looks = ("▼", "mark befell") if event.kind == "incident" else ("✗", "mark")
            yield f'<b class="{looks}" style="left:{left:.3f}%" role="img" {_said(event.text)}>{sign}</b>'


def _lanes(faults: Sequence[Event]) -> list[list[Event]]:
    """Return faults in as few lanes as it takes for none to lie on another."""
    lanes: list[list[Event]] = []
    for event in sorted(faults, key=lambda each: (each.begun, each.ended)):
        lane = next((each for each in lanes if each[-1].ended <= event.begun), None)
        if lane is None:
            lanes.append([event])
        else:
            lane.append(event)
    return lanes


def _while_it_was_there(test: Event, life: Sequence[Event]) -> list[tuple[float, float]]:
    """Return when a test really had the machine: neither its setup before nor its teardown after are its life."""
    ready = min((event.ended for event in life if event.kind == "waiting"), default=test.begun)
    gone = min((event.begun for event in life if event.kind == "destroying"), default=test.ended)
    return [(a, b) for a, b in pieces(test, life) if a >= ready and b <= gone]


def _bar(kind: str, name: str, title: str, place: str) -> str:
    return f'<span class="bar {escape(kind)}" role="img" {_said(title)} style="{place}">{escape(name)}</span>'


def _said(text: str) -> str:
    return f'title="{escape(text)}" aria-label="{escape(text)}"'


def _at(begun: float, ended: float, start: float, span: float) -> str:
    return f"left:{100 * (begun - start) / span:.3f}%;width:{100 * max(0.0, ended - begun) / span:.3f}%"


def _pictures(events: Sequence[Event]) -> str:
    """Return the labs: of each failed test as it was then, and one of each shape that passing tests had."""
    drawn = [event for event in events if event.kind == "drawing"]
    failed = [[event] for event in drawn if event.detail["outcome"] == "failed"]
    shapes: dict[str, list[Event]] = {}
    for event in drawn:
        if event.detail["outcome"] != "failed":
            shapes.setdefault(event.detail["shape"], []).append(event)
    figures = [*failed, *shapes.values()]
    if not figures:
        return ""
    more = f'<p class="when">and {len(figures) - _PICTURES} more</p>' if len(figures) > _PICTURES else ""
    return (
        '<section aria-labelledby="labs"><h2 id="labs">Their networks</h2>\n'
        + "\n".join(_figure(each) for each in figures[:_PICTURES])
        + f"{more}</section>"
    )


def _figure(alike: Sequence[Event]) -> str:
    tests = list(dict.fromkeys(event.text for event in alike))
    said = ", ".join(f"<code>{escape(test)}</code>" for test in tests[:_NAMED])
    if len(tests) > _NAMED:
        said += f" and {len(tests) - _NAMED} more"
    first = alike[0].detail
    if first["outcome"] == "failed":
        said = f'<em class="stillborn">failed</em> {said}: as it was then'
    # Ours, and escaped when it was drawn.
    return f'<figure><figcaption>{said}</figcaption><div class="scroll picture">{first["svg"]}</div></figure>'


def _tables(lives: dict[str, list[Event]], events: Sequence[Event]) -> str:
    rows = []
    for life in lives.values():
        first, ready = life[0], _ready(life)
        spent = times(life)
        end = next((e.kind for e in reversed(life) if e.kind in ("destroying", "kept")), "")
        fate = {"destroying": "destroyed", "kept": "kept"}.get(end, "could not be made" if ready is None else "")
        tests = {event.text for event in life if event.kind == "test"}
        cells = [
            f'<th scope="row">{escape(first.name)} <code>{escape(first.machine)}</code></th>',
            f"<td>{escape(first.detail.get('driver', ''))}</td>",
            _cell(ready),
            f'<td class="number">{len(tests)}</td>',
            *(_cell(spent[each] or None) for each in ("tests", "resetting", "destroying")),
            f"<td>{fate}</td>",
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = ("machine", "driver", "ready after", "tests", "in tests", "reset", "destroyed in", "in the end")
    head = "".join(f'<th scope="col"{" class=number" if 1 < i < 7 else ""}>{each}</th>' for i, each in enumerate(heads))
    said = _befell(events)
    table = (
        f'<section aria-labelledby="each"><h2 id="each">Each machine</h2><div class="scroll"><table><thead><tr>{head}'
    )
    found = f"{table}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table></div></section>"
    if said:
        found += (
            '<section aria-labelledby="befell"><h2 id="befell">What befell them</h2><div class="scroll"><table><thead>'
            '<tr><th scope="col">machine</th><th scope="col" class=number>after</th>'
            '<th scope="col">what</th></tr></thead><tbody>\n' + "\n".join(said) + "\n</tbody></table></div></section>"
        )
    return found


def _befell(events: Sequence[Event]) -> list[str]:
    """Return a row for each thing that befell machines; a fault of several is one."""
    found: dict[tuple[str, str, float], list[Event]] = {}
    for event in events:
        if event.kind in ("incident", "failed", "kept"):
            found[event.kind, event.machine, event.ended] = [event]
        elif event.kind == "fault":
            found.setdefault((event.kind, event.text, event.begun), []).append(event)
    rows = []
    for alike in found.values():
        event = alike[0]
        names = ", ".join(dict.fromkeys(each.name for each in alike))
        fault = event.kind == "fault"
        after = (event.begun if fault else event.ended) - events[0].begun
        what = f"{event.text} (for {_seconds(event.seconds)})" if fault else event.text
        rows.append(f'<tr><th scope="row">{escape(names)}</th>{_cell(after)}<td>{escape(what)}</td></tr>')
    return rows


def _cell(seconds: float | None) -> str:
    return f'<td class="number">{"–" if seconds is None else _seconds(seconds)}</td>'


def _step(span: float) -> float:
    """Return a round number of seconds between two ticks."""
    rough = span / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= rough)


def _tick(tick: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step)))
    return f"{tick:.{digits}f} s"


def _seconds(value: float) -> str:
    if value >= 120:
        return f"{int(value // 60)} min {value % 60:.0f} s"
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"
