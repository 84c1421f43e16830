"""Small repositories that are known only when the DAG runs: two mapped tasks for each."""

from __future__ import annotations

from airflow.sdk import DAG, task, task_group

from registry_sync.operators.sync_repository import sync_repository

with DAG(dag_id="mirrors_of_a_list", schedule="0 5 * * *", catchup=False, max_active_runs=1):

    @task
    def names() -> list[str]:
        """The names on Docker Hub; a real list comes from a file, a database or an inventory."""
        return ["library/alpine", "library/hello-world"]

    @task_group
    def mirror(name: str) -> None:
        """A sync of its own, labelled with the name in the grid."""
        sync_repository(name, url="https://registry-1.docker.io", upstream_name=name, small=True)

    mirror.expand(name=names())
