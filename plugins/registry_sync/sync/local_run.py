"""A whole sync in this process: every stage one after the other, without a scheduler.

The run is recorded as any other, under a name that no DAG can have. A run whose process has gone is found by that name,
and ended, where lost runs of DAGs are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from registry_sync.domain.quantities import format_duration
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import CommitResult, DagRunEnd, RunState, SyncRun
from registry_sync.errors import RegistryError, RegistrySyncError, RunEnded
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.fetch_blobs import fetch_blobs
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import TagsListed, list_tags
from registry_sync.sync.parallel import warn
from registry_sync.sync.plan_blobs import BlobsPlanned, plan_blobs

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.oci.client import RegistryReader
    from registry_sync.sync.dry_run import Connect

T = TypeVar("T")
#: How often a stage is tried, and the pauses before it is tried again unless the registry asks for another.
TRIES = 4
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 300.0


def sync_here(
    database: Database,
    store: BlobStore,
    run: SyncRun,
    connect: Connect,
    *,
    min_shard_bytes: int,
    report: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
    came_from: str | None = None,
) -> CommitResult | None:
    """Runs all stages; None when nothing changed. A temporary failure is tried again as in tasks, with a pause.

    ``came_from`` is recorded as the source of the bytes, None for the remote's.

    A failure is recorded with the run and raised; an interruption by the user cancels it. What was downloaded stays,
    and the next sync continues.
    """
    try:
        with connect(run.remote) as (client, remote):
            try:
                return _Stages(client, remote, database, store, run, report, pause, came_from).run_all(min_shard_bytes)
            finally:
                database.runs.add_usage(run.id, client.usage.counts())
    except KeyboardInterrupt:
        database.runs.finish(run.id, RunState.CANCELED, error=DagRunEnd.CANCELED.reason)
        raise
    except RegistrySyncError as problem:
        if not isinstance(problem, RunEnded):
            database.runs.finish(run.id, RunState.FAILED, error=f"{type(problem).__name__}: {problem}")
        raise


@dataclass
class _Stages:
    """The stages of one run; each method is given whether this is the last try."""

    client: RegistryReader
    remote: RemoteSpec
    database: Database
    store: BlobStore
    run: SyncRun
    report: Callable[[str], None]
    pause: Callable[[float], None]
    came_from: str | None

    def run_all(self, min_shard_bytes: int) -> CommitResult | None:
        """Each stage with what the one before recorded."""
        listed = self._tried(self._list)
        if listed.is_unchanged:
            return None
        for tags in listed.shards:
            self._tried(partial(self._fetch_manifests, tags.number))
        planned = self._tried(partial(self._plan, min_shard_bytes))
        for blobs in planned.shards:
            self._tried(partial(self._fetch_blobs, blobs.number))
        return self._tried(self._commit)

    def _list(self, _is_last: bool) -> TagsListed:
        return list_tags(self.client, self.database, self.run, self.remote, max_shards=1, report=self.report)

    def _fetch_manifests(self, shard: int, is_last: bool) -> None:
        work = (self.client, self.database, self.run, self.remote)
        fetch_manifests(*work, shard=shard, is_last_try=is_last, report=self.report)

    def _plan(self, min_shard_bytes: int, _is_last: bool) -> BlobsPlanned:
        plan = partial(plan_blobs, max_shards=1, min_shard_bytes=min_shard_bytes, report=self.report)
        return plan(self.store, self.database, self.run)

    def _fetch_blobs(self, shard: int, is_last: bool) -> None:
        work = (self.client, self.store, self.database, self.run, self.remote)
        fetch_blobs(*work, shard=shard, is_last_try=is_last, report=self.report, came_from=self.came_from)

    def _commit(self, _is_last: bool) -> CommitResult:
        return commit_version(self.database, self.run, report=self.report)

    def _tried(self, stage: Callable[[bool], T]) -> T:
        for number in range(TRIES - 1):
            try:
                return stage(False)
            except RegistrySyncError as problem:  # noqa: PERF203  the next try is what the loop is for
                if not problem.is_temporary:
                    raise
                asked = problem.retry_after_seconds if isinstance(problem, RegistryError) else None
                seconds = min(asked or FIRST_PAUSE_SECONDS * 2**number, LONGEST_PAUSE_SECONDS)
                what = f"{type(problem).__name__}: {problem}"
                warn(self.report, f"{what}; next try in {format_duration(seconds)}")
                self.pause(seconds)
        return stage(True)
