"""Several repositories in one DAG, each synced in its own task group, by tasks with other names."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, TaskGroup

from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator

MIRRORS = {"alpine": ["3.*", "latest"], "hello-world": ["*"]}


def sync(name: str, tags: list[str]) -> None:
    """The five stages of a sync; they find each other in any task group and under any names."""
    look = ListTagsOperator(
        task_id="look",
        repository=f"library/{name}",
        url="https://registry-1.docker.io",
        upstream_name=f"library/{name}",
        tags=tags,
    )
    read = FetchManifestsOperator.partial(task_id="read", blob_tasks=["plan", "load"]).expand(shard=look.output)
    plan = PlanBlobsOperator(task_id="plan")
    load = FetchBlobsOperator.partial(task_id="load").expand(shard=plan.output)
    keep = CommitVersionOperator(task_id="keep")

    read >> plan >> load >> keep
    read >> keep


with (
    DAG(
        dag_id="mirrors_in_groups",
        schedule="0 4 * * *",
        catchup=False,
        max_active_runs=1,
        default_args={"retries": 4, "retry_delay": timedelta(seconds=30)},
    ),
    TaskGroup("docker_hub"),
):
    for name, tags in MIRRORS.items():
        with TaskGroup(name):
            sync(name, tags)
