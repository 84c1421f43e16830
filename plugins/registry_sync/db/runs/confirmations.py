"""When the tags of a repository were last confirmed one by one, and what its syncs found of its registry's digest list.

A sync that requests each of its tags confirms them all; one that takes a registry's word for some confirms the others.
How long ago the last confirmation was bounds how long a list that is out of date can hide that a tag has moved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Update, func, or_, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import built_once, is_one_of, storable
from registry_sync.db.tables import repositories, repository_tags, sync_runs
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
            is_stale=problem is not None and problem.digest_list == DigestListUse.STALE.value,
        )

    def last_of_many(self, runs: Iterable[SyncRun], *, problems_since: datetime) -> dict[str, Confirmation]:
        """As :meth:`last`, of at most one batch of settled runs, each the last of its repository, by repository.

        Left out are those of which more runs have to be read: with a problem, without a sync that confirmed their tags,
        or with other filters in the last that did.
        """
        by_repository = {run.repository_id: run for run in runs}
        with self._transactions.reading() as connection:
            is_wanted = is_one_of(connection, repositories.c.id, list(by_repository))
            rows = connection.execute(_last_of_many(is_wanted, problems_since)).all()
        found: dict[str, Confirmation] = {}
        for row in rows:
            run = by_repository[row.repository_id]
            if row.has_problem or row.remote_id != run.remote_id or _newest([row], run.remote) is None:
                continue
            last_listed_at = max(filter(None, (row.last_listed_at, row.settled_listed_at)), default=None)
            found[run.repository_id] = Confirmation(row.listed_at, last_listed_at, row.used_count)
        return found

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

    def moving_tags_of_many(self, repository_ids: Sequence[str]) -> dict[str, list[TagName]]:
        """As :meth:`moving_tags`, all of them, of at most one batch of repositories; without those that have none."""
        found: dict[str, list[TagName]] = defaultdict(list)
        with self._transactions.reading() as connection:
            of_these = is_one_of(connection, repository_tags.c.repository_id, repository_ids)
            for row in connection.execute(_moving(of_these)):
                found[row.repository_id].append(TagName(row.name))
        return found


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
        sync_runs.c.digest_list,
        sync_runs.c.digest_list_problem,
        sync_runs.c.remote_spec,
    )
    return select(*columns).where(condition).order_by(sync_runs.c.started_at.desc()).limit(MOST_READ)


@built_once
def _moving_tags(repository_id: str, count: int) -> Select[Any]:
    moving = _moving(repository_tags.c.repository_id == repository_id).limit(count)
    return moving.with_only_columns(repository_tags.c.name)


def _moving(of_these: ColumnElement[bool]) -> Select[Any]:
    members = repository_tags.c
    return (
        select(members.repository_id, members.name)
        .where(of_these)
        .group_by(members.repository_id, members.name)
        .having(func.count() > 1, func.count() > func.count(members.version_removed))
        .order_by(members.repository_id, func.max(members.version_added).desc(), members.name)
    )


def _last_of_many(is_wanted: ColumnElement[bool], problems_since: datetime) -> Select[Any]:
    """A row for each repository whose settled run is of a remote that a sync has confirmed.

    No runs before that sync are read, however many there are: of those the settled one alone may have listed later.
    """
    settled, confirmed = sync_runs.alias("settled"), sync_runs.alias("confirmed")
    run = sync_runs.c
    is_same = (run.repository_id == repositories.c.id) & run.remote_id.is_not_distinct_from(settled.c.remote_id)
    newest = select(run.id).where(is_same, _is_confirmed()).order_by(run.started_at.desc()).limit(1)
    is_used = _IS_SETTLED & _IS_USED & (run.started_at > confirmed.c.started_at)
    is_problem = run.digest_list.in_(_LASTING) & (run.started_at >= problems_since)
    around = (repositories, settled, confirmed)
    return (
        select(
            repositories.c.id.label("repository_id"),
            settled.c.remote_id,
            settled.c.listed_at.label("settled_listed_at"),
            confirmed.c.listed_at,
            confirmed.c.remote_spec,
            select(func.max(run.listed_at))
            .where(is_same, _IS_SETTLED, run.started_at >= confirmed.c.started_at)
            .correlate(*around)
            .scalar_subquery()
            .label("last_listed_at"),
            select(func.count()).where(is_same, is_used).correlate(*around).scalar_subquery().label("used_count"),
            select(run.id).where(is_same, is_problem).correlate(*around).exists().label("has_problem"),
        )
        .join(settled, settled.c.id == repositories.c.settled_run_id)
        .join(confirmed, confirmed.c.id == newest.correlate(repositories, settled).scalar_subquery())
        .where(is_wanted)
    )


@built_once
def _confirming(repository_id: str, remote_id: str | None) -> Select[Any]:
    return _newest_runs(_is_same(repository_id, remote_id) & _is_confirmed())


def _is_confirmed() -> ColumnElement[bool]:
    return _IS_SETTLED & or_(sync_runs.c.digest_list.is_(None), ~_IS_USED)


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
