"""Mapped tasks that a real Airflow runs at the same time keep to what their connection allows on the host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.airflow_instance import AirflowInstance
from support.serving import serve
from support.shapes import wide
from support.timed_registry import TimedRegistry

RATE = 16.0


@pytest.mark.rule("A9.8")
def test_mapped_tasks_in_processes_of_their_own_share_the_rate(tmp_path: Path, airflow_database: Path) -> None:
    """48 blobs in four tasks, of which each takes a quarter of the rate."""
    content = wide(0.01, tags=12)
    with TimedRegistry() as registry:
        serve(registry, "team/app", content)
        extra = {"requests_per_second": RATE, "host_concurrency": 8}
        connection = {"conn_type": "registry", "host": registry.base, "extra": extra}
        with AirflowInstance(
            tmp_path,
            database=airflow_database,
            settings={"registry_sync": {"min_shard_mib": "1"}},
            env={"AIRFLOW_CONN_LIMITED": json.dumps(connection)},
        ) as airflow:
            run = airflow.trigger(
                conf={"repository": "r", "url": registry.base, "upstream_name": "team/app", "conn_id": "limited"}
            )
            assert airflow.wait(run) == "success", airflow.reasons(run)
            tasks = [task for task in airflow.task_states(run) if task.startswith("fetch_blobs")]
    assert len(tasks) == 4
    assert len(registry.came_at) >= 1 + 12 + 12 + 48
    seconds = 1.0
    assert registry.most_within(seconds) <= seconds * RATE + 4 + 2
    assert registry.most_at_work <= 8
