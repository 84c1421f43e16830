"""Room taken back: the bytes of blobs that only given repositories hold. Their versions stay, and name what is missing.

A sync that keeps bytes fetches them again; repositories whose blobs are fetched when they are pulled go on as they
began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from registry_sync.domain.quantities import format_bytes, format_count
from registry_sync.domain.space import Amount, ContentRecord
from registry_sync.sync.blob_bytes import DeletingStore, StoredBytes
from registry_sync.sync.collect import BATCH_SIZE


class Reclaims(Protocol):
    """Bytes that only given repositories hold."""

    def reclaimable(
        self,
        repository_ids: Sequence[str],
        kept: Sequence[tuple[str, int]],
        /,
        *,
        after_id: int = 0,
        limit: int = 0,
    ) -> list[ContentRecord]: ...
    def reclaim(
        self,
        ids: Sequence[int],
        repository_ids: Sequence[str],
        kept: Sequence[tuple[str, int]],
        stored: StoredBytes,
        /,
    ) -> Amount: ...
    def forget_faults(self, repository_ids: Sequence[str], kept: Sequence[tuple[str, int]], /) -> None: ...


class ReclaimDatabase(Protocol):
    """The stores that reclaiming uses."""

    @property
    def blob_bytes(self) -> Reclaims: ...


def reclaim_blobs(
    database: ReclaimDatabase,
    store: DeletingStore,
    repository_ids: Sequence[str],
    *,
    kept: Sequence[tuple[str, int]] = (),
    is_dry_run: bool = False,
    batch_size: int = BATCH_SIZE,
    tell: Callable[[str], None],
) -> Amount:
    """Removes the bytes of blobs that only these repositories hold, and none of the versions ``kept``; of how many.

    ``kept`` are pairs of repository and number. Blobs that another repository holds or a sync under way needs stay. A
    dry run removes nothing. What was lost and would have been removed is missed no more. Raises as
    :func:`~registry_sync.sync.collect.collect_orphans` does; a repeat goes on.
    """
    gone, last, stored = Amount(), 0, StoredBytes(store)
    while found := database.blob_bytes.reclaimable(repository_ids, kept, after_id=last, limit=batch_size):
        last = found[-1].id
        if is_dry_run:
            gone += Amount.of(record.size_bytes for record in found)
        else:
            ids = [record.id for record in found]
            gone += database.blob_bytes.reclaim(ids, repository_ids, kept, stored)
    if not is_dry_run:
        database.blob_bytes.forget_faults(repository_ids, kept)
    verb = "would reclaim" if is_dry_run else "reclaimed"
    tell(f"{verb} {format_bytes(gone.size_bytes)} of {format_count(gone.count, 'blob')}")
    stored.raise_failures()
    return gone
