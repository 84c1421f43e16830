"""Sync runs: the parameters of a run, the tags it listed, the blobs it planned, and how it ended.

Tags and blobs of a run are its working records. They are deleted when it settles in a version or unchanged; the counts
stay. The content that a run needs is queried in ``required_blobs``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, Select, Update, bindparam, case, select, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import built_once, fetch_page, in_batches, storable
from registry_sync.db.runs import required_blobs, run_rows
from registry_sync.db.runs.listings import last_number, latest_number_of, list_again, take_number
from registry_sync.db.runs.required_blobs import TakenBlobs
from registry_sync.db.runs.run_rows import (
    RECORDED_IN_FULL,
    forget_notes,
    is_of_ended_attempt,
    is_same_place,
    last_attempt,
    last_settled,
    learned_value,
    left_by_last,
    lock_attempt,
    lock_run,
    pace_of,
    read_run,
    refuse_changes,
    refuse_deleted_key,
    refuse_ended,
    refuse_needless_approval,
    refuse_other_remote,
    refuse_other_try,
    require_open,
    require_run,
    settle,
)
from registry_sync.db.runs.unchanged_tags import first_without_row, insert_tags
from registry_sync.db.tables import (
    blobs,
    remotes,
    run_blobs,
    run_tags,
    sync_runs,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import Page, PageRequest, SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.registry_pace import RegistryPace
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import (
    UNKNOWN_TRIGGER,
    Authority,
    LatestTags,
    ListedTag,
    RequiredBlob,
    RunCounts,
    RunKey,
    RunState,
    RunTrigger,
    RunUsage,
    SyncRun,
    TagState,
)
from registry_sync.errors import RecordNotFound

if TYPE_CHECKING:
    from registry_sync.domain.packed_blobs import PackedBlobs

_ORDERINGS = {"started_at": sync_runs.c.started_at, "finished_at": sync_runs.c.finished_at}
_NEWEST_FIRST = PageRequest(ordering="-started_at")
_REASON_LENGTH = 2000
#: The most digests that are offered for requests that test access after another request was refused.
MAX_LISTED_DIGESTS = 5
_GOING_ON = {"state": RunState.RUNNING.value, "finished_at": None, "version_number": None, "error": None}


@built_once
def _remote_id(remote_id: str) -> Select[Any]:
    return select(remotes.c.id).where(remotes.c.id == remote_id)


_USAGE_NAMES = tuple(field.name for field in fields(RunUsage))


@built_once
def _added_usage(run_id: str, *, names: tuple[str, ...]) -> Update:
    """Adds to the counters of ``names``, by parameters named ``<name>_added``."""
    added = {name: sync_runs.c[name] + bindparam(f"{name}_added") for name in names}
    return update(sync_runs).where(sync_runs.c.id == run_id).values(**added)


@built_once
def _pending_shards(run_id: str) -> Select[Any]:
    is_pending = (run_tags.c.sync_run_id == run_id, run_tags.c.state == TagState.PENDING.value)
    return select(run_tags.c.shard).where(*is_pending).distinct().order_by(run_tags.c.shard)


@built_once
def _pending_tags(run_id: str, shard: int) -> Select[Any]:
    in_shard = (run_tags.c.sync_run_id == run_id, run_tags.c.shard == shard)
    is_pending = run_tags.c.state == TagState.PENDING.value
    return select(run_tags.c.name, run_tags.c.digest).where(*in_shard, is_pending).order_by(run_tags.c.name)


@built_once
def _moved_tag(run_id: str, *, state: TagState, given: tuple[str, ...]) -> Update:
    """Sets the state of the tag that is given as ``tag``, and its digest or reason as far as they are ``given``."""
    values: dict[str, Any] = {"state": state.value, "reason": None}
    values |= {name.removeprefix("new_"): bindparam(name) for name in given}
    is_wanted = (run_tags.c.sync_run_id == run_id) & (run_tags.c.name == bindparam("tag"))
    if state is TagState.RESOLVED:
        is_wanted &= run_tags.c.state != TagState.HELD.value
    return update(run_tags).where(is_wanted).values(**values)


class SyncRunStore:
    """Each method is a short transaction of its own and may be repeated."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def begin(
        self,
        key: RunKey,
        *,
        repository_id: str,
        remote_id: str,
        remote: RemoteSpec,
        mode: SyncMode,
        authority: Authority = Authority.TRIGGER,
        may_replace_upstream: bool = True,
        remote_changes: str | None = None,
        by: RunTrigger = UNKNOWN_TRIGGER,
    ) -> SyncRun:
        """The run of that key, started or restarted: records of an earlier attempt are deleted, its versions stay.

        A settled run is history and does not change; a new run is started instead. ``remote`` is kept with the run, so
        that later changes of the remote do not affect it. Call it before the tags are listed: whatever is recorded for
        the repository from now on may be newer than the listing. ``may_replace_upstream`` says whether the run may
        continue when another remote has filled the repository meanwhile. ``remote_changes`` None keeps the record of an
        earlier attempt, which changed the remote. The start time is that of the first try, and a new one for a
        restarted DAG run.

        Raises :class:`RemoteChanged` when the run started for another repository, remote, mode or policy,
        :class:`RecordNotFound` for an unknown repository or remote, :class:`RunEnded` when its DAG run has ended or its
        repository was deleted.
        """
        identity = {"repository_id": repository_id, "remote_id": remote_id, "mode": mode.value}
        started: dict[str, Any] = {
            "remote_spec": remote.document(),
            "started_at": utc_now(),
            "removals_approved_by": None,
            "removals_approved_at": None,
            "refused_removals": None,
            "authority": authority.value,
            "may_replace_upstream": may_replace_upstream,
            "triggered_by": None if by.triggered_by is None else storable(by.triggered_by, _REASON_LENGTH),
            "dag_run_started_at": by.dag_run_started_at,
            "is_dag_run_over": False,
            "referrers_problem": None,
            **RECORDED_IN_FULL,
            **_GOING_ON,
        }
        if remote_changes is not None:
            started["remote_changes"] = storable(remote_changes, _REASON_LENGTH)
        with self._transactions.writing() as connection:
            left = left_by_last(connection, repository_id, remote)
            started |= {"challenge": left, "listing_began": last_number(connection, repository_id)}
            if connection.execute(*_remote_id(remote_id)).first() is None:
                raise RecordNotFound(f"there is no remote {remote_id!r}")
            refuse_deleted_key(connection, key)
            row, is_new = lock_attempt(connection, key, {**identity, **started, "repository_name": by.repository_name})
            if is_new:
                return read_run(row)
            refuse_changes(row, {**identity, "policy": remote.policy.value})
            if is_of_ended_attempt(row, by.dag_run_started_at):
                refuse_ended(row)
            if row.dag_run_started_at == by.dag_run_started_at:
                started["started_at"] = row.started_at
            if RemoteSpec.of_document(row.remote_spec).source != remote.source:
                started |= {"has_referrers_api": None, "digest_list": None, "digest_list_problem": None}
            if (before := pace_of(row)) is not None and not before.at_once:  # refused in an earlier try
                started["challenge"] = learned_value(None, before)
            forget_notes(connection, row.id, keeps_heads=_keeps_heads(row, remote))
            connection.execute(update(sync_runs).where(sync_runs.c.id == row.id).values(**started))
            return read_run(require_run(connection, row.id))

    def get(self, run_id: str) -> SyncRun:
        """The run by its own id. Raises :class:`RecordNotFound`, also when its repository was deleted."""
        with self._transactions.reading() as connection:
            row = connection.execute(select(sync_runs).where(sync_runs.c.id == run_id)).one_or_none()
        if row is None:
            raise RecordNotFound(f"there is no sync run {run_id[:255]!r}")
        return read_run(row)

    def by_key(self, key: RunKey) -> SyncRun:
        """The run of that key, the last attempt if there are several.

        For a DAG run with one sync it is that one, also where the key or the run has no scope. Raises
        :class:`RecordNotFound`, which lists the scopes if there are several, :class:`RunEnded` when its repository was
        deleted.
        """
        last = {run.key.scope: run for run in self.of_dag_run(key)}
        found = last.get(key.scope)
        if found is None and len(last) == 1 and not (key.scope and "" not in last):
            found = next(iter(last.values()))
        if found is not None:
            return found
        which = f" and the task {key.scope!r}" if key.scope else ""
        names = ", ".join(sorted(name or "an unnamed task" for name in last))
        known = f"; its syncs were started by {names}" if last else ""
        raise RecordNotFound(f"there is no sync of DAG run {key.run_id!r} of {key.dag_id!r}{which}{known}")

    def of_dag_run(self, key: RunKey) -> tuple[SyncRun, ...]:
        """The syncs of the DAG run of ``key``, by scope, the last attempt of each; none before one has started.

        Raises :class:`RunEnded` when there is none because the repository of that key was deleted.
        """
        is_wanted = (sync_runs.c.dag_id == key.dag_id) & (sync_runs.c.run_id == key.run_id)
        with self._transactions.reading() as connection:
            rows = connection.execute(select(sync_runs).where(is_wanted).order_by(sync_runs.c.attempt)).all()
            if not rows:
                refuse_deleted_key(connection, key)
        last = {row.scope: row for row in rows}
        return tuple(read_run(last[scope]) for scope in sorted(last))

    def find(self, key: RunKey) -> SyncRun | None:
        """The last attempt of exactly that key, or None. Raises :class:`RunEnded` as :meth:`by_key`."""
        with self._transactions.reading() as connection:
            row = connection.execute(*last_attempt(key)).one_or_none()
            if row is None:
                refuse_deleted_key(connection, key)
                return None
        return read_run(row)

    def latest_settled(self, repository_id: str) -> SyncRun | None:
        """The sync that last updated the repository or found it unchanged; None when there was none yet."""
        with self._transactions.reading() as connection:
            row = connection.execute(*last_settled(repository_id)).first()
        return None if row is None else read_run(row)

    def page(
        self,
        request: PageRequest = _NEWEST_FIRST,
        *,
        repository_id: str | None = None,
        remote_id: str | None = None,
        states: Sequence[RunState] | None = None,
    ) -> Page[SyncRun]:
        """Runs, the newest first by default; ordered by ``started_at`` or ``finished_at``."""
        statement = select(sync_runs)
        if repository_id is not None:
            statement = statement.where(sync_runs.c.repository_id == repository_id)
        if remote_id is not None:
            statement = statement.where(sync_runs.c.remote_id == remote_id)
        if states is not None:
            statement = statement.where(sync_runs.c.state.in_([state.value for state in states]))
        with self._transactions.reading() as connection:
            rows, total = fetch_page(connection, statement, request, _ORDERINGS, sync_runs.c.id)
        return Page(tuple(map(read_run, rows)), total)

    def record_listing(
        self,
        run_id: str,
        listed_at: datetime,
        tags: Collection[ListedTag],
        *,
        base: LatestTags | None = None,
        listing_began: int | None = None,
    ) -> None:
        """Records the listed tags, replacing those of an earlier attempt; a failed run continues with them.

        ``base`` is the version that they were compared with, of all its tags: as long as it is the latest, only the
        difference to it is recorded (:mod:`~registry_sync.db.runs.unchanged_tags`). None records each tag.

        Call it when the listing has ended: it assigns the repository's next number, as described in
        :mod:`registry_sync.db.runs.listings`. ``listing_began`` is that of the run before it listed. Raises
        :class:`RunEnded` once the run has settled, and when another try has started to list since.
        """
        with self._transactions.writing() as connection:
            # The repository is locked first, in the order of a commit.
            repository_id = require_run(connection, run_id).repository_id
            number = take_number(connection, repository_id)
            refuse_other_try(require_open(connection, run_id), listing_began)
            forget_notes(connection, run_id)
            latest = connection.execute(*latest_number_of(repository_id)).scalar_one()
            base = base if base is not None and base.number == latest else None
            listed = {"listed_at": listed_at, "listing_number": number, **insert_tags(connection, run_id, tags, base)}
            run_rows.change_run(connection, run_id, {**listed, **_GOING_ON})

    def settle_unchanged(
        self, run_id: str, listed_at: datetime, *, latest_number: int | None, listing_began: int | None = None
    ) -> bool:
        """Ends a run whose listing equals version ``latest_number``, the latest it knows of (None for none).

        False when another version is the latest by now: list again then; the new listing counts as started after the
        one until now, but not after a rollback. A settled run does not change. ``listing_began`` as in
        :meth:`record_listing`. Raises :class:`RunEnded` when its DAG run has ended or another try has started to list,
        :class:`OtherUpstream` as a commit does.
        """
        with self._transactions.writing() as connection:
            repository_id = require_run(connection, run_id).repository_id
            number = take_number(connection, repository_id)
            row = lock_run(connection, run_id)
            is_open = not RunState(row.state).is_settled
            if is_open:
                refuse_ended(row)
                refuse_other_try(row, listing_began)
            if connection.execute(*latest_number_of(repository_id)).scalar_one() != latest_number:
                if is_open:
                    list_again(connection, run_id, number)
                return False
            if is_open:
                refuse_other_remote(connection, row)
                settle(connection, run_id, RunState.UNCHANGED, {"listed_at": listed_at, "listing_number": number})
            return True

    def pending_shards(self, run_id: str) -> list[int]:
        """The numbers of the shards with tags that are yet to be fetched, in order."""
        with self._transactions.reading() as connection:
            return list(connection.execute(*_pending_shards(run_id)).scalars())

    def tags_of_shard(self, run_id: str, shard: int) -> list[ListedTag]:
        """The tags that a mapped task has yet to fetch, by name."""
        with self._transactions.reading() as connection:
            rows = connection.execute(*_pending_tags(run_id, shard)).all()
        return [ListedTag(TagName(row.name), Digest(row.digest) if row.digest else None, shard) for row in rows]

    def listed_digests(self, run_id: str) -> list[Digest]:
        """Some digests of the run's listed tags, those of unchanged tags first."""
        statement = (
            select(run_tags.c.digest)
            .where(run_tags.c.sync_run_id == run_id, run_tags.c.digest.is_not(None))
            .order_by(case((run_tags.c.state == TagState.UNCHANGED.value, 0), else_=1), run_tags.c.name)
            .limit(MAX_LISTED_DIGESTS)
        )
        with self._transactions.reading() as connection:
            without_row = connection.execute(first_without_row(run_id, MAX_LISTED_DIGESTS)).scalars().all()
            found = dict.fromkeys([*without_row, *connection.execute(statement).scalars()])
        return [Digest(digest) for digest in found][:MAX_LISTED_DIGESTS]

    def resolve_tags(self, run_id: str, digests: Mapping[TagName, Digest]) -> None:
        """Records the digests at which tags were fetched; their manifests must be stored before the commit.

        A held tag stays held: content fetched for it may have been collected meanwhile.
        """
        self._move_tags(
            run_id, TagState.RESOLVED, [{"tag": name, "new_digest": digest} for name, digest in digests.items()]
        )

    def hold_tags(self, run_id: str, reasons: Mapping[TagName, str]) -> None:
        """Records tags that this run cannot update, with the reasons."""
        self._move_tags(
            run_id,
            TagState.HELD,
            [{"tag": name, "new_reason": storable(reason, _REASON_LENGTH)} for name, reason in reasons.items()],
        )

    def drop_tags(self, run_id: str, names: Iterable[TagName]) -> None:
        """Records tags that were listed and have disappeared upstream since."""
        self._move_tags(run_id, TagState.GONE, [{"tag": name} for name in names])

    def filter_tags(self, run_id: str, digests: Mapping[TagName, Digest]) -> None:
        """Records tags of an index without any wanted platform, with the digest of the index."""
        self._move_tags(
            run_id, TagState.FILTERED, [{"tag": name, "new_digest": digest} for name, digest in digests.items()]
        )

    def _move_tags(self, run_id: str, state: TagState, changes: list[dict[str, Any]]) -> None:
        if not changes:
            return
        given = tuple(name for name in ("new_digest", "new_reason") if name in changes[0])
        statement, of_run = _moved_tag(run_id, state=state, given=given)
        with self._transactions.writing() as connection:
            for batch in in_batches(sorted(changes, key=lambda change: str(change["tag"]))):
                connection.execute(statement, [{**change, **of_run} for change in batch])

    def required_blobs(self, run_id: str) -> PackedBlobs:
        """All blobs below changed tags, and those below unchanged tags that are not stored.

        Each digest once, by digest; foreign ones are included and flagged.
        """
        with self._transactions.reading() as connection:
            return required_blobs.required_blobs(connection, require_run(connection, run_id))

    def record_plan(self, run_id: str, planned: Iterable[tuple[int, RequiredBlob]]) -> None:
        """Records which mapped task, by its shard, fetches which of the needed blobs, replacing an earlier plan.

        ``planned`` is by digest, lest runs that share blobs deadlock. Raises :class:`RunEnded`,
        :class:`RecordNotFound` for a blob that is not recorded, and :class:`LimitExceeded` for more bytes than the
        remote allows; then the earlier plan stays.
        """
        with self._transactions.writing() as connection:
            run = require_open(connection, run_id)
            connection.execute(*run_rows.records_deleted(run_id, table=run_blobs))
            required_blobs.add_plan(connection, run, planned)

    def give_back_blobs(self, run_id: str, shard: int) -> bool:
        """What a mapped task has started and not finished is started no longer; whether there was any."""
        with self._transactions.writing() as connection:
            return required_blobs.give_back(connection, run_id, shard)

    def take_blobs(self, run_id: str, shard: int, *, may_take_over: bool) -> TakenBlobs | None:
        """The next blobs that a mapped task is to fetch, which are started from now on; None when there are none.

        They are about half of what is left of the task's own shard, and when nothing is, and it ``may_take_over``, of
        the shard with the most work left. A task that is alone takes all at once. None is given to two tasks.
        """
        with self._transactions.writing() as connection:
            return required_blobs.take(connection, run_id, shard, may_take_over=may_take_over)

    def fail_blobs(self, run_id: str, reasons: Mapping[Digest, str]) -> None:
        """Records blobs that this run cannot fetch, and why; the commit holds the tags that reference them."""
        if not reasons:
            return
        blob_id = select(blobs.c.id).where(blobs.c.digest == bindparam("blob")).scalar_subquery()
        statement = (
            update(run_blobs)
            .where(run_blobs.c.sync_run_id == run_id, run_blobs.c.blob_id == blob_id)
            .values(reason=bindparam("new_reason"))
        )
        with self._transactions.writing() as connection:
            changes = [
                {"blob": digest, "new_reason": storable(reason, _REASON_LENGTH)}
                for digest, reason in sorted(reasons.items())
            ]
            for batch in in_batches(changes):
                connection.execute(statement, batch)

    def record_learned(
        self, run_id: str, challenge: Mapping[str, Any] | None, pace: RegistryPace | None = None
    ) -> None:
        """Records what the registry taught, for the tasks that follow, and of its pace for the next sync as well."""
        with self._transactions.writing() as connection:
            run_rows.change_run(connection, run_id, {"challenge": learned_value(challenge, pace)})

    def add_usage(self, run_id: str, usage: RunUsage) -> None:
        """Adds to the run's counters; each task adds its own usage."""
        if not any(vars(usage).values()):
            return
        with self._transactions.writing() as connection:
            statement, of_run = _added_usage(run_id, names=_USAGE_NAMES)
            added = {f"{name}_added": getattr(usage, name) for name in _USAGE_NAMES}
            connection.execute(statement, {**of_run, **added})

    def approve_removals(
        self, run_id: str, approved_by: str, *, seen: str | None = None, in_advance: bool = False
    ) -> None:
        """Approves the removals that were last refused, until the run restarts; ``in_advance``, any removals.

        ``seen`` is the fingerprint (:attr:`SyncRun.refused_removals`) if the approval is for these removals alone.
        Raises :class:`NothingToApprove` when nothing was refused, or other removals since, :class:`RunEnded` once it
        has settled.
        """
        values: dict[str, Any] = {
            "removals_approved_by": storable(approved_by, _REASON_LENGTH),
            "removals_approved_at": utc_now(),
        }
        with self._transactions.writing() as connection:
            run = require_open(connection, run_id, also_ended=True)
            if in_advance:
                values["refused_removals"] = None
            else:
                refuse_needless_approval(run, seen)
            connection.execute(update(sync_runs).where(sync_runs.c.id == run_id).values(**values))

    def report_waiting(self, run_id: str, reason: str) -> None:
        """Records as the run's error why it waits for a person; the run stays in its state, and keeps its records."""
        is_open = (sync_runs.c.id == run_id) & sync_runs.c.state.not_in([s.value for s in RunState if s.is_settled])
        with self._transactions.writing() as connection:
            connection.execute(update(sync_runs).where(is_open).values(error=storable(reason, _REASON_LENGTH)))

    def finish(self, run_id: str, state: RunState, *, error: str | None = None) -> None:
        """Ends the run in ``state``; a run that has settled already, or ended with its DAG run, does not change.

        A failed or canceled run keeps its records, so that a repeat of its tasks continues.
        """
        with self._transactions.writing() as connection:
            row = lock_run(connection, run_id)
            if not RunState(row.state).is_settled and not row.is_dag_run_over:
                settle(connection, run_id, state, error=error)

    def progress(self, run_id: str) -> RunCounts:
        """The progress of the run, counted now; for a settled run, the counts it ended with."""
        with self._transactions.reading() as connection:
            row = require_run(connection, run_id)
            return (
                run_rows.read_counts(row) if RunState(row.state).is_settled else run_rows.count_run(connection, run_id)
            )


def _keeps_heads(row: Row[Any], remote: RemoteSpec) -> bool:
    """Whether responses to an earlier try are valid for ``remote``: from the same place, with the same credentials."""
    return bool(row.state == RunState.RUNNING.value) and is_same_place(RemoteSpec.of_document(row.remote_spec), remote)
