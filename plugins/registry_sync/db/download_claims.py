"""Claims on downloads that pulls start: which process fetches a blob, so that all servers together fetch it once.

A claim shows that its holder lives by a number that grows. Whoever sees it stand still long enough, by a clock of
their own, takes the claim over; so no two machines' clocks are compared. A claim saves requests and guards nothing:
two downloads of one blob at once are safe.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import insert_or_keep
from registry_sync.db.serving_tables import blob_downloads
from registry_sync.domain.digests import Digest


@dataclass(frozen=True)
class DownloadClaim:
    """Which process fetches a blob; ``beat`` grows while that process lives."""

    holder: str
    beat: int


#: Ended while another process asked for it; the next question finds out what is there now.
_JUST_RELEASED = DownloadClaim("", 0)


class DownloadClaimStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def take(self, digest: Digest, holder: str, *, lapsed: DownloadClaim | None = None) -> DownloadClaim | None:
        """None when ``holder`` has the claim from now on; else the claim of the process that has it.

        ``lapsed`` is a claim that stood still: it is taken over if it is still the same.
        """
        row = blob_downloads.c
        found = select(row.holder, row.beat).where(row.digest == digest)
        with self._transactions.reading() as connection:
            current = connection.execute(found).first()
        if current is not None and (claim := DownloadClaim(*current)) != lapsed:
            return None if claim.holder == holder else claim
        with self._transactions.writing() as connection:
            if lapsed is not None:
                is_lapsed = (row.digest == digest, row.holder == lapsed.holder, row.beat == lapsed.beat)
                connection.execute(update(blob_downloads).where(*is_lapsed).values(holder=holder, beat=0))
            mine = {"digest": digest, "holder": holder, "beat": 0}
            connection.execute(insert_or_keep(connection, blob_downloads), [mine])
            current = connection.execute(found).first()
        claim = _JUST_RELEASED if current is None else DownloadClaim(*current)
        return None if claim.holder == holder else claim

    def beat(self, holder: str) -> None:
        """Shows that ``holder`` lives."""
        row = blob_downloads.c
        with self._transactions.writing() as connection:
            connection.execute(update(blob_downloads).where(row.holder == holder).values(beat=row.beat + 1))

    def release(self, digest: Digest, holder: str) -> None:
        """Ends the claim, if ``holder`` has it still."""
        row = blob_downloads.c
        with self._transactions.writing() as connection:
            connection.execute(delete(blob_downloads).where(row.digest == digest, row.holder == holder))
