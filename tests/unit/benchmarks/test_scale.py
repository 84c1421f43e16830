"""What is synced at scale has the counts that it is named after, and costs of tasks add up."""

from __future__ import annotations

from benchmarks.large_fleets import small_repositories
from benchmarks.scale import StageCost, many_tags, many_units, moved, table


def test_the_contents_have_the_counts_that_they_are_named_after() -> None:
    tags = many_tags(50)
    assert (len(tags.tags), len(tags.manifests), len(tags.blobs)) == (50, 5, 11)
    units = many_units(68)
    assert len(units.tags) + len(units.manifests) + len(units.blobs) == 68
    assert [name for name, _ in small_repositories(2)] == ["team/app-00000", "team/app-00001"]


def test_a_moved_tag_is_one_difference() -> None:
    before = many_tags(20)
    after = moved(before)
    assert len([name for name in before.tags if before.tags[name] != after.tags[name]]) == 1


def test_of_several_tasks_times_add_up_and_the_largest_memory_counts() -> None:
    one, other = (
        StageCost("SQLite", "50 tags", "plan_blobs", *numbers) for numbers in ((1, 0.5, 20, 7), (2, 0.25, 30, 5))
    )
    assert one + other == StageCost("SQLite", "50 tags", "plan_blobs", 3, 0.75, 30, 12)
    assert table([one + other]).splitlines()[-1] == "| SQLite | 50 tags | plan_blobs | 3.0 | 0.8 | 30 | 12 |"
