"""``/status/``: the installed releases, what runs, and the state of database, store and sync DAG; and ``/workers/``."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

from fastapi import Query, Request
from pydantic import Field

from registry_sync import __version__
from registry_sync.api.access import READ, SIGNED_IN
from registry_sync.api.dependencies import OpenedDatabase, Router
from registry_sync.api.description import component_versions
from registry_sync.api.fields import Flag, PathUuid, Sought
from registry_sync.api.list_filters import listed
from registry_sync.api.problems import NOT_FOUND
from registry_sync.api.resources import PageQuery, page_document, part_of, sent_page
from registry_sync.domain.filters import Match, Operator, text_matches
from registry_sync.domain.quantities import utc_now
from registry_sync.errors import RecordNotFound, RegistrySyncError
from registry_sync.hooks.settings import load_settings, serves_pulls_in_api_server
from registry_sync.pulp.documents import PageDocument
from registry_sync.pulp.hrefs import worker_href, workers_href
from registry_sync.pulp.resource_names import uuid_of
from registry_sync.pulp.status_documents import (
    DatabaseConnection,
    RunningPart,
    StatusDocument,
    StorageDocument,
    SyncDag,
    WorkerDocument,
)

if TYPE_CHECKING:
    from airflow.jobs.job import Job

router = Router(prefix="/status", tags=["status"])
workers_router = Router(prefix="/workers", tags=["status"])


@dataclass(frozen=True)
class _Component:
    component: str
    version: str

    @property
    def package(self) -> str:
        return "apache-airflow" if self.component == "airflow" else "registry-sync"

    @property
    def module(self) -> str:
        return "airflow" if self.component == "airflow" else "registry_sync"


@dataclass(frozen=True)
class _Scheduler:
    """A scheduler of Airflow that has not ended; ``is_alive`` says that it has reported lately."""

    job_id: int
    name: str
    started_at: datetime
    last_heartbeat: datetime
    is_alive: bool

    @property
    def part(self) -> RunningPart:
        return RunningPart(name=self.name, last_heartbeat=self.last_heartbeat, versions={})


@dataclass(frozen=True)
class _Installation:
    """What the status is read from."""

    versions: list[_Component]
    schedulers: list[_Scheduler]
    online_api_apps: list[RunningPart]
    online_content_apps: list[RunningPart]
    database_connection: DatabaseConnection
    storage: StorageDocument | None
    sync_dag: SyncDag

    @property
    def online_workers(self) -> list[RunningPart]:
        return [found.part for found in self.schedulers if found.is_alive]

    @property
    def missing_workers(self) -> list[RunningPart]:
        return [found.part for found in self.schedulers if not found.is_alive]


@router.get("/", dependencies=SIGNED_IN)
def read_status(request: Request) -> StatusDocument:
    """Releases, what runs, the database, the store, the sync DAG. The response is 200 also when one has a problem."""
    settings, here = load_settings(), [_this_process()]
    found = _Installation(
        versions=[_Component(name, release) for name, release in component_versions().items()],
        schedulers=_schedulers(),
        online_api_apps=here,
        online_content_apps=here if serves_pulls_in_api_server() else [],
        database_connection=_database_connection(request.app.state.parts),
        storage=_storage(settings.blob_store),
        sync_dag=_sync_dag(settings.sync_dag_id),
    )
    return StatusDocument.model_validate(found)


def _this_process() -> RunningPart:
    return RunningPart(
        name=f"{os.getpid()}@{socket.gethostname()}",
        last_heartbeat=utc_now(),
        versions={"registry-sync": __version__, "airflow": version("apache-airflow-core")},
    )


def _schedulers() -> list[_Scheduler]:
    """Airflow's schedulers that have not ended, the first that started first."""
    from airflow.jobs.job import Job, JobState
    from airflow.utils.session import create_session

    with create_session() as session:
        jobs = session.query(Job).filter(Job.job_type == "SchedulerJob", Job.state == JobState.RUNNING).order_by(Job.id)
        return [_scheduler(job) for job in jobs.all()]


def _scheduler(job: Job) -> _Scheduler:
    started_at = job.start_date or utc_now()
    return _Scheduler(
        job.id, f"{job.id}@{job.hostname}", started_at, job.latest_heartbeat or started_at, bool(job.is_alive())
    )


def _storage(blob_store: str) -> StorageDocument | None:
    """The space of the store's file system, None for an object store and for a folder that cannot be looked at."""
    parts = urlsplit(blob_store)
    if parts.scheme not in ("", "file"):
        return None
    folder = Path(unquote(parts.path))
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if existing is None:
        return None
    try:
        total, used, free = shutil.disk_usage(existing)
    except OSError:
        return None
    return StorageDocument(total=total, used=used, free=free)


def _database_connection(parts: OpenedDatabase) -> DatabaseConnection:
    try:
        parts.database().check()
    except RegistrySyncError as problem:
        return DatabaseConnection(connected=False, detail=str(problem))
    return DatabaseConnection(connected=True, detail=None)


def _sync_dag(dag_id: str) -> SyncDag:
    from airflow.models import DagModel

    dag = DagModel.get_current(dag_id)
    is_known = dag is not None and not dag.is_stale
    return SyncDag(dag_id=dag_id, is_known=is_known, is_paused=bool(dag is not None and dag.is_paused))


# -- workers -----------------------------------------------------------------------------------------------------------

_Names: Any = listed("Any of these, separated by commas")


class WorkerQuery(PageQuery):
    """The filters of workers."""

    name: Sought | None = None
    name__in: _Names = None
    name__contains: Sought | None = None
    name__icontains: Sought | None = None
    missing: Annotated[Flag | None, Field(description="Whether it has not reported lately")] = None
    online: Annotated[Flag | None, Field(description="Whether it has reported lately")] = None

    def has(self, scheduler: _Scheduler) -> bool:
        """Whether a scheduler is one of those that are looked for."""
        texts = (
            (self.name, Operator.EQUAL),
            (self.name__contains, Operator.CONTAINS),
            (self.name__icontains, Operator.CONTAINS_ANY_CASE),
        )
        named = (text is None or text_matches(scheduler.name, Match("name", (text,), how)) for text, how in texts)
        is_listed = self.name__in is None or scheduler.name in self.name__in
        is_wanted = self.online in (None, scheduler.is_alive) and self.missing in (None, not scheduler.is_alive)
        return is_listed and is_wanted and all(named)


@workers_router.get("/", dependencies=READ)
def list_workers(query: Annotated[WorkerQuery, Query()]) -> PageDocument[WorkerDocument]:
    """Airflow's schedulers, which start the tasks of syncs."""
    page = part_of([found for found in _schedulers() if query.has(found)], query)
    return sent_page(query, page_document(workers_href(), query, page, WorkerDocument.model_validate))


@workers_router.get("/{worker_id}/", dependencies=READ, responses=NOT_FOUND)
def read_worker(worker_id: PathUuid) -> WorkerDocument:
    """A scheduler of Airflow."""
    for found in _schedulers():
        if uuid_of(f"{found.job_id:x}") == worker_id:
            return WorkerDocument.model_validate(found)
    raise RecordNotFound(f"there is no worker {worker_href(worker_id)}")
