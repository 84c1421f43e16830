"""A collector while others work: syncs that come to need what it is about to take, and a database that goes away."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from registry_sync.blobs.store import BlobStore
from registry_sync.db.collection.blob_removal import BlobBytesStore
from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.storage_reports import Amount, Collection, ContentKind
from registry_sync.errors import DatabaseError, DatabaseUnavailable
from registry_sync.hooks.stores import open_blob_store
from registry_sync.sync.maintenance.collect import StoredBytes, collect_orphans
from support.between import BetweenWrites
from support.metadata import Upstream, image, index, open_run, play_stages, sync
from support.postgres import Postgres, running_postgres
from support.stored_texts import keep_texts

NOW = datetime.now(timezone.utc)
SOON = NOW + timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return open_blob_store((tmp_path / "blobs").as_uri())


def collect(database: Database, store: Any, at: datetime = SOON, batch_size: int = 20) -> Collection:
    """A collection without grace."""
    return collect_orphans(
        database, store, grace=timedelta(), clock=lambda: at, report=lambda _line: None, batch_size=batch_size
    )


def abandoned(database: Database, store: BlobStore, *names: str) -> Upstream:
    """What tags ``names`` lead to, stored, and needed by nothing since its repository was deleted."""
    upstream = Upstream()
    for name in names:
        keep_texts(store, "base", f"layer {name}", f"config {name}")
        child = image("base", f"layer {name}", config=f"config {name}")
        upstream.tag(name, index(child, note=name), child)
    repository = database.repositories.ensure("abandoned")
    sync(database, repository, upstream)
    database.repositories.delete(repository.id)
    database.orphans.record(ContentKind.MANIFEST, NOW)
    return upstream


def blobs_only(database: Database) -> None:
    """Takes the orphaned manifests, so that their blobs are orphans too."""
    ids = [record.id for record in database.orphans.due(ContentKind.MANIFEST, SOON)]
    database.orphans.delete_manifests(ids, SOON)
    database.orphans.record(ContentKind.BLOB, NOW)


class Watched:
    """A store that calls ``before`` when the first blob is about to be deleted."""

    def __init__(self, store: BlobStore, before: Any) -> None:
        self._store, self._before = store, before
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, digest: Digest, **when: Any) -> bool:
        with self._lock:
            before, self._before = self._before, lambda: None
            before()
        return self._store.delete(digest, **when)


def test_manifests_that_are_added_while_their_blobs_are_collected_get_records_anew(
    database: Database, store: BlobStore
) -> None:
    """Whoever adds them waits for the collector's lock, and records the blobs again, as missing."""
    upstream = abandoned(database, store, "one", "two")
    blobs_only(database)
    added: list[BaseException | None] = []

    def add() -> None:
        try:
            database.contents.add_manifests(upstream.closure(list(upstream.catalog)))
            added.append(None)
        except BaseException as problem:  # noqa: BLE001  it is told by the test
            added.append(problem)

    thread = threading.Thread(target=add)

    def begin() -> None:
        thread.start()
        thread.join(0.3)
        assert added == [], "it waits until the collector has finished with these blobs"

    done = collect(database, Watched(store, begin))
    thread.join(60)
    assert added == [None]
    assert done.blobs.count == 5
    assert list(store.digests()) == []
    records = [database.contents.blob(digest) for digest in (Digest.of(b"base"), Digest.of(b"layer one"))]
    assert not any(record.is_stored for record in records)


def test_blobs_that_are_named_after_they_were_noted_as_missing_stay_and_are_noted_again(
    database: Database, store: BlobStore
) -> None:
    """Between the two transactions of a removal a sync adds the manifest that names them."""
    upstream = abandoned(database, store, "one")
    blobs_only(database)

    def name_them() -> None:
        database.contents.add_manifests(upstream.closure(list(upstream.catalog)))

    ids = [record.id for record in database.orphans.due(ContentKind.BLOB, SOON)]
    gone = BlobBytesStore(BetweenWrites(database, name_them)).delete_orphans(ids, SOON, StoredBytes(store))
    assert gone == (Amount(), Amount())
    assert len(list(store.digests())) == 3
    assert all(database.contents.blob(digest).is_stored for digest in store.digests())


@pytest.mark.slow
def test_syncs_beside_collectors_lose_nothing_and_end_whole(database: Database, store: BlobStore) -> None:
    """Threads sync the same abandoned content again and again while others collect with hardly any grace.

    A sync may be told that what it has just stored is gone; it is begun anew then, as a task that failed is.
    """
    names = [f"tag-{number}" for number in range(6)]
    upstream = abandoned(database, store, *names)
    texts = ["base", *(f"{kind} {name}" for kind in ("layer", "config") for name in names)]
    stop = threading.Event()

    def collector() -> int:
        rounds = 0
        while not stop.is_set():
            grace = timedelta(milliseconds=50)
            collect_orphans(database, store, grace=grace, report=lambda _line: None, batch_size=3)
            rounds += 1
        return rounds

    def synced(name: str) -> int:
        for attempt in range(50):
            with contextlib.suppress(DatabaseError):
                repository = database.repositories.ensure(name)
                run = open_run(database, repository)
                play_stages(database, run, upstream)
                digests = keep_texts(store, *texts)
                database.versions.commit(run.id)
                assert len(database.versions.tags(repository.id)) == len(names)
                assert all(store.has(digest) for digest in digests)
                database.repositories.delete(repository.id)
                return attempt
        raise AssertionError("no sync came through in fifty attempts")

    with ThreadPoolExecutor(4) as pool:
        collecting = [pool.submit(collector) for _ in range(2)]
        syncing = [
            pool.submit(lambda number=number: [synced(f"repository-{number}-{turn}") for turn in range(8)])
            for number in range(2)
        ]
        try:
            for future in syncing:
                future.result(timeout=200)
        finally:
            stop.set()
        assert all(future.result(timeout=60) > 0 for future in collecting)
    for _ in range(3):
        collect(database, store, datetime.now(timezone.utc) + timedelta(hours=1))
    assert database.units.manifests().total_count == 0
    assert database.units.blobs().total_count == 0
    assert list(store.digests()) == []


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A PostgreSQL that the test may stop."""
    with running_postgres() as server:
        yield server


@pytest.mark.slow
def test_a_database_that_goes_away_in_the_middle_is_a_passing_error_and_the_repeat_finishes(
    own_server: Postgres, store: BlobStore
) -> None:
    with Database.connect(own_server.make_database("collected")) as database:
        database.upgrade()
        upstream = abandoned(database, store, "one", "two")
        kept = database.repositories.ensure("kept")
        held = Upstream()
        keep_texts(store, "base", "kept")
        held.tag("latest", image("base", "kept", config="base"))
        sync(database, kept, held)
        blobs_only(database)

        with pytest.raises(DatabaseUnavailable):
            collect(database, Watched(store, lambda: own_server.stop("fast")))
        with pytest.raises(DatabaseUnavailable):
            collect(database, store)
        own_server.start()

        assert database.versions.missing_blob_count(kept.id) == 0
        assert store.has(Digest.of(b"base"))
        done = collect(database, store)
        assert done.blobs.count == 4
        assert set(store.digests()) == {Digest.of(b"base"), Digest.of(b"kept")}
        assert database.units.blobs().total_count == 2
        again = open_run(database, database.repositories.ensure("again"))
        play_stages(database, again, upstream)
        assert database.versions.commit(again.id).version is not None
