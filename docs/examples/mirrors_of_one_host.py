"""Repositories of one host, a DAG for each. Their tasks share a pool, so that few send requests at a time."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator

for name in ("alpine", "hello-world"):
    with DAG(
        dag_id=f"docker_hub_{name}",
        schedule="@daily",
        catchup=False,
        max_active_runs=1,
        default_args={"pool": "docker_hub", "retries": 4, "retry_delay": timedelta(seconds=30)},
    ):
        tags = ListTagsOperator(
            task_id="list_tags",
            repository=f"docker-hub-{name}",
            url="https://registry-1.docker.io",
            upstream_name=f"library/{name}",
        )
        manifests = FetchManifestsOperator.partial(task_id="fetch_manifests").expand(shard=tags.output)
        plan = PlanBlobsOperator(task_id="plan_blobs")
        blobs = FetchBlobsOperator.partial(task_id="fetch_blobs").expand(shard=plan.output)
        manifests >> plan >> blobs >> CommitVersionOperator(task_id="commit_version")
