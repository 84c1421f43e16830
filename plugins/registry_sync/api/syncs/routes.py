"""``sync/`` of a remote and of a repository: each starts a run of the sync DAG and responds with its task."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Annotated

from fastapi import HTTPException
from pydantic import BaseModel, Field

from registry_sync.api.access import SYNC, SignedIn, may_change_repositories
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import Flag, GivenDocument, GivenHref, PathUuid, parsed
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.api.tasks import sync_dag
from registry_sync.db.database import Database
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Remote, Repository, SyncMode
from registry_sync.domain.runs import RequestedSync, is_fed_by
from registry_sync.errors import RecordNotFound, RegistrySyncError
from registry_sync.hooks.settings import load_settings
from registry_sync.pulp.hrefs import read_remote_href, read_repository_href, task_href

_Mirror = Annotated[
    Flag, Field(description="Whether what is gone upstream is removed from the new version; false keeps it")
]


class NewSync(GivenDocument):
    """How to sync."""

    mirror: _Mirror = False

    @property
    def mode(self) -> SyncMode:
        """In the domain's word."""
        return SyncMode.MIRROR if self.mirror else SyncMode.ADDITIVE


class SyncIntoRepository(NewSync):
    """A sync of a remote: into which repository."""

    repository: Annotated[GivenHref, parsed(read_repository_href), Field(description="Path of a repository")]


class SyncFromRemote(NewSync):
    """A sync of a repository: from which remote."""

    remote: Annotated[GivenHref, parsed(read_remote_href), Field(description="Path of a remote")]


class TaskStarted(BaseModel):
    """The task that was begun."""

    task: str


router = Router(tags=["sync"])


@router.post("/remotes/docker/docker/{remote_id}/sync/", status_code=202, dependencies=SYNC, responses=NOT_FOUND)
def sync_remote(database: UsedDatabase, remote_id: PathUuid, given: SyncIntoRepository, user: SignedIn) -> TaskStarted:
    """Takes the remote's content into a repository."""
    remote = database.remotes.get(remote_id)
    try:
        repository = database.repositories.get(read_repository_href(given.repository))
    except RecordNotFound as problem:
        raise InvalidField("repository", str(problem)) from None
    return _start(database, repository, remote, given, user)


@router.post(
    "/repositories/docker/docker/{repository_id}/sync/", status_code=202, dependencies=SYNC, responses=NOT_FOUND
)
def sync_repository(
    database: UsedDatabase, repository_id: PathUuid, given: SyncFromRemote, user: SignedIn
) -> TaskStarted:
    """Takes a remote's content into the repository."""
    repository = database.repositories.get(repository_id)
    try:
        remote = database.remotes.get(read_remote_href(given.remote))
    except RecordNotFound as problem:
        raise InvalidField("remote", str(problem)) from None
    return _start(database, repository, remote, given, user)


def _start(database: Database, repository: Repository, remote: Remote, given: NewSync, user: SignedIn) -> TaskStarted:
    """Keeps what was asked for, by ids, and begins a run that acts on it; the run's parameters are for people.

    Refused, for who may not change repositories, where another remote would replace what a repository holds.
    """
    is_other = not is_fed_by(repository, remote, database.runs.latest_settled(repository.id))
    if is_other and not may_change_repositories(user):
        raise HTTPException(
            403,
            f"The content of repository {repository.name!r} did not come from remote {remote.spec.name!r}. To let this "
            "remote take the place takes the right to change repositories.",
        )
    asked = RequestedSync(
        id=str(uuid.uuid4()),
        dag_id=load_settings().sync_dag_id,
        repository_id=repository.id,
        remote_id=remote.id,
        mode=given.mode,
        requested_by=user.get_name(),
        may_replace_upstream=is_other,
        requested_at=utc_now(),
    )
    conf = {"repository": repository.name, "remote": remote.spec.name, "mode": given.mode.value}
    database.requests.add(asked)
    try:
        sync_dag.trigger(asked.dag_id, asked.id, conf, user.get_name())
    except BaseException:
        with suppress(RegistrySyncError):
            database.requests.withdraw(asked.id)
        raise
    return TaskStarted(task=task_href(asked.id))
