"""Many small repositories in a few tasks: each task syncs a chunk of them, the most important first."""

from __future__ import annotations

from airflow.sdk import DAG

from registry_sync.operators.sync_mirrors import SyncMirrorsOperator

HUB = "https://registry-1.docker.io"
NAMES = ["library/alpine", "library/busybox", "library/hello-world"]
MIRRORS = [{"repository": name, "url": HUB, "upstream_name": name, "tags": ["latest"]} for name in NAMES]
MIRRORS[0]["priority"] = 10
CHUNK = 250

with DAG(dag_id="mirrors_in_one_task", schedule="0 6 * * *", catchup=False, max_active_runs=1):
    SyncMirrorsOperator.partial(task_id="sync_mirrors", retries=3, map_index_template="{{ mirrors_label }}").expand(
        mirrors=[MIRRORS[start : start + CHUNK] for start in range(0, len(MIRRORS), CHUNK)]
    )
