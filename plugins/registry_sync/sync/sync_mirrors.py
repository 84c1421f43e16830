"""Many small mirrors in one process: a bounded number at once, each with a result of its own, whatever the others do.

The most important mirrors are started first, then those declared first. Each is a sync as any other, recorded under a
scope of its own; its result is written as soon as it ends, so that a process that dies loses only what was running, and
a repeat leaves out what has succeeded. A temporary failure is tried again after all others had their turn, so that a
registry that limits one mirror delays it and nobody else. What concerns every mirror alike, such as a lost database,
stops the whole; anything else is the result of one.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult, advice, counts_text
from registry_sync.domain.quantities import format_count, format_duration, utc_now
from registry_sync.domain.runs import RunKey, RunState, RunUsage, SyncRun
from registry_sync.errors import (
    BlobStoreFull,
    BlobStoreUnavailable,
    ConfigurationError,
    DatabaseFull,
    DatabaseOutdated,
    DatabaseUnavailable,
    RateLimited,
    RecordNotFound,
    RegistryError,
    RegistrySyncError,
    RunEnded,
    TooManyRemovals,
)
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.fetch_blobs import fetch_small_run
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import list_tags
from registry_sync.sync.parallel import Progress, for_each, warn

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.domain.remote import RemoteSpec
    from registry_sync.oci.client import RegistryReader
    from registry_sync.sync.dry_run import Connect

log = logging.getLogger(__name__)
#: How often a mirror is tried in one task, and the pause before it is tried again unless the registry asks for another.
ROUNDS = 3
FIRST_PAUSE_SECONDS = 5.0
#: The longest that a task waits for mirrors to be tried again; for more it ends, and holds no slot.
LONGEST_PAUSE_SECONDS = 60.0
#: Errors that every other mirror meets too.
_MEET_EVERY_MIRROR = (BlobStoreFull, BlobStoreUnavailable, DatabaseFull, DatabaseOutdated, DatabaseUnavailable)
_LONGEST_SCOPE = 250


@dataclass(frozen=True)
class MirrorSync:
    """One mirror to sync: its repository, and ``start``, which validates it and opens the run of a key.

    A larger ``priority`` is more important. ``start`` is called in a thread of its own, and raises as a sync does.
    """

    repository: str
    start: Callable[[RunKey], SyncRun]
    priority: int = 0


@dataclass(frozen=True)
class MirrorTask:
    """The task that syncs the mirrors, which identifies their syncs and results: all map indexes have the same.

    ``started_at`` is when its DAG run started, which changes when it is cleared; None when unknown.
    """

    dag_id: str
    run_id: str
    task_id: str
    started_at: datetime | None = None

    def key(self, repository: str) -> RunKey:
        """The key of a mirror's sync; its scope says the task and the repository."""
        scope = f"{self.task_id}:{repository}"
        if len(scope) > _LONGEST_SCOPE:
            digest = hashlib.sha256(scope.encode()).hexdigest()[:16]
            scope = f"{scope[: _LONGEST_SCOPE - 17]}-{digest}"
        return RunKey(self.dag_id, self.run_id, scope)


@dataclass(frozen=True)
class MirrorsSynced:
    """The results of all mirrors of a task in their order, those of earlier tries included.

    ``wait_seconds`` is how long to wait until the registries allow those that were throttled; None when none was, and
    when that would lead nowhere: each of them was refused by its registry itself, and no other mirror succeeded.
    """

    results: tuple[MirrorResult, ...]
    wait_seconds: float | None = None

    def __str__(self) -> str:
        return counts_text(self.results)


class _Ended(NamedTuple):
    """How one try of a mirror ended; ``error`` None unless it is to be tried again or did not succeed."""

    result: MirrorResult
    error: Exception | None = None


class _Position(NamedTuple):
    """A mirror at its place in the order; ``refused_count`` are the tries that its registry itself refused."""

    number: int
    mirror: MirrorSync
    refused_count: int = 0


def sync_mirrors(
    database: Database,
    store: BlobStore,
    mirrors: Sequence[MirrorSync],
    task: MirrorTask,
    connect: Connect,
    *,
    concurrency: int,
    min_shard_bytes: int,
    is_last_try: bool,
    report: Callable[[str], None],
    hand_over: Callable[[SyncRun], str | None] = lambda _run: None,
    confirm_after: timedelta | None = None,
    on_start: Callable[[int], None] = lambda _priority: None,
    on_round: Callable[[], None] = lambda: None,
    pause: Callable[[float], None] = time.sleep,
) -> MirrorsSynced:
    """Syncs ``mirrors``, ``concurrency`` at once, and returns the result of each; those that succeeded are left out.

    ``hand_over`` starts another DAG run for a mirror with more work than two tasks of a stage and returns its run id;
    None where it cannot, so that the mirror is synced here. ``on_start`` is called with the priority of each mirror as
    it is started, ``on_round`` before each pass over those that are left. On the last try, tags that a registry cannot
    deliver for now are held, as elsewhere. Raises :class:`ConfigurationError` for two mirrors of one repository, and
    what every mirror would meet: an unavailable or full database or blob store.
    """
    ordered = _ordered(mirrors)
    database.mirror_results.delete_old()
    known = database.mirror_results.of_task(task.dag_id, task.run_id, task.task_id)
    names = {place.mirror.repository for place in ordered}
    work = _MirrorWork(
        database,
        store,
        task,
        connect,
        min_shard_bytes,
        report,
        hand_over,
        confirm_after,
        on_start,
        {name: one for name, one in known.items() if name in names},
    )
    waiting = [place for place in ordered if not work.has_succeeded(place)]
    if len(waiting) < len(ordered):
        report(f"{len(ordered) - len(waiting):,} of {len(ordered):,} mirrors succeeded in an earlier try")
    throttled = _in_rounds(
        work, waiting, concurrency, is_last_try=is_last_try, report=report, on_round=on_round, pause=pause
    )
    order = {place.mirror.repository: place.number for place in ordered}
    results = sorted(work.results.values(), key=lambda one: order[one.repository])
    may_wait = work.success_count > 0 or not any(map(_is_own_refusal, throttled))
    waits = [error.retry_after_seconds or FIRST_PAUSE_SECONDS for error in throttled]
    return MirrorsSynced(tuple(results), max(waits, default=None) if may_wait else None)


def _ordered(mirrors: Iterable[MirrorSync]) -> list[_Position]:
    """The mirrors by priority, then as declared. Raises :class:`ConfigurationError`."""
    found = sorted(mirrors, key=lambda mirror: -mirror.priority)
    seen: set[str] = set()
    for mirror in found:
        if mirror.repository in seen:
            raise ConfigurationError(
                f"two mirrors have the repository {mirror.repository!r}; give each a repository of its own"
            )
        seen.add(mirror.repository)
    return [_Position(number, mirror) for number, mirror in enumerate(found)]


def _in_rounds(
    work: _MirrorWork,
    waiting: list[_Position],
    concurrency: int,
    *,
    is_last_try: bool,
    report: Callable[[str], None],
    on_round: Callable[[], None],
    pause: Callable[[float], None],
) -> list[RateLimited]:
    """Tries mirrors until none is left that a short wait may help; the errors of those that are still throttled."""
    left: list[RateLimited] = []
    for number in range(1, ROUNDS + 1):
        is_last_round = number == ROUNDS
        on_round()
        again = _round(work, waiting, concurrency, is_last_try=is_last_try and is_last_round, report=report)
        soon = [] if is_last_round else [pair for pair in again if _wait(pair[1], number) <= LONGEST_PAUSE_SECONDS]
        left += [error for place, error in again if (place, error) not in soon and isinstance(error, RateLimited)]
        if not soon:
            break
        # What a registry refused itself comes last: it may go on refusing this mirror alone.
        waiting = [place._replace(refused_count=place.refused_count + _is_own_refusal(error)) for place, error in soon]
        waiting.sort(key=lambda place: (place.refused_count, place.number))
        seconds = max(_wait(error, number) for _, error in soon)
        report(f"{format_count(len(soon), 'mirror')} to be tried again in {format_duration(seconds)}")
        pause(seconds)
    return left


def _wait(error: Exception, number: int) -> float:
    asked = error.retry_after_seconds if isinstance(error, RegistryError) else None
    return FIRST_PAUSE_SECONDS * 2 ** (number - 1) if asked is None else asked


def _is_own_refusal(error: Exception) -> bool:
    return isinstance(error, RateLimited) and not error.is_repeated


def _round(
    work: _MirrorWork,
    places: Sequence[_Position],
    concurrency: int,
    *,
    is_last_try: bool,
    report: Callable[[str], None],
) -> list[tuple[_Position, Exception]]:
    """One try of each; those that may be tried again, with their errors."""
    again: list[tuple[_Position, Exception]] = []
    progress = Progress(report, "mirror", len(places))

    def done(place: _Position, ended: _Ended) -> None:
        if ended.error is not None and ended.result.is_temporary:
            again.append((place, ended.error))
        progress.add(1)

    def failed(_place: _Position, error: RegistrySyncError) -> None:
        raise error

    attempt = partial(work.attempt, is_last_try=is_last_try)
    for_each(attempt, places, threads=concurrency, done=done, failed=failed, idle=progress.report)
    progress.finish()
    return again


class _QuietReport:
    """Reports the warnings of one mirror with its name; other lines only at level DEBUG, as there are thousands."""

    def __init__(self, repository: str, report: Callable[[str], None]) -> None:
        self._repository, self._report = repository, report

    def __call__(self, line: str) -> None:
        log.debug("%s: %s", self._repository, line)

    def warning(self, line: str) -> None:
        warn(self._report, f"{self._repository}: {line}")


@dataclass
class _MirrorWork:
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
    confirm_after: timedelta | None
    on_start: Callable[[int], None]
    results: dict[str, MirrorResult]
    success_count: int = 0

    def has_succeeded(self, place: _Position) -> bool:
        """Whether an earlier try of the task leaves nothing to do for the mirror."""
        found = self.results.get(place.mirror.repository)
        return found is not None and found.outcome.is_success

    def attempt(self, place: _Position, *, is_last_try: bool) -> _Ended:
        """One try of a mirror, whose result is recorded. Raises only what every other mirror would meet."""
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
            ended = _Ended(_failed(blank, error, attempt.run_of), error)
        except Exception as error:
            log.exception("the sync of %s ended with a defect", name)
            text = f"a defect of registry-sync, {type(error).__name__}: {error}; its log has the traceback, report it"
            ended = _Ended(replace(blank, error=text, sync_run_id=attempt.run_id), error)
            attempt.record_failure(text)
        result = replace(
            ended.result,
            request_count=_request_count(attempt.usage),
            received_bytes=attempt.usage.received_bytes,
            seconds=time.monotonic() - began,
            finished_at=utc_now(),
        )
        self.database.mirror_results.record(result)
        self._keep(result)
        return ended._replace(result=result)

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

    work: _MirrorWork
    mirror: MirrorSync
    is_last_try: bool
    before: MirrorResult | None = None
    usage: RunUsage = field(default_factory=RunUsage)
    run_of: SyncRun | None = None

    @property
    def run_id(self) -> str | None:
        """The id of the sync, None where none started."""
        return None if self.run_of is None else self.run_of.id

    def run(self, blank: MirrorResult) -> _Ended:
        """The sync, from its start to the version. Raises as its stages do; a failure is recorded with the run."""
        work = self.work
        approved = self._approved()
        run = self.run_of = approved or self.mirror.start(work.task.key(self.mirror.repository))
        blank = replace(blank, sync_run_id=run.id)
        try:
            if approved is not None:
                return _Ended(self._committed(blank, run))
            with work.connect(run.remote) as (client, remote):
                try:
                    return self._stages(client, remote, run, blank)
                finally:
                    self.usage = client.usage.counts()
                    work.database.runs.add_usage(run.id, self.usage)
        except RegistrySyncError as error:
            if not isinstance(error, RunEnded):
                self.record_failure(f"{type(error).__name__}: {error}")
            raise

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

    def _stages(self, client: RegistryReader, remote: RemoteSpec, run: SyncRun, blank: MirrorResult) -> _Ended:
        work, report = self.work, _QuietReport(self.mirror.repository, self.work.report)
        confirm = {} if work.confirm_after is None else {"confirm_after": work.confirm_after}
        # Two shards are what a stage's tasks would divide: such a mirror is worth tasks of its own.
        listed = list_tags(client, work.database, run, remote, max_shards=2, report=report, **confirm)
        if listed.is_unchanged:
            number = work.database.versions.latest_number(run.repository_id)
            return _Ended(replace(blank, outcome=MirrorOutcome.UNCHANGED, version_number=number))
        if len(listed.shards) > 1 and (other := self._start_other_run(run)) is not None:
            return _Ended(replace(blank, outcome=MirrorOutcome.HANDED_OVER, handed_over_to=other))
        last = self.is_last_try
        for shard in work.database.runs.pending_shards(run.id):
            fetch_manifests(client, work.database, run, remote, shard=shard, is_last_try=last, report=report)
        fetch = partial(
            fetch_small_run, client, work.store, work.database, run, remote, is_last_try=last, report=report
        )
        if fetch(min_shard_bytes=work.min_shard_bytes) is None:
            if (other := self._start_other_run(run)) is not None:
                return _Ended(replace(blank, outcome=MirrorOutcome.HANDED_OVER, handed_over_to=other))
            fetch(min_shard_bytes=None)
        return _Ended(self._committed(blank, run))

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
    elif isinstance(error, TooManyRemovals) and run is not None:
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
