"""What is promised is computed from the medians that it names."""

from __future__ import annotations

from benchmarks.results import SyncResults, Usage
from benchmarks.syncs.targets import targets


def results(**medians: float) -> SyncResults:
    """Each named ``network__shape__contender__which``, with ``_`` for blanks in the last two."""
    found = SyncResults()
    names = {"dag": "registry-sync", "stages": "our stages", "bare": "bare loop"}
    for key, seconds in medians.items():
        network, shape, contender, which = key.split("__")
        found.at(network, shape, names.get(contender, contender), which).add(Usage(seconds))
    return found


def figures(found: SyncResults) -> dict[str, tuple[float, bool]]:
    return {
        target.words: (round(target.figure, 3), target.is_met)
        for target in targets(found, 10.0)
        if target.figure is not None
    }


def test_nothing_is_kept_that_was_not_measured() -> None:
    promised = targets(SyncResults(), 10.0)
    assert len({target.words for target in promised}) == len(promised) > 15
    assert not any(target.is_met for target in promised)


def test_whole_runs_are_held_against_the_clock_and_other_programs() -> None:
    found = results(
        loopback__documented_example__dag__first=1.6,
        loopback__application__dag__first=4.0,
        loopback__application__oras__first=3.0,
        loopback__application__skopeo__first=12.0,
        loopback__wide__dag__first=7.0,
        loopback__wide__oras__first=5.0,
    )
    assert figures(found) == {
        "documented_example, first": (1.6, False),
        "application, first: longer than oras": (1.0, True),
        "application, first: of the time of skopeo": (0.333, True),
        "wide, first: of the time of oras": (1.4, False),
    }


def test_unchanged_runs_are_held_against_the_heads_of_the_bare_loop() -> None:
    found = results(
        loopback__application__dag__unchanged=0.8,
        loopback__many_tags__dag__unchanged=4.5,
        loopback__many_tags__bare__unchanged=3.0,
    )
    assert figures(found) == {
        "application, unchanged": (0.8, True),
        "many_tags, unchanged: longer than 1.2 times the HEADs of the bare loop": (0.9, True),
    }


def test_stages_are_held_against_the_bare_loop_near_and_far() -> None:
    near = {"loopback__big__stages__first": 1.2, "loopback__big__bare__first": 1.0}
    far = {"80ms__wide__stages__unchanged": 0.5, "80ms__wide__bare__unchanged": 1.0}
    assert figures(results(**near, **far)) == {
        "big, first, loopback: our stages, of the time of the bare loop": (1.2, False),
        "wide, unchanged, 80ms: our stages, of the time of the bare loop": (0.5, True),
    }


def test_memory_is_that_of_the_largest_task_with_our_modules() -> None:
    found = SyncResults()
    for shape, mib in (("wide", 20.0), ("big", 38.5)):
        found.at("loopback", shape, "registry-sync", "first").add(Usage(1.0, 1.0, 300.0, mib))
    assert figures(found)["memory of the largest task beyond Airflow"] == (48.5, False)
