"""The five operators of a sync, wired by hand, for a DAG that needs something between them."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator

with DAG(
    dag_id="five_operators",
    schedule="0 3 * * *",
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 4, "retry_delay": timedelta(seconds=30)},
):
    tags = ListTagsOperator(
        task_id="list_tags",
        repository="by-hand",
        url="https://registry-1.docker.io",
        upstream_name="library/hello-world",
        fetch_tasks=["fetch_manifests", "plan_blobs", "fetch_blobs"],
    )
    manifests = FetchManifestsOperator.partial(
        task_id="fetch_manifests", blob_tasks=["plan_blobs", "fetch_blobs"]
    ).expand(shard=tags.output)
    plan = PlanBlobsOperator(task_id="plan_blobs")
    blobs = FetchBlobsOperator.partial(task_id="fetch_blobs").expand(shard=plan.output)
    version = CommitVersionOperator(task_id="commit_version")

    manifests >> plan >> blobs >> version
    manifests >> version
