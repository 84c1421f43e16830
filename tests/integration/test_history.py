"""Rollbacks, copies and provenance after real syncs: what the next sync makes of them, and what it costs."""

from __future__ import annotations

import pytest

from registry_sync.domain.references import TagFilter
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import VersionConflict
from support.filling import push
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import MemoryRegistry
from support.shapes import documented_example
from support.syncing import Installation


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def release(number: int) -> RepositoryContent:
    build = ContentBuilder(seed=100 + number)
    build.tag("latest", build.index([build.image([build.blob(200)]), build.image([build.blob(300)])]))
    return build.content()


def test_a_sync_after_a_rollback_takes_the_upstreams_state_again_and_fetches_no_blob_twice(
    here: Installation, registry: MemoryRegistry
) -> None:
    push(registry, "rolled", documented_example())
    first = here.sync("app", registry.url, "rolled")
    push(registry, "rolled", release(1))
    second = here.sync("app", registry.url, "rolled")
    assert first is not None
    assert second is not None
    derived = here.database.versions.roll_back(first.repository_id, 1)
    assert derived.version is not None
    assert derived.missing_blob_count == 0
    assert derived.version.summary.counts()["present"] == first.summary.counts()["present"]
    registry.reset_counts()
    again = here.sync("app", registry.url, "rolled")
    assert again is not None
    assert here.database.versions.difference(first.repository_id, again.number, 2).is_empty
    assert registry.log().blob_get_count == 0


def test_bytes_that_were_reclaimed_come_back_with_the_sync_after_a_rollback(
    here: Installation, registry: MemoryRegistry
) -> None:
    first_content = release(2)
    push(registry, "reclaimed", first_content)
    first = here.sync("app", registry.url, "reclaimed")
    push(registry, "reclaimed", release(3))
    here.sync("app", registry.url, "reclaimed")
    assert first is not None
    for digest in first_content.blobs:
        here.database.contents.mark_missing([digest])
        here.store.delete(digest)
    derived = here.database.versions.roll_back(first.repository_id, 1)
    assert derived.missing_blob_count == len(first_content.blobs)
    assert derived.missing_blob_bytes == first_content.blob_bytes
    push(registry, "reclaimed", first_content)
    here.sync("app", registry.url, "reclaimed")
    assert here.database.versions.missing_blob_count(first.repository_id) == 0
    for digest, blob in first_content.blobs.items():
        with here.store.open(digest) as stored:
            assert stored.read() == blob.data


def test_a_rollback_in_the_middle_of_a_sync_stands(here: Installation, registry: MemoryRegistry) -> None:
    push(registry, "middle", release(4))
    first = here.sync("app", registry.url, "middle")
    push(registry, "middle", release(5))
    here.sync("app", registry.url, "middle")
    push(registry, "middle", release(6))
    assert first is not None

    def before(stage: str, _run: object) -> None:
        if stage == "commit_version":
            here.database.versions.roll_back(first.repository_id, 1)

    with pytest.raises(VersionConflict):
        here.sync("app", registry.url, "middle", before=before)
    assert here.database.versions.tags(first.repository_id) == release(4).tags


def test_a_version_deleted_in_the_middle_of_a_sync_leaves_no_index_without_its_images(
    here: Installation, registry: MemoryRegistry
) -> None:
    push(registry, "deleted", documented_example())
    first = here.sync("app", registry.url, "deleted")
    push(registry, "deleted", release(7))
    here.sync("app", registry.url, "deleted")
    build = ContentBuilder(seed=107)
    build.tag("new", build.image([build.blob(100)]))
    push(registry, "deleted", build.content())
    assert first is not None

    def before(stage: str, _run: object) -> None:
        if stage == "commit_version":
            here.database.versions.delete(first.repository_id, 2)

    version = here.sync("app", registry.url, "deleted", before=before)
    assert version is not None
    assert [hold.tag for hold in version.holds] == ["latest"]
    repaired = here.sync("app", registry.url, "deleted")
    assert repaired is not None
    upstream = documented_example().merged(release(7)).merged(build.content())
    whole = upstream.closure(upstream.tags)
    assert here.database.versions.tags(first.repository_id) == whole.tags
    assert repaired.summary.counts()["present"]["docker.manifest"] == len(whole.manifests)


def test_promoted_tags_are_whole_without_a_request_and_say_where_they_came_from(
    here: Installation, registry: MemoryRegistry
) -> None:
    content = documented_example()
    push(registry, "team/promoted", content)
    version = here.sync("tested", registry.url, "team/promoted")
    assert version is not None
    released = here.database.repositories.ensure("released")
    registry.reset_counts()
    request = CopyRequest(version.repository_id, version.number, TagFilter.parse(["latest", "v*"]))
    derived = here.database.versions.copy(released.id, request, by="ada")
    assert derived.version is not None
    assert (derived.missing_blob_count, registry.log().count()) == (0, 0)
    part = content.closure(["latest", "v1", "v2", "v3"])
    assert here.database.versions.tags(released.id) == part.tags
    assert derived.version.summary.counts()["present"] == {
        "docker.tag": len(part.tags),
        "docker.manifest": len(part.manifests),
        "docker.blob": len(part.blobs),
    }
    made = here.database.provenance.version(version.repository_id, version.number)
    assert made.run is not None
    source = f"{registry.url.removeprefix('http://')}/team/promoted"
    assert (made.run.remote.source, made.run.counts.tag_count) == (source, len(content.tags))
    for digest in part.blobs:
        found = here.database.provenance.blob(digest)
        assert found.source == source
        assert [holder.repository_name for holder in found.holders] == ["released", "tested"]
