"""``/status/``: which releases run here, and whether what they need is there."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import Request
from pydantic import BaseModel

from registry_sync import __version__
from registry_sync.api.access import SIGNED_IN
from registry_sync.api.dependencies import OpenedDatabase, Router
from registry_sync.errors import RegistrySyncError
from registry_sync.hooks.settings import load_settings

router = Router(prefix="/status", tags=["status"])


class ComponentVersion(BaseModel):
    """A part and its release."""

    component: str
    version: str
    package: str


class DatabaseConnection(BaseModel):
    """Whether the metadata database answers and fits this release; ``detail`` says what to do when not."""

    connected: bool
    detail: str | None


class SyncDag(BaseModel):
    """The DAG that a sync runs: whether Airflow knows it, and whether it is paused."""

    dag_id: str
    is_known: bool
    is_paused: bool


class StatusDocument(BaseModel):
    """The state of the installation."""

    versions: list[ComponentVersion]
    database_connection: DatabaseConnection
    sync_dag: SyncDag


@router.get("/", dependencies=SIGNED_IN)
def read_status(request: Request) -> StatusDocument:
    """Releases, the metadata database and the sync DAG. Answered with 200 also when something is wrong with them."""
    return StatusDocument(
        versions=[
            ComponentVersion(component="docker", version=__version__, package="registry-sync"),
            ComponentVersion(component="airflow", version=version("apache-airflow-core"), package="apache-airflow"),
        ],
        database_connection=_database_connection(request.app.state.parts),
        sync_dag=_sync_dag(load_settings().sync_dag_id),
    )


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
