"""Items in shards, by the functions that plan those of tags and of blobs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from registry_sync.domain.runs import deal, shard_count

T = TypeVar("T")


@dataclass
class Shard(Generic[T]):
    """Items of one mapped task, and the sum of their costs."""

    number: int
    items: list[T] = field(default_factory=list)
    cost: int = 0


def plan_shards(items: Iterable[tuple[T, int]], *, max_shards: int, min_cost: int) -> list[Shard[T]]:
    """``items`` with their costs, the largest first and each into the cheapest shard; those of one cost by name."""
    ordered = sorted(items, key=lambda pair: (-pair[1], str(pair[0])))
    total = sum(cost for _, cost in ordered)
    count = shard_count(len(ordered), total, max_shards=max_shards, min_cost=min_cost)
    shards: list[Shard[T]] = [Shard(number) for number in range(count)]
    for (item, cost), number in zip(ordered, deal((cost for _, cost in ordered), count), strict=True):
        shards[number].items.append(item)
        shards[number].cost += cost
    return shards
