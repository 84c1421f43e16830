"""Mapped tasks that a real Airflow runs at the same time keep to what their connection allows on the host."""

from __future__ import annotations

import json

import pytest

from support.composed import Composed
from support.serving import serve
from support.shapes import wide
from support.timed_registry import TimedRegistry

RATE = 16.0


@pytest.mark.rule("A9.8")
def test_mapped_tasks_in_processes_of_their_own_share_the_rate(composed: Composed) -> None:
    """48 blobs in four tasks, of which each takes a quarter of the rate."""
    airflow = composed.airflow
    content = wide(0.01, tags=12)
    with TimedRegistry() as registry:
        serve(registry, "team/app", content)
        extra = {"requests_per_second": RATE, "host_concurrency": 8}
        connection = {"connection_id": "limited", "conn_type": "registry", "host": registry.base}
        airflow.api("POST", "/connections", json={**connection, "extra": json.dumps(extra)})
        run = airflow.trigger(
            conf={"repository": "limited", "url": registry.base, "upstream_name": "team/app", "conn_id": "limited"}
        )
        assert airflow.wait(run) == "success", airflow.reasons(run)
        tasks = [task for task in airflow.task_states(run) if task.startswith("fetch_blobs")]
    assert len(tasks) == 4
    assert len(registry.came_at) >= 1 + 12 + 12 + 48
    seconds = 1.0
    assert registry.most_within(seconds) <= seconds * RATE + 4 + 2
    assert registry.most_at_work <= 8
