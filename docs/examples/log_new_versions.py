"""Logs each new version, of any repository."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import DAG, AssetAlias, task

log = logging.getLogger(__name__)
VERSIONS = AssetAlias("registry_sync_versions")

with DAG(dag_id="log_new_versions", schedule=VERSIONS, catchup=False):

    @task
    def log_versions(triggering_asset_events: Any = None) -> list[str]:
        """A line for each new version: ``alpine: version 2, 3 tags added, 1 removed``."""
        lines = []
        for event in triggering_asset_events[VERSIONS]:
            counts = event.extra["counts"]
            added, removed = (counts[part].get("docker.tag", 0) for part in ("added", "removed"))
            lines.append(
                f"{event.extra['repository']}: version {event.extra['number']}, {added} tags added, {removed} removed"
            )
        log.info("; ".join(lines))
        return lines

    log_versions()
