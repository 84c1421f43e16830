"""Copies synced tags into the repository that production uses, once a person has approved the changes."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset

from registry_sync.operators.compare_versions import CompareVersionsOperator
from registry_sync.operators.promote_tags import PromoteTagsOperator

SOURCE, TARGET, TAGS = "alpine", "alpine-production", ["3.*"]

with DAG(
    dag_id="promote_with_a_gate",
    schedule=Asset.ref(name=f"registry_sync/{SOURCE}"),
    catchup=False,
    max_active_runs=1,
):
    compare = CompareVersionsOperator(
        task_id="compare", repository=SOURCE, base_repository=TARGET, tags=TAGS, skip_when_equal=True
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject=f"Promote version {{{{ ti.xcom_pull(task_ids='compare')['number'] }}}} of {SOURCE} to {TARGET}?",
        body="{{ ti.xcom_pull(task_ids='compare')['markdown'] }}",
        defaults=ApprovalOperator.REJECT,
        response_timeout=timedelta(days=3),
    )
    promote = PromoteTagsOperator(
        task_id="promote",
        source=SOURCE,
        number="{{ ti.xcom_pull(task_ids='compare')['number'] }}",
        target=TARGET,
        tags=TAGS,
        mode="mirror",
        created_by="{{ ti.xcom_pull(task_ids='approve')['responded_by_user']['name'] }}",
    )
    compare >> approve >> promote
