"""Rolls out what was promoted: a version of ``alpine-tested`` that changes ``latest`` sets a deployment's image."""

from __future__ import annotations

import subprocess
from typing import Any

from airflow.sdk import DAG, task

from registry_sync.operators.changed_tags import changed_tags, versions_of

REGISTRY = "pulls.example.org:5050"

with DAG(
    dag_id="redeploy",
    schedule=versions_of("alpine-tested"),
    catchup=False,
    max_active_runs=1,
):

    @task
    def roll_out(triggering_asset_events: Any = None) -> list[str]:
        """Sets the image by its digest, so that what runs is what was tested."""
        images = [
            f"{REGISTRY}/{tag['repository']}@{tag['digest']}"
            for tag in changed_tags(triggering_asset_events)
            if tag["name"] == "latest"
        ]
        for image in images:
            subprocess.run(["kubectl", "set", "image", "deployment/shell", f"shell={image}"], check=True)
            subprocess.run(["kubectl", "rollout", "status", "deployment/shell", "--timeout=5m"], check=True)
        return images

    roll_out()
