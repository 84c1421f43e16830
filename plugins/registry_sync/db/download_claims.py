"""Claims on downloads: which process fetches a manifest or a blob, so that all syncs and servers fetch it once.

A claim shows that its holder lives by a number that grows. Whoever sees it stand still long enough, by a clock of
their own, takes the claim over; so no two machines' clocks are compared. A claim saves requests and guards nothing:
two downloads of one blob at once are safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Delete, Select, delete, func, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import built_once, in_batches, insert_absent, is_one_of, is_one_of_given
from registry_sync.db.serving_tables import blob_downloads
from registry_sync.domain.digests import Digest


@dataclass(frozen=True)
class DownloadClaim:
    """Which process fetches a blob; ``beat`` grows while that process lives."""

    holder: str
    beat: int


#: How long a claim that stands still is respected; then its holder has died.
LAPSED_SECONDS = 6.0


class DownloadClaimStore:
    """Each method is a short transaction of its own and may be repeated."""

    lapsed_seconds = LAPSED_SECONDS

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def take_all(
        self, digests: Iterable[Digest], holder: str, *, lapsed: Mapping[Digest, DownloadClaim] = MappingProxyType({})
    ) -> dict[Digest, DownloadClaim]:
        """The claims that others have of ``digests``; ``holder`` has the rest from now on.

        ``lapsed`` are claims that stood still: each is taken over if it is still the same.
        """
        row, wanted = blob_downloads.c, sorted(set(digests))
        with self._transactions.writing() as connection:
            for digest, claim in sorted(lapsed.items()):
                is_lapsed = (row.digest == digest, row.holder == claim.holder, row.beat == claim.beat)
                connection.execute(update(blob_downloads).where(*is_lapsed).values(holder=holder, beat=0))
            mine = [{"digest": digest, "holder": holder, "beat": 0} for digest in wanted]
            insert_absent(connection, blob_downloads, mine)
            return _of_others(connection, wanted, holder)

    def of_others(self, digests: Iterable[Digest], holder: str) -> dict[Digest, DownloadClaim]:
        """The claims that others than ``holder`` have of ``digests``; changes nothing."""
        with self._transactions.reading() as connection:
            return _of_others(connection, sorted(set(digests)), holder)

    def beat(self, holder: str) -> None:
        """Shows that ``holder`` lives."""
        row = blob_downloads.c
        with self._transactions.writing() as connection:
            connection.execute(update(blob_downloads).where(row.holder == holder).values(beat=row.beat + 1))

    def release_all(self, digests: Iterable[Digest], holder: str) -> None:
        """Ends the claims of ``digests`` that ``holder`` has still."""
        with self._transactions.writing() as connection:
            for batch in in_batches(sorted(set(digests))):
                connection.execute(*_delete_of(batch, holder, dialect=connection.dialect.name))

    def holders(self) -> dict[str, tuple[int, int]]:
        """What shows of each holder whether it lives: the number of its claims, and the sum of their beats."""
        row = blob_downloads.c
        by_holder = select(row.holder, func.count(), func.sum(row.beat)).group_by(row.holder)
        with self._transactions.reading() as connection:
            return {holder: (count, int(beats)) for holder, count, beats in connection.execute(by_holder)}

    def remove_lapsed(self, seen: Mapping[str, tuple[int, int]]) -> int:
        """Ends the claims of holders that are as :meth:`holders` has ``seen`` them, long enough ago; their number.

        Claims that others take over at this moment are left to them.
        """
        row, count = blob_downloads.c, 0
        for holder in sorted(holder for holder, shown in self.holders().items() if seen.get(holder) == shown):
            with self._transactions.writing() as connection:
                claimed = select(row.digest).where(row.holder == holder).order_by(row.digest)
                digests = connection.execute(claimed.with_for_update(skip_locked=True)).scalars().all()
                for batch in in_batches(digests):
                    connection.execute(delete(blob_downloads).where(is_one_of(connection, row.digest, batch)))
            count += len(digests)
        return count


def _of_others(connection: Connection, digests: Sequence[Digest], holder: str) -> dict[Digest, DownloadClaim]:
    found = dict[Digest, DownloadClaim]()
    for batch in in_batches(digests):
        rows = connection.execute(*_claims_of_others(batch, holder, dialect=connection.dialect.name))
        found.update((Digest(one.digest), DownloadClaim(one.holder, one.beat)) for one in rows)
    return found


@built_once
def _claims_of_others(digests: Sequence[Digest], holder: str, *, dialect: str) -> Select[Any]:
    row = blob_downloads.c
    is_listed = is_one_of_given(dialect, row.digest, digests)
    return select(row.digest, row.holder, row.beat).where(is_listed, row.holder != holder)


@built_once
def _delete_of(digests: Sequence[Digest], holder: str, *, dialect: str) -> Delete:
    row = blob_downloads.c
    return delete(blob_downloads).where(is_one_of_given(dialect, row.digest, digests), row.holder == holder)
