"""Starts each image that a sync of ``alpine`` brought, and copies the tags into ``alpine-tested`` when all have run."""

from __future__ import annotations

import subprocess
from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException

from registry_sync.operators.changed_tags import changed_tags, versions_of
from registry_sync.operators.promote_tags import PromoteTagsOperator

REGISTRY = "pulls.example.org:5050"

with DAG(
    dag_id="promote_after_tests",
    schedule=versions_of("alpine"),
    catchup=False,
    max_active_runs=1,
):

    @task
    def changed(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """The tags that are new or have moved; without any, there is nothing to test."""
        tags = changed_tags(triggering_asset_events)
        if not tags:
            raise AirflowSkipException("the version only removes tags")
        return tags

    @task(map_index_template="{{ task.op_kwargs['tag']['name'] }}")
    def test(tag: dict[str, Any]) -> None:
        """Runs a command in the image, by its digest: the tag may move again in the meantime."""
        image = f"{REGISTRY}/{tag['repository']}@{tag['digest']}"
        subprocess.run(["podman", "run", "--rm", image, "/bin/busybox", "true"], check=True)

    promote = PromoteTagsOperator(
        task_id="promote",
        source="alpine",
        target="alpine-tested",
        number="{{ ti.xcom_pull('changed') | map(attribute='number') | max }}",
        tags="{{ ti.xcom_pull('changed') | map(attribute='name') | join(',') }}",
    )
    test.expand(tag=changed()) >> promote
