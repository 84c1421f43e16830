"""Verification: the database and the blob store held against each other, and the bytes of blobs against their digests.

The comparison costs one listing and covers everything. Reading costs time, so that it can be a share of the blobs:
those that were not read for the longest time come first, and after enough rounds all were read. What is lost is noted
as lost, and found again by each verification until it is stored or gone; ``repair`` brings it back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.storage_reports import BlobRecord, FindingKind, Verification
from registry_sync.domain.timestamps import utc_now
from registry_sync.errors import BlobStoreError, ConfigurationError
from registry_sync.sync.maintenance.blob_reading import MISSING, BlobReading, ByteRate, Findings, summary

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore, StoredBlob
    from registry_sync.db.collection.blob_checks import BlobCheckStore
    from registry_sync.db.database import Database

_PAGE = 1000


@dataclass(frozen=True)
class VerifyOptions:
    """``share`` of the stored blobs is read, from 0 for none to 1 for all, at most ``bytes_per_second`` (None: any)."""

    share: float = 1.0
    bytes_per_second: float | None = None

    def checked(self) -> VerifyOptions:
        """Itself. Raises :class:`ConfigurationError` for numbers that make no sense."""
        if not 0 <= self.share <= 1:
            raise ConfigurationError(f"the share of blobs to verify is {self.share}; give a number from 0 to 1")
        if self.bytes_per_second is not None and not self.bytes_per_second > 0:
            raise ConfigurationError("the rate of a verification is more than 0; leave it out for no limit")
        return self


def verify_blobs(
    database: Database,
    store: BlobStore,
    options: VerifyOptions,
    *,
    report: Callable[[str], None],
    clock: Callable[[], datetime] = utc_now,
    rate: ByteRate | None = None,
) -> Verification:
    """Compares, reads, and notes what is lost; safe to repeat, and beside syncs and collections.

    What a killed verification had read comes last in the next one. ``rate`` is made of the options unless given.
    Raises what the database or the store raises, :class:`BlobStoreUnavailable` when many blobs cannot be read.
    """
    rate = rate or ByteRate(options.checked().bytes_per_second)
    checks = database.blob_checks
    began = clock()
    findings = Findings(database.contents, store, report, began)
    reading = BlobReading(checks, store, findings, rate, clock, report)
    left = math.ceil(options.share * checks.stored_count())
    reading.read(_compare(checks, store, findings))
    while left > 0 and (page := checks.due(began, min(left, _PAGE), without=reading.unreadable)):
        reading.read(page)
        left -= len(page)
    for record in _faulty(checks):
        findings.add_remembered(record)
    result = findings.result(reading.verified)
    report(summary(result))
    return result


def _compare(checks: BlobCheckStore, store: BlobStore, findings: Findings) -> list[BlobRecord]:
    """Blobs that are to be read whatever the share: of another size than recorded, or there and noted as missing."""
    suspects: list[BlobRecord] = []
    there: set[Digest] = set()

    def unlisted(folder: str, problem: BlobStoreError) -> None:
        findings.add(FindingKind.UNREADABLE, folder, f"cannot be listed: {problem}")

    for page in _pages(store.entries(unlisted)):
        records = checks.records([entry.digest for entry in page])
        for entry in page:
            there.add(entry.digest)
            record = records.get(entry.digest)
            if record is None:
                findings.add(
                    FindingKind.UNTRACKED_BLOB, entry.digest, f"{entry.size_bytes:,} bytes that no record names"
                )
            elif not record.is_stored or record.size_bytes != entry.size_bytes:
                suspects.append(record)
    for name in store.unknown_files():
        findings.add(FindingKind.UNKNOWN_FILE, name, "a name in the blob store that is no blob")
    _find_missing(checks, store, there, findings)
    return suspects


def _find_missing(checks: BlobCheckStore, store: BlobStore, there: set[Digest], findings: Findings) -> None:
    after = ""
    while page := checks.stored_after(after, _PAGE):
        after = page[-1].digest
        # What was stored while the store was listed is asked for; what was collected meanwhile has no record now.
        absent = [
            record.digest for record in page if record.digest not in there and _is_absent(store, record, findings)
        ]
        now = checks.records(absent)
        lost = [digest for digest in absent if digest in now and now[digest].is_stored]
        findings.add_lost(FindingKind.MISSING, lost, MISSING)


def _is_absent(store: BlobStore, record: BlobRecord, findings: Findings) -> bool:
    """Whether the store says that it does not have the blob; not when it refuses to say."""
    try:
        return not store.has(record.digest)
    except BlobStoreError as problem:
        if problem.is_temporary:
            raise
        findings.add(FindingKind.UNREADABLE, record.digest, f"cannot be looked for: {problem}")
        return False


def _faulty(checks: BlobCheckStore) -> Iterator[BlobRecord]:
    after = ""
    while page := checks.faulty_after(after, _PAGE):
        after = page[-1].digest
        yield from page


def _pages(entries: Iterator[StoredBlob]) -> Iterator[list[StoredBlob]]:
    page: list[StoredBlob] = []
    for entry in entries:
        page.append(entry)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page
