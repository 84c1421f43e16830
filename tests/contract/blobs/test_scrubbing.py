"""Collecting, verifying and reclaiming on every kind of store, with a database of records beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from registry_sync.blobs.layout import blob_name
from registry_sync.blobs.store import BlobStore
from registry_sync.db.database import Database
from registry_sync.domain.storage_reports import Amount, FindingKind
from registry_sync.errors import BlobStoreError
from registry_sync.sync.maintenance.collect import collect_orphans, reclaim_blobs
from registry_sync.sync.maintenance.verify import VerifyOptions, verify_blobs
from support.blob_stores import Place
from support.metadata import Upstream, image, sync
from support.ready_databases import ready_database
from support.stored_texts import keep_texts

TEXTS = ("one", "two", "three", "config")


def ignore(_line: str) -> None:
    pass


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with ready_database(tmp_path / "registry_sync.db") as opened:
        yield opened


@pytest.fixture
def repository(database: Database, store: BlobStore) -> str:
    """The id of a repository that holds an image of :data:`TEXTS`, all of it stored."""
    keep_texts(store, *TEXTS)
    upstream = Upstream()
    upstream.tag("latest", image(*TEXTS[:-1], config=TEXTS[-1]))
    made = database.repositories.ensure("app")
    sync(database, made, upstream)
    return made.id


@pytest.mark.slow
def test_broken_and_missing_bytes_untracked_blobs_and_unknown_files_are_found(
    database: Database, place: Place, store: BlobStore, repository: str
) -> None:
    one, two, three, _config = (blob.digest for blob in database.units.blobs().items)
    place.write(blob_name(one), b"other")
    store.delete(two)
    keep_texts(store, "stray")
    place.write("notes.txt", b"somebody's")
    found = verify_blobs(database, store, VerifyOptions(), report=ignore)
    assert found.counts == dict.fromkeys(
        (FindingKind.BROKEN, FindingKind.MISSING, FindingKind.UNTRACKED_BLOB, FindingKind.UNKNOWN_FILE), 1
    )
    assert found.lost == tuple(sorted([one, two]))
    assert found.verified.count == 2
    assert not store.has(one)
    assert place.read(f".quarantine/{one.replace(':', '-')}") == b"other"
    assert store.has(three)


def test_orphans_and_old_untracked_blobs_are_collected(
    database: Database, place: Place, store: BlobStore, repository: str
) -> None:
    (stray,) = keep_texts(store, "stray")
    database.repositories.delete(repository)
    now = datetime.now(timezone.utc)
    gone, untracked = Amount(), Amount()
    for days in range(4):
        at = now + timedelta(days=2 * days)
        done = collect_orphans(database, store, grace=timedelta(days=1), clock=lambda at=at: at, report=ignore)
        gone, untracked = gone + done.freed, untracked + done.untracked
    assert gone == Amount(4, sum(map(len, TEXTS)))
    assert untracked == Amount(1, len("stray"))
    assert list(store.digests()) == []
    assert not store.has(stray)


def test_a_folder_in_the_place_of_a_blob_stops_no_collection(
    database: Database, place: Place, store: BlobStore, repository: str
) -> None:
    stuck = database.units.blobs().items[0].digest
    store.delete(stuck)
    place.write(f"{blob_name(stuck)}/somebody's", b"somebody's")
    assert not store.has(stuck)
    assert verify_blobs(database, store, VerifyOptions(), report=ignore).lost == (stuck,)
    database.repositories.delete(repository)
    now = datetime.now(timezone.utc)
    for days in range(3):
        at = now + timedelta(days=2 * days)
        with pytest.raises(BlobStoreError, match=f"1 could not be removed, .*{stuck}") if days == 2 else nullcontext():
            collect_orphans(database, store, grace=timedelta(days=1), clock=lambda at=at: at, report=ignore)
    assert list(store.digests()) == []
    assert [blob.digest for blob in database.units.blobs().items] == [stuck]


def test_bytes_are_reclaimed(database: Database, place: Place, store: BlobStore, repository: str) -> None:
    done = reclaim_blobs(database, store, [repository], report=ignore)
    assert done == Amount(4, sum(map(len, TEXTS)))
    assert list(store.digests()) == []
    assert database.versions.missing_blob_count(repository) == 4
