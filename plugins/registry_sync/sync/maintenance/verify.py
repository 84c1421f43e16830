"""Verification: the database and the blob store held against each other, and the bytes of blobs against their digests.

The comparison costs one listing and covers everything. Reading costs time, so that it can be a share of the blobs:
those that were not read for the longest time come first, and after enough rounds all were read. What is lost is noted
as lost, and found again by each verification until it is stored or gone; ``repair`` brings it back.

Blobs read again and compared with their digests, by a few threads, at a set rate; and what that finds.

Bytes are wrong only when two reads say so: what another process puts in their place meanwhile is not taken for them.
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
    """Turns for reading threads: together at most ``bytes_per_second``, None for no limit.

    Nothing is saved up: a pause is not made up for by reading faster afterwards.
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
        """Waits until as many bytes may be read as were taken before, then counts ``size_bytes`` more."""
        if not self._seconds_per_byte:
            return
        with self._lock:
            now = self._clock()
            turn_at = max(now, self._free_at)
            self._free_at = turn_at + size_bytes * self._seconds_per_byte
        if turn_at > now:
            self._sleep(turn_at - now)


#: Findings that are named; all of them are counted.
SHOWN_FINDINGS = 100


class Findings:
    """Used by one thread. ``marks`` takes the notes of blobs that are lost, since ``now`` or before."""

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
        """Counts blobs of which the store has no good bytes, and notes them as lost until they are stored again.

        What somebody stores at the same moment is noted as stored again; that cannot be told from bytes that are wrong
        and could not be set aside, and for these ``is_gone`` is False.
        """
        if digests:
            self._marks.mark_lost(digests, kind, self._now)
        if digests and is_gone:
            self._marks.mark_stored([digest for digest in digests if self._store.has(digest)])
        for digest in digests:
            self.add(kind, digest, detail)
        self._lost.update(digests)

    def add_remembered(self, record: BlobRecord) -> None:
        """Counts a blob that an earlier verification found lost and nobody mended, unless it was found now as well."""
        if record.digest not in self._lost and record.fault is not None:
            found_at = f" {record.fault_at:%Y-%m-%d %H:%M} UTC" if record.fault_at else " earlier"
            self.add(record.fault, record.digest, f"found so{found_at}, and not mended since")
            self._lost.add(record.digest)

    def add_unnoted(self, digests: Sequence[Digest]) -> None:
        """Counts blobs that the store has and that were noted as missing, and notes them as stored.

        What somebody removes at the same moment is noted as missing again.
        """
        if digests:
            self._marks.mark_stored(digests)
            self._marks.mark_missing([digest for digest in digests if not self._store.has(digest)])
        for digest in digests:
            self.add(FindingKind.UNNOTED, digest, "the store has it, and it was noted as missing")

    def result(self, verified: Amount) -> Verification:
        """What was found, where ``verified`` was read and is good."""
        return Verification(verified, dict(self._counts), tuple(self._shown), tuple(sorted(self._lost)))


def summary(result: Verification) -> str:
    """A verification in one line."""
    found = ", ".join(f"{result.counts[kind]:,} {kind.value}" for kind in FindingKind if result.counts.get(kind))
    verified = f"{format_count(result.verified.count, 'blob')}, {format_bytes(result.verified.size_bytes)}"
    return f"verified {verified}; found {found or 'nothing wrong'}"


#: Blobs that cannot be read before the store itself is taken to be away.
MOST_UNREADABLE = 20
MISSING = "noted as stored, and the store does not have it"
_THREADS = 4
_CHUNK_BYTES = 1024 * 1024
_NOTE_SECONDS = 5.0


@dataclass
class BlobReading:
    """Reads blobs; ``verified`` are those that are good, ``unreadable`` those that could not be read now."""

    checks: BlobCheckStore
    store: BlobStore
    findings: Findings
    rate: ByteRate
    clock: Callable[[], datetime]
    report: Callable[[str], None]
    verified: Amount = field(default_factory=Amount)
    unreadable: set[Digest] = field(default_factory=set)
    _good: list[BlobRecord] = field(default_factory=list)
    _noted_at: float = field(default_factory=time.monotonic)

    def read(self, records: Sequence[BlobRecord]) -> None:
        """Reads these blobs, notes every few seconds which are good, and sets aside those that are broken.

        Raises :class:`BlobStoreUnavailable` when too many cannot be read.
        """
        if not records:
            return
        progress = Progress(self.report, "blob", len(records), sum(record.size_bytes for record in records))

        def done(record: BlobRecord, problem: tuple[FindingKind, str] | None) -> None:
            progress.add(1, record.size_bytes)
            if problem is not None:
                self._note_problem(record, *problem)
                return
            self._good.append(record)
            if time.monotonic() - self._noted_at > _NOTE_SECONDS:
                self._note_good()

        def failed(_record: BlobRecord, error: RegistrySyncError) -> None:
            raise error

        try:
            for_each(self._judge, records, threads=_THREADS, done=done, failed=failed)
        finally:
            self._note_good()
        progress.finish()

    def _judge(self, record: BlobRecord) -> tuple[FindingKind, str] | None:
        """What is wrong with the bytes of a blob, None for nothing."""
        try:
            return self._problem(record) and self._problem(record)
        except BlobMissing:
            return FindingKind.MISSING, MISSING
        except (OSError, BlobStoreError) as problem:
            # A medium that has lost its bytes says EIO; everything else is between it and us, and may pass.
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

    def _note_good(self) -> None:
        good, self._good, self._noted_at = self._good, [], time.monotonic()
        if good:
            self.findings.add_unnoted([record.digest for record in good if not record.is_stored])
            self.checks.mark_verified([record.digest for record in good], self.clock())
            self.verified += Amount.of(record.size_bytes for record in good)

    def _note_problem(self, record: BlobRecord, kind: FindingKind, detail: str) -> None:
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
            except BlobStoreError as problem:  # it is not used all the same, and tried again the next time
                is_gone, detail = False, f"{detail}; it could not be set aside: {problem}"
        now = self.checks.records([record.digest]).get(record.digest)
        was_collected = now is None or (kind is FindingKind.MISSING and not now.is_stored)
        if not was_collected:
            self.findings.add_lost(kind, [record.digest], detail, is_gone=is_gone)


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
