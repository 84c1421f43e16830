"""Timetables of DAGs that sync one repository: Airflow's own, whose runs have the repository in their ids.

Airflow's lists of runs show the id first. That of a scheduled run keeps Airflow's prefix, which no other run may have:
``scheduled__<repository>__<time>``. A run that somebody triggers without an id becomes ``sync__<repository>__<time>``,
as in the sync DAG. Airflow makes ids of runs that an asset or an operator triggers, and of most of backfills, without
the timetable. A deployment whose ``allowed_run_id_pattern`` does not permit such an id keeps Airflow's.

The plugin registers them, as the DAG processor, the scheduler and the API server read DAGs that have them. Imported
where DAGs are made and never by tasks, which have no use for a schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.timetables.base import Timetable
from airflow.timetables.simple import NullTimetable
from airflow.timetables.trigger import CronTriggerTimetable, DeltaTriggerTimetable
from airflow.utils.types import DagRunType

from registry_sync.domain.runs import run_id_about
from registry_sync.hooks.dag_runs import permits_run_id

if TYPE_CHECKING:
    from pendulum import DateTime

#: How runs begin that somebody triggers; Airflow reserves the names of its other types of runs.
_TRIGGERED = "sync"


class _OfRepository(Timetable):
    """The ids of runs, and the repository beside what Airflow stores of the timetable."""

    #: Empty only while Airflow reads a stored timetable.
    repository: str = ""

    def generate_run_id(self, *, run_type: DagRunType, run_after: DateTime, **more: Any) -> str:
        kind = _TRIGGERED if run_type is DagRunType.MANUAL else str(run_type)
        run_id = run_id_about(kind, self.repository, run_after.isoformat())
        if permits_run_id(run_id):
            return run_id
        return super().generate_run_id(run_type=run_type, run_after=run_after, **more)

    def serialize(self) -> dict[str, Any]:
        return {**super().serialize(), "repository": self.repository}

    @classmethod
    def deserialize(cls, data: Mapping[str, Any]) -> Timetable:
        made = super().deserialize(dict(data))
        made.repository = str(data["repository"])  # type: ignore[attr-defined]
        return made


class RepositoryCronTimetable(_OfRepository, CronTriggerTimetable):
    """Airflow's ``CronTriggerTimetable`` for a DAG that syncs one repository.

    :param cron: when a run starts, five fields or a preset such as ``@daily``
    :param timezone: that of ``cron``, such as ``UTC``
    :param repository: the name in the ids of runs
    """

    def __init__(self, cron: str, *, timezone: Any, repository: str = "", **more: Any) -> None:
        super().__init__(cron, timezone=timezone, **more)
        self.repository = repository


class RepositoryIntervalTimetable(_OfRepository, DeltaTriggerTimetable):
    """Airflow's ``DeltaTriggerTimetable`` for a DAG that syncs one repository.

    :param delta: the time from run to run
    :param repository: the name in the ids of runs
    """

    def __init__(self, delta: timedelta, *, repository: str = "", **more: Any) -> None:
        super().__init__(delta, **more)
        self.repository = repository


class RepositoryManualTimetable(_OfRepository, NullTimetable):
    """Airflow's timetable of ``schedule=None`` for a DAG that syncs one repository.

    :param repository: the name in the ids of runs
    """

    def __init__(self, *, repository: str = "") -> None:
        super().__init__()
        self.repository = repository


#: What the plugin registers.
REPOSITORY_TIMETABLES: tuple[type[Timetable], ...] = (
    RepositoryCronTimetable,
    RepositoryIntervalTimetable,
    RepositoryManualTimetable,
)
