"""Mirrors ``alpine``, and notifies a team of each state once: a new version, a stopped deletion, a failure."""

from __future__ import annotations

from airflow.sdk import DAG

from registry_sync.operators.mirror_notifier import MirrorNotifier
from registry_sync.operators.sync_repository import sync_repository

notify = MirrorNotifier(to="mirrors_mail", on=["changed", "guard", "failed"])
throttled = MirrorNotifier(to="mirrors_mail", on=["throttled"])

with DAG(
    dag_id="mirror_and_notify",
    schedule="0 3 * * *",
    catchup=False,
    max_active_runs=1,
    default_args={
        "on_success_callback": notify,
        "on_failure_callback": notify,
        "on_retry_callback": throttled,
    },
):
    sync_repository("alpine", url="https://registry-1.docker.io", upstream_name="library/alpine", tags="3.*,latest")
