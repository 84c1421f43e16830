"""DAGs that the shared Airflow has beside the delivered one: one to kill, and two that wait for repositories."""

from __future__ import annotations

CODE = """
import time
from datetime import timedelta
from airflow.sdk import DAG, Asset, dag, task

@dag(dag_id="slow", schedule=None)
def slow():
    @task(retries=1, retry_delay=timedelta(0))
    def once_slow(number, ti=None):
        if ti.try_number == 1:
            time.sleep(120)
        return number

    once_slow.expand(number=[7])

slow()

for name in ("waited-for", "renamed-to"):
    waited_for = Asset.ref(name=f"registry_sync/{name}")
    with DAG(f"waits_for_{name}", schedule=waited_for, is_paused_upon_creation=False) as waiting:

        @task
        def tell() -> str:
            return "told"

        tell()
    globals()[name] = waiting
"""
