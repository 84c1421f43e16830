"""How the loading of a fleet is measured, and reads."""

from __future__ import annotations

from benchmarks.fleets import FleetResult, measure


def test_the_ratio_says_how_many_times_as_fast_the_loading_is() -> None:
    result = FleetResult(10_000, read_seconds=4.0, load_seconds=0.2)
    assert result.ratio == 20
    assert str(result) == "10,000 mirrors: read 4.00 s, compiled 0.200 s, 20 times as fast"


def test_a_file_is_measured_with_all_of_its_mirrors() -> None:
    result = measure(1, mirrors=30)
    assert result.mirrors == 30
    assert min(result.read_seconds, result.load_seconds) > 0
