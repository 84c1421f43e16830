"""Several repositories every night: one run of the DAG ``registry_sync`` for each, four at a time."""

from __future__ import annotations

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

DOCKER_HUB = "https://registry-1.docker.io"
SYNCS = [
    {"repository": "alpine", "url": DOCKER_HUB, "upstream_name": "library/alpine", "tags": ["3.*", "latest"]},
    {"repository": "hello-world", "url": DOCKER_HUB, "upstream_name": "library/hello-world"},
    {"repository": "archive", "url": DOCKER_HUB, "upstream_name": "library/alpine", "mode": "additive"},
]

with DAG(dag_id="mirror_many", schedule="30 3 * * *", catchup=False, max_active_runs=1):
    TriggerDagRunOperator.partial(
        task_id="sync",
        trigger_dag_id="registry_sync",
        wait_for_completion=True,
        poke_interval=5,
        map_index_template="{{ task.conf['repository'] }}",
        max_active_tis_per_dagrun=4,
    ).expand(conf=SYNCS)
