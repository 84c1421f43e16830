"""``/status/``: the installed releases, what runs, and the state of database, store and sync DAG."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fastapi import Request

from registry_sync import __version__
from registry_sync.api.access import SIGNED_IN
from registry_sync.api.dependencies import OpenedDatabase, Router
from registry_sync.api.description import component_versions
from registry_sync.domain.quantities import utc_now
from registry_sync.errors import RegistrySyncError
from registry_sync.hooks.settings import load_settings, serves_pulls_in_api_server
from registry_sync.pulp.status_documents import (
    DatabaseConnection,
    RunningPart,
    StatusDocument,
    StorageDocument,
    SyncDag,
)

router = Router(prefix="/status", tags=["status"])


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
class _Installation:
    """What the status is read from. ``schedulers`` have for each whether it has reported lately."""

    versions: list[_Component]
    schedulers: list[tuple[RunningPart, bool]]
    online_api_apps: list[RunningPart]
    online_content_apps: list[RunningPart]
    database_connection: DatabaseConnection
    storage: StorageDocument | None
    sync_dag: SyncDag

    @property
    def online_workers(self) -> list[RunningPart]:
        return [part for part, is_alive in self.schedulers if is_alive]

    @property
    def missing_workers(self) -> list[RunningPart]:
        return [part for part, is_alive in self.schedulers if not is_alive]


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


def _schedulers() -> list[tuple[RunningPart, bool]]:
    """Airflow's schedulers that have not ended, each with whether it has reported lately."""
    from airflow.jobs.job import Job, JobState
    from airflow.utils.session import create_session

    with create_session() as session:
        jobs = session.query(Job).filter(Job.job_type == "SchedulerJob", Job.state == JobState.RUNNING).order_by(Job.id)
        return [(_scheduler(job.id, str(job.hostname), job.latest_heartbeat), job.is_alive()) for job in jobs.all()]


def _scheduler(job_id: int, host: str, heartbeat: datetime | None) -> RunningPart:
    return RunningPart(name=f"{job_id}@{host}", last_heartbeat=heartbeat or utc_now(), versions={})


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
