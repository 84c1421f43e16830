"""Shards are few, nearly equal, complete, and planned the same way every time, by ``shard_count`` and ``deal``."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.shards import Shard, plan_shards

COSTS = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 10**9), max_size=40)
BOUNDS = {"max_shards": st.integers(1, 8), "min_cost": st.integers(0, 10**8)}


def costs(shards: list[Shard[str]]) -> list[int]:
    return [shard.cost for shard in shards]


@given(items=COSTS, **BOUNDS)
def test_every_item_is_in_exactly_one_shard(items: dict[str, int], max_shards: int, min_cost: int) -> None:
    shards = plan_shards(items.items(), max_shards=max_shards, min_cost=min_cost)
    assert sorted(item for shard in shards for item in shard.items) == sorted(items)


@given(items=COSTS, **BOUNDS)
def test_a_shard_knows_its_number_and_what_its_items_cost(
    items: dict[str, int], max_shards: int, min_cost: int
) -> None:
    shards = plan_shards(items.items(), max_shards=max_shards, min_cost=min_cost)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert costs(shards) == [sum(items[item] for item in shard.items) for shard in shards]


@given(items=COSTS, **BOUNDS)
def test_there_are_never_more_shards_than_allowed_or_than_items(
    items: dict[str, int], max_shards: int, min_cost: int
) -> None:
    shards = plan_shards(items.items(), max_shards=max_shards, min_cost=min_cost)
    assert len(shards) <= min(max_shards, len(items))
    assert bool(shards) == bool(items)


@given(items=COSTS, **BOUNDS)
def test_shards_cost_the_least_on_average(items: dict[str, int], max_shards: int, min_cost: int) -> None:
    shards = plan_shards(items.items(), max_shards=max_shards, min_cost=min_cost)
    if len(shards) > 1:
        assert sum(items.values()) >= min_cost * len(shards)


@given(items=COSTS, **BOUNDS)
def test_two_shards_differ_by_no_more_than_one_item(items: dict[str, int], max_shards: int, min_cost: int) -> None:
    shards = plan_shards(items.items(), max_shards=max_shards, min_cost=min_cost)
    if shards:
        assert max(costs(shards)) - min(costs(shards)) <= max(items.values())


@given(items=COSTS, seed=st.integers(0, 1000), **BOUNDS)
def test_the_order_of_the_items_does_not_matter(
    items: dict[str, int], seed: int, max_shards: int, min_cost: int
) -> None:
    pairs = list(items.items())
    planned = plan_shards(pairs, max_shards=max_shards, min_cost=min_cost)
    random.Random(seed).shuffle(pairs)
    assert plan_shards(pairs, max_shards=max_shards, min_cost=min_cost) == planned


@pytest.mark.parametrize(
    ("min_cost", "expected"),
    [(0, 4), (1, 4), (100, 4), (101, 3), (134, 2), (201, 1), (1000, 1)],
)
def test_there_are_as_many_shards_as_the_least_cost_allows(min_cost: int, expected: int) -> None:
    items = [(f"blob-{number}", 100) for number in range(4)]
    assert len(plan_shards(items, max_shards=9, min_cost=min_cost)) == expected


def test_the_largest_items_are_placed_first_each_into_the_cheapest_shard() -> None:
    items = [("a", 2), ("b", 3), ("c", 7), ("d", 4), ("e", 4)]
    shards = plan_shards(items, max_shards=2, min_cost=1)
    assert [(shard.items, shard.cost) for shard in shards] == [(["c", "b"], 10), (["d", "e", "a"], 10)]


def test_items_without_cost_still_are_planned() -> None:
    (shard,) = plan_shards([("empty", 0), ("blob", 0)], max_shards=4, min_cost=1)
    assert sorted(shard.items) == ["blob", "empty"]
