"""Blobs read again and compared with their digests, by a few threads, at a set rate.

Bytes are wrong only when two reads say so: what another process puts in their place meanwhile is not taken for them.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, Protocol

from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import format_count
from registry_sync.domain.space import Amount, BlobRecord, FindingKind
from registry_sync.errors import BlobMissing, BlobStoreError, BlobStoreUnavailable, RegistrySyncError
from registry_sync.sync.byte_rate import ByteRate
from registry_sync.sync.findings import Findings
from registry_sync.sync.parallel import for_each
from registry_sync.sync.progress import Progress

#: Blobs that cannot be read before the store itself is taken to be away.
MOST_UNREADABLE = 20
MISSING = "noted as stored, and the store does not have it"
_THREADS = 4
_CHUNK_BYTES = 1024 * 1024
_NOTE_SECONDS = 5.0


class ReadStore(Protocol):
    """Blobs by digest, to be read and set aside."""

    def open(self, digest: Digest, /) -> BinaryIO: ...
    def quarantine(self, digest: Digest, /) -> bool: ...


class Checks(Protocol):
    """What the database says of blobs."""

    def records(self, digests: Iterable[Digest], /) -> dict[Digest, BlobRecord]: ...
    def mark_verified(self, digests: Iterable[Digest], at: datetime, /) -> None: ...


@dataclass
class BlobReading:
    """Reads blobs; ``verified`` are those that are good, ``unreadable`` those that could not be read now."""

    checks: Checks
    store: ReadStore
    findings: Findings
    rate: ByteRate
    clock: Callable[[], datetime]
    tell: Callable[[str], None]
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
        progress = Progress(self.tell, "blob", len(records), sum(record.size_bytes for record in records))

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
