"""DAGs that the shared Airflow has beside the delivered one: one to kill, one that is scheduled once, two that wait for
repositories, and one that reads what a sync of another one changed.
"""

from __future__ import annotations

CODE = """
import time
from datetime import timedelta
from pathlib import Path
from airflow.sdk import DAG, Asset, Param, dag, task

@dag(dag_id="slow", schedule=None)
def slow():
    @task(retries=1, retry_delay=timedelta(0))
    def once_slow(number, ti=None):
        if ti.try_number == 1:
            time.sleep(120)
        return number

    once_slow.expand(number=[7])

slow()

from airflow.providers.standard.operators.empty import EmptyOperator
from registry_sync.operators.repository_timetables import RepositoryIntervalTimetable

monthly = RepositoryIntervalTimetable(timedelta(days=30), repository="team/scheduled")
with DAG("scheduled", schedule=monthly, catchup=False, is_paused_upon_creation=False):
    EmptyOperator(task_id="nothing")

for name in ("waited-for", "renamed-to"):
    waited_for = Asset.ref(name=f"registry_sync/{name}")
    with DAG(f"waits_for_{name}", schedule=waited_for, is_paused_upon_creation=False) as waiting:

        @task
        def tell() -> str:
            return "told"

        tell()
    globals()[name] = waiting

from registry_sync.operators.changed_tags import changed_tags, versions_of
from registry_sync.operators.sync_repository import sync_repository

with DAG("declares", schedule=None, params={"url": Param("", type="string")}):
    sync_repository("declared", url="{{ params.url }}", upstream_name="team/app", small=True)

with DAG("follows", schedule=versions_of("declared"), is_paused_upon_creation=False):

    @task
    def changed(triggering_asset_events=None):
        return changed_tags(triggering_asset_events)

    changed()

#: Where it exists, the file has the URL of the registry that a DAG watches; it is read when this file is parsed.
WATCHED = Path(__file__).with_name("watched-registry.txt")

if WATCHED.exists():
    from registry_sync.triggers.watched_tags import watch_tags

    url = WATCHED.read_text().strip()
    tags = watch_tags(url, "team/app", ["latest", "stable"], poll_seconds=1)
    with DAG("watches", schedule=tags, is_paused_upon_creation=False):
        sync_repository("watched", url=url, upstream_name="team/app", small=True)
"""
