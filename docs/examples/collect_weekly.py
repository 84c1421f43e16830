"""Every Sunday night: removes content that has been unreferenced for three days."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from registry_sync.operators.collect_orphans import CollectOrphansOperator

with DAG(
    dag_id="collect_weekly",
    schedule="0 4 * * 0",
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 4, "retry_delay": timedelta(minutes=1)},
):
    CollectOrphansOperator(task_id="collect_orphans", grace_hours=72)
