"""A DAG with two syncs in nested task groups, under names of their own, which the shared Airflow has as well."""

from __future__ import annotations

CODE = """
from datetime import timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, TaskGroup

from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.fetch_blobs import FetchBlobsOperator
from registry_sync.operators.fetch_manifests import FetchManifestsOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator


def sync(repository, **of_manifests):
    look = ListTagsOperator(
        task_id="look", repository=repository, url="{{ params.url or '' }}", upstream_name=f"team/{repository}"
    )
    read = FetchManifestsOperator.partial(task_id="read", **of_manifests).expand(shard=look.output)
    plan = PlanBlobsOperator(task_id="plan")
    load = FetchBlobsOperator.partial(task_id="load").expand(shard=plan.output)
    keep = CommitVersionOperator(task_id="keep", approval_timeout=timedelta(0))
    read >> plan >> load >> keep
    read >> keep
    return keep


with DAG("grouped", schedule=None, params={"url": Param(None, type=["null", "string"])}):
    done = EmptyOperator(task_id="done", trigger_rule="none_failed")
    with TaskGroup("mirrors"):
        with TaskGroup("small"):
            sync("grouped-small", blob_tasks=["plan", "load"]) >> done
        with TaskGroup("mapped"):
            sync("grouped-mapped") >> done
"""
