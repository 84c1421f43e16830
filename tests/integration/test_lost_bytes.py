"""Bytes that were reclaimed and that the upstream does not give again: no sync passes over them in silence."""

from __future__ import annotations

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.runs import RunKey, RunState
from registry_sync.errors import NothingSynced
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.fetch_blobs import fetch_small_run
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import list_tags
from registry_sync.sync.maintenance.collect import reclaim_blobs
from registry_sync.sync.open_run import SyncRequest, open_run
from support.choosing import NAME, sync, tags
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry, refusal
from support.syncing import Installation, new_client


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def build() -> ContentBuilder:
    return ContentBuilder(seed=47)


def reclaimed(here: Installation, registry: MemoryRegistry, build: ContentBuilder) -> Digest:
    """A mirror of two tags whose bytes were reclaimed; the blob of ``old`` that the registry lost meanwhile."""
    lost = build.blob(60)
    build.tag("old", build.image([lost]))
    build.tag("kept", build.image([build.blob(61)]))
    version = sync(here, registry, build)
    assert version is not None
    reclaim_blobs(here.database, here.store, [version.repository_id], report=here.lines.append)
    registry.on("GET", "blob", lost, refusal(404))
    return lost


@pytest.mark.parametrize("mode", ["mirror", "additive"])
def test_an_unchanged_tag_that_lacks_a_blob_is_held_by_the_version_that_another_tag_makes(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder, mode: str
) -> None:
    lost = reclaimed(here, registry, build)
    build.tag("new", build.image([build.blob(62)]))
    registry.serve(NAME, build.content())
    registry.on("GET", "blob", lost, refusal(404))
    version = sync(here, registry, mode=mode)
    assert version is not None
    assert version.number == 2
    assert tags(here, version) == {"old", "kept", "new"}
    assert [(hold.tag, str(lost) in hold.reason, "has no blob" in hold.reason) for hold in version.holds] == [
        ("old", True, True)
    ]
    assert not version.is_complete
    assert all(here.store.has(blob) for blob in build.content().blobs if blob != lost)


def test_a_sync_that_finds_every_tag_unchanged_and_a_blob_lost_fails_and_names_it(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    lost = reclaimed(here, registry, build)
    with pytest.raises(NothingSynced, match=f"1 tag is held: old: blob {lost}: NotFound: .* has no blob"):
        sync(here, registry)
    assert here.database.versions.missing_blob_count(here.database.repositories.by_name("app").id) == 1


def test_the_short_way_of_small_runs_passes_over_nothing_either(
    here: Installation, registry: MemoryRegistry, build: ContentBuilder
) -> None:
    lost = reclaimed(here, registry, build)
    build.tag("kept", build.image([build.blob(62)]))
    registry.serve(NAME, build.content())
    registry.on("GET", "blob", lost, refusal(404))
    database, report = here.database, here.lines.append
    run = open_run(database, RunKey("registry_sync", "small"), SyncRequest(repository="app", remote="app"))
    with new_client(run.remote) as client:
        listed = list_tags(client, database, run, run.remote, max_shards=1, report=report)
        assert len(listed.shards) == 1
        fetch_manifests(client, database, run, run.remote, shard=0, is_last_try=True, report=report)
        fetched = fetch_small_run(
            client, here.store, database, run, run.remote, min_shard_bytes=1 << 24, is_last_try=True, report=report
        )
    assert fetched is not None
    assert fetched.failed_count == 1
    result = commit_version(database, run, report=report)
    assert [hold.tag for hold in result.holds] == ["old"]
    assert database.runs.get(run.id).state is RunState.COMPLETED
