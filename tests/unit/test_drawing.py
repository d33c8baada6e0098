"""Pictures of labs: what is kept of them, and what holds for every one."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_machine import topology
from pytest_machine.drawing import CUT, IMPAIRED, Box, Bus, Line, Scene, svg, told
from pytest_machine.drawing.grouping import pieces, rows, tracks
from tests.rendered.drawings import DOCS, SCENES, lines

RENDERED = Path(__file__).parents[1] / "rendered"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", SCENES)
def test_as_it_is_kept(name: str) -> None:
    """Changed on purpose? Look at the new one first: python -m tests.rendered.drawings."""
    assert svg(SCENES[name]) == (RENDERED / f"drawing-{name}.svg").read_text("utf-8")


def test_the_documentation_shows_what_is_drawn() -> None:
    assert DOCS.read_text("utf-8") == svg(SCENES["tiers-cut"])


def test_in_words() -> None:
    assert told(SCENES["tiers-cut"]) == (
        "app | db: cut\nweb: loss 30 %, all\n"
        "in force: Partition(app | db)\nin force: Loss(between=('web',), chance=0.3)\n\n"
        "network 'front' (10.220.0.0/24): web 10.220.0.2, app 10.220.0.3\n"
        "network 'back' (10.221.0.0/24, fd00:1:2::/64, MTU 1400, isolated): app 10.221.0.3, db 10.221.0.4"
    )
    assert told(SCENES["ring"]).splitlines()[:3] == [
        "node-1 | node-3, node-4: cut",
        "node-2 | node-4, node-5: cut",
        "node-3 | node-5: cut",
    ]
    assert told(SCENES["one-way"]).splitlines()[:2] == [
        "node-1 -> node-2, node-3: cut",
        "node-5 -> node-4: cut, port 5432",
    ]
    assert "node-1 <-> node-2: delay 100 ms ± 20 ms" in told(SCENES["bridge"])
    assert "node-2: paused\nnode-4: stopped\nnode-4: engine hang" in told(SCENES["states"])
    assert told(Scene()) == ""


NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=2, max_size=9, unique=True)
WORDS = st.text(min_size=1, max_size=40)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """A lab with whatever may be wrong in it."""
    names = draw(NAMES)
    networks = draw(st.lists(st.sampled_from(["n1", "n2", "n3", "n4", "n5"]), max_size=5, unique=True))
    addresses = st.lists(st.ip_addresses().map(str), min_size=1, max_size=2).map(tuple)
    found = []
    for name in names:
        on = draw(st.lists(st.sampled_from(networks), unique=True)) if networks else []
        state = draw(st.sampled_from(["running", "paused", "stopped"]))
        notes = draw(st.lists(WORDS, max_size=3).map(tuple))
        places = {net: draw(addresses) for net in on}
        found.append(Box(name=name, state=state, address=draw(st.just("") | st.just("10.0.0.1")), places=places,
                         notes=notes))  # fmt: skip
    pair = st.tuples(st.sampled_from(names), st.sampled_from(names)).filter(lambda pair: pair[0] != pair[1])
    how = st.sampled_from([(CUT, "cut", ""), (CUT, "cut", "port 80"), (IMPAIRED, "loss 30 %", "")])
    where = st.none() | (st.sampled_from(networks) if networks else st.none())
    wrong = []
    for _ in range(draw(st.integers(0, 4))):
        kind, label, only = draw(how)
        pairs = draw(st.frozensets(pair, max_size=12))
        network = draw(where)
        wrong += [Line(sender=a, receiver=b, kind=kind, label=label, where=only, network=network)
                  for a, b in sorted(topology.both_ways(pairs) if draw(st.booleans()) else pairs)]  # fmt: skip
    return Scene(
        title=draw(st.text(max_size=30)),
        machines=tuple(found),
        networks=tuple(Bus(name=net, mtu=draw(st.sampled_from([0, 1400]))) for net in networks),
        lines=tuple(dict.fromkeys(wrong)),
    )


Rectangle = tuple[float, float, float, float]


def texts(picture: ET.Element) -> list[tuple[str, Rectangle]]:
    """Return each text, and where it is: no letter is wider than 0.61 of its size, or twice that."""
    found = []
    for element in picture.iter(f"{SVG}text"):
        size, x, y = (float(element.attrib[name]) for name in ("font-size", "x", "y"))
        said = element.text or ""
        cells = sum(1 if ord(each) < 0x1100 else 2 for each in said.replace("…", "."))
        # Letters reach as high as 0.8 of their size, and a fifth below the line.
        found.append((said, (x, y - 0.8 * size, x + cells * size * 0.61, y + 0.2 * size)))
    return found


def overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@settings(deadline=None, max_examples=40)
@given(scenes())
def test_every_picture_is_whole_and_its_texts_stand_apart(scene: Scene) -> None:
    text = svg(scene)
    assert text == svg(scene)
    picture = ET.fromstring(text)
    assert picture.attrib["role"] == "img"
    ids = [element.attrib["id"] for element in picture.iter() if "id" in element.attrib]
    assert picture.attrib["aria-labelledby"].split() == ids == list(dict.fromkeys(ids))
    assert not re.search(r"href|url\(|@import|<script", text)
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    # Of letters of which it is not known here how wide they are, it is the drawing's own measure that counts.
    placed = [each for each in texts(picture) if each[0].isascii()]
    for number, (said, place) in enumerate(placed):
        assert place[0] >= 0, said
        assert place[1] >= 0, said
        assert place[2] <= width, said
        assert place[3] <= height, said
        for other, there in placed[:number]:
            assert not overlap(place, there), f"{said!r} and {other!r}"


@settings(deadline=None, max_examples=30)
@given(scenes())
def test_tracks_say_all_and_nothing_twice(scene: Scene) -> None:
    found = []
    for track in tracks(scene):
        for a in track.ones:
            for b in track.others:
                key = (track.kind, track.label, track.where, track.network)
                found += [(*key, a, b), *([(*key, b, a)] if track.both else [])]
    said = [(line.kind, line.label, line.where, line.network, line.sender, line.receiver) for line in scene.lines]
    assert sorted(map(str, found)) == sorted(map(str, said))


@settings(deadline=None, max_examples=30)
@given(scenes())
def test_pieces_of_a_network(scene: Scene) -> None:
    for bus in scene.networks:
        members = [box.name for box in scene.machines if bus.name in box.places]
        parts = pieces(members, scene, bus.name)
        assert sorted(name for part in parts for name in part) == sorted(members)
        cut = {
            (line.sender, line.receiver)
            for line in scene.lines
            if line.kind == CUT and not line.where and line.network in (None, bus.name)
        }
        apart = {(a, b) for a, b in cut if (b, a) in cut}
        if len(parts) > 1:
            for part in parts:
                for name in members:
                    for here in part:
                        assert ((here, name) in apart) == (name not in part)
    assert sorted(rows(scene)) == sorted(box.name for box in scene.machines)


def test_a_network_is_drawn_in_pieces_only_where_it_is_in_pieces() -> None:
    names = ["a", "b", "c", "d", "e"]
    assert pieces(names, Scene(lines=lines(topology.halves(names))), "n") == [["a", "b"], ["c", "d", "e"]]
    assert pieces(names, Scene(lines=lines(topology.isolate(names, "c"))), "n") == [["a", "b", "d", "e"], ["c"]]
    for whole in (topology.bridge(names), topology.majorities_ring(names), topology.one_way("a", "b")):
        assert pieces(names, Scene(lines=lines(whole)), "n") == [names]
    assert pieces(names, Scene(lines=lines(topology.halves(names), where="port 80")), "n") == [names]
    assert pieces(names, Scene(lines=lines(topology.halves(names), network="other")), "n") == [names]


@pytest.mark.parametrize(("name", "crosses"), [("tiers", 0), ("tiers-cut", 2), ("ring", 3), ("across", 4)])
def test_what_is_cut_is_crossed_out(name: str, crosses: int) -> None:
    picture = ET.fromstring(svg(SCENES[name]))
    rings = [e for e in picture.iter(f"{SVG}circle") if "f-paper s-cut" in e.attrib["class"]]
    assert len(rings) == crosses
