"""What was measured is kept whole, and what failed is no measurement."""

from __future__ import annotations

import json

from benchmarks.results import Passes, SyncResults, Usage


def test_each_time_adds_what_it_took() -> None:
    passes = Passes()
    for seconds, mib in ((3.0, 50.0), (1.0, 70.0), (2.0, 60.0)):
        passes.add(Usage(seconds, seconds / 2, mib))
    assert (passes.median, passes.median_cpu, passes.largest_mib) == (2.0, 1.0, 70.0)
    assert passes.grown_mib == []


def test_nothing_measured_has_no_median() -> None:
    passes = Passes()
    assert (passes.median, passes.median_cpu, passes.largest_mib) == (None, None, None)


def test_a_failure_is_not_taken_for_a_fast_time() -> None:
    passes = Passes()
    passes.add(Usage(0.01, 0.01, 10.0, 1.0))
    passes.fail("sha256:ab has not arrived")
    assert (passes.median, passes.median_cpu, passes.largest_mib, passes.grown_mib) == (None, None, None, [])
    assert passes.note == "sha256:ab has not arrived"


def test_the_document_gives_the_same_results() -> None:
    results = SyncResults(contents={"application": "61 tags"})
    for which, seconds in (("first", 3.5), ("unchanged", 0.5)):
        results.at("loopback", "application", "oras", which).add(Usage(seconds, 1.25, 100.5, 3.0))
    results.at("loopback", "application", "oras", "first").requests = {"HEAD manifest": 8, "GET tags": 1}
    results.at("80ms", "application", "skopeo", "first").fail("over 180 s")
    document = json.loads(json.dumps(results.as_json()))
    again = SyncResults.from_json(document)
    assert again.as_json() == document
    assert again.median("loopback", "application", "oras", "first") == 3.5
    assert again.at("80ms", "application", "skopeo", "first").note == "over 180 s"
    assert again.values("network") == ["loopback", "80ms"]
    assert again.median("loopback", "wide", "oras", "first") is None
