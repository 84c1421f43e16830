"""The plot is SVG whose bars are as long as the figures say."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from benchmarks.results import SyncResults, Usage
from benchmarks.syncs.plot import svg

_SVG = "{http://www.w3.org/2000/svg}"


def results() -> SyncResults:
    found = SyncResults(contents={"application": "61 tags & 160 MB", "wide": "400 tags"})
    for name, which, seconds in (
        ("registry-sync", "first", 4.0),
        ("registry-sync", "unchanged", 1.0),
        ("oras", "first", 2.0),
    ):
        found.at("loopback", "application", name, which).add(Usage(seconds))
    found.at("loopback", "application", "skopeo", "first").fail("over 180 s")
    return found


def test_bars_are_in_proportion_and_have_their_figures() -> None:
    drawn = ET.fromstring(svg(results(), "loopback"))
    widths = [float(bar.attrib["width"]) for bar in drawn.iter(f"{_SVG}rect")]
    assert [round(width / widths[0], 2) for width in widths] == [1.0, 0.25, 0.5]
    words = [text.text for text in drawn.iter(f"{_SVG}text")]
    assert {"4.00 s", "1.00 s", "2.00 s", "application", "61 tags & 160 MB"} <= set(words)


def test_what_was_not_measured_has_no_bar_and_no_panel() -> None:
    words = [text.text for text in ET.fromstring(svg(results(), "loopback")).iter(f"{_SVG}text")]
    assert "skopeo" not in words
    assert "wide" not in words


def test_everything_is_within_the_picture() -> None:
    drawn = ET.fromstring(svg(results(), "loopback"))
    width, height = (float(drawn.attrib[name]) for name in ("width", "height"))
    for bar in drawn.iter(f"{_SVG}rect"):
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) + 40 <= width
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) <= height
