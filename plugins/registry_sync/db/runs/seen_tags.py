"""When the tags of a repository were first seen upstream, for rules that select the newest by that.

Each tag of a listing is written down, also where no rule selects it: it would be new at each listing otherwise, and the
newest. A tag that is gone is forgotten, and is new when it comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, func, select

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import in_batches, insert_absent
from registry_sync.db.tables import repository_tags, seen_tags, tags
from registry_sync.domain.references import TagName


class SeenTagStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, repository_id: str, listed: Sequence[TagName], now: datetime) -> dict[TagName, datetime]:
        """Since when each tag of ``listed``, the complete list of the upstream at ``now``, is known.

        The versions of the repository say so of tags that it has held. At the first record the others were there
        before, so that they are as old as the oldest of those; later ones are new.
        """
        with self._transactions.reading() as connection:
            known = _known(connection, repository_id)
        gone = sorted(known.keys() - set(listed))
        new = sorted(set(listed) - known.keys())
        if gone or new:
            with self._transactions.writing() as connection:
                for batch in in_batches(gone):
                    is_gone = (seen_tags.c.repository_id == repository_id) & seen_tags.c.name.in_(batch)
                    connection.execute(delete(seen_tags).where(is_gone))
                held = _held(connection, repository_id) if new else {}
                others_at = now if known or not held else min(held.values())
                rows = [
                    {"repository_id": repository_id, "name": tag, "first_seen_at": held.get(tag, others_at)}
                    for tag in new
                ]
                insert_absent(connection, seen_tags, rows)
                known = _known(connection, repository_id)
        return {tag: known[tag] for tag in listed if tag in known}


def _known(connection: Connection, repository_id: str) -> dict[TagName, datetime]:
    statement = select(seen_tags.c.name, seen_tags.c.first_seen_at).where(seen_tags.c.repository_id == repository_id)
    return {TagName(row.name): row.first_seen_at for row in connection.execute(statement)}


def _held(connection: Connection, repository_id: str) -> dict[TagName, datetime]:
    """When each tag that the repository holds or has held first came here, whatever it referred to."""
    statement = (
        select(tags.c.name, func.min(tags.c.created_at).label("created_at"))
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(repository_tags.c.repository_id == repository_id)
        .group_by(tags.c.name)
    )
    return {TagName(row.name): row.created_at for row in connection.execute(statement)}
