"""Repair from a registry when things go wrong: a disk that is full, a repository that is gone, another remote."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.domain.digests import Digest
from registry_sync.domain.storage_reports import Repair
from registry_sync.errors import BlobStoreError, BlobStoreFull, NothingSynced
from registry_sync.sync.maintenance.repair import repair_blobs
from registry_sync.sync.maintenance.verify import VerifyOptions, verify_blobs
from support.filling import push
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import MemoryRegistry
from support.syncing import Installation, new_client

MEBIBYTE = 1024 * 1024


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """No file of this process becomes larger, which a store meets as it meets a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class NotSetAside(LocalBlobStore):
    """A store that lets nothing be moved, as an object store without the right to delete."""

    def quarantine(self, digest: Digest, /) -> bool:
        raise BlobStoreError(f"the blob store refuses to move {digest}")


def content() -> RepositoryContent:
    """An image of three small layers and one of 5 MiB."""
    build = ContentBuilder(seed=5)
    build.tag("latest", build.image([build.blob(1000), build.blob(2000), build.blob(3000), build.blob(5 * MEBIBYTE)]))
    return build.content()


def lose(here: Installation, digests: list[Digest]) -> tuple[Digest, ...]:
    """Deletes blobs past the database; what verification finds lost."""
    for digest in digests:
        here.store.delete(digest)
    return verify_blobs(here.database, here.store, VerifyOptions(share=0), report=here.lines.append).lost


def repair(here: Installation, lost: tuple[Digest, ...]) -> Repair:
    return repair_blobs(here.database, here.store, new_client, lost, report=here.lines.append)


def whole(here: Installation, content: RepositoryContent) -> bool:
    found = verify_blobs(here.database, here.store, VerifyOptions(), report=here.lines.append)
    return found.is_clean and found.verified.count == len(content.blobs)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def test_a_full_disk_stops_the_repair_keeps_what_it_fetched_and_the_repeat_finishes(
    here: Installation, registry: MemoryRegistry
) -> None:
    made = content()
    push(registry, "app", made)
    assert here.sync("app", registry.url, "app", download_concurrency="1") is not None
    lost = lose(here, sorted(made.blobs))
    assert len(lost) == len(made.blobs)

    with files_of_at_most(3 * MEBIBYTE), pytest.raises(BlobStoreFull):
        repair(here, lost)

    large = max(made.blobs, key=lambda digest: made.blobs[digest].size_bytes)
    stored = set(here.store.digests())
    noted = {digest for digest in lost if here.database.contents.blob(digest).is_stored}
    assert large not in stored
    assert noted == stored, "what was fetched is noted, and nothing else"
    registry.reset_counts()
    done = repair(here, lost)
    assert done.failures == {}
    assert done.fetched.count == len(lost) - len(stored) == registry.log().blob_get_count
    assert whole(here, made)


def test_blobs_come_from_another_repository_when_the_first_is_gone(
    here: Installation, registry: MemoryRegistry
) -> None:
    made = content()
    push(registry, "first", made)
    push(registry, "second", made, mount_from="first")
    assert here.sync("one", registry.url, "first") is not None
    assert here.sync("two", registry.url, "second") is not None
    lost = lose(here, sorted(made.blobs)[:3])
    for digest in lost:
        assert here.database.provenance.blob(digest).source == f"{registry.netloc}/first"
        registry.delete_blob("first", digest)
    registry.reset_counts()
    done = repair(here, lost)
    assert (done.fetched.count, done.failures) == (3, {})
    log = registry.log()
    asked = [request.repository for request in log.select("GET", "blob")]
    assert asked[:3] == ["first"] * 3, "where they came from is asked first"
    assert asked[3:] == ["second"] * 3
    assert {here.database.provenance.blob(digest).source for digest in lost} == {f"{registry.netloc}/second"}
    assert whole(here, made)


@pytest.mark.parametrize("is_set_aside", [True, False], ids=["set-aside", "left-in-place"])
def test_a_sync_fetches_again_what_is_known_to_be_broken_though_nothing_changed(
    here: Installation, registry: MemoryRegistry, is_set_aside: bool
) -> None:
    made = content()
    push(registry, "app", made)
    here.sync("app", registry.url, "app")
    assert isinstance(here.store, LocalBlobStore)
    broken = sorted(made.blobs)[:2]
    for digest in broken:
        here.store.path(digest).write_bytes(bytes(made.blobs[digest].size_bytes))
    store = here.store if is_set_aside else NotSetAside(here.store.root)
    assert verify_blobs(here.database, store, VerifyOptions(), report=here.lines.append).lost == tuple(broken)
    assert [here.store.has(digest) for digest in broken] == [not is_set_aside] * 2
    registry.reset_counts()
    assert here.sync("app", registry.url, "app") is None, "no new version"
    assert registry.log().blob_get_count == 2
    assert whole(here, made)


def test_what_a_sync_finds_missing_and_cannot_fetch_is_reported_by_the_next_verification(
    here: Installation, registry: MemoryRegistry
) -> None:
    made = content()
    push(registry, "app", made)
    here.sync("app", registry.url, "app")
    lost = min(made.blobs)
    here.store.delete(lost)
    build = ContentBuilder(seed=6)
    build.tag("other", build.image([build.blob_of(made.blobs[lost].data), build.blob(500)]))
    push(registry, "app", build.content())
    registry.delete_blob("app", lost)
    with pytest.raises(NothingSynced):
        here.sync("app", registry.url, "app")
    assert not here.database.contents.blob(lost).is_stored
    found = verify_blobs(here.database, here.store, VerifyOptions(share=0), report=here.lines.append)
    assert found.lost == (lost,)


def test_broken_bytes_are_fetched_again_and_kept_for_a_person_to_look_at(
    here: Installation, registry: MemoryRegistry
) -> None:
    made = content()
    push(registry, "app", made)
    here.sync("app", registry.url, "app")
    large = max(made.blobs, key=lambda digest: made.blobs[digest].size_bytes)
    assert isinstance(here.store, LocalBlobStore)
    with here.store.path(large).open("r+b") as file:
        file.seek(3 * MEBIBYTE)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    found = verify_blobs(here.database, here.store, VerifyOptions(), report=here.lines.append)
    assert found.lost == (large,)
    assert repair(here, found.lost).fetched.count == 1
    assert whole(here, made)
    (kept,) = here.store.quarantined()
    assert (kept.digest, kept.size_bytes) == (large, 5 * MEBIBYTE)
