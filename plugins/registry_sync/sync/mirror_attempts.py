"""One try of one mirror of a task of many: a look where its last sync left it in order, else a whole sync.

Each sync is one as any other, recorded under a scope of its own. What concerns every mirror alike, such as a lost
database, is raised; anything else is the result of this one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult, advice
from registry_sync.domain.quantities import format_duration, utc_now
from registry_sync.domain.runs import RunKey, RunState, RunUsage, SyncRun
from registry_sync.domain.settled_mirrors import SettledMirror, UnchangedSync
from registry_sync.errors import (
    ApprovalRequired,
    BlobStoreFull,
    BlobStoreUnavailable,
    DatabaseFull,
    DatabaseOutdated,
    DatabaseUnavailable,
    RateLimited,
    RecordNotFound,
    RegistrySyncError,
    RunEnded,
)
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.fetch_blobs import fetch_small_run
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import SelectedNames, list_tags
from registry_sync.sync.mirror_tasks import MirrorPlace, MirrorSync, MirrorTask
from registry_sync.sync.parallel import warn
from registry_sync.sync.shared_audits import RegistryAudit
from registry_sync.sync.unchanged_mirrors import Look, SettledMirrors

if TYPE_CHECKING:
    from datetime import timedelta

    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.oci.client import RegistryReader
    from registry_sync.sync.dry_run import Connect

log = logging.getLogger(__name__)
#: Errors that every other mirror meets too.
_MEET_EVERY_MIRROR = (BlobStoreFull, BlobStoreUnavailable, DatabaseFull, DatabaseOutdated, DatabaseUnavailable)


class MirrorEnded(NamedTuple):
    """How one try of a mirror ended; ``error`` None unless it is to be tried again or did not succeed.

    ``unchanged`` is a sync that found nothing to change and is yet to be recorded, with its result. ``relies_on`` says
    whether the registry's lists of digests are trusted, where it was found by one that other mirrors were sampled for.
    """

    result: MirrorResult
    error: Exception | None = None
    unchanged: UnchangedSync | None = None
    relies_on: RegistryAudit | None = None


class _QuietReport:
    """Reports the warnings of one mirror with its name; other lines only at level DEBUG, as there are thousands."""

    def __init__(self, repository: str, report: Callable[[str], None]) -> None:
        self._repository, self._report = repository, report

    def __call__(self, line: str) -> None:
        log.debug("%s: %s", self._repository, line)

    def warning(self, line: str) -> None:
        warn(self._report, f"{self._repository}: {line}")


@dataclass
class MirrorWork:
    """What all mirrors of a task share; :meth:`attempt` may run in several threads.

    ``results`` has the last result of each mirror, by repository.
    """

    database: Database
    store: BlobStore
    task: MirrorTask
    connect: Connect
    min_shard_bytes: int
    report: Callable[[str], None]
    hand_over: Callable[[SyncRun], str | None]
    confirm_after: timedelta
    on_start: Callable[[int], None]
    results: dict[str, MirrorResult]
    settled: SettledMirrors
    success_count: int = 0

    def has_succeeded(self, place: MirrorPlace) -> bool:
        """Whether an earlier try of the task leaves nothing to do for the mirror."""
        found = self.results.get(place.mirror.repository)
        return found is not None and found.outcome.is_success

    def attempt(self, place: MirrorPlace, *, is_last_try: bool) -> MirrorEnded:
        """One try of a mirror. Raises only what every other mirror would meet.

        Its result is recorded, unless the mirror is unchanged by a look: that is left to :meth:`record_unchanged`.
        """
        name, before = place.mirror.repository, self.results.get(place.mirror.repository)
        now = utc_now()
        blank = MirrorResult(
            dag_id=self.task.dag_id,
            run_id=self.task.run_id,
            task_id=self.task.task_id,
            repository=name,
            position=place.number,
            priority=place.mirror.priority,
            outcome=MirrorOutcome.FAILED,
            started_at=now,
            finished_at=now,
            try_count=1 if before is None else before.try_count + 1,
        )
        began = time.monotonic()
        self.on_start(place.mirror.priority)
        attempt = _Attempt(self, place.mirror, is_last_try, before)
        try:
            ended = attempt.run(blank)
        except _MEET_EVERY_MIRROR:
            raise
        except RegistrySyncError as error:
            ended = MirrorEnded(_failed(blank, error, attempt.run_of), error)
        except Exception as error:
            log.exception("the sync of %s ended with a defect", name)
            text = f"a defect of registry-sync, {type(error).__name__}: {error}; its log has the traceback, report it"
            ended = MirrorEnded(replace(blank, error=text, sync_run_id=attempt.run_id), error)
            attempt.record_failure(text)
        result = replace(
            ended.result,
            request_count=_request_count(attempt.usage),
            received_bytes=attempt.usage.received_bytes,
            seconds=time.monotonic() - began,
            finished_at=utc_now(),
        )
        if ended.unchanged is not None:
            return ended._replace(result=result, unchanged=replace(ended.unchanged, result=result))
        self.record(result)
        return ended._replace(result=result)

    def record(self, result: MirrorResult) -> None:
        """Records the result of a mirror."""
        self.database.mirror_results.record(result)
        self._keep(result)

    def record_unchanged(self, syncs: Sequence[UnchangedSync]) -> list[UnchangedSync]:
        """Records syncs that found nothing to change; returns those that are to be synced as any other.

        A mirror whose repository was deleted meanwhile has failed.
        """
        known = self.database.unchanged_syncs.record(syncs)
        for sync in syncs:
            if sync.run.id in known.recorded:
                self._keep(sync.result)
            elif sync.run.id in known.deleted:
                gone = RunEnded(
                    f"the repository {sync.run.repository_name!r} was deleted after this run had started, and the sync "
                    "ended with it; start a new run to sync into a repository of that name again"
                )
                blank = replace(sync.result, version_number=None)
                self.record(_failed(blank, gone, None))
        ended = known.recorded | known.deleted
        return [sync for sync in syncs if sync.run.id not in ended]

    def _keep(self, result: MirrorResult) -> None:
        self.results[result.repository] = result
        if result.outcome.is_success:
            self.success_count += 1
        if result.outcome is not MirrorOutcome.UNCHANGED:
            what = f"version {result.version_number}" if result.error is None else result.error
            line = f"{result.repository} {result.outcome.value.replace('_', ' ')}: {result.handed_over_to or what}"
            (self.report if result.outcome.is_success else partial(warn, self.report))(line)


@dataclass
class _Attempt:
    """One try of one mirror; ``usage`` and ``run_of`` are known as far as it came. ``before`` is its earlier result."""

    work: MirrorWork
    mirror: MirrorSync
    is_last_try: bool
    before: MirrorResult | None = None
    usage: RunUsage = field(default_factory=RunUsage)
    run_of: SyncRun | None = None

    @property
    def run_id(self) -> str | None:
        """The id of the sync, None where none started."""
        return None if self.run_of is None else self.run_of.id

    def run(self, blank: MirrorResult) -> MirrorEnded:
        """The sync, from its start to the version. Raises as its stages do; a failure is recorded with the run."""
        approved = self._approved()
        expected = None if approved is not None else self._expected()
        try:
            if expected is not None:
                with self.work.connect(expected[1].remote) as (client, remote):
                    return self._looked(client, remote, *expected, blank)
            run = self.run_of = approved or self.mirror.start(self.work.task.key(self.mirror.repository))
            blank = replace(blank, sync_run_id=run.id)
            if approved is not None:
                return MirrorEnded(self._committed(blank, run))
            with self.work.connect(run.remote) as (client, remote):
                return self._synced(client, remote, run, blank)
        except RegistrySyncError as error:
            if not isinstance(error, RunEnded):
                self.record_failure(f"{type(error).__name__}: {error}")
            raise

    def _expected(self) -> tuple[SettledMirror, SyncRun] | None:
        """What is known of the mirror, and the run that it would have; None where a look could not be enough."""
        known = None if self.before is not None else self.work.settled.take(self.mirror.repository)
        run = None if known is None else self.mirror.expect(known)
        return None if known is None or run is None else (known, run)

    def _looked(
        self, client: RegistryReader, remote: RemoteSpec, known: SettledMirror, expected: SyncRun, blank: MirrorResult
    ) -> MirrorEnded:
        """The sync of a mirror that is in order: nothing is recorded where a look finds it unchanged."""
        work = self.work
        problem: Exception | None = None
        report = _QuietReport(self.mirror.repository, work.report)
        lists = work.settled.lists_of(self.mirror.repository)
        look = Look(client, work.database, lists, known, expected, remote, report, work.confirm_after)
        try:
            if look.finds_unchanged():
                self.usage = client.usage.counts()
                number = known.repository.latest_number
                result = replace(blank, outcome=MirrorOutcome.UNCHANGED, version_number=number, sync_run_id=expected.id)
                run = replace(expected, usage=self.usage)
                started_at = work.task.started_at
                return MirrorEnded(
                    result,
                    unchanged=UnchangedSync(
                        run, known, look.listed_at, result, started_at, look.note, look.has_referrers_api
                    ),
                    relies_on=look.relies_on,
                )
        except _MEET_EVERY_MIRROR:
            raise
        except Exception as error:  # noqa: BLE001  raised below
            problem = error  # recorded with a run, as any other
        run = self.run_of = self.mirror.start(work.task.key(self.mirror.repository))
        names = look.pass_on_to(run)
        blank = replace(blank, sync_run_id=run.id)
        if run.remote != expected.remote:  # changed since it was read
            with work.connect(run.remote) as (other, changed):
                return self._synced(other, changed, run, blank)
        return self._synced(client, remote, run, blank, names=names, problem=problem)

    def _synced(
        self,
        client: RegistryReader,
        remote: RemoteSpec,
        run: SyncRun,
        blank: MirrorResult,
        *,
        names: SelectedNames | None = None,
        problem: Exception | None = None,
    ) -> MirrorEnded:
        """All stages of a run; its usage is recorded. ``names`` and ``problem`` are those of a look before it."""
        try:
            if problem is not None:
                raise problem
            return self._stages(client, remote, run, blank, names)
        finally:
            self.usage = client.usage.counts()
            self.work.database.runs.add_usage(run.id, self.usage)

    def _approved(self) -> SyncRun | None:
        """The sync of an earlier try whose removals were approved since: all that is left is to commit it."""
        if self.before is None or self.before.outcome is not MirrorOutcome.STOPPED or self.before.sync_run_id is None:
            return None
        with suppress(RecordNotFound, RunEnded):
            run = self.work.database.run_ends.resume(self.before.sync_run_id, self.work.task.started_at)
            return None if run.removals_approved_by is None else run
        return None

    def record_failure(self, text: str) -> None:
        """Ends the run as failed; a repeat continues it."""
        if self.run_of is not None:
            self.work.database.runs.finish(self.run_of.id, RunState.FAILED, error=text)

    def _stages(
        self,
        client: RegistryReader,
        remote: RemoteSpec,
        run: SyncRun,
        blank: MirrorResult,
        names: SelectedNames | None,
    ) -> MirrorEnded:
        work, report = self.work, _QuietReport(self.mirror.repository, self.work.report)
        # Two shards are what a stage's tasks would divide: such a mirror is worth tasks of its own.
        listed = list_tags(
            client,
            work.database,
            run,
            remote,
            max_shards=2,
            report=report,
            min_shard_bytes=work.min_shard_bytes,
            confirm_after=work.confirm_after,
            names=names,
        )
        if listed.is_unchanged:
            number = work.database.versions.latest_number(run.repository_id)
            return MirrorEnded(replace(blank, outcome=MirrorOutcome.UNCHANGED, version_number=number))
        if len(listed.shards) > 1 and (other := self._start_other_run(run)) is not None:
            return MirrorEnded(replace(blank, outcome=MirrorOutcome.HANDED_OVER, handed_over_to=other))
        last = self.is_last_try
        for shard in work.database.runs.pending_shards(run.id):
            fetch_manifests(client, work.database, run, remote, shard=shard, is_last_try=last, report=report)
        fetch = partial(
            fetch_small_run, client, work.store, work.database, run, remote, is_last_try=last, report=report
        )
        if fetch(min_shard_bytes=work.min_shard_bytes) is None:
            if (other := self._start_other_run(run)) is not None:
                return MirrorEnded(replace(blank, outcome=MirrorOutcome.HANDED_OVER, handed_over_to=other))
            fetch(min_shard_bytes=None)
        return MirrorEnded(self._committed(blank, run))

    def _committed(self, blank: MirrorResult, run: SyncRun) -> MirrorResult:
        """The result of a commit. A version without held tags is a change, one with some is held."""
        database = self.work.database
        report = _QuietReport(self.mirror.repository, self.work.report)
        committed = commit_version(database, run, report=report)
        holds, version = committed.holds, committed.version
        outcome = MirrorOutcome.CHANGED if version is not None else MirrorOutcome.UNCHANGED
        number = database.versions.latest_number(run.repository_id) if version is None else version.number
        error = None
        if holds:
            outcome, number = MirrorOutcome.HELD, None if version is None else version.number
            more = f" and {len(holds) - 1:,} more tags are held" if len(holds) > 1 else " is held"
            error = f"tag {holds[0].tag}{more}: {holds[0].reason}; the next sync tries again"
        return replace(blank, outcome=outcome, version_number=number, held_count=len(holds), error=error)

    def _start_other_run(self, run: SyncRun) -> str | None:
        """The run id of the DAG run that syncs the mirror from here on; this sync then ends. None when it goes on."""
        other = self.work.hand_over(run)
        if other is not None:
            self.work.database.runs.finish(
                run.id, RunState.CANCELED, error=f"it is too large for a task of many mirrors: DAG run {other} syncs it"
            )
        return other


def _failed(blank: MirrorResult, error: RegistrySyncError, run: SyncRun | None) -> MirrorResult:
    """The result of a mirror that did not succeed; its error says what to do."""
    outcome, text = MirrorOutcome.FAILED, f"{type(error).__name__}: {error}{advice(error)}"
    if isinstance(error, RateLimited):
        outcome = MirrorOutcome.THROTTLED
        wait = error.retry_after_seconds
        when = "later" if wait is None else f"in {format_duration(wait)}"
        text = f"{text}; it is tried again {when}, or by the next run"
    elif isinstance(error, ApprovalRequired) and run is not None:
        outcome = MirrorOutcome.STOPPED
        text = f"{text}: {approval_command(run.key)}"
    run_id = None if run is None else run.id
    return replace(blank, outcome=outcome, error=text, is_temporary=error.is_temporary, sync_run_id=run_id)


def approval_command(key: RunKey) -> str:
    """The command that approves the removals of a stopped sync, and clears its failed task so that it continues."""
    return f"airflow registry-sync run approve '{key.run_id}' --dag-id '{key.dag_id}' --task '{key.scope}'"


def _request_count(usage: RunUsage) -> int:
    requests = ("head_count", "manifest_get_count", "blob_get_count", "tag_page_count", "digest_page_count")
    return usage.retry_count + sum(int(getattr(usage, name)) for name in requests)
