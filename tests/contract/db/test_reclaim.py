"""Bytes that are reclaimed: only those that nobody else holds or is about to hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from registry_sync.blobs.store import BlobStore
from registry_sync.db.collection.blob_removal import BlobBytesStore
from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.remote import Policy
from registry_sync.domain.storage_reports import Amount
from registry_sync.hooks.stores import open_blob_store
from registry_sync.sync.maintenance.collect import StoredBytes, reclaim_blobs
from support.between import BetweenWrites
from support.metadata import Upstream, image, open_run, play_stages, sync
from support.stored_texts import keep_texts


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return open_blob_store((tmp_path / "blobs").as_uri())


def filled(database: Database, store: BlobStore, name: str, *texts: str) -> str:
    """A repository whose tag is an image of ``texts``, all of it stored; its id."""
    keep_texts(store, *texts)
    upstream = Upstream()
    upstream.tag("latest", image(*texts[:-1], config=texts[-1]))
    repository = database.repositories.ensure(name)
    sync(database, repository, upstream)
    return repository.id


def reclaim(
    database: Database, store: BlobStore, *ids: str, kept: Sequence[tuple[str, int]] = (), dry: bool = False
) -> Amount:
    return reclaim_blobs(database, store, ids, kept=kept, is_dry_run=dry, batch_size=2, report=lambda _line: None)


def test_bytes_go_and_the_version_stays(database: Database, store: BlobStore) -> None:
    repository = filled(database, store, "app", "one", "two", "config")
    expected = Amount(3, len("onetwoconfig"))
    assert reclaim(database, store, repository, dry=True) == expected
    assert len(list(store.digests())) == 3
    assert reclaim(database, store, repository) == expected
    assert list(store.digests()) == []
    assert database.versions.missing_blob_count(repository) == 3
    assert database.versions.tags(repository).keys() == {"latest"}
    assert reclaim(database, store, repository) == Amount()


def test_what_another_repository_holds_stays_until_both_are_given(database: Database, store: BlobStore) -> None:
    mine = filled(database, store, "mine", "base", "mine")
    yours = filled(database, store, "yours", "base", "yours")
    assert reclaim(database, store, mine) == Amount(1, len("mine"))
    assert store.has(Digest.of(b"base"))
    assert database.versions.missing_blob_count(yours) == 0
    assert reclaim(database, store, mine, yours) == Amount(2, len("baseyours"))


def test_versions_that_are_kept_keep_their_bytes(database: Database, store: BlobStore) -> None:
    filled(database, store, "app", "old", "old config")
    repository = filled(database, store, "app", "new", "new config")
    assert reclaim(database, store, repository, kept=[(repository, 2)]) == Amount(2, len("oldold config"))
    assert store.has(Digest.of(b"new"))
    assert not store.has(Digest.of(b"old"))


@pytest.mark.parametrize("policy", [Policy.IMMEDIATE, Policy.ON_DEMAND])
def test_what_a_sync_under_way_takes_along_stays(database: Database, store: BlobStore, policy: Policy) -> None:
    repository = filled(database, store, "app", "layer", "config")
    upstream = Upstream()
    upstream.tag("latest", image("layer", config="another config"))
    keep_texts(store, "another config")
    run = open_run(database, database.repositories.ensure("other"), policy=policy)
    play_stages(database, run, upstream)
    assert reclaim(database, store, repository) == Amount(1, len("config"))
    assert store.has(Digest.of(b"layer"))
    assert database.versions.commit(run.id).version is not None


def test_a_sync_that_comes_between_the_two_steps_keeps_the_bytes_and_they_are_noted_again(
    database: Database, store: BlobStore
) -> None:
    repository = filled(database, store, "app", "layer", "config")
    layer, config = Digest.of(b"layer"), Digest.of(b"config")
    found = database.blob_bytes.reclaimable([repository])
    other = database.repositories.ensure("other")

    def begin() -> None:
        upstream = Upstream()
        upstream.tag("latest", image("layer", config="config"))
        play_stages(database, open_run(database, other, policy=Policy.ON_DEMAND), upstream)

    ids = [record.id for record in found]
    interrupted = BlobBytesStore(BetweenWrites(database, begin))
    assert interrupted.reclaim(ids, [repository], (), StoredBytes(store)) == Amount()
    assert all(store.has(digest) for digest in (layer, config))
    assert all(database.contents.blob(digest).is_stored for digest in (layer, config))


def test_a_crash_between_the_steps_leaves_blobs_that_say_missing(database: Database, store: BlobStore) -> None:
    repository = filled(database, store, "app", "layer", "config")
    found = database.blob_bytes.reclaimable([repository])

    class Dying:
        @property
        def failures(self) -> dict[str, Exception]:
            return {}

        def present(self, _digests: Sequence[Digest]) -> set[Digest]:
            raise AssertionError("nobody needs them")

        def delete(self, digests: Sequence[Digest], **_when: object) -> set[Digest]:
            store.delete(digests[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.blob_bytes.reclaim([record.id for record in found], [repository], (), Dying())
    assert database.versions.missing_blob_count(repository) == 2
    assert len(list(store.digests())) == 1, "bytes that are there and noted as missing are found by verification"
