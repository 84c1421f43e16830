"""Syncs one repository every night, with a DAG of its own, and publishes it."""

from __future__ import annotations

from airflow.sdk import DAG

from registry_sync.operators.sync_repository import sync_repository

with DAG(dag_id="mirror_alpine", schedule="0 3 * * *", catchup=False, max_active_runs=1):
    sync_repository(
        "alpine",
        url="https://registry-1.docker.io",
        upstream_name="library/alpine",
        tags=["3.*", "latest"],
        exclude_tags=["*_rc*"],
        publish_as="alpine",
    )
