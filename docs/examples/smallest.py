"""Syncs a repository every day."""

from __future__ import annotations

from airflow.sdk import DAG

from registry_sync.operators.sync_repository import sync_repository

with DAG(dag_id="smallest", schedule="@daily", catchup=False):
    sync_repository("tiny", url="https://registry-1.docker.io", upstream_name="library/hello-world")
