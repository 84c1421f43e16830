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
from registry_sync.db.tables import repositories, repository_tags, seen_tags, tags
from registry_sync.domain.references import TagName
from registry_sync.errors import RecordNotFound


class SeenTagStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, repository_id: str, listed: Sequence[TagName], now: datetime) -> dict[TagName, datetime]:
        """Since when each tag of ``listed``, the complete list of the upstream at ``now``, is known.

        At the first record the versions of the repository say so of tags that it has held. The others were there
        before, so that they are as old as the oldest of those; tags that come later are new at ``now``. An empty list
        changes nothing: no sync follows from it. Raises :class:`RecordNotFound` for a deleted repository.
        """
        with self._transactions.reading() as connection:
            known = _known(connection, repository_id)
        if listed and known.keys() != set(listed):
            with self._transactions.writing() as connection:
                _lock(connection, repository_id)
                known = _replaced(connection, repository_id, set(listed), now)
        return {tag: known[tag] for tag in listed}


def _lock(connection: Connection, repository_id: str) -> None:
    """Lets one listing of a repository after the other be recorded."""
    found = select(repositories.c.id).where(repositories.c.id == repository_id).with_for_update(key_share=True)
    if connection.execute(found).one_or_none() is None:
        raise RecordNotFound(f"the repository of this sync was deleted: {repository_id}")


def _replaced(
    connection: Connection, repository_id: str, listed: set[TagName], now: datetime
) -> dict[TagName, datetime]:
    """What is known once the tags that are gone are forgotten, and the new ones recorded."""
    known = _known(connection, repository_id)
    for batch in in_batches(sorted(known.keys() - listed)):
        is_gone = (seen_tags.c.repository_id == repository_id) & seen_tags.c.name.in_(batch)
        connection.execute(delete(seen_tags).where(is_gone))
    held = {} if known else _held(connection, repository_id)
    others_at = min(held.values(), default=now)
    new = {tag: held.get(tag, others_at) for tag in sorted(listed - known.keys())}
    rows = [{"repository_id": repository_id, "name": tag, "first_seen_at": at} for tag, at in new.items()]
    insert_absent(connection, seen_tags, rows)
    return known | new


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
