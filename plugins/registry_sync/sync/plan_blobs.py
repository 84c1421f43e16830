"""The third stage: the blobs that the store lacks, each once, in shards of nearly equal work.

The store decides what is present, not the database: a blob that another repository or an earlier try stored is recorded
and not planned; a blob that the database records as stored and the store has lost is planned again. A blob that is
known to be broken is planned whatever the store has under its digest.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from registry_sync.domain.quantities import format_bytes, format_count, utc_now
from registry_sync.domain.remote import Policy
from registry_sync.domain.runs import RequiredBlob, SyncRun
from registry_sync.domain.storage_reports import FindingKind
from registry_sync.errors import RegistrySyncError
from registry_sync.sync.parallel import for_each

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.domain.digests import Digest
    from registry_sync.domain.packed_blobs import PackedBlobs

_STORE_THREADS = 16
#: A larger config is left for the first pull, as layers are.
MAX_CONFIG_BYTES = 4 * 1024 * 1024
#: Blobs whose presence is recorded in one transaction.
_RECORDED_COUNT = 2000

T = TypeVar("T")


@dataclass(frozen=True)
class BlobShard:
    """The blobs of one task: the shard's number, the count and size of blobs."""

    number: int
    blob_count: int
    size_bytes: int

    @property
    def contents(self) -> tuple[str, str]:
        """``307 blobs`` and ``53 MiB``."""
        return format_count(self.blob_count, "blob"), format_bytes(self.size_bytes)


@dataclass(frozen=True)
class BlobsPlanned:
    """The blobs of a run: all, those in the store, and shards of the missing ones."""

    needed_count: int
    stored_count: int
    foreign_count: int
    missing_count: int
    missing_bytes: int
    shards: tuple[BlobShard, ...] = ()

    def __str__(self) -> str:
        return (
            f"{format_count(self.needed_count, 'blob')} needed, {self.stored_count:,} in the store, "
            f"{self.missing_count:,} to download ({format_bytes(self.missing_bytes)})"
        )


def missing_blobs(
    store: BlobStore, database: Database, run: SyncRun, *, started: Set[Digest] = frozenset()
) -> tuple[PackedBlobs, BlobsPlanned]:
    """The blobs that ``run`` needs and ``store`` lacks, by digest, and the counts, without shards.

    Those that this process has ``started`` to download count as missing, also where they have come meanwhile.

    Of those that the policy leaves for a pull none, but the configs with ``on_demand``; foreign layers count when the
    remote includes them.
    """
    needed = database.runs.required_blobs(run.id)
    if run.policy is Policy.STREAMED:
        return needed[:0], BlobsPlanned(len(needed), sum(blob.is_stored for blob in needed), 0, 0, 0)
    presence = _Presence(store, database, run, needed, started)
    presence.look()
    presence.record()
    missing = presence.missing()
    size_bytes = sum(missing.sizes_bytes)
    if run.policy is Policy.IMMEDIATE:
        foreign_count = len(needed) - presence.wanted_count
        return missing, BlobsPlanned(len(needed), presence.stored_count, foreign_count, len(missing), size_bytes)
    stored_count = presence.stored_count + presence.other_stored_count
    return missing, BlobsPlanned(len(needed), stored_count, 0, len(missing), size_bytes)


def _is_wanted(blob: RequiredBlob, run: SyncRun) -> bool:
    """Whether the sync itself stores the blob. Configs say what an image is, and are small."""
    if run.policy is Policy.IMMEDIATE:
        return run.remote.include_foreign_layers or not blob.is_foreign
    is_small_config = blob.is_config and blob.size_bytes <= MAX_CONFIG_BYTES
    return run.policy is Policy.ON_DEMAND and is_small_config and not blob.is_foreign


#: What is known of a needed blob.
_NOT_WANTED, _MISSING, _PRESENT = range(3)


class _Presence:
    """Which needed blobs the store has; a byte is kept of each blob. ``wanted`` ones are those of the policy."""

    def __init__(
        self, store: BlobStore, database: Database, run: SyncRun, needed: PackedBlobs, started: Set[Digest]
    ) -> None:
        self._started = started
        self._store, self._database, self._run, self._needed = store, database, run, needed
        self._known = bytearray(len(needed))
        self._found = array("I")  # those that the store has, and the database records as missing
        self._recorded = array("I")  # those that the database records as stored
        self._arrived: set[int] = set()  # those that were started, and that the store has
        self.other_stored_count = 0

    @property
    def wanted_count(self) -> int:
        """How many the sync itself stores."""
        return len(self._known) - self._known.count(_NOT_WANTED)

    @property
    def stored_count(self) -> int:
        """How many of these the store has."""
        return self._known.count(_PRESENT)

    def missing(self) -> PackedBlobs:
        """Those that it lacks, by digest."""
        return self._needed.selected(
            array("I", (index for index, known in enumerate(self._known) if known == _MISSING))
        )

    def look(self) -> None:
        """Looks for each wanted blob in the store, but for broken ones."""

        def done(entry: tuple[int, RequiredBlob], is_stored: bool) -> None:
            index, blob = entry
            if is_stored and blob.digest in self._started:
                self._arrived.add(index)
            elif is_stored:
                self._known[index] = _PRESENT
                if not blob.is_stored:
                    self._found.append(index)

        self._check(self._to_look_for(), done)

    def _to_look_for(self) -> Iterator[tuple[int, RequiredBlob]]:
        for index, blob in enumerate(self._needed):
            if _is_wanted(blob, self._run):
                self._known[index] = _MISSING
                if blob.is_stored:
                    self._recorded.append(index)
                if not blob.is_broken:
                    yield index, blob
            elif blob.is_stored:
                self.other_stored_count += 1

    def record(self) -> None:
        """Records what was found and what was lost."""
        found, gone = sorted(self._found), array("I")
        contents = self._database.contents
        for batch in batches(found):
            contents.mark_stored(self._needed[index].digest for index in batch)

        def done(entry: tuple[int, RequiredBlob], is_stored: bool) -> None:
            if not is_stored:
                self._known[entry[0]] = _MISSING
                gone.append(entry[0])

        # A process that removes bytes reads the database first: bytes that are present after the record was written
        # stay.
        self._check(((index, self._needed[index]) for index in found), done)
        # What was started counts as missing; where it has come, another sync may have recorded it since.
        missing = (index for index in self._recorded if self._known[index] == _MISSING)
        lost, at = (index for index in missing if index not in self._arrived), utc_now()
        for batch in batches(lost):
            contents.mark_lost((self._needed[index].digest for index in batch), FindingKind.MISSING, at)
        for batch in batches(sorted(gone)):
            contents.mark_missing(self._needed[index].digest for index in batch)

    def _check(
        self,
        entries: Iterator[tuple[int, RequiredBlob]],
        done: Callable[[tuple[int, RequiredBlob], bool], None],
    ) -> None:
        def failed(_entry: tuple[int, RequiredBlob], error: RegistrySyncError) -> None:
            raise error

        for_each(
            lambda entry: self._store.has(entry[1].digest, entry[1].size_bytes),
            entries,
            threads=_STORE_THREADS,
            done=done,
            failed=failed,
        )


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """``items`` in lists that are recorded at once."""
    iterator = iter(items)
    while batch := list(islice(iterator, _RECORDED_COUNT)):
        yield batch


def _record_plan(
    database: Database, run: SyncRun, missing: PackedBlobs, *, max_shards: int, min_shard_bytes: int
) -> tuple[BlobShard, ...]:
    """``missing`` in at most ``max_shards`` shards balanced by bytes, recorded with ``run``.

    No shard is smaller than ``min_shard_bytes`` of work, including each blob's overhead.
    """
    shards = missing.shards(max_shards=max_shards, min_shard_bytes=min_shard_bytes)
    database.runs.record_plan(run.id, zip(shards, missing, strict=True))
    counts, sizes = Counter(shards), Counter[int]()
    for number, size_bytes in zip(shards, missing.sizes_bytes, strict=True):
        sizes[number] += size_bytes
    return tuple(BlobShard(number, counts[number], sizes[number]) for number in sorted(counts))


def plan_blobs(
    store: BlobStore,
    database: Database,
    run: SyncRun,
    *,
    max_shards: int,
    min_shard_bytes: int,
    report: Callable[[str], None],
) -> BlobsPlanned:
    """Plans the downloads of ``run``; a repeat plans the blobs that are still missing."""
    missing, counts = missing_blobs(store, database, run)
    shards = _record_plan(database, run, missing, max_shards=max_shards, min_shard_bytes=min_shard_bytes)
    planned = replace(counts, shards=shards)
    report(str(planned))
    return planned
