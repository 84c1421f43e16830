"""The timetables of DAGs of one repository: Airflow's times and words, and ids of runs that name the repository."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DagRunInfo, TimeRestriction, Timetable
from airflow.timetables.simple import NullTimetable
from airflow.timetables.trigger import CronTriggerTimetable, DeltaTriggerTimetable
from airflow.utils.types import DagRunType

from registry_sync.operators.repository_timetables import (
    REPOSITORY_TIMETABLES,
    RepositoryCronTimetable,
    RepositoryIntervalTimetable,
    RepositoryManualTimetable,
)

NAME = "team/app"
AT = pendulum.datetime(2026, 3, 1, 3, 30, tz="UTC")
PAIRS = [
    (RepositoryCronTimetable("30 3 * * *", timezone="Europe/Berlin", repository=NAME),
     CronTriggerTimetable("30 3 * * *", timezone="Europe/Berlin")),
    (RepositoryIntervalTimetable(timedelta(hours=5), repository=NAME), DeltaTriggerTimetable(timedelta(hours=5))),
    (RepositoryManualTimetable(repository=NAME), NullTimetable()),
]  # fmt: skip


def stored(timetable: Timetable) -> Any:
    """What the scheduler and the API server read of a DAG with the timetable."""
    return DagSerialization.from_dict(DagSerialization.to_dict(DAG("one", schedule=timetable))).timetable


def run_id(timetable: Any, run_type: DagRunType) -> str:
    return str(timetable.generate_run_id(run_type=run_type, run_after=AT, data_interval=None))


@pytest.mark.parametrize("timetable", [ours for ours, _ in PAIRS], ids=lambda one: type(one).__name__)
def test_ids_of_runs_name_the_repository_and_keep_the_prefixes_of_airflow(timetable: Timetable) -> None:
    assert type(timetable) in REPOSITORY_TIMETABLES
    for one in (timetable, stored(timetable)):
        assert run_id(one, DagRunType.SCHEDULED) == "scheduled__team-app__2026-03-01T03:30:00+00:00"
        assert run_id(one, DagRunType.MANUAL) == "sync__team-app__2026-03-01T03:30:00+00:00"
        for run_type in DagRunType:
            assert DagRunType.from_run_id(run_id(one, run_type)) is run_type, "of which a user may take only the last"


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda one: type(one).__name__)
def test_times_and_what_airflow_shows_are_those_of_its_own(ours: Any, theirs: Any) -> None:
    kept = stored(ours)
    assert type(kept) is type(ours)
    for name in ("summary", "description", "can_be_scheduled", "periodic", "active_runs_limit", "run_ordering"):
        assert getattr(kept, name) == getattr(theirs, name), name
    restriction = TimeRestriction(earliest=None, latest=None, catchup=True)
    last = DagRunInfo.exact(AT)
    following = [one.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction) for one in (kept, theirs)]
    assert following[0] == following[1]
    assert kept.infer_manual_data_interval(run_after=AT) == theirs.infer_manual_data_interval(run_after=AT)


@pytest.mark.parametrize("pattern", ["", "^release-", "["])
def test_an_id_that_the_deployment_does_not_permit_is_airflows(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.setenv("AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN", pattern)
    (timetable, theirs), *_ = PAIRS
    for run_type in (DagRunType.SCHEDULED, DagRunType.MANUAL):
        assert run_id(timetable, run_type) == run_id(theirs, run_type)
