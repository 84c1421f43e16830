"""The table of measurements shows medians, ratios of ours to theirs, and what could not be measured."""

from __future__ import annotations

from benchmarks.results import Passes, ShapeResult, table


def result() -> ShapeResult:
    ours = Passes([3.0, 1.0, 2.0], {"HEAD manifest": 8, "GET tags": 1})
    return ShapeResult(
        "application",
        "61 tags",
        first={"registry-sync": ours, "skopeo": Passes([4.0])},
        again={"registry-sync": Passes([1.5]), "skopeo": Passes(note="fails")},
    )


def test_the_table_divides_our_median_by_theirs() -> None:
    header, _, first, _ = table([result()], ["registry-sync", "skopeo"], "registry-sync").splitlines()
    assert header.split("  ")[0] == "shape"
    assert "registry-sync / skopeo" in header
    assert first.split() == [
        "application",
        "first",
        "2.00",
        "s",
        "4.00",
        "s",
        "0.50",
        *["1", "GET", "tags,", "8", "HEAD", "manifest"],
    ]


def test_the_table_says_what_fails_instead_of_a_time() -> None:
    again = table([result()], ["registry-sync", "skopeo"], "registry-sync").splitlines()[3]
    assert again.split() == ["application", "unchanged", "1.50", "s", "fails", "-"]


def test_nothing_measured_has_no_median() -> None:
    assert Passes().median is None


def test_the_document_keeps_every_number() -> None:
    document = result().as_json()
    assert document["first"]["registry-sync"] == {
        "median_seconds": 2.0,
        "seconds": [3.0, 1.0, 2.0],
        "requests": {"HEAD manifest": 8, "GET tags": 1},
        "note": "",
    }
    assert document["again"]["skopeo"]["note"] == "fails"
