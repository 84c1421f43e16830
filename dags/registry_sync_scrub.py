"""Read stored blobs again, compare them with their digests, and fetch what is broken or missing again.

Every night a thirtieth of the blobs is read, those not read for the longest time first, so that each is read about once
a month. The DAG is paused until you unpause it: reading from an object store may cost money.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from registry_sync.operators.verify_blobs import VerifyBlobsOperator

with DAG(
    dag_id="registry_sync_scrub",
    description="Verify a share of the stored blobs, and repair what is broken or missing",
    schedule="0 2 * * *",
    catchup=False,
    is_paused_upon_creation=True,
    params={
        "share": Param(
            0.034,
            type="number",
            minimum=0,
            maximum=1,
            title="Share",
            description="The share of the blobs to read: 1 for all, 0 to compare the listings only.",
        ),
        "mib_per_second": Param(
            50,
            type=["null", "number"],
            exclusiveMinimum=0,
            title="MiB per second",
            description="The maximum read rate. Empty for no limit.",
        ),
        "repair": Param(
            True,
            type="boolean",
            title="Repair",
            description="Fetch broken and missing blobs again from the remotes.",
        ),
    },
    max_active_runs=1,
    tags=["registry-sync"],
    doc_md=__doc__,
    default_args={"retries": 4, "retry_delay": timedelta(minutes=5)},
):
    VerifyBlobsOperator(
        task_id="verify_blobs",
        share="{{ params.share }}",
        mib_per_second="{{ params.mib_per_second or '' }}",
        repair="{{ params.repair }}",
    )
