"""Remove content that no repository version and no sync references any more.

Trigger it from the web UI, with **Preview** first to see what would be removed, or over REST. It has no schedule,
because removal is final: to run it regularly, schedule it in a DAG of your own.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from registry_sync.operators.collect_orphans import CollectOrphansOperator

with DAG(
    dag_id="registry_sync_collect",
    description="Remove content that no repository version and no sync references",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    params={
        "preview": Param(
            False,
            type="boolean",
            title="Preview",
            description=("Only report what would be removed; nothing is changed."),
        ),
        "grace_hours": Param(
            None,
            type=["null", "number"],
            minimum=0,
            maximum=87_600,
            title="Grace period in hours",
            description="How long orphans are kept. Empty for the setting orphan_grace_hours, which is 24 by default.",
        ),
    },
    max_active_runs=1,
    tags=["registry-sync"],
    doc_md=__doc__,
    default_args={"retries": 4, "retry_delay": timedelta(seconds=30)},
):
    CollectOrphansOperator(
        task_id="collect_orphans",
        preview="{{ params.preview }}",
        grace_hours="{{ '' if params.grace_hours is none else params.grace_hours }}",
    )
