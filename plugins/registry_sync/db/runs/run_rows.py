"""Rows of sync runs within a transaction: found, locked, read as values, ended, counted, and refused once ended.

The counts are its tags by state, its blobs by result, and its requests to the registry.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Delete,
    Row,
    Select,
    Table,
    Update,
    case,
    delete,
    func,
    literal,
    select,
    update,
)

from registry_sync.db.queries import built_once, insert_or_keep, storable
from registry_sync.db.remotes import confirm_remote
from registry_sync.db.runs.listings import forget_heads
from registry_sync.db.tables import (
    blobs,
    deleted_runs,
    repositories,
    run_blobs,
    run_heads,
    run_links,
    run_manifests,
    run_tags,
    sync_runs,
)
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import SyncMode
from registry_sync.domain.registry_pace import RegistryPace
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import (
    COUNTED_TAG_STATES,
    Authority,
    RunCounts,
    RunKey,
    RunState,
    RunUsage,
    SyncRun,
    TagState,
)
from registry_sync.errors import NothingToApprove, OtherUpstream, RecordNotFound, RemoteChanged, RunEnded


def read_counts(row: Row[Any]) -> RunCounts:
    """The counts that a run's row keeps."""
    return RunCounts(**{field.name: getattr(row, field.name) for field in fields(RunCounts)})


def read_usage(row: Row[Any]) -> RunUsage:
    """The usage that a run's row keeps."""
    return RunUsage(**{field.name: getattr(row, field.name) for field in fields(RunUsage)})


def count_run(connection: Connection, run_id: str) -> RunCounts:
    """The counts as they are now, in two queries."""
    return count_runs(connection, [run_id])[run_id]


def count_runs(connection: Connection, run_ids: Sequence[str]) -> dict[str, RunCounts]:
    """The counts of several runs as they are now, by run id, in two queries; at most one batch of runs."""
    by_state: dict[str, dict[str, int]] = {run_id: {} for run_id in run_ids}
    if not run_ids:
        return {}
    for row in connection.execute(*_tags_by_state(run_ids)):
        counted = by_state[row.sync_run_id]
        counted[row.state] = counted.get(row.state, 0) + row.tag_count
    planned = {row["sync_run_id"]: row for row in connection.execute(*_planned_blobs(run_ids)).mappings()}
    return {
        run_id: RunCounts(
            tag_count=sum(states.values()),
            **{f"{state.value}_tag_count": states.get(state.value, 0) for state in COUNTED_TAG_STATES},
            **{name: int(value) for name, value in planned.get(run_id, {}).items() if name != "sync_run_id"},
        )
        for run_id, states in by_state.items()
    }


@built_once
def _tags_by_state(run_ids: Sequence[str]) -> CompoundSelect[Any]:
    """Of the rows of the runs' tags, and of their unchanged tags without a row."""
    run, unchanged = sync_runs.c, literal(TagState.UNCHANGED.value)
    return (
        select(run_tags.c.sync_run_id, run_tags.c.state, func.count().label("tag_count"))
        .where(run_tags.c.sync_run_id.in_(run_ids), run_tags.c.state.in_([s.value for s in COUNTED_TAG_STATES]))
        .group_by(run_tags.c.sync_run_id, run_tags.c.state)
        .union_all(
            select(run.id, unchanged, run.base_tag_count).where(run.id.in_(run_ids), run.base_tag_count > 0),
        )
    )


@built_once
def _planned_blobs(run_ids: Sequence[str]) -> Select[Any]:
    is_stored, size_bytes = blobs.c.stored_at.is_not(None), run_blobs.c.size_bytes
    has_failed = blobs.c.stored_at.is_(None) & run_blobs.c.reason.is_not(None)
    return (
        select(
            run_blobs.c.sync_run_id,
            func.count().label("blob_count"),
            func.coalesce(func.sum(size_bytes), 0).label("blob_bytes"),
            func.coalesce(func.sum(case((is_stored, 1), else_=0)), 0).label("stored_blob_count"),
            func.coalesce(func.sum(case((is_stored, size_bytes), else_=0)), 0).label("stored_blob_bytes"),
            func.coalesce(func.sum(case((has_failed, 1), else_=0)), 0).label("failed_blob_count"),
        )
        .join(blobs, blobs.c.id == run_blobs.c.blob_id)
        .where(run_blobs.c.sync_run_id.in_(run_ids))
        .group_by(run_blobs.c.sync_run_id)
    )


_REASON_LENGTH = 2000
#: Of a run whose tags all have a row.
RECORDED_IN_FULL: Final[dict[str, int | None]] = {"base_number": None, "base_tag_count": 0}
_ENDED = (
    "the DAG run {!r} has ended while this task of it was still running; the task stops, and the sync does not change"
)


def settle(
    connection: Connection,
    run_id: str,
    state: RunState,
    listed: Mapping[str, Any] | None = None,
    *,
    error: str | None = None,
    version_number: int | None = None,
) -> None:
    """Ends a run within the caller's transaction: keeps its counts, and deletes its records unless it may resume.

    A caller that settles a run has locked its repository, and has made its version the latest. ``listed`` are columns
    of the listing that are written with it.
    """
    counts = vars(count_run(connection, run_id))
    values: dict[str, Any] = {
        "state": state.value,
        "finished_at": None if state is RunState.RUNNING else utc_now(),
        "error": None if error is None else storable(error, _REASON_LENGTH),
        "version_number": version_number,
    }
    if state.is_settled:
        values |= RECORDED_IN_FULL
    change_run(connection, run_id, {**(listed or {}), **values, **counts})
    if state.is_settled:
        confirm_remote(connection, run_id)
        forget_notes(connection, run_id)
        connection.execute(*_settled_by(run_id))


def change_run(connection: Connection, run_id: str, values: Mapping[str, Any]) -> None:
    """Sets columns of a run."""
    statement, of_run = _change(run_id)
    connection.execute(statement, {**values, **of_run})


@built_once
def _change(run_id: str) -> Update:
    return update(sync_runs).where(sync_runs.c.id == run_id)


@built_once
def _settled_by(run_id: str) -> Update:
    settled = {"settled_run_id": run_id, "settled_version": repositories.c.latest_number}
    of_run = select(sync_runs.c.repository_id).where(sync_runs.c.id == run_id).scalar_subquery()
    return update(repositories).where(repositories.c.id == of_run).values(**settled)


def require_run(connection: Connection, run_id: str) -> Row[Any]:
    """The row of a run. Raises :class:`RecordNotFound`, :class:`RunEnded` for a deleted repository."""
    row = connection.execute(*_run(run_id)).one_or_none()
    if row is None:
        raise no_run(connection, run_id)
    return row


@built_once
def _run(run_id: str) -> Select[Any]:
    return select(sync_runs).where(sync_runs.c.id == run_id)


@built_once
def _locked_run(run_id: str) -> Select[Any]:
    return select(sync_runs).where(sync_runs.c.id == run_id).with_for_update(key_share=True)


def lock_run(connection: Connection, run_id: str) -> Row[Any]:
    """The row of a run, locked until the transaction ends. Raises as :func:`require_run`."""
    row = connection.execute(*_locked_run(run_id)).first()
    if row is None:
        raise no_run(connection, run_id)
    return row


def refuse_other_try(row: Row[Any], listing_began: int | None) -> None:
    """Raises :class:`RunEnded` when another try has started to list since the caller read ``listing_began``."""
    if listing_began is not None and row.listing_began != listing_began:
        raise RunEnded(
            f"the sync of DAG run {row.run_id!r} was restarted while this task still listed tags; the task stops, and "
            "the sync does not change"
        )


def is_of_ended_attempt(row: Row[Any], dag_run_started_at: datetime | None) -> bool:
    """Whether a task whose DAG run started then belongs to the attempt that the row last recorded."""
    return dag_run_started_at is not None and row.dag_run_started_at == dag_run_started_at


def refuse_ended(row: Row[Any]) -> None:
    """Raises :class:`RunEnded` for a run whose DAG run has ended and was not started again."""
    if row.is_dag_run_over:
        raise RunEnded(_ENDED.format(row.run_id))


@built_once
def last_settled(repository_id: str) -> Select[Any]:
    """The row of the sync that last updated a repository or found it unchanged, if any."""
    return (
        select(sync_runs)
        .join(repositories, repositories.c.settled_run_id == sync_runs.c.id)
        .where(repositories.c.id == repository_id)
    )


def refuse_other_remote(connection: Connection, row: Row[Any]) -> None:
    """Raises :class:`OtherUpstream` for a run that may not replace content that another remote added since it started.

    A run that started with an empty repository is judged again when it ends, by the same rule
    (:func:`~registry_sync.domain.runs.is_fed_by`). The caller has locked the repository.
    """
    if row.may_replace_upstream is not False:
        return
    is_filled = select(repositories.c.latest_number).where(repositories.c.id == row.repository_id)
    if connection.execute(is_filled).scalar_one() is None:
        return
    latest = connection.execute(*last_settled(row.repository_id)).first()
    own = RemoteSpec.of_document(row.remote_spec).source
    source = None if latest is None else RemoteSpec.of_document(latest.remote_spec).source
    if latest is not None and latest.remote_id == row.remote_id and (row.remote_id is not None or source == own):
        return
    raise OtherUpstream(
        f"the content of the repository came from {source or 'no sync'} after this sync of {own} had started, and "
        "stays. Replacing it with another upstream takes the right to change repositories, and a new sync"
    )


def no_run(connection: Connection, run_id: str) -> RecordNotFound:
    """The error for a missing run. Raises :class:`RunEnded` when its repository was deleted."""
    refuse_deleted(connection, deleted_runs.c.sync_run_id == run_id)
    return RecordNotFound(f"there is no sync run {run_id[:255]!r}")


def refuse_deleted(connection: Connection, condition: ColumnElement[bool]) -> None:
    """Raises :class:`RunEnded` when a run that matches ``condition`` belonged to a deleted repository."""
    found = connection.execute(select(deleted_runs.c.repository_name).where(condition).limit(1))
    _refuse_deleted(found.scalar_one_or_none())


def refuse_deleted_key(connection: Connection, key: RunKey) -> None:
    """As :func:`refuse_deleted`, for the runs of exactly that key."""
    found = connection.execute(*_deleted_of(key.dag_id, key.run_id, key.scope))
    _refuse_deleted(found.scalar_one_or_none())


@built_once
def _deleted_of(dag_id: str, run_id: str, scope: str) -> Select[Any]:
    is_wanted = has_key(RunKey(dag_id, run_id, scope), deleted_runs)
    return select(deleted_runs.c.repository_name).where(is_wanted).limit(1)


def _refuse_deleted(name: str | None) -> None:
    if name is not None:
        raise RunEnded(
            f"the repository {name!r} was deleted after this run had started, and the sync ended with it; start a new "
            "run to sync into a repository of that name again"
        )


def read_run(row: Row[Any]) -> SyncRun:
    """A row of ``sync_runs`` as a value."""
    return SyncRun(
        id=row.id,
        key=RunKey(row.dag_id, row.run_id, row.scope),
        attempt=row.attempt,
        repository_id=row.repository_id,
        remote_id=row.remote_id,
        mode=SyncMode(row.mode),
        state=RunState(row.state),
        started_at=row.started_at,
        listed_at=row.listed_at,
        finished_at=row.finished_at,
        version_number=row.version_number,
        error=row.error,
        remote=RemoteSpec.of_document(row.remote_spec),
        authority=Authority(row.authority or Authority.TRIGGER),
        remote_changes=row.remote_changes,
        usage=read_usage(row),
        counts=read_counts(row),
        repository_name=row.repository_name,
        triggered_by=row.triggered_by,
        removals_approved_by=row.removals_approved_by,
        removals_approved_at=row.removals_approved_at,
        refused_removals=row.refused_removals,
        listing_began=row.listing_began,
        challenge=challenge_of(row),
        pace=pace_of(row),
    )


def learned_value(challenge: Mapping[str, Any] | None, pace: RegistryPace | None) -> dict[str, Any] | None:
    """What the column of the challenge holds: that alone, or with a pace.

    Releases that know no pace read the second form as no challenge at all.
    """
    if pace is None:
        return None if challenge is None else dict(challenge)
    return {"challenge": challenge, "pace": pace.document()}


def challenge_of(row: Row[Any]) -> Mapping[str, Any] | None:
    """What the registry taught a task of the run about authentication."""
    learned = row.challenge
    found: Mapping[str, Any] | None = learned["challenge"] if learned and "pace" in learned else learned
    return found


def pace_of(row: Row[Any]) -> RegistryPace | None:
    """How many requests at once the registry has served."""
    return RegistryPace.of_document(row.challenge["pace"]) if row.challenge and "pace" in row.challenge else None


@built_once
def _last_started(repository_id: str) -> Select[Any]:
    columns = (sync_runs.c.challenge, sync_runs.c.head_count, sync_runs.c.remote_spec)
    of_repository = select(*columns).where(sync_runs.c.repository_id == repository_id)
    return of_repository.order_by(sync_runs.c.started_at.desc()).limit(1)


def left_by_last(connection: Connection, repository_id: str, remote: RemoteSpec) -> dict[str, Any] | None:
    """What the sync that started last, however it ended, leaves to the next of the same remote; None for nothing.

    A challenge is left with a pace alone: far away, a request that is refused costs as much as one that is served. One
    that asks for the password itself is not, so that this is sent to a registry only while it asks for it.
    """
    row = connection.execute(*_last_started(repository_id)).first()
    pace = None if row is None else pace_of(row)
    if row is None or pace is None or not is_same_place(RemoteSpec.of_document(row.remote_spec), remote):
        return None
    following = pace.next_for(row.head_count, utc_now())
    challenge = challenge_of(row)
    if challenge and challenge.get("scheme") == "basic":
        challenge = None
    return None if following is None else learned_value(challenge, following)


def is_same_place(one: RemoteSpec, other: RemoteSpec) -> bool:
    """Whether two remotes read from the same repository of a registry, with the same credentials."""
    return (one.source, one.url, one.conn_id) == (other.source, other.url, other.conn_id)


_RECORDS = (run_blobs, run_links, run_manifests, run_tags)


def forget_notes(connection: Connection, run_id: str, *, keeps_heads: bool = False) -> None:
    """Deletes the records of a run; the digests from its listing's HEADs stay when it ``keeps_heads``."""
    held = connection.execute(*_has_records(run_id)).one()
    if held.heads and not keeps_heads:
        forget_heads(connection, run_id)
    for table in _RECORDS:
        if held._mapping[table.name]:  # noqa: SLF001  SQLAlchemy's public name for a row as a map
            connection.execute(*records_deleted(run_id, table=table))


@built_once
def _has_records(run_id: str) -> Select[Any]:
    """Which records a run has, in one query: a sync that finds nothing changed has none."""
    tables = {"heads": run_heads, **{table.name: table for table in _RECORDS}}
    of_run = {name: select(table.c.sync_run_id).where(table.c.sync_run_id == run_id) for name, table in tables.items()}
    columns: list[ColumnElement[Any]] = [found.exists().label(name) for name, found in of_run.items()]
    return select(*columns)


@built_once
def records_deleted(run_id: str, *, table: Table) -> Delete:
    """The deletion of what ``table`` has of a run."""
    return delete(table).where(table.c.sync_run_id == run_id)


def refuse_changes(row: Row[Any], requested: Mapping[str, str]) -> None:
    """Raises :class:`RemoteChanged` when the run in ``row`` started with other parameters than ``requested``."""
    began = {
        "repository_id": row.repository_id,
        "remote_id": row.remote_id,
        "mode": row.mode,
        "policy": row.remote_spec["policy"],
    }
    changed = [name.removesuffix("_id") for name, value in requested.items() if began[name] != value]
    if changed:
        raise RemoteChanged(
            f"DAG run {row.run_id!r} of {row.dag_id!r} started with another {' and '.join(changed)}; start a new DAG "
            "run to sync with the new parameters"
        )


def last_attempt(key: RunKey, *, is_locked: bool = False) -> tuple[Select[Any], dict[str, Any]]:
    """The row of the newest run of that key, if any, with its parameters."""
    return _last_attempt(key.dag_id, key.run_id, key.scope, is_locked=is_locked)


@built_once
def _last_attempt(dag_id: str, run_id: str, scope: str, *, is_locked: bool) -> Select[Any]:
    is_wanted = has_key(RunKey(dag_id, run_id, scope), sync_runs)
    found = select(sync_runs).where(is_wanted).order_by(sync_runs.c.attempt.desc()).limit(1)
    return found.with_for_update(key_share=True) if is_locked else found


def lock_attempt(connection: Connection, key: RunKey, values: Mapping[str, Any]) -> tuple[Row[Any], bool]:
    """The locked row of the unsettled run of that key, and whether it was just made of ``values``, for lack of one."""
    wanted, made = last_attempt(key, is_locked=True), None
    row = connection.execute(*wanted).one_or_none()
    while row is None or RunState(row.state).is_settled:
        made = str(uuid.uuid4())
        identity = {"id": made, **vars(key), "attempt": 1 if row is None else row.attempt + 1}
        connection.execute(insert_or_keep(connection, sync_runs), {**identity, **values})
        row = connection.execute(*wanted).one()
    return row, row.id == made


def has_key(key: RunKey, table: Table) -> ColumnElement[bool]:
    """The condition that a row of ``table`` has that key."""
    return (table.c.dag_id == key.dag_id) & (table.c.run_id == key.run_id) & (table.c.scope == key.scope)


def require_open(connection: Connection, run_id: str, *, also_ended: bool = False) -> Row[Any]:
    """The locked row of a run that has not settled: two attempts of one task replace records one after the other.

    Its DAG run must not have ended either, unless ``also_ended``.
    """
    row = lock_run(connection, run_id)
    if RunState(row.state).is_settled:
        raise RunEnded(
            f"the sync of DAG run {row.run_id!r} of {row.dag_id!r} has ended {row.state}; start a new one to sync again"
        )
    if not also_ended:
        refuse_ended(row)
    return row


def refuse_needless_approval(run: Row[Any], seen: str | None) -> None:
    """Raises :class:`NothingToApprove` for a run that was not refused, or since ``seen`` for other removals."""
    if run.refused_removals is None:
        raise NothingToApprove(
            f"the DAG run {run.run_id!r} was not stopped for the tags that it removes, so there is nothing to approve: "
            "let it run, and if it fails with TooManyRemovals or TooFewTags, review the tags and approve them then"
        )
    if seen not in (None, run.refused_removals):
        raise NothingToApprove(
            f"the DAG run {run.run_id!r} was stopped again since, for other tags; review the removals and approve them "
            "again"
        )
