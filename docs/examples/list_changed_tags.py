"""Logs each tag that a version of ``hello-world`` added or moved, with its digest."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import DAG, task

from registry_sync.operators.changed_tags import changed_tags, versions_of

log = logging.getLogger(__name__)

with DAG(
    dag_id="list_changed_tags",
    schedule=versions_of("hello-world"),
    catchup=False,
    is_paused_upon_creation=False,
):

    @task
    def list_tags(triggering_asset_events: Any = None) -> list[str]:
        """A line for each tag: ``latest: sha256:… (new)``."""
        lines = []
        for tag in changed_tags(triggering_asset_events):
            before = f"before {tag['previous_digest']}" if tag["previous_digest"] else "new"
            lines.append(f"{tag['name']}: {tag['digest']} ({before})")
        log.info("%s", "\n".join(lines) or "only removals")
        return lines

    list_tags()
