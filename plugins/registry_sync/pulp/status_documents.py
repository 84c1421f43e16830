"""The document of the status: releases, what runs, the database, the store. Its fields are those of Pulp's clients."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from registry_sync.pulp.documents import Document, Timestamp, made
from registry_sync.pulp.hrefs import worker_href
from registry_sync.pulp.resource_names import WORKER, prn, uuid_of


class ComponentVersion(Document):
    """A component and its release.

    ``core`` and ``container`` are the releases of Pulp whose API this one has, as far as it goes.
    """

    component: str
    version: str
    package: str
    module: str
    domain_compatible: bool = False


class RunningPart(Document):
    """A process of Airflow: ``name`` is its number and host, ``last_heartbeat`` when it last reported."""

    name: str
    last_heartbeat: Timestamp
    versions: dict[str, str]


def _worker_href(job_id: int) -> str:
    return worker_href(uuid_of(f"{job_id:x}"))


def _worker_prn(job_id: int) -> str:
    return prn(WORKER, uuid_of(f"{job_id:x}"))


class WorkerDocument(Document):
    """A scheduler of Airflow, which starts the tasks of syncs. Those of its runs are not among its fields."""

    pulp_created: Annotated[Timestamp, Field(validation_alias="started_at")]
    pulp_href: Annotated[str, made(_worker_href), Field(validation_alias="job_id")]
    prn: Annotated[str, made(_worker_prn), Field(validation_alias="job_id")]
    pulp_last_updated: Annotated[Timestamp, Field(validation_alias="last_heartbeat")]
    name: str
    last_heartbeat: Timestamp
    versions: dict[str, str] = Field(default_factory=dict)
    current_task: None = None


class DatabaseConnection(Document):
    """Whether the metadata database responds and matches this release; ``detail`` says what to do when not."""

    connected: bool
    detail: str | None


class RedisConnection(Document):
    """Redis is not used."""

    connected: bool = False


class StorageDocument(Document):
    """The space of the file system that blobs are stored on, in bytes."""

    total: int
    used: int
    free: int


class ContentSettings(Document):
    """Where clients pull below the host of a pull server."""

    content_origin: None = None
    content_path_prefix: str = "/v2/"


class SyncDag(Document):
    """The sync DAG: whether Airflow knows it, and whether it is paused."""

    dag_id: str
    is_known: bool
    is_paused: bool


class StatusDocument(Document):
    """The state of the installation.

    ``online_workers`` are Airflow's schedulers, which start the tasks of syncs; ``missing_workers`` those that have not
    reported lately. ``online_content_apps`` are API servers that container clients can pull from: pull servers of their
    own are not known here. ``storage`` is null for an object store.
    """

    versions: list[ComponentVersion]
    online_workers: list[RunningPart]
    online_api_apps: list[RunningPart]
    online_content_apps: list[RunningPart]
    missing_workers: list[RunningPart]
    database_connection: DatabaseConnection
    redis_connection: RedisConnection = RedisConnection()
    storage: StorageDocument | None
    content_settings: ContentSettings = ContentSettings()
    domain_enabled: bool = False
    sync_dag: SyncDag
