"""Repositories and syncs at a glance, as the pages in Airflow list them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from registry_sync.domain.mirror_results import MirrorResult
from registry_sync.domain.records import Repository
from registry_sync.domain.runs import RunState, SyncRun


class Outcome(str, Enum):
    """What became of a sync, for people: its state, or that it goes on once somebody approves what it would remove."""

    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    CANCELED = "canceled"

    @classmethod
    def of(cls, run: SyncRun) -> Outcome:
        """That of a sync, by what is recorded of it."""
        is_waiting = run.refused_removals is not None and run.removals_approved_by is None
        return cls.WAITING if run.state is RunState.RUNNING and is_waiting else cls(run.state.value)

    @property
    def words(self) -> str:
        """As a page names it."""
        return "waits for approval" if self is Outcome.WAITING else self.value


@dataclass(frozen=True)
class LatestVersion:
    """The latest version of a repository: ``size_bytes`` of its blobs is None where there are too many to add up."""

    number: int
    created_at: datetime
    tag_count: int
    held_count: int
    blob_count: int
    size_bytes: int | None


@dataclass(frozen=True)
class RepositoryOverview:
    """A repository and what became of it last.

    ``synced_at`` is when a sync last made a version of it or found nothing to change, None for never. ``last_run`` is
    the sync that started last, None without any. ``mirror`` is the last result of its mirror, None where no fleet has
    one; it is newer than ``last_run`` where no sync could start.
    """

    repository: Repository
    version: LatestVersion | None = None
    synced_at: datetime | None = None
    last_run: SyncRun | None = None
    mirror: MirrorResult | None = None


@dataclass(frozen=True)
class SyncOverview:
    """A sync, the name of its repository, and the tags of its version, None while it has made none.

    A tag that moved is both added and removed.
    """

    run: SyncRun
    repository_name: str
    tags_added: int | None = None
    tags_removed: int | None = None
