"""Serves as ``stable/alpine``, from each Monday on, the version of ``alpine`` that is the latest one then."""

from __future__ import annotations

from airflow.sdk import DAG

from registry_sync.operators.compare_versions import CompareVersionsOperator
from registry_sync.operators.publish_version import PublishVersionOperator

with DAG(dag_id="publish_weekly", schedule="0 6 * * 1", catchup=False, max_active_runs=1):
    compare = CompareVersionsOperator(task_id="compare", repository="alpine")
    publish = PublishVersionOperator(
        task_id="publish",
        base_path="stable/alpine",
        repository="alpine",
        number="{{ ti.xcom_pull(task_ids='compare')['number'] }}",
    )
    compare >> publish
