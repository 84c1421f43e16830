"""Scans each image that a sync of ``alpine`` brought, once, by its digest."""

from __future__ import annotations

import subprocess
from typing import Any

from airflow.sdk import DAG, task

from registry_sync.operators.changed_tags import changed_tags, versions_of

REGISTRY = "pulls.example.org:5050"  # the pull server, or the upstream itself

with DAG(dag_id="scan_moved_tags", schedule=versions_of("alpine"), catchup=False):

    @task
    def images(triggering_asset_events: Any = None) -> list[str]:
        """The images of tags that are new or have moved; several tags may be one image."""
        return sorted({f"{REGISTRY}/alpine@{tag['digest']}" for tag in changed_tags(triggering_asset_events)})

    @task(retries=2, max_active_tis_per_dagrun=2, map_index_template="{{ task.op_kwargs['image'] }}")
    def scan(image: str) -> None:
        """Fails for an image with a critical vulnerability that is fixed upstream."""
        command = ["trivy", "image", "--exit-code", "1", "--severity", "CRITICAL", "--ignore-unfixed", image]
        subprocess.run(command, check=True)

    scan.expand(image=images())
