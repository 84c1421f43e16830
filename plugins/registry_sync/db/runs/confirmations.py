"""When the tags of a repository were last confirmed one by one, and what its syncs found of its registry's digest list.

A sync that requests each of its tags confirms them all; one that takes a registry's word for some confirms the others.
How long ago the last confirmation was bounds how long a list that is out of date can hide that a tag has moved.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, or_, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import storable
from registry_sync.db.tables import repository_tags, sync_runs
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import Confirmation, DigestListUse, RunState, SyncRun

_SETTLED = [state.value for state in RunState if state.is_settled]
_REASON_LENGTH = 1000
#: How many runs of other filters or sources are read before the search for one of the same is given up.
MOST_READ = 50


class ConfirmationStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def last(self, run: SyncRun, *, problems_since: datetime) -> Confirmation:
        """What earlier syncs of the remote of ``run`` into its repository found; problems from then on alone.

        Only syncs of the same upstream and tag filters confirm its tags.
        """
        own = run.remote
        is_same = (sync_runs.c.repository_id == run.repository_id) & (sync_runs.c.remote_id == run.remote_id)
        is_settled = sync_runs.c.state.in_(_SETTLED)
        used = sync_runs.c.digest_list == DigestListUse.USED.value
        is_confirmed = is_settled & or_(sync_runs.c.digest_list.is_(None), ~used)
        lasting = [use.value for use in DigestListUse if use.is_lasting]
        is_problem = sync_runs.c.digest_list.in_(lasting) & (sync_runs.c.started_at >= problems_since)
        with self._transactions.reading() as connection:
            confirmed = _newest(connection, is_same & is_confirmed, own)
            problem = _newest(connection, is_same & is_problem, own, has_other_filters=True)
            latest = connection.execute(select(func.max(sync_runs.c.listed_at)).where(is_same, is_settled)).scalar()
            since = is_same & is_settled & used
            if confirmed is not None:
                since &= sync_runs.c.started_at > confirmed.started_at
            used_count = connection.execute(select(func.count()).select_from(sync_runs).where(since)).scalar_one()
        return Confirmation(
            confirmed_at=None if confirmed is None else confirmed.listed_at,
            listed_at=latest,
            used_count=used_count,
            problem=None if problem is None else problem.digest_list_problem,
            problem_at=None if problem is None else problem.started_at,
        )

    def record(self, run_id: str, use: DigestListUse | None, *, tag_count: int = 0, problem: str | None = None) -> None:
        """Records what became of the list in a run: ``tag_count`` tags were unchanged by it. It replaces the record."""
        values = {
            "digest_list": None if use is None else use.value,
            "listed_digest_count": tag_count,
            "digest_list_problem": None if problem is None else storable(problem, _REASON_LENGTH),
        }
        with self._transactions.writing() as connection:
            connection.execute(update(sync_runs).where(sync_runs.c.id == run_id).values(**values))

    def moving_tags(self, repository_id: str, count: int) -> list[TagName]:
        """At most ``count`` tags of the repository that have moved in its history, those that moved last first."""
        added = repository_tags.c.version_added
        statement = (
            select(repository_tags.c.name)
            .where(repository_tags.c.repository_id == repository_id)
            .group_by(repository_tags.c.name)
            .having(func.count() > 1, func.count() > func.count(repository_tags.c.version_removed))
            .order_by(func.max(added).desc(), repository_tags.c.name)
            .limit(count)
        )
        with self._transactions.reading() as connection:
            return [TagName(name) for name in connection.execute(statement).scalars()]


def _newest(
    connection: Connection, condition: ColumnElement[bool], own: RemoteSpec | None, *, has_other_filters: bool = False
) -> Row[Any] | None:
    """The newest of the runs with the upstream of ``own``, and with its filters of tags unless others may differ."""
    columns: tuple[Any, ...] = (
        sync_runs.c.started_at,
        sync_runs.c.listed_at,
        sync_runs.c.digest_list_problem,
        sync_runs.c.remote_spec,
    )
    statement = select(*columns).where(condition).order_by(sync_runs.c.started_at.desc()).limit(MOST_READ)
    for row in connection.execute(statement):
        spec = RemoteSpec.of_document(row.remote_spec)
        if own is None or spec.source != own.source:
            continue
        if has_other_filters:
            if (spec.conn_id, spec.digest_list) == (own.conn_id, own.digest_list):
                return row
        elif _selection(spec) == _selection(own):
            return row
    return None


def _selection(spec: RemoteSpec) -> tuple[object, ...]:
    return spec.tag_rules(), spec.include_referrers
