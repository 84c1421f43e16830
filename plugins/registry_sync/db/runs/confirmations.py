"""When the tags of a repository were last confirmed one by one, and what its syncs found of its registry's digest list.

A sync that requests each of its tags confirms them all; one that takes a registry's word for some confirms the others.
How long ago the last confirmation was bounds how long a list that is out of date can hide that a tag has moved.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Update, func, or_, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import built_once, storable
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
        same = (run.repository_id, run.remote_id)
        with self._transactions.reading() as connection:
            confirmed = _newest(connection.execute(*_confirming(*same)), own)
            problem = _newest(connection.execute(*_with_problem(*same, problems_since)), own, has_other_filters=True)
            latest = connection.execute(*_last_listed(*same)).scalar()
            since = _EVER if confirmed is None else confirmed.started_at
            used_count = connection.execute(*_used_count(*same, since)).scalar_one()
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
            statement, of_run = _change(run_id)
            connection.execute(statement, {**values, **of_run})

    def moving_tags(self, repository_id: str, count: int) -> list[TagName]:
        """At most ``count`` tags of the repository that have moved in its history, those that moved last first."""
        with self._transactions.reading() as connection:
            return [TagName(name) for name in connection.execute(*_moving_tags(repository_id, count)).scalars()]


_EVER = datetime(1970, 1, 1, tzinfo=timezone.utc)
_IS_SETTLED = sync_runs.c.state.in_(_SETTLED)
_IS_USED = sync_runs.c.digest_list == DigestListUse.USED.value
_LASTING = [use.value for use in DigestListUse if use.is_lasting]


def _is_same(repository_id: str, remote_id: str | None) -> ColumnElement[bool]:
    return (sync_runs.c.repository_id == repository_id) & sync_runs.c.remote_id.is_not_distinct_from(remote_id)


def _newest_runs(condition: ColumnElement[bool]) -> Select[Any]:
    columns: tuple[Any, ...] = (
        sync_runs.c.started_at,
        sync_runs.c.listed_at,
        sync_runs.c.digest_list_problem,
        sync_runs.c.remote_spec,
    )
    return select(*columns).where(condition).order_by(sync_runs.c.started_at.desc()).limit(MOST_READ)


@built_once
def _moving_tags(repository_id: str, count: int) -> Select[Any]:
    added = repository_tags.c.version_added
    return (
        select(repository_tags.c.name)
        .where(repository_tags.c.repository_id == repository_id)
        .group_by(repository_tags.c.name)
        .having(func.count() > 1, func.count() > func.count(repository_tags.c.version_removed))
        .order_by(func.max(added).desc(), repository_tags.c.name)
        .limit(count)
    )


@built_once
def _confirming(repository_id: str, remote_id: str | None) -> Select[Any]:
    is_confirmed = _IS_SETTLED & or_(sync_runs.c.digest_list.is_(None), ~_IS_USED)
    return _newest_runs(_is_same(repository_id, remote_id) & is_confirmed)


@built_once
def _with_problem(repository_id: str, remote_id: str | None, since: datetime) -> Select[Any]:
    is_problem = sync_runs.c.digest_list.in_(_LASTING) & (sync_runs.c.started_at >= since)
    return _newest_runs(_is_same(repository_id, remote_id) & is_problem)


@built_once
def _last_listed(repository_id: str, remote_id: str | None) -> Select[Any]:
    return select(func.max(sync_runs.c.listed_at)).where(_is_same(repository_id, remote_id), _IS_SETTLED)


@built_once
def _used_count(repository_id: str, remote_id: str | None, since: datetime) -> Select[Any]:
    is_used = _IS_SETTLED & _IS_USED & (sync_runs.c.started_at > since)
    return select(func.count()).select_from(sync_runs).where(_is_same(repository_id, remote_id), is_used)


@built_once
def _change(run_id: str) -> Update:
    """Sets the columns that are given at its execution."""
    return update(sync_runs).where(sync_runs.c.id == run_id)


def _newest(found: Iterable[Row[Any]], own: RemoteSpec | None, *, has_other_filters: bool = False) -> Row[Any] | None:
    """The newest of the runs with the upstream of ``own``, and with its filters of tags unless others may differ."""
    for row in found:
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
