"""Work divided among mapped tasks: few shards, of nearly equal cost, planned the same way every time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Shard(Generic[T]):
    """Items for one mapped task, and their summed cost."""

    number: int
    items: list[T] = field(default_factory=list)
    cost: int = 0


def plan_shards(items: Iterable[tuple[T, int]], *, max_shards: int, min_cost: int) -> list[Shard[T]]:
    """``items`` with their costs, over as few shards as keep each at ``min_cost`` or more, at most ``max_shards``.

    The largest items are placed first, each into the cheapest shard. No items give no shards. Equal input gives
    equal shards, so that a task that plans again plans the same.
    """
    ordered = sorted(items, key=lambda pair: (-pair[1], str(pair[0])))
    if not ordered:
        return []
    total = sum(cost for _, cost in ordered)
    count = max(1, min(max_shards, total // max(1, min_cost), len(ordered)))
    shards: list[Shard[T]] = [Shard(number) for number in range(count)]
    heap = [(0, number) for number in range(count)]
    for item, cost in ordered:
        _, number = heapq.heappop(heap)
        shards[number].items.append(item)
        shards[number].cost += cost
        heapq.heappush(heap, (shards[number].cost, number))
    return shards
