"""Verification: compares the database with the blob store, and the bytes of blobs with their digests.

The comparison costs one listing and covers everything. Reading takes time, so it can be limited to a share of the
blobs: those that were not read for the longest time come first, and after enough rounds all were read. Lost blobs are
recorded, and reported by each verification until they are stored or removed; ``repair`` fetches them again.

Blobs are read by a few threads, at a limited rate. Bytes count as broken only when two reads find them so, because
another process may replace them meanwhile.
"""

from __future__ import annotations

import errno
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import format_bytes, format_count, utc_now
from registry_sync.domain.storage_reports import Amount, BlobRecord, Finding, FindingKind, Verification
from registry_sync.errors import (
    BlobMissing,
    BlobStoreError,
    BlobStoreUnavailable,
    ConfigurationError,
    RegistrySyncError,
)
from registry_sync.sync.parallel import Progress, for_each

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore, StoredBlob
    from registry_sync.db.collection.blob_checks import BlobCheckStore
    from registry_sync.db.content.contents import ContentStore
    from registry_sync.db.database import Database


class ByteRate:
    """A rate limit for reading threads: together at most ``bytes_per_second``, None for no limit.

    Unused capacity is not saved: reading is not faster after a pause.
    """

    def __init__(
        self,
        bytes_per_second: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds_per_byte = 1 / bytes_per_second if bytes_per_second else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, size_bytes: int) -> None:
        """Waits until the bytes taken before are within the rate, then counts ``size_bytes`` more."""
        if not self._seconds_per_byte:
            return
        with self._lock:
            now = self._clock()
            turn_at = max(now, self._free_at)
            self._free_at = turn_at + size_bytes * self._seconds_per_byte
        if turn_at > now:
            self._sleep(turn_at - now)


#: Findings that are listed; all of them are counted.
SHOWN_FINDINGS = 100


class Findings:
    """The findings of a verification; used by one thread. ``marks`` records lost blobs, as of ``now`` or before."""

    def __init__(self, marks: ContentStore, store: BlobStore, report: Callable[[str], None], now: datetime) -> None:
        self._marks, self._store, self._report, self._now = marks, store, report, now
        self._counts: Counter[FindingKind] = Counter()
        self._shown: list[Finding] = []
        self._lost: set[Digest] = set()

    def add(self, kind: FindingKind, name: str, detail: str = "") -> None:
        """Counts a finding."""
        self._counts[kind] += 1
        if len(self._shown) < SHOWN_FINDINGS:
            self._shown.append(Finding(kind, name, detail))
            self._report(f"{kind.value}: {name}{f', {detail}' if detail else ''}")

    def add_lost(self, kind: FindingKind, digests: Sequence[Digest], detail: str, *, is_gone: bool = True) -> None:
        """Counts blobs whose bytes are lost, and records them as lost until they are stored again.

        Bytes that are stored concurrently are recorded as stored again. They cannot be distinguished from broken bytes
        that could not be quarantined; for these ``is_gone`` is False.
        """
        if digests:
            self._marks.mark_lost(digests, kind, self._now)
        if digests and is_gone:
            self._marks.mark_stored([digest for digest in digests if self._store.has(digest)])
        for digest in digests:
            self.add(kind, digest, detail)
        self._lost.update(digests)

    def add_remembered(self, record: BlobRecord) -> None:
        """Counts a blob that an earlier verification found lost and nobody repaired, unless this one found it too."""
        if record.digest not in self._lost and record.fault is not None:
            found_at = f" {record.fault_at:%Y-%m-%d %H:%M} UTC" if record.fault_at else " earlier"
            self.add(record.fault, record.digest, f"found so{found_at}, and not repaired since")
            self._lost.add(record.digest)

    def add_unrecorded(self, digests: Sequence[Digest]) -> None:
        """Counts blobs that the store has and that were recorded as missing, and records them as stored.

        Bytes that are removed concurrently are recorded as missing again.
        """
        if digests:
            self._marks.mark_stored(digests)
            self._marks.mark_missing([digest for digest in digests if not self._store.has(digest)])
        for digest in digests:
            self.add(FindingKind.UNRECORDED, digest, "the store has it, and it was recorded as missing")

    def result(self, verified: Amount) -> Verification:
        """The result, with ``verified`` as the amount of intact blobs."""
        return Verification(verified, dict(self._counts), tuple(self._shown), tuple(sorted(self._lost)))


def summary(result: Verification) -> str:
    """A verification in one line."""
    found = ", ".join(f"{result.counts[kind]:,} {kind.value}" for kind in FindingKind if result.counts.get(kind))
    verified = f"{format_count(result.verified.count, 'blob')}, {format_bytes(result.verified.size_bytes)}"
    return f"verified {verified}; found {found or 'nothing wrong'}"


#: The number of unreadable blobs after which the store itself is considered unavailable.
MOST_UNREADABLE = 20
MISSING = "recorded as stored, and the store does not have it"
_THREADS = 4
_CHUNK_BYTES = 1024 * 1024
_RECORD_SECONDS = 5.0


@dataclass
class BlobReading:
    """Reads blobs; ``verified`` is the amount of intact ones, ``unreadable`` those that could not be read now."""

    checks: BlobCheckStore
    store: BlobStore
    findings: Findings
    rate: ByteRate
    clock: Callable[[], datetime]
    report: Callable[[str], None]
    verified: Amount = field(default_factory=Amount)
    unreadable: set[Digest] = field(default_factory=set)
    _good: list[BlobRecord] = field(default_factory=list)
    _recorded_at: float = field(default_factory=time.monotonic)

    def read(self, records: Sequence[BlobRecord]) -> None:
        """Reads these blobs, records the intact ones every few seconds, and quarantines the broken ones.

        Raises :class:`BlobStoreUnavailable` when too many cannot be read.
        """
        if not records:
            return
        progress = Progress(self.report, "blob", len(records), sum(record.size_bytes for record in records))

        def done(record: BlobRecord, problem: tuple[FindingKind, str] | None) -> None:
            progress.add(1, record.size_bytes)
            if problem is not None:
                self._record_problem(record, *problem)
                return
            self._good.append(record)
            if time.monotonic() - self._recorded_at > _RECORD_SECONDS:
                self._record_good()

        def failed(_record: BlobRecord, error: RegistrySyncError) -> None:
            raise error

        try:
            for_each(self._judge, records, threads=_THREADS, done=done, failed=failed)
        finally:
            self._record_good()
        progress.finish()

    def _judge(self, record: BlobRecord) -> tuple[FindingKind, str] | None:
        """The problem with the bytes of a blob, None for none."""
        try:
            return self._problem(record) and self._problem(record)
        except BlobMissing:
            return FindingKind.MISSING, MISSING
        except (OSError, BlobStoreError) as problem:
            # A medium that has lost bytes reports EIO; other errors lie between it and this process, and may be
            # transient.
            is_broken = isinstance(problem, OSError) and problem.errno == errno.EIO
            kind = FindingKind.BROKEN if is_broken else FindingKind.UNREADABLE
            return kind, f"cannot be read: {getattr(problem, 'strerror', None) or problem}"

    def _problem(self, record: BlobRecord) -> tuple[FindingKind, str] | None:
        hasher, size_bytes = record.digest.hasher(), 0
        with self.store.open(record.digest) as file:
            while chunk := file.read(_CHUNK_BYTES):
                self.rate.take(len(chunk))
                hasher.update(chunk)
                size_bytes += len(chunk)
        found = hasher.hexdigest()
        return None if found == record.digest.encoded else (FindingKind.BROKEN, f"{size_bytes:,} bytes of {found}")

    def _record_good(self) -> None:
        good, self._good, self._recorded_at = self._good, [], time.monotonic()
        if good:
            self.findings.add_unrecorded([record.digest for record in good if not record.is_stored])
            self.checks.mark_verified([record.digest for record in good], self.clock())
            self.verified += Amount.of(record.size_bytes for record in good)

    def _record_problem(self, record: BlobRecord, kind: FindingKind, detail: str) -> None:
        if kind is FindingKind.UNREADABLE:
            self.findings.add(kind, record.digest, detail)
            self.unreadable.add(record.digest)
            if len(self.unreadable) >= MOST_UNREADABLE:
                count = format_count(len(self.unreadable), "blob")
                raise BlobStoreUnavailable(f"{count} cannot be read; the last one {detail}")
            return
        is_gone = True
        if kind is FindingKind.BROKEN:
            try:
                self.store.quarantine(record.digest)
            except BlobStoreError as problem:  # it is not used anyway, and quarantined the next time
                is_gone, detail = False, f"{detail}; it could not be quarantined: {problem}"
        now = self.checks.records([record.digest]).get(record.digest)
        was_collected = now is None or (kind is FindingKind.MISSING and not now.is_stored)
        if not was_collected:
            self.findings.add_lost(kind, [record.digest], detail, is_gone=is_gone)


_PAGE = 1000


@dataclass(frozen=True)
class VerifyOptions:
    """``share`` of the stored blobs is read, 0 for none to 1 for all, at most ``bytes_per_second`` (None: no limit)."""

    share: float = 1.0
    bytes_per_second: float | None = None

    def checked(self) -> VerifyOptions:
        """Itself. Raises :class:`ConfigurationError` for numbers out of range."""
        if not 0 <= self.share <= 1:
            raise ConfigurationError(f"the share of blobs to verify is {self.share}; give a number from 0 to 1")
        if self.bytes_per_second is not None and not self.bytes_per_second > 0:
            raise ConfigurationError("the rate of a verification is more than 0; omit it for no limit")
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
    """Compares, reads, and records lost blobs; safe to repeat, and to run concurrently with syncs and collections.

    Blobs that a killed verification had read come last in the next one. ``rate`` is made from the options unless given.
    Raises the errors of the database and the store, :class:`BlobStoreUnavailable` when many blobs cannot be read.
    """
    rate = rate or ByteRate(options.checked().bytes_per_second)
    checks = database.blob_checks
    started_at = clock()
    findings = Findings(database.contents, store, report, started_at)
    reading = BlobReading(checks, store, findings, rate, clock, report)
    left = math.ceil(options.share * checks.stored_count())
    reading.read(_compare(checks, store, findings))
    while left > 0 and (page := checks.due(started_at, min(left, _PAGE), without=reading.unreadable)):
        reading.read(page)
        left -= len(page)
    for record in _faulty(checks):
        findings.add_remembered(record)
    result = findings.result(reading.verified)
    report(summary(result))
    return result


def _compare(checks: BlobCheckStore, store: BlobStore, findings: Findings) -> list[BlobRecord]:
    """Blobs to read regardless of the share: those of another size than recorded, or recorded as missing."""
    suspects: list[BlobRecord] = []
    existing: set[Digest] = set()

    def unlisted(folder: str, problem: BlobStoreError) -> None:
        findings.add(FindingKind.UNREADABLE, folder, f"cannot be listed: {problem}")

    for page in _pages(store.entries(unlisted)):
        records = checks.records([entry.digest for entry in page])
        for entry in page:
            existing.add(entry.digest)
            record = records.get(entry.digest)
            if record is None:
                findings.add(FindingKind.UNTRACKED_BLOB, entry.digest, f"{entry.size_bytes:,} bytes without a record")
            elif not record.is_stored or record.size_bytes != entry.size_bytes:
                suspects.append(record)
    for name in store.unknown_files():
        findings.add(FindingKind.UNKNOWN_FILE, name, "a file in the blob store that is no blob")
    _find_missing(checks, store, existing, findings)
    return suspects


def _find_missing(checks: BlobCheckStore, store: BlobStore, existing: set[Digest], findings: Findings) -> None:
    after = ""
    while page := checks.stored_after(after, _PAGE):
        after = page[-1].digest
        # Blobs stored while the store was listed are checked again; those collected meanwhile have no record now.
        absent = [
            record.digest for record in page if record.digest not in existing and _is_absent(store, record, findings)
        ]
        now = checks.records(absent)
        lost = [digest for digest in absent if digest in now and now[digest].is_stored]
        findings.add_lost(FindingKind.MISSING, lost, MISSING)


def _is_absent(store: BlobStore, record: BlobRecord, findings: Findings) -> bool:
    """Whether the store reports the blob as missing; False when it cannot be checked."""
    try:
        return not store.has(record.digest)
    except BlobStoreError as problem:
        if problem.is_temporary:
            raise
        findings.add(FindingKind.UNREADABLE, record.digest, f"cannot be checked: {problem}")
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
