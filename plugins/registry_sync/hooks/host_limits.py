"""How much of a registry host one task may take, so that the tasks of a stage together keep to their connection.

The mapped tasks of a stage run on several machines and know nothing of each other, but each knows how many they are.
So each takes an equal part, whether the others are running at the moment or not: together they stay below the limit,
and when some wait or have ended they stay below it by more. Other DAG runs are not known here; an Airflow pool
bounds how many tasks are at work on a host (docs/how-to/limit-requests.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from registry_sync.oci.request_rate import LONGEST_TURN_SECONDS


@dataclass(frozen=True)
class HostLimits:
    """The most that one host may be asked: at once, and in a second. None is no limit."""

    concurrency: int | None = None
    requests_per_second: float | None = None

    def most_tasks(self, wanted: int) -> int:
        """``wanted`` tasks, or as many as can have one request at a time each."""
        return wanted if self.concurrency is None else min(wanted, self.concurrency)

    def share(self, task_count: int) -> HostLimits:
        """The part of one of ``task_count`` tasks; never less than one request at a time.

        With a slow rate fewer are at work at a time, so that none waits for its turn until its errors are too old
        to be tried again, and a stage that fails ends soon.
        """
        concurrency = None if self.concurrency is None else max(1, self.concurrency // task_count)
        if self.requests_per_second is None:
            return HostLimits(concurrency)
        rate = self.requests_per_second / task_count
        in_time = max(1, math.ceil(rate * LONGEST_TURN_SECONDS))
        return HostLimits(in_time if concurrency is None else min(concurrency, in_time), rate)
