"""Digests of tags that a listing under way has asked for, so that another try of its task need not ask again.

They are of the moment at which they were asked for. So they serve the try after a failed one, as long as they are
young and nothing else was listed for the repository since (:mod:`registry_sync.db.listings`); a sync that is begun anew
after it failed forgets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, delete, select

from registry_sync.db.batches import insert_absent
from registry_sync.db.tables import run_heads, sync_runs
from registry_sync.db.transactions import Transactions
from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import KeptHead


class KeptHeadStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def keep(
        self, run_id: str, heads: Mapping[TagName, Digest | None], asked_at: datetime, *, began: int | None = None
    ) -> None:
        """Notes what HEADs said, None where they told no digest; ``asked_at`` is when the first of them was sent.

        What is kept of a tag already stays. Nothing is when ``began``, the run's ``listing_began`` before that, is not
        the run's any more: another try has begun to list.
        """
        if not heads:
            return
        with self._transactions.writing() as connection:
            number = connection.execute(select(sync_runs.c.listing_began).where(sync_runs.c.id == run_id)).scalar_one()
            if began not in (None, number):
                return
            rows = [
                {
                    "sync_run_id": run_id,
                    "name": name,
                    "digest": digest,
                    "asked_at": asked_at,
                    "listing_began": number,
                }
                for name, digest in sorted(heads.items())
            ]
            insert_absent(connection, run_heads, rows)

    def since(self, run_id: str, earliest: datetime) -> dict[TagName, KeptHead]:
        """What was asked for at ``earliest`` or later, when nothing was listed for the repository meanwhile."""
        statement = (
            select(run_heads.c.name, run_heads.c.digest, run_heads.c.asked_at)
            .join(sync_runs, sync_runs.c.id == run_heads.c.sync_run_id)
            .where(run_heads.c.sync_run_id == run_id, run_heads.c.asked_at >= earliest)
            .where(run_heads.c.listing_began == sync_runs.c.listing_began)
        )
        with self._transactions.reading() as connection:
            return {
                TagName(row.name): KeptHead(Digest(row.digest) if row.digest else None, row.asked_at)
                for row in connection.execute(statement)
            }

    def forget(self, run_id: str) -> None:
        """Removes what is kept of a run."""
        with self._transactions.writing() as connection:
            forget_heads(connection, run_id)


def forget_heads(connection: Connection, run_id: str) -> None:
    """As :meth:`KeptHeadStore.forget`, within the caller's transaction."""
    connection.execute(delete(run_heads).where(run_heads.c.sync_run_id == run_id))
