"""How often a plan asks the database what is below the tags: once, and nothing that was just written is read back.

And how many statements a sync builds, which takes longer than SQLite takes to execute them: those that depend on rows.
"""

from __future__ import annotations

from typing import Any

import pytest

from registry_sync.domain.runs import RunKey, SyncRun
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.fetch_blobs import fetch_small_run
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import list_tags
from registry_sync.sync.open_run import SyncRequest, open_run
from registry_sync.sync.plan_blobs import plan_blobs
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import MemoryRegistry
from support.statements import executed_statements, listening, recursive
from support.syncing import Installation, new_client

NAME = "team/app"


@pytest.fixture
def content() -> RepositoryContent:
    build = ContentBuilder(seed=61)
    build.tag("latest", build.index([build.image([build.blob(size)]) for size in (40, 50, 60)]))
    return build.content()


@pytest.fixture
def registry(content: RepositoryContent) -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.serve(NAME, content)
    return registry


@pytest.fixture
def run(here: Installation, registry: MemoryRegistry) -> SyncRun:
    """A run whose manifests are fetched."""
    request = SyncRequest(repository="app", url=registry.url, upstream_name=NAME)
    opened = open_run(here.database, RunKey("registry_sync", "run"), request)
    with new_client(opened.remote) as client:
        list_tags(client, here.database, opened, opened.remote, max_shards=1, report=here.lines)
        fetch_manifests(client, here.database, opened, opened.remote, shard=0, is_last_try=True, report=here.lines)
    return opened


def test_a_plan_requests_once_what_is_below_the_tags(here: Installation, run: SyncRun) -> None:
    with executed_statements() as statements:
        planned = plan_blobs(here.store, here.database, run, max_shards=2, min_shard_bytes=1, report=here.lines)
    assert (len(planned.shards), planned.missing_count) == (2, 6)
    assert len(recursive(statements)) == 1, "\n".join(recursive(statements))


def test_a_small_run_passes_on_what_it_planned_and_reads_nothing_of_it_again(
    here: Installation, registry: MemoryRegistry, content: RepositoryContent, run: SyncRun
) -> None:
    with executed_statements() as statements, new_client(run.remote) as client:
        fetched = fetch_small_run(
            client, here.store, here.database, run, run.remote, min_shard_bytes=1 << 24, is_last_try=True,
            report=here.lines,
        )  # fmt: skip
    assert fetched is not None
    assert fetched.fetched_count == 6
    assert len(recursive(statements)) == 1, "\n".join(recursive(statements))
    read_back = [statement for statement in statements if statement.startswith("SELECT") and "run_blobs" in statement]
    assert read_back == []
    with executed_statements() as statements:
        result = commit_version(here.database, run, report=here.lines)
    assert not any("is_stored" in statement for statement in recursive(statements)), "a commit plans nothing"
    assert result.version is not None
    counts = here.database.runs.get(run.id).counts
    assert (counts.blob_count, counts.stored_blob_count) == (6, 6), "what was planned is counted all the same"
    assert all(here.store.has(blob) for blob in content.blobs)


def test_a_small_run_that_is_tried_again_plans_what_is_still_missing(
    here: Installation, registry: MemoryRegistry, content: RepositoryContent, run: SyncRun
) -> None:
    """Also where another blob than before is missing by then, and one that failed can be had."""
    first, *_ = sorted(content.blobs)
    for _ in range(2):
        with new_client(run.remote) as client:
            fetch_small_run(
                client, here.store, here.database, run, run.remote, min_shard_bytes=1 << 24, is_last_try=True,
                report=here.lines,
            )  # fmt: skip
        here.store.delete(first)
        here.database.contents.mark_missing([first])
    asked = [request.reference for request in registry.log().select("GET", "blob")]
    assert asked.count(first) == 2
    assert len(asked) == len(content.blobs) + 1


#: Statements of one sync whose columns or conditions depend on what is written, and that are built for it.
MOST_BUILT = 5


def small_sync(here: Installation, registry: MemoryRegistry, repository: str, run_id: str) -> None:
    """A sync as a task of many mirrors does it."""
    opened = open_run(
        here.database,
        RunKey("fleet", run_id, repository),
        SyncRequest(repository, url=registry.url, upstream_name=NAME),
    )
    with new_client(opened.remote) as client:
        work = (client, here.database, opened, opened.remote)
        list_tags(*work, max_shards=2, report=here.lines)
        for shard in here.database.runs.pending_shards(opened.id):
            fetch_manifests(*work, shard=shard, is_last_try=True, report=here.lines)
        fetch_small_run(
            client, here.store, here.database, opened, opened.remote, min_shard_bytes=None, is_last_try=True,
            report=here.lines,
        )  # fmt: skip
    assert commit_version(here.database, opened, report=here.lines).version is not None


def test_statements_are_built_by_the_first_sync_of_a_process(here: Installation, registry: MemoryRegistry) -> None:
    executed: list[Any] = []

    def note(_connection: Any, statement: Any, *_more: Any) -> None:
        executed.append(statement)

    small_sync(here, registry, "one", "first")
    with listening("before_execute", note):
        small_sync(here, registry, "two", "first")
        of_second = len(executed)
        small_sync(here, registry, "three", "first")
    earlier = {id(statement) for statement in executed[:of_second]}
    built = [statement for statement in executed[of_second:] if id(statement) not in earlier]
    assert of_second > 50
    assert len(built) <= MOST_BUILT, "\n\n".join(map(str, built))
