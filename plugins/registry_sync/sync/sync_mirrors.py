"""Many small mirrors in one process: a bounded number at once, each with a result of its own, whatever the others do.

The most important mirrors are started first, then those declared first. Each is a sync as any other, recorded under a
scope of its own; its result is written as soon as it ends, so that a process that dies loses only what was running, and
a repeat leaves out what has succeeded. A temporary failure is tried again after all others had their turn, so that a
registry that limits one mirror delays it and nobody else. What concerns every mirror alike, such as a lost database,
stops the whole; anything else is the result of one.

Mirrors that were found unchanged by a registry's lists of digests share the sample by which these are audited. Where it
speaks against a list, those that relied on it are synced again, each with a sample of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from registry_sync.domain.mirror_results import MirrorResult, counts_text
from registry_sync.domain.quantities import format_count, format_duration
from registry_sync.domain.runs import SyncRun
from registry_sync.domain.settled_mirrors import UnchangedSync
from registry_sync.errors import ConfigurationError, RateLimited, RegistryError, RegistrySyncError
from registry_sync.sync.digest_hints import CONFIRM_AFTER
from registry_sync.sync.mirror_attempts import MirrorEnded, MirrorWork
from registry_sync.sync.mirror_tasks import MirrorPlace, MirrorSync, MirrorTask
from registry_sync.sync.parallel import Progress, for_each
from registry_sync.sync.shared_audits import RegistryAudit
from registry_sync.sync.unchanged_mirrors import SettledMirrors

if TYPE_CHECKING:
    from datetime import timedelta

    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.sync.dry_run import Connect

#: How often a mirror is tried in one task, and the pause before it is tried again unless the registry asks for another.
ROUNDS = 3
FIRST_PAUSE_SECONDS = 5.0
#: The longest that a task waits for mirrors to be tried again; for more it ends, and holds no slot.
LONGEST_PAUSE_SECONDS = 60.0
#: So many unchanged mirrors are recorded in one transaction, unless the first of them has waited for so long.
RECORDED_AT_ONCE = 100
LONGEST_UNRECORDED_SECONDS = 1.0


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
    confirm_after: timedelta = CONFIRM_AFTER,
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
    names = {place.mirror.repository for place in ordered}
    database.mirror_results.delete_old(sorted(names))
    known = database.mirror_results.of_task(task.dag_id, task.run_id, task.task_id)
    unknown = [place.mirror.repository for place in ordered if place.mirror.repository not in known]
    work = MirrorWork(
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
        SettledMirrors(database, {name: task.key(name) for name in unknown}),
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


def _ordered(mirrors: Iterable[MirrorSync]) -> list[MirrorPlace]:
    """The mirrors by priority, then as declared. Raises :class:`ConfigurationError`."""
    found = sorted(mirrors, key=lambda mirror: -mirror.priority)
    seen: set[str] = set()
    for mirror in found:
        if mirror.repository in seen:
            raise ConfigurationError(
                f"two mirrors have the repository {mirror.repository!r}; give each a repository of its own"
            )
        seen.add(mirror.repository)
    return [MirrorPlace(number, mirror) for number, mirror in enumerate(found)]


def _in_rounds(
    work: MirrorWork,
    waiting: list[MirrorPlace],
    concurrency: int,
    *,
    is_last_try: bool,
    report: Callable[[str], None],
    on_round: Callable[[], None],
    pause: Callable[[float], None],
) -> list[RateLimited]:
    """Tries mirrors until none is left that a short wait may help; the errors of those that are still throttled."""
    left: list[RateLimited] = []
    relying: list[_Waiting] = []
    for number in range(1, ROUNDS + 1):
        is_last_round = number == ROUNDS
        on_round()
        is_last = is_last_try and is_last_round
        again = _round(work, waiting, relying, concurrency, is_last_try=is_last, report=report)
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
    work: MirrorWork,
    places: Sequence[MirrorPlace],
    relying: list[_Waiting],
    concurrency: int,
    *,
    is_last_try: bool,
    report: Callable[[str], None],
) -> list[tuple[MirrorPlace, Exception]]:
    """One try of each; those that may be tried again, with their errors. ``relying`` are kept for later rounds."""
    one = _Round(work, Progress(report, "mirror", len(places)), is_last_try=is_last_try, relying=relying)
    one.try_each(places, concurrency)
    while again := one.to_repeat():
        one.try_each(again, concurrency)
    one.progress.finish()
    return one.again


class _Waiting(NamedTuple):
    """An unchanged mirror, and whether the registry's lists are trusted that it was found by; None for no list."""

    place: MirrorPlace
    sync: UnchangedSync
    relies_on: RegistryAudit | None

    @property
    def is_in_doubt(self) -> bool:
        return self.relies_on is not None and self.relies_on.has_failed


@dataclass
class _Round:
    """One try of each mirror of a task; ``again`` are those that may be tried again.

    Unchanged mirrors are recorded together, after :data:`RECORDED_AT_ONCE` of them or the time that the oldest has
    waited, and count as done from then on. ``changed`` are those of them that changed before, or rely on a list that is
    not trusted any more.
    """

    work: MirrorWork
    progress: Progress
    is_last_try: bool
    relying: list[_Waiting]
    again: list[tuple[MirrorPlace, Exception]] = field(default_factory=list)
    changed: list[MirrorPlace] = field(default_factory=list)
    _waiting: dict[str, _Waiting] = field(default_factory=dict)
    _since: float = 0.0

    def try_each(self, places: Sequence[MirrorPlace], concurrency: int) -> None:
        """Tries ``places``, and records what was found, also where an error ends it."""
        attempt = partial(self.work.attempt, is_last_try=self.is_last_try)
        try:
            for_each(attempt, places, threads=concurrency, done=self._done, failed=_failed, idle=self._idle)
        finally:
            self._record()

    def _done(self, place: MirrorPlace, ended: MirrorEnded) -> None:
        if ended.unchanged is None:
            if ended.error is not None and ended.result.is_temporary:
                self.again.append((place, ended.error))
            self.progress.add(1)
        else:
            self._since = self._since if self._waiting else time.monotonic()
            self._waiting[ended.unchanged.run.id] = _Waiting(place, ended.unchanged, ended.relies_on)
        if len(self._waiting) >= RECORDED_AT_ONCE or time.monotonic() - self._since >= LONGEST_UNRECORDED_SECONDS:
            self._record()

    def _idle(self) -> None:
        self._record()
        self.progress.report()

    def _record(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        trusted = [one for one in waiting.values() if not one.is_in_doubt]
        left = {sync.run.id for sync in self.work.record_unchanged([one.sync for one in trusted])}
        recorded = [one for one in trusted if one.sync.run.id not in left]
        self.relying += [one for one in recorded if one.relies_on is not None]
        self.changed += [one.place for id_, one in waiting.items() if id_ in left or one.is_in_doubt]
        self.progress.add(len(recorded))

    def to_repeat(self) -> list[MirrorPlace]:
        """Those that are to be synced again, once; of those that were recorded the ones that are in doubt since."""
        doubted = [one.place for one in self.relying if one.is_in_doubt]
        self.relying[:] = [one for one in self.relying if not one.is_in_doubt]
        self.progress.add(-len(doubted))
        again, self.changed = self.changed + doubted, []
        return again


def _failed(_place: MirrorPlace, error: RegistrySyncError) -> None:
    raise error
