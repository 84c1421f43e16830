"""Tables show medians and multiples, and mark what has no figure."""

from __future__ import annotations

import pytest
from benchmarks.results import SyncResults, Usage
from benchmarks.syncs import tables
from benchmarks.syncs.targets import Target


@pytest.fixture
def results() -> SyncResults:
    found = SyncResults(contents={"application": "61 tags"})
    for name, which, *seconds in (
        ("oras", "first", 4.0),
        ("registry-sync", "first", 3.0, 1.0, 2.0),
        ("registry-sync", "unchanged", 1.5),
        ("bare loop", "unchanged", 0.75),
    ):
        for one in seconds:
            found.at("loopback", "application", str(name), str(which)).add(Usage(float(one), 0.5, 40.4))
    found.at("loopback", "application", "oras", "unchanged").fail("over 180 s")
    found.at("loopback", "application", "oras", "first").requests = {"GET blob": 1_614}
    return found


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_ours_comes_first_and_what_failed_is_marked(results: SyncResults) -> None:
    header, marks, first, unchanged = cells(tables.seconds_table(results, "loopback"))
    assert header == ["repository", "sync", "registry-sync", "oras", "bare loop"]
    assert [mark.endswith(":") for mark in marks] == [False, False, True, True, True]
    assert first == ["application", "first", "2.00", "4.00", ""]
    assert unchanged == ["application", "unchanged", "1.50", "†", "0.75"]


def test_others_are_multiples_of_our_medians(results: SyncResults) -> None:
    _, _, first, unchanged = cells(tables.ratio_table(results, "loopback"))
    assert first == ["application", "first", "2.00", ""]
    assert unchanged == ["application", "unchanged", "", "0.50"]


def test_without_our_runs_there_are_no_multiples() -> None:
    assert len(tables.ratio_table(SyncResults(contents={"wide": ""}), "loopback").splitlines()) == 2


def test_the_use_of_processor_and_memory_has_a_cell_of_both(results: SyncResults) -> None:
    assert cells(tables.usage_table(results, "loopback"))[2] == ["application", "first", "0.50 / 40", "0.50 / 40", ""]


def test_requests_are_counted_by_kind_and_once_for_both_databases(results: SyncResults) -> None:
    for name, which in (("oras", "one tag moved"), ("registry-sync, PostgreSQL", "first")):
        results.at("loopback", "application", name, which).requests = {"GET blob": 7, "GET tags": 1}
    assert cells(tables.requests_table(results, "loopback"))[2:] == [["application, first", "oras", "1,614"]]


def test_a_failure_is_a_sentence_with_its_reason(results: SyncResults) -> None:
    assert tables.failures(results) == ["oras has no figure for application, unchanged, loopback: over 180 s"]


def test_promises_are_kept_or_missed_and_those_not_measured_left_out() -> None:
    promised = [Target("first", 1.2, 1.5), Target("memory", 60.4, 48, "MiB"), Target("far", None, 1)]
    assert cells(tables.targets_table(promised))[2:] == [
        ["first", "kept", "1.20 s", "1.50 s"],
        ["memory", "**missed**", "60 MiB", "48 MiB"],
    ]
