"""The page of measured syncs and its plot say what the figures beside it do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from benchmarks import report
from benchmarks.fleet_syncs import FleetPass, as_json


def test_the_page_and_the_plot_are_those_of_the_figures() -> None:
    document = json.loads(report.FIGURES.read_text())
    page = report.PAGE.read_text()
    assert page == report.page_with(page, report.measured_part(document))
    assert report.PLOT.read_text() == report.plot(document)


def test_what_was_measured_replaces_what_stood_between_the_marks() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.page_with(page, "new\n") == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"


def test_a_page_without_marks_is_not_written() -> None:
    with pytest.raises(ValueError, match="has no"):
        report.page_with("a page", "new")


def test_a_run_without_syncs_makes_no_page() -> None:
    with pytest.raises(ValueError, match="ONLY=syncs"):
        report.measured_part({"machine": {}})


def test_all_figures_of_a_repository_on_a_network_come_from_the_last_run_that_measured_it() -> None:
    def run(load: float, *measured: tuple[str, str, str]) -> dict[str, Any]:
        return {
            "machine": {"load": load},
            "syncs": {
                "contents": {shape: f"content of {shape}" for _, shape, _ in measured},
                "measured": [
                    {
                        "network": network,
                        "shape": shape,
                        "contender": contender,
                        "which": "first",
                        "seconds": [load],
                        "cpu_seconds": [load],
                        "peak_mib": [load],
                        "grown_mib": [load],
                        "requests": {},
                        "note": "",
                    }
                    for network, shape, contender in measured
                ],
            },
        }

    before = run(1.0, ("loopback", "big", "oras"), ("loopback", "wide", "oras"), ("loopback", "wide", "skopeo"))
    after = run(2.0, ("loopback", "wide", "oras"), ("80ms", "big", "oras"))
    both = report.joined([before, after])
    assert both["machine"] == {"load": 1.0}
    assert both["syncs"]["contents"] == {"big": "content of big", "wide": "content of wide"}
    assert [(one["network"], one["shape"], one["contender"], one["seconds"]) for one in both["syncs"]["measured"]] == [
        ("loopback", "big", "oras", [1.0]),
        ("loopback", "wide", "oras", [2.0]),
        ("80ms", "big", "oras", [2.0]),
    ]
    assert report.joined([both]) == both


def test_many_mirrors_are_shown_beside_the_other_program_and_airflow_itself() -> None:
    passes = [
        FleetPass("empty tasks", "unchanged", 1.5, 0.5, 4, 0, 0, 220.0, 1.0),
        FleetPass("registry-sync", "unchanged", 4.0, 2.5, 4, 400, 440, 250.0, 1.25),
        FleetPass("regsync", "unchanged", 2.0, 1.5, 0, 400, 440, 76.0),
    ]
    figures = json.loads(report.FIGURES.read_text())
    runs = [figures, *({"machine": {}, "mirrors": [as_json(passes, count, lists_digests=False)]} for count in (40, 80))]
    both = report.joined(runs)
    assert [one["mirror_count"] for one in both["mirrors"]][-2:] == [40, 80]
    assert report.joined([both, runs[1]]) == both
    lines = [" ".join(line.split()) for line in report.measured_part(both).splitlines()]
    assert "40 mirrors of docker-registry, over loopback:" in lines
    assert "| unchanged | registry-sync | 4.0 | 1.2 | 2.5 | 400 | 440 | 250 | +0.5 |" in lines
    assert "| unchanged | empty tasks | 1.5 | 1.0 | 0.5 | | | 220 | |" in lines
