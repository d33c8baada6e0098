"""The page: pure functions first, then a whole run's page in a real browser."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pytest_machine.drawing import svg
from pytest_machine.plugin.journal import Event, pieces, times
from pytest_machine.plugin.timeline import page
from tests.rendered.drawings import SCENES

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def event(kind: str, begun: float, ended: float, machine: str = "a", text: str = "", **detail: str) -> Event:
    return Event(
        kind=kind, machine=machine, name=f"<{machine}>", begun=begun, ended=ended, text=text,
        detail={"driver": "fake", **detail},
    )  # fmt: skip


LIFE = [
    event("creating", 101, 103),
    event("waiting", 103, 104),
    event("test", 100, 110, text="test_a.py::test_<b>", outcome="failed"),
    event("resetting", 106, 107),
    event("incident", 105, 105, text="oom: Killed & gone"),
    event("destroying", 109, 110),
    event("failed", 100, 102, "b", text="The stars are wrong."),
    event("creating", 100, 101, "c"),
    event("waiting", 101, 102, "c"),
    event("kept", 108, 108, "c", text="test_c failed"),
    event("fault", 104.5, 108, text="Partition(<a> | c)"),
    event("fault", 104.5, 108, "c", text="Partition(<a> | c)"),
    event("fault", 105, 106, text="Pause('<a>')"),
    event("fault", 106.5, 106.6, text="Restart('<a>')"),
]


def drawing(name: str, test: str, outcome: str) -> Event:
    detail = {"svg": svg(SCENES[name], ident=f"{name}-{test}", style=False), "outcome": outcome, "shape": name}
    return Event(kind="drawing", machine="", name="", begun=110, ended=110, text=test, detail=detail)


DRAWN = [
    drawing("tiers", "test_a.py::test_1", "passed"),
    *(drawing("many", f"test_b.py::test_{number}", "passed") for number in range(5)),
    drawing("tiers-cut", "test_a.py::test_<b>", "failed"),
]


def test_a_tests_time_is_without_its_machines() -> None:
    assert pieces(LIFE[2], LIFE[:6]) == [(100, 101), (104, 106), (107, 109)]
    assert times(LIFE[:6]) == {"creating": 2, "waiting": 1, "resetting": 1, "destroying": 1, "tests": 5}


def test_a_test_that_gets_its_machines_one_after_the_other_counts_once() -> None:
    both = [event("test", 0, 4, "a", text="t", run="0"), event("test", 2, 4, "b", text="t", run="0")]
    again = event("test", 5, 6, "a", text="t", run="5")
    assert times([*both, again])["tests"] == times([*both[::-1], again])["tests"] == 5


def test_a_test_with_two_machines_counts_once() -> None:
    both = [event("test", 0, 4, machine, text="t") for machine in ("a", "b")]
    assert times(both)["tests"] == 4
    assert times([*both, event("creating", 1, 2, "b")])["tests"] == 3


class Checker(HTMLParser):
    """Balanced tags, and nothing from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.bars: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert not {"src", "href", "onload", "onclick"} & set(found)
        assert tag not in ("script", "link", "img", "iframe")
        if tag != "meta":
            self.open.append(tag)
        if "bar" in (found.get("class") or "").split():
            self.bars.append(found)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_alone() -> None:
    text = page(LIFE)
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert "url(" not in text
    assert "@import" not in text
    assert "<b>" not in re.sub(r"<b class", "", text)
    titles = [bar["title"] for bar in checker.bars]
    assert titles.count("test_a.py::test_<b>: failed, 2.00 s") == 2
    assert {"being made: 2.00 s", "being reset: 1.00 s", "being destroyed: 1.00 s"} <= set(titles)
    assert all(bar["title"] == bar["aria-label"] and bar["role"] == "img" for bar in checker.bars)
    for said in ("oom: Killed &amp; gone", "The stars are wrong.", ">kept<", ">not made<"):
        assert said in text
    assert "Their networks" not in text


def test_faults_have_lanes_of_their_own() -> None:
    text = page(LIFE)
    lanes = re.findall(r'class="bar fault" role="img" title="([^"]*)"[^>]*--lane:(\d)">([^<]*)<', text)
    partition, pause = "Partition(&lt;a&gt; | c)", "Pause(&#x27;&lt;a&gt;&#x27;)"
    assert lanes == [
        (f"{partition}: in force for 3.50 s", "0", partition),
        (f"{pause}: in force for 1.00 s", "1", pause),
        ("Restart(&#x27;&lt;a&gt;&#x27;): in force for 0.10 s", "1", ""),  # too short for a word
        (f"{partition}: in force for 3.50 s", "0", partition),
    ]
    # In the table it is one thing that befell two machines, when it began.
    row = f'<th scope="row">&lt;a&gt;, &lt;c&gt;</th><td class="number">4.50 s</td><td>{partition} (for 3.50 s)</td>'
    assert text.count(row) == 1


def test_labs_are_drawn_once_a_shape_and_those_of_failed_tests_first() -> None:
    text = page([*LIFE, *DRAWN])
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    figures = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert figures == [
        '<em class="stillborn">failed</em> <code>test_a.py::test_&lt;b&gt;</code>: as it was then',
        "<code>test_a.py::test_1</code>",
        "<code>test_b.py::test_0</code>, <code>test_b.py::test_1</code>, <code>test_b.py::test_2</code> and 2 more",
    ]
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids)) > 6
    many = page([*LIFE, *(drawing("tiers", f"test_{number}", "failed") for number in range(50))])
    assert many.count("<figure>") == 40
    assert "and 10 more" in many


def test_a_run_without_machines_has_a_page_too() -> None:
    assert "No machine was made." in page([])


SUITE = """
import pytest, time
@pytest.mark.machine("web")
@pytest.mark.machine("db")
def test_two(lab): time.sleep(0.3)
@pytest.mark.machine("bad", options={"fail_create": "disk"})
def test_bad(machine): ...
@pytest.mark.parametrize("x", range(3))
def test_shared(module_machine, x): time.sleep(0.1)
def test_fails(machine): assert 0
"""


@pytest.mark.parametrize("arguments", [(), ("-n2",)], ids=["alone", "xdist"])
def test_of_a_run(inner: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    inner.makepyfile(SUITE)
    result = inner.runpytest_subprocess("--machine-timeline=sub/t.html", "--machine-retries=0", *arguments)
    result.assert_outcomes(passed=4, failed=1, errors=1)
    result.stdout.fnmatch_lines([f"timeline: {inner.path}/sub/t.html"])
    text = (inner.path / "sub/t.html").read_text("utf-8")
    Checker().feed(text)
    assert len(re.findall(r'title="[^"]*::test_shared\[', text)) == 3
    assert {"web", "db", "bad", "machine"} <= set(re.findall(r"<strong>([\w-]+)</strong>", text))
    made = int(re.search(r"<dt>machines</dt><dd>(\d+)<", text)[1])  # type: ignore[index]
    assert text.count(">destroyed</td>") == made
    assert ("gw" in text) == bool(arguments)
    (figure,) = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)  # of one machine there is nothing to draw
    assert {">web<", ">db<"} <= set(re.findall(r">\w+<", figure))


@pytest.mark.parametrize("scope", ["class", "module", "session"])
@pytest.mark.parametrize("body", ["...", "{}_machine.destroy()"], ids=["left", "destroyed"])
def test_the_last_test_of_a_scope_has_a_bar_too(inner: pytest.Pytester, scope: str, body: str) -> None:
    fixture = f"{scope}_machine"
    inner.makepyfile(
        f"class TestAll:\n    def test_first(self, {fixture}): ...\n"
        f"    def test_last(self, {fixture}): {body.format(scope)}\n"
    )
    result = inner.runpytest_inprocess("--machine-timeline=t.html")
    result.assert_outcomes(passed=2)
    text = (inner.path / "t.html").read_text("utf-8")
    assert re.findall(r'title="[^"]*::(test_\w+): passed,', text) == ["test_first", "test_last"]


# The first that has it holds it until the other worker asks for it, whenever that comes.
SHARED = """
import pathlib, pytest, time
from patience import until
@pytest.mark.machine("one", reuse="session")
@pytest.mark.parametrize("x", range(4))
def test_shared(machine, x):
    until(lambda: len([*pathlib.Path().glob("asked-*")]) == 2)
    time.sleep(0.6)
"""
ASKING = """
import os, pathlib
from pytest_machine.plugin.turns import Shared
from pytest_machine.testing.fake import FakeDriver

lease = Shared.lease

def noted(self, *args, **more):
    pathlib.Path(f"asked-{os.environ['PYTEST_XDIST_WORKER']}").touch()
    return lease(self, *args, **more)

Shared.lease = noted

def pytest_machine_drivers():
    return [FakeDriver]
"""


def test_a_machine_that_workers_share_has_one_test_at_a_time_and_an_end(inner: pytest.Pytester) -> None:
    """What a worker waited for its turn is not its test's time, and what the controller destroyed is destroyed."""
    inner.makeconftest(ASKING)
    inner.makepyfile(SHARED)
    result = inner.runpytest_subprocess("-v", "-n2", "--machine-timeline=t.html")
    result.assert_outcomes(passed=4)
    text = (inner.path / "t.html").read_text("utf-8")
    assert text.count(">destroyed</td>") == 1
    tests = float(re.search(r"tests (\d+[.]\d) s", result.stdout.str())[1])  # type: ignore[index]
    first_to_last = float(re.search(r"<dt>first to last</dt><dd>(\d+[.]\d+) s<", text)[1])  # type: ignore[index]
    assert 2.4 <= tests <= first_to_last
    assert float(re.search(r"queueing (\d+[.]\d) s", result.stdout.str())[1]) > 0.4  # type: ignore[index]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A browser without a window; what it is given comes behind."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("there is no chromium here (apt-get install chromium)")
    argv = [found, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    argv += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    return [*argv, f"--user-data-dir={tmp_path_factory.mktemp('browser') / 'profile'}"]


def test_in_a_browser(browser: list[str], tmp_path: Path) -> None:
    """It is drawn: in light and in dark, the bars are there, in their colours, and so are faults and labs."""
    file = tmp_path / "t.html"
    file.write_text(page([*LIFE, *DRAWN]), "utf-8")
    for dark, paper, bar, fault, cut in (
        (False, (251, 251, 250), (59, 111, 212), (122, 63, 176), (198, 47, 47)),
        (True, (18, 21, 27), (108, 155, 245), (199, 155, 240), (255, 123, 118)),
    ):
        picture = tmp_path / f"{dark}.png"
        # At half the size, which is a quarter of the pixels to count.
        argv = [*browser, "--window-size=1200,1500", "--force-device-scale-factor=0.5", f"--screenshot={picture}"]
        argv += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", file.as_uri()]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        colours = pixels(picture)
        assert colours.get(paper, 0) > 20_000
        assert colours.get(bar, 0) > 200, "the bar of a machine that is being made"
        assert colours.get(fault, 0) > 200, "the bar of a fault"
        assert colours.get(cut, 0) > 5, "what is cut"


MEASURE = """
<script>
const bad = [];
for (const svg of document.querySelectorAll("svg")) {
  const whole = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  texts.forEach(([said, one], number) => {
    if (one.left < whole.left || one.right > whole.right || one.top < whole.top || one.bottom > whole.bottom)
      bad.push(said + " leaves its picture");
    for (const [other, there] of texts.slice(0, number))
      if (one.left < there.right && there.left < one.right && one.top + 3 < there.bottom && there.top + 3 < one.bottom)
        bad.push(said + " lies on " + other);
  });
  for (const box of svg.querySelectorAll("rect.f-sheet")) {
    const place = box.getBoundingClientRect();
    for (const [said, one] of texts)
      if (one.left < place.right && place.left < one.right && one.top + 3 < place.bottom && place.top + 3 < one.bottom
          && (one.left < place.left || one.right > place.right || one.top < place.top || one.bottom > place.bottom))
        bad.push(said + " leaves its box");
  }
}
const bars = [...document.querySelectorAll(".bar")].map(b => [b.title, b.getBoundingClientRect()]);
bars.forEach(([said, one], number) => {
  for (const [other, there] of bars.slice(0, number))
    if (one.left + 1 < there.right && there.left + 1 < one.right && one.top + 1 < there.bottom
        && there.top + 1 < one.bottom)
      bad.push(said + " lies on " + other);
});
document.title = document.querySelectorAll("svg text").length + " texts, " + bars.length + " bars: " + bad.join("; ");
</script>
"""


def test_nothing_lies_on_anything_else(browser: list[str], tmp_path: Path) -> None:
    """As a browser with fonts of its own has measured it: texts of pictures, and bars."""
    file = tmp_path / "t.html"
    drawn = [drawing(name, name, "failed") for name in SCENES]
    file.write_text(page([*LIFE, *drawn]).replace("</body>", f"{MEASURE}</body>"), "utf-8")
    argv = [*browser, "--window-size=1200,1600", "--dump-dom", file.as_uri()]
    found = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    title = re.search(r"<title>(\d+) texts, (\d+) bars: (.*?)</title>", found, re.DOTALL)
    assert title is not None, found[:500]
    assert int(title[1]) > 200
    assert int(title[2]) > 10
    assert title[3] == ""


def pixels(file: Path) -> dict[tuple[int, int, int], int]:
    """Return how many pixels have which colour; a PNG of 8 bits a channel is a few lines to read."""
    data = file.read_bytes()
    at, packed = 8, b""
    width = height = channels = 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack(">IIBB", body[:10])
            channels = {2: 3, 6: 4}[colour]
        elif kind == b"IDAT":
            packed += body
        at += size + 12
    raw, stride = zlib.decompress(packed), width * channels
    before, counts = bytearray(stride), dict[tuple[int, int, int], int]()
    for row in range(height):
        how, line = raw[row * (stride + 1)], bytearray(raw[row * (stride + 1) + 1 : (row + 1) * (stride + 1)])
        for i in range(stride) if how else ():
            left = line[i - channels] if i >= channels else 0
            up, corner = before[i], before[i - channels] if i >= channels else 0
            guess = (0, left, up, (left + up) // 2, _paeth(left, up, corner))[how]
            line[i] = (line[i] + guess) & 255
        for i in range(0, stride, channels):
            key = (line[i], line[i + 1], line[i + 2])
            counts[key] = counts.get(key, 0) + 1
        before = line
    return counts


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda each: abs(guess - each))
