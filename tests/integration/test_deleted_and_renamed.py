"""What becomes of a sync whose repository or remote is deleted or renamed while it waits to be tried again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from registry_sync.domain.records import RepositorySpec
from registry_sync.errors import RecordNotFound, RemoteChanged, RunEnded, ServerUnavailable
from support.filling import push
from support.memory_registry import MemoryRegistry
from support.shapes import documented_example
from support.syncing import Installation


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def upstream(registry: MemoryRegistry) -> MemoryRegistry:
    push(registry, "app", documented_example())
    return registry


def interrupted(here: Installation, upstream: MemoryRegistry, stage: str, **request: str) -> None:
    """A first try of the run ``one`` that breaks off before ``stage``."""

    def fail(reached: str, _run: object) -> None:
        if reached == stage:
            raise ServerUnavailable("down")

    with pytest.raises(ServerUnavailable):
        here.sync("app", upstream.url, "app", run_id="one", before=fail, **request)


def delete_repository(here: Installation) -> None:
    here.database.repositories.delete(here.database.repositories.by_name("app").id)


def delete_remote(here: Installation) -> None:
    here.database.remotes.delete(here.database.remotes.by_name("app").id)


@pytest.mark.parametrize("stage", ["list_tags", "fetch_manifests", "commit_version"])
@pytest.mark.parametrize(("delete", "what"), [(delete_repository, "repository 'app'"), (delete_remote, "remote 'app'")])
def test_what_was_deleted_while_a_sync_waited_for_its_next_try_does_not_come_back(
    here: Installation, upstream: MemoryRegistry, stage: str, delete: Callable[[Installation], None], what: str
) -> None:
    interrupted(here, upstream, stage)
    delete(here)
    for _ in range(2):
        with pytest.raises(RunEnded, match=f"the {what} was deleted"):
            here.sync("app", upstream.url, "app", run_id="one")
    find = here.database.repositories.by_name if delete is delete_repository else here.database.remotes.by_name
    with pytest.raises(RecordNotFound):
        find("app")
    assert here.sync("app", upstream.url, "app", run_id="two") is not None, "a new run may make it again"


def test_what_was_made_anew_meanwhile_is_not_mistaken_for_it(here: Installation, upstream: MemoryRegistry) -> None:
    interrupted(here, upstream, "fetch_manifests")
    delete_repository(here)
    another = here.database.repositories.ensure("app")
    with pytest.raises(RunEnded, match="was deleted"):
        here.sync("app", upstream.url, "app", run_id="one")
    assert here.database.versions.latest(another.id) is None


def test_a_repository_and_a_remote_that_were_renamed_are_synced_under_their_new_names(
    here: Installation, upstream: MemoryRegistry
) -> None:
    interrupted(here, upstream, "fetch_manifests")
    repository, remote = here.database.repositories.by_name("app"), here.database.remotes.by_name("app")
    here.database.repositories.update(repository.id, RepositorySpec("renamed"))
    here.database.remotes.update(remote.id, remote.spec.changed(name="elsewhere"))
    version = here.sync("app", upstream.url, "app", run_id="one")
    assert version is not None
    assert version.repository_id == repository.id
    assert [found.name for found in here.database.repositories.page().items] == ["renamed"]
    assert [found.spec.name for found in here.database.remotes.page().items] == ["elsewhere"]


def test_a_name_that_another_repository_took_over_is_not_followed(here: Installation, upstream: MemoryRegistry) -> None:
    interrupted(here, upstream, "list_tags")
    repository = here.database.repositories.by_name("app")
    here.database.repositories.update(repository.id, RepositorySpec("renamed"))
    taken = here.database.repositories.ensure("app")
    version = here.sync("app", upstream.url, "app", run_id="one")
    assert version is not None
    assert version.repository_id == repository.id
    assert here.database.versions.latest(taken.id) is None


def test_a_repeat_that_requests_another_repository_is_refused(here: Installation, upstream: MemoryRegistry) -> None:
    interrupted(here, upstream, "fetch_manifests")
    with pytest.raises(RemoteChanged, match="another repository"):
        here.sync("other", upstream.url, "app", run_id="one", remote="app")
