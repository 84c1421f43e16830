"""Collecting what nothing needs: manifests with their tags, then the blobs that only they named, then stray bytes.

Content is first noted as orphaned, and goes when it is still unneeded after a grace; a sync under way keeps what it
works with. A collection runs beside syncs and other collections, may be killed anywhere and repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from registry_sync.domain.digests import Digest
from registry_sync.domain.moments import utc_now
from registry_sync.domain.quantities import format_bytes, format_count
from registry_sync.domain.space import Amount, Collection, ContentKind, ContentRecord
from registry_sync.errors import BlobStoreError
from registry_sync.sync.blob_bytes import DeletingStore, StoredBytes

#: Records of one transaction. A database that has one writer is held for as long as their bytes take to be removed.
BATCH_SIZE = 100
_NOTED_AT_ONCE = 1000


class Entry(Protocol):
    """Bytes as a store lists them."""

    @property
    def digest(self) -> Digest: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def stored_at(self) -> datetime: ...


class ListedStore(DeletingStore, Protocol):
    """Blobs by digest that can be listed and removed."""

    def entries(self, unlisted: Callable[[str, BlobStoreError], None] | None = None, /) -> Iterator[Entry]: ...


class Orphans(Protocol):
    """Content that nothing needs."""

    def release_runs(self, ended_before: datetime, /) -> int: ...
    def unreleased_runs(self, ended_before: datetime, /) -> int: ...
    def note(self, kind: ContentKind, now: datetime, /, *, after_id: int = 0, limit: int = 0) -> int | None: ...
    def due(
        self, kind: ContentKind, noted_before: datetime, /, *, after_id: int = 0, limit: int = 0
    ) -> list[ContentRecord]: ...
    def unneeded(self, kind: ContentKind, noted_before: datetime, /) -> tuple[Amount, Amount]: ...
    def delete_manifests(self, ids: Sequence[int], noted_before: datetime, /) -> Amount: ...


class Removals(Protocol):
    """Bytes that go."""

    def delete_orphans(
        self, ids: Sequence[int], noted_before: datetime, stored: StoredBytes, /
    ) -> tuple[Amount, Amount]: ...
    def due(self, noted_before: datetime, /) -> Amount: ...
    def delete_strays(
        self, strays: Mapping[Digest, int], stored_before: datetime, stored: StoredBytes, /
    ) -> Amount: ...
    def unrecorded(self, digests: Sequence[Digest], /) -> set[Digest]: ...


class CollectionDatabase(Protocol):
    """The stores that a collection uses."""

    @property
    def orphans(self) -> Orphans: ...
    @property
    def blob_bytes(self) -> Removals: ...


class _Moment(NamedTuple):
    now: datetime
    noted_before: datetime


def collect_orphans(
    database: CollectionDatabase,
    store: ListedStore,
    *,
    grace: timedelta,
    tell: Callable[[str], None],
    clock: Callable[[], datetime] = utc_now,
    batch_size: int = BATCH_SIZE,
) -> Collection:
    """Notes what nothing needs, and removes what was noted longer than ``grace`` ago; safe to repeat at any point.

    A blob waits for its own grace after the last manifest that named it went. Bytes without a record go when they
    were written longer than ``grace`` ago. What the store does not let go stays with its record, is tried again by the
    next collection, and is raised as one :class:`BlobStoreError` after everything else was done. Raises at once what
    the database raises, and the store when it is away; what was removed until then stays removed.
    """
    now = clock()
    moment = _Moment(now, now - grace)
    released = database.orphans.release_runs(moment.noted_before)
    if released:
        tell(f"released what {format_count(released, 'sync')} had fetched that ended badly")
    manifests = _collect_manifests(database, moment, batch_size)
    stored = StoredBytes(store)
    blobs, freed = _collect_blobs(database, stored, moment, batch_size)
    strays = Amount()
    for batch in _strays(database, store, moment.noted_before, batch_size, stored.note):
        strays += database.blob_bytes.delete_strays(batch, moment.noted_before, stored)
    _, waiting_manifests = database.orphans.unneeded(ContentKind.MANIFEST, moment.noted_before)
    _, waiting_blobs = database.orphans.unneeded(ContentKind.BLOB, moment.noted_before)
    collection = Collection(
        manifests=manifests,
        blobs=blobs,
        freed=freed,
        strays=strays,
        waiting_manifests=waiting_manifests,
        waiting_blobs=waiting_blobs,
        released_runs=released,
    )
    tell(summary(collection))
    stored.raise_failures()
    return collection


def preview_collection(
    database: CollectionDatabase,
    store: ListedStore,
    *,
    grace: timedelta,
    tell: Callable[[str], None],
    clock: Callable[[], datetime] = utc_now,
    batch_size: int = BATCH_SIZE,
) -> Collection:
    """What :func:`collect_orphans` would remove now, and what would wait; changes nothing.

    Blobs of manifests that would go are still named by them, and neither counted nor waiting.
    """
    noted_before = clock() - grace
    manifests, waiting_manifests = database.orphans.unneeded(ContentKind.MANIFEST, noted_before)
    blobs, waiting_blobs = database.orphans.unneeded(ContentKind.BLOB, noted_before)
    strays = Amount()
    for batch in _strays(database, store, noted_before, batch_size, None):
        strays += Amount.of(batch.values())
    collection = Collection(
        is_dry_run=True,
        manifests=manifests,
        blobs=blobs,
        freed=database.blob_bytes.due(noted_before),
        strays=strays,
        waiting_manifests=waiting_manifests,
        waiting_blobs=waiting_blobs,
        released_runs=database.orphans.unreleased_runs(noted_before),
    )
    tell(summary(collection))
    return collection


def summary(collection: Collection) -> str:
    """A collection in one line."""
    waiting = collection.waiting_manifests.count + collection.waiting_blobs.count
    return (
        f"{'would remove' if collection.is_dry_run else 'removed'} "
        f"{format_count(collection.manifests.count, 'manifest')}, {format_count(collection.blobs.count, 'blob')} and "
        f"{format_count(collection.strays.count, 'stray file')}, {format_bytes(collection.freed_bytes)}; "
        f"{format_count(waiting, 'orphan')} younger than the grace"
    )


def _collect_manifests(database: CollectionDatabase, moment: _Moment, batch_size: int) -> Amount:
    _note_all(database, ContentKind.MANIFEST, moment.now)
    gone = Amount()
    for ids in _due(database, ContentKind.MANIFEST, moment.noted_before, batch_size):
        gone += database.orphans.delete_manifests(ids, moment.noted_before)
    return gone


def _collect_blobs(
    database: CollectionDatabase, stored: StoredBytes, moment: _Moment, batch_size: int
) -> tuple[Amount, Amount]:
    _note_all(database, ContentKind.BLOB, moment.now)
    gone, freed = Amount(), Amount()
    for ids in _due(database, ContentKind.BLOB, moment.noted_before, batch_size):
        records, removed = database.blob_bytes.delete_orphans(ids, moment.noted_before, stored)
        gone, freed = gone + records, freed + removed
    return gone, freed


def _note_all(database: CollectionDatabase, kind: ContentKind, now: datetime) -> None:
    last: int | None = 0
    while last is not None:
        last = database.orphans.note(kind, now, after_id=last, limit=_NOTED_AT_ONCE)


def _due(database: CollectionDatabase, kind: ContentKind, noted_before: datetime, limit: int) -> Iterator[list[int]]:
    last = 0
    while found := database.orphans.due(kind, noted_before, after_id=last, limit=limit):
        last = found[-1].id
        yield [orphan.id for orphan in found]


def _strays(
    database: CollectionDatabase,
    store: ListedStore,
    stored_before: datetime,
    batch_size: int,
    unlisted: Callable[[str, BlobStoreError], None] | None,
) -> Iterator[dict[Digest, int]]:
    """Bytes that no record names and that are old enough, with their sizes, in batches."""
    waiting: dict[Digest, int] = {}
    for entry in store.entries(unlisted):
        if entry.stored_at < stored_before:
            waiting[entry.digest] = entry.size_bytes
        if len(waiting) >= 10 * batch_size:
            yield from _unrecorded(database, waiting, batch_size)
            waiting = {}
    yield from _unrecorded(database, waiting, batch_size)


def _unrecorded(
    database: CollectionDatabase, sizes: Mapping[Digest, int], batch_size: int
) -> Iterator[dict[Digest, int]]:
    unknown = sorted(database.blob_bytes.unrecorded(list(sizes)))
    for start in range(0, len(unknown), batch_size):
        yield {digest: sizes[digest] for digest in unknown[start : start + batch_size]}
