"""What a verification finds, as it comes in: counted, the first ones told and kept, lost blobs noted as missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import format_bytes, format_count
from registry_sync.domain.space import Amount, BlobRecord, Finding, FindingKind, Verification

#: Findings that are named; all of them are counted.
SHOWN_FINDINGS = 100


class Marks(Protocol):
    """Which blobs are stored."""

    def mark_stored(self, digests: Iterable[Digest], /) -> None: ...
    def mark_missing(self, digests: Iterable[Digest], /) -> None: ...
    def mark_lost(self, digests: Iterable[Digest], fault: FindingKind, at: datetime, /) -> None: ...


class AskedStore(Protocol):
    """Blobs by digest."""

    def has(self, digest: Digest, size_bytes: int | None = None, /) -> bool: ...


class Findings:
    """Used by one thread. ``marks`` takes the notes of blobs that are lost, since ``now`` or before."""

    def __init__(self, marks: Marks, store: AskedStore, tell: Callable[[str], None], now: datetime) -> None:
        self._marks, self._store, self._tell, self._now = marks, store, tell, now
        self._counts: Counter[FindingKind] = Counter()
        self._shown: list[Finding] = []
        self._lost: set[Digest] = set()

    def add(self, kind: FindingKind, name: str, detail: str = "") -> None:
        """Counts a finding."""
        self._counts[kind] += 1
        if len(self._shown) < SHOWN_FINDINGS:
            self._shown.append(Finding(kind, name, detail))
            self._tell(f"{kind.value}: {name}{f', {detail}' if detail else ''}")

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
