"""Repositories of one host, a DAG for each. Their tasks share a pool, so that few send requests at a time."""

from __future__ import annotations

from airflow.sdk import DAG

from registry_sync.operators.sync_repository import sync_repository

for name in ("alpine", "hello-world"):
    with DAG(dag_id=f"docker_hub_{name}", schedule="@daily", catchup=False, max_active_runs=1):
        sync_repository(
            f"docker-hub-{name}",
            url="https://registry-1.docker.io",
            upstream_name=f"library/{name}",
            pool="docker_hub",
            small=True,
        )
