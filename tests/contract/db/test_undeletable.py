"""What the blob store does not let go keeps nothing else, is told in the end, and is tried again the next time."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.storage_reports import Amount, Collection
from registry_sync.errors import BlobStoreError, BlobStoreUnavailable
from registry_sync.sync.maintenance.collect import MOST_TRANSIENT, collect_orphans, reclaim_blobs
from support.metadata import Upstream, image, sync
from support.stored_texts import keep_texts

TEXTS = ("one", "two", "three", "four", "config")
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
_days = itertools.count(1)


class Locked(LocalBlobStore):
    """A store that does not let these blobs go, as under an object lock."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.locked: dict[Digest, BlobStoreError] = {}
        self.asked: list[Digest] = []

    def delete(self, digest: Digest, /, *, stored_before: datetime | None = None) -> bool:
        self.asked.append(digest)
        if digest in self.locked:
            raise self.locked[digest]
        return super().delete(digest, stored_before=stored_before)


@pytest.fixture
def store(tmp_path: Path) -> Locked:
    return Locked(tmp_path / "blobs")


def collect(database: Database, store: LocalBlobStore, told: list[str] | None = None) -> Collection:
    """A collection without grace, later than all before it."""
    now = datetime.now(timezone.utc) + timedelta(days=next(_days))
    report = [].append if told is None else told.append
    return collect_orphans(database, store, grace=timedelta(), clock=lambda: now, report=report, batch_size=2)


def abandoned(database: Database, store: LocalBlobStore, *texts: str) -> None:
    """An image of ``texts`` that nothing needs since its repository was deleted, its blobs noted as orphans."""
    keep_texts(store, *texts)
    upstream = Upstream()
    upstream.tag("latest", image(*texts[:-1], config=texts[-1]))
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream)
    database.repositories.delete(repository.id)
    collect(database, store)  # notes the manifest
    collect(database, store)  # takes it, and notes the blobs


def test_a_folder_in_the_place_of_a_blob_stops_no_collection(database: Database, store: Locked) -> None:
    abandoned(database, store, *TEXTS)
    store.delete(TWO)
    (store.path(TWO) / "somebody's").mkdir(parents=True)
    told: list[str] = []
    with pytest.raises(
        BlobStoreError, match=f"1 could not be removed, .* tried again the next time: {TWO}: "
    ) as caught:
        collect(database, store, told)
    assert not caught.value.is_temporary
    assert "removed 0 manifests, 4 blobs" in told[-1]
    assert list(store.digests()) == []
    assert [blob.digest for blob in database.units.blobs().items] == [TWO]
    (store.path(TWO) / "somebody's").rmdir()
    store.path(TWO).rmdir()
    assert collect(database, store).blobs.count == 1
    assert database.units.blobs().total_count == 0


@pytest.mark.parametrize("kind", [BlobStoreError, BlobStoreUnavailable])
def test_a_lock_stops_no_collection(database: Database, store: Locked, kind: type[BlobStoreError]) -> None:
    abandoned(database, store, *TEXTS)
    store.locked = {digest: kind("locked") for digest in (ONE, TWO)}
    with pytest.raises(kind, match="2 could not be removed") as caught:
        collect(database, store)
    assert caught.value.is_temporary is kind.is_temporary
    assert sorted(store.digests()) == sorted([ONE, TWO])
    assert all(database.contents.blob(digest).is_stored for digest in (ONE, TWO)), "the record says what is so"
    store.locked = {}
    assert collect(database, store).freed == Amount(2, len("onetwo"))
    assert list(store.digests()) == []


def test_of_many_the_first_ones_are_named(database: Database, store: Locked) -> None:
    texts = [f"layer {number}" for number in range(8)]
    abandoned(database, store, *texts)
    store.locked = {Digest.of(text.encode()): BlobStoreError("locked") for text in texts}
    with pytest.raises(BlobStoreError, match=r"8 could not be removed.*; and 3 more") as caught:
        collect(database, store)
    assert str(caught.value).count("sha256:") == 5


def test_a_store_that_is_unavailable_is_not_tried_for_everything(database: Database, store: Locked) -> None:
    texts = [f"layer {number}" for number in range(2 * MOST_TRANSIENT)]
    abandoned(database, store, *texts)
    store.locked = {Digest.of(text.encode()): BlobStoreUnavailable("away") for text in texts}
    with pytest.raises(BlobStoreUnavailable, match="away"):
        collect(database, store)
    assert len(store.asked) < 2 * MOST_TRANSIENT
    store.locked = {}
    assert collect(database, store).blobs.count == len(texts)


def test_an_untracked_blob_that_cannot_be_removed_keeps_none_of_the_others(database: Database, store: Locked) -> None:
    keep_texts(store, "one", "two", "three")
    store.locked = {ONE: BlobStoreError("locked")}
    for _ in range(2):
        with pytest.raises(BlobStoreError, match=f"1 could not be removed, .*: {ONE}: locked"):
            collect(database, store)
        assert list(store.digests()) == [ONE]
        assert database.units.blobs().total_count == 0
    store.locked = {}
    assert collect(database, store).untracked == Amount(1, len("one"))


def test_what_cannot_be_removed_keeps_nothing_else_from_being_reclaimed(database: Database, store: Locked) -> None:
    keep_texts(store, *TEXTS)
    upstream = Upstream()
    upstream.tag("latest", image(*TEXTS[:-1], config=TEXTS[-1]))
    repository = database.repositories.ensure("app")
    sync(database, repository, upstream)
    store.locked = {TWO: BlobStoreError("locked")}
    told: list[str] = []

    def reclaim() -> Amount:
        return reclaim_blobs(database, store, [repository.id], batch_size=2, report=told.append)

    with pytest.raises(BlobStoreError, match=f"1 could not be removed, .*: {TWO}: locked"):
        reclaim()
    assert "of 4 blobs" in told[-1]
    assert list(store.digests()) == [TWO]
    assert database.contents.blob(TWO).is_stored
    assert database.versions.missing_blob_count(repository.id) == 4
    store.locked = {}
    assert reclaim() == Amount(1, len("two"))
