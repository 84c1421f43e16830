"""Syncs one repository within seconds after one of its tags has moved, and in any case every night."""

from __future__ import annotations

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable

from registry_sync.operators.sync_repository import sync_repository
from registry_sync.triggers.watched_tags import watch_tags

HUB, UPSTREAM = "https://registry-1.docker.io", "library/hello-world"

with DAG(
    dag_id="mirror_when_moved",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 3 * * *", timezone="UTC"),
        assets=watch_tags(HUB, UPSTREAM, ["latest", "linux"], poll_seconds=30),
    ),
    catchup=False,
    max_active_runs=1,
):
    sync_repository("watched", url=HUB, upstream_name=UPSTREAM, small=True)
