"""Free the space used by the bytes of repositories, where no other repository holds them.

The versions stay, and list the missing blobs. Trigger it from the web UI, with **Preview** first, or over REST.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from registry_sync.operators.reclaim_blobs import ReclaimBlobsOperator

with DAG(
    dag_id="registry_sync_reclaim",
    description="Remove the bytes of blobs that only given repositories hold",
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    params={
        "repositories": Param(
            ["hello-world"],
            type="array",
            items={"type": "string", "minLength": 1, "maxLength": 255},
            minItems=1,
            title="Repositories",
            description="The repositories whose bytes to remove: names, one a line.",
        ),
        "keep_latest": Param(
            False,
            type="boolean",
            title="Keep the latest versions",
            description="Keep the bytes of the blobs in the latest version of each.",
        ),
        "preview": Param(
            False,
            type="boolean",
            title="Preview",
            description=("Only report what would be removed; nothing is changed."),
        ),
    },
    max_active_runs=1,
    tags=["registry-sync"],
    doc_md=__doc__,
    default_args={"retries": 4, "retry_delay": timedelta(seconds=30)},
):
    ReclaimBlobsOperator(
        task_id="reclaim_blobs",
        repositories="{{ params.repositories | join(',') }}",
        keep_latest="{{ params.keep_latest }}",
        preview="{{ params.preview }}",
    )
