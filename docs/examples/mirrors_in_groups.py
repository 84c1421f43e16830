"""Several repositories in one DAG, each in a task group of its own."""

from __future__ import annotations

from airflow.sdk import DAG, TaskGroup

from registry_sync.operators.sync_repository import sync_repository

MIRRORS = {"alpine": ["3.*", "latest"], "hello-world": None}

with (
    DAG(dag_id="mirrors_in_groups", schedule="0 4 * * *", catchup=False, max_active_runs=1),
    TaskGroup("docker_hub", default_args={"url": "https://registry-1.docker.io"}),
):
    for name, tags in MIRRORS.items():
        sync_repository(f"library/{name}", upstream_name=f"library/{name}", tags=tags, group_id=name)
