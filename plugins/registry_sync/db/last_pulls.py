"""When content was last pulled from here: by the name of a tag, or by the digest of a manifest.

A row is of a repository and a reference, so that it outlives the tag's next move; it is removed with its repository,
and after :data:`KEPT_DAYS` without a pull.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, delete, func, literal, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from registry_sync.db.columns import UtcDateTime
from registry_sync.db.content.closures import is_in_version
from registry_sync.db.engine import Transactions
from registry_sync.db.queries import fetch_page, in_batches
from registry_sync.db.serving_tables import last_pulls
from registry_sync.db.tables import (
    manifests,
    repositories,
    repository_tags,
    tags,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import FIRST_PAGE, Page, PageRequest
from registry_sync.domain.serving import PulledTag

#: For how long a pull is remembered.
KEPT_DAYS = 400
_NEVER = datetime.fromtimestamp(0).astimezone()


class LastPullStore:
    """Each method is a short transaction of its own."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def record(self, pulls: Mapping[tuple[str, str], datetime]) -> None:
        """Records pulls by id of their repository and reference; the later one of two counts.

        Pulls of repositories that are gone are dropped. Safe to repeat.
        """
        for batch in in_batches(sorted(pulls)):
            ids = sorted({repository_id for repository_id, _ in batch})
            with self._transactions.writing() as connection:
                insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
                # Held until the end of the transaction, so that none of them is deleted before its rows are there.
                held = select(repositories.c.id).where(repositories.c.id.in_(ids)).order_by(repositories.c.id)
                present = set(connection.execute(held.with_for_update(read=True, key_share=True)).scalars())
                rows = [
                    {"repository_id": key[0], "reference": key[1], "pulled_at": pulls[key]}
                    for key in batch
                    if key[0] in present
                ]
                if not rows:
                    continue
                added = insert(last_pulls)
                later = added.on_conflict_do_update(
                    index_elements=["repository_id", "reference"],
                    set_={"pulled_at": added.excluded.pulled_at},
                    where=last_pulls.c.pulled_at < added.excluded.pulled_at,
                )
                connection.execute(later, rows)

    def forget(self, before: datetime | None = None) -> int:
        """Removes rows of pulls before then, by default those older than :data:`KEPT_DAYS`; how many they were."""
        limit = before or utc_now() - timedelta(days=KEPT_DAYS)
        with self._transactions.writing() as connection:
            return connection.execute(delete(last_pulls).where(last_pulls.c.pulled_at < limit)).rowcount

    def tags(
        self, repository_id: str, request: PageRequest = FIRST_PAGE, *, unused_since: datetime | None = None
    ) -> Page[PulledTag]:
        """The tags of the latest version ordered by ``name`` (default) or ``last_pulled``, what was never pulled first.

        ``unused_since`` selects those that nobody has pulled since then.
        """
        by_name, by_digest = last_pulls.alias("by_name"), last_pulls.alias("by_digest")
        pulled_at = _later(by_name.c.pulled_at, by_digest.c.pulled_at)
        never = literal(_NEVER, UtcDateTime())
        is_latest = is_in_version(repository_tags, repository_id, repositories.c.latest_number)
        statement = (
            select(tags.c.name, manifests.c.digest, pulled_at.label("pulled_at"))
            .select_from(repository_tags)
            .join(repositories, and_(repositories.c.id == repository_tags.c.repository_id, is_latest))
            .join(tags, tags.c.id == repository_tags.c.tag_id)
            .join(manifests, manifests.c.id == tags.c.manifest_id)
            .outerjoin(by_name, and_(by_name.c.repository_id == repository_id, by_name.c.reference == tags.c.name))
            .outerjoin(
                by_digest, and_(by_digest.c.repository_id == repository_id, by_digest.c.reference == manifests.c.digest)
            )
        )
        if unused_since is not None:
            statement = statement.where(or_(pulled_at.is_(None), pulled_at < unused_since))
        orderings: dict[str, ColumnElement[object]] = {
            "name": tags.c.name,
            "last_pulled": func.coalesce(pulled_at, never),
        }
        with self._transactions.reading() as connection:
            rows, total = fetch_page(connection, statement, request, orderings, tags.c.id)
        return Page(tuple(PulledTag(row.name, Digest(row.digest), row.pulled_at) for row in rows), total)


def _later(one: ColumnElement[datetime], other: ColumnElement[datetime]) -> ColumnElement[datetime]:
    """The later one of two times, either of which may be NULL."""
    return case((other.is_(None), one), (one.is_(None), other), (one > other, one), else_=other)
