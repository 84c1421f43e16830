"""Syncs a repository every day: the five stages of a sync, in a row."""

from __future__ import annotations

from airflow.sdk import DAG

from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator

with DAG(dag_id="smallest", schedule="@daily", catchup=False, default_args={"retries": 4}):
    tags = ListTagsOperator(
        task_id="list_tags", repository="tiny", url="https://registry-1.docker.io", upstream_name="library/hello-world"
    )
    manifests = FetchManifestsOperator.partial(task_id="fetch_manifests").expand(shard=tags.output)
    plan = PlanBlobsOperator(task_id="plan_blobs")
    blobs = FetchBlobsOperator.partial(task_id="fetch_blobs").expand(shard=plan.output)
    manifests >> plan >> blobs >> CommitVersionOperator(task_id="commit_version")
