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

from pytest_machine.plugin.journal import Event, pieces, times
from pytest_machine.plugin.timeline import page

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


SHARED = """
import pytest, time
@pytest.mark.machine("one", reuse="session")
@pytest.mark.parametrize("x", range(4))
def test_shared(machine, x): time.sleep(0.5)
"""


def test_a_machine_that_workers_share_has_one_test_at_a_time_and_an_end(inner: pytest.Pytester) -> None:
    """What a worker waited for its turn is not its test's time, and what the controller destroyed is destroyed."""
    inner.makepyfile(SHARED)
    result = inner.runpytest_subprocess("-n2", "--machine-timeline=t.html")
    result.assert_outcomes(passed=4)
    text = (inner.path / "t.html").read_text("utf-8")
    assert text.count(">destroyed</td>") == 1
    tests = float(re.search(r"tests (\d+[.]\d) s", result.stdout.str())[1])  # type: ignore[index]
    first_to_last = float(re.search(r"<dt>first to last</dt><dd>(\d+[.]\d+) s<", text)[1])  # type: ignore[index]
    assert 2.0 <= tests <= first_to_last
    assert float(re.search(r"queueing (\d+[.]\d) s", result.stdout.str())[1]) > 0.4  # type: ignore[index]


def test_in_a_browser(inner: pytest.Pytester) -> None:
    """It is drawn: in light and in dark, the bars are there, in their colours."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("there is no chromium here (apt-get install chromium)")
    file = inner.path / "t.html"
    file.write_text(page(LIFE), "utf-8")
    for dark, paper, bar in ((False, (251, 251, 250), (59, 111, 212)), (True, (18, 21, 27), (108, 155, 245))):
        picture = inner.path / f"{dark}.png"
        argv = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        argv += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        argv += [f"--user-data-dir={inner.path / 'profile'}", "--window-size=1200,900", f"--screenshot={picture}"]
        argv += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", file.as_uri()]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        colours = pixels(picture)
        assert colours.get(paper, 0) > 50_000
        assert colours.get(bar, 0) > 500, "the bar of a machine that is being made"


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
