"""``sync/`` of a remote and of a repository: each begins a run of the sync DAG and answers with its task."""

from __future__ import annotations

import uuid

from registry_sync.api.access import SYNC, SignedIn
from registry_sync.api.fields import PathUuid
from registry_sync.api.parts import UsedDatabase
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.api.syncs.schemas import NewSync, SyncFromRemote, SyncIntoRepository, TaskStarted
from registry_sync.api.tasks import dag_runs
from registry_sync.api.threads import Router
from registry_sync.domain.hrefs import read_remote_href, read_repository_href, task_href
from registry_sync.domain.records import Remote, Repository
from registry_sync.errors import RecordNotFound
from registry_sync.hooks.settings import load_settings

router = Router(tags=["sync"])


@router.post("/remotes/docker/docker/{remote_id}/sync/", status_code=202, dependencies=SYNC, responses=NOT_FOUND)
def sync_remote(database: UsedDatabase, remote_id: PathUuid, given: SyncIntoRepository, user: SignedIn) -> TaskStarted:
    """Takes the remote's content into a repository."""
    remote = database.remotes.get(remote_id)
    try:
        repository = database.repositories.get(read_repository_href(given.repository))
    except RecordNotFound as problem:
        raise InvalidField("repository", str(problem)) from None
    return _start(repository, remote, given, user)


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
    return _start(repository, remote, given, user)


def _start(repository: Repository, remote: Remote, given: NewSync, user: SignedIn) -> TaskStarted:
    """Names are what the DAG's parameters take."""
    task_id = str(uuid.uuid4())
    conf = {"repository": repository.name, "remote": remote.spec.name, "mode": given.mode.value}
    dag_runs.trigger(load_settings().sync_dag_id, task_id, conf, user.get_name())
    return TaskStarted(task=task_href(task_id))
