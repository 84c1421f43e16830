"""Sync runs as values: what one run was asked to do, what it found, how its work is divided, and how it ended."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Generic, TypeVar

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import Hold, Repository, RepositoryVersion, SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import Policy, Remote, RemoteSpec


class RunState(str, Enum):
    """``completed`` made a version, ``unchanged`` found nothing to change; a failed run may still be continued."""

    RUNNING = "running"
    COMPLETED = "completed"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_settled(self) -> bool:
        """Whether a repeat of the run changes nothing any more."""
        return self in (RunState.COMPLETED, RunState.UNCHANGED)


class Authority(str, Enum):
    """On whose word a run acts.

    ``author`` is the author of its DAG, or a trigger that they or the installation trust; ``request`` a user who asked
    over REST, where their rights were checked; ``trigger`` whoever triggered the run, of whom nothing is known.
    """

    AUTHOR = "author"
    REQUEST = "request"
    TRIGGER = "trigger"


#: How the ids of DAG runs begin that were asked for over REST; the id of the request follows.
REQUESTED_RUN_PREFIX = "registry_sync__"


def request_id_of(run_id: str) -> str | None:
    """The id of the request that a DAG run says it stands for, None for one that was not asked for over REST."""
    return run_id.removeprefix(REQUESTED_RUN_PREFIX) if run_id.startswith(REQUESTED_RUN_PREFIX) else None


class DagRunEnd(str, Enum):
    """How the DAG run of a sync ended that had not ended itself; ``gone`` when Airflow does not know it any more."""

    FAILED = "failed"
    SUCCESS = "success"
    CANCELED = "canceled"
    GONE = "gone"

    @property
    def state(self) -> RunState:
        """What the sync is then. One whose DAG run ended well has failed all the same: it has made no version."""
        return RunState.CANCELED if self in (DagRunEnd.CANCELED, DagRunEnd.GONE) else RunState.FAILED

    @property
    def reason(self) -> str:
        """Why, for people."""
        return _END_REASONS[self]


_END_REASONS = {
    DagRunEnd.FAILED: (
        "the DAG run failed in Airflow and no task says why: it was marked as failed, timed out, or lost its worker"
    ),
    DagRunEnd.SUCCESS: (
        "the DAG run ended well in Airflow and made no version: its commit, or a stage before it, was skipped or "
        "marked by hand; clear the task that lists with all that come after it, or start a new run"
    ),
    DagRunEnd.CANCELED: "the DAG run was canceled",
    DagRunEnd.GONE: "the DAG run was deleted in Airflow before the sync had ended",
}


class TagState(str, Enum):
    """How far a run is with a tag: ``gone`` tags vanished upstream between the listing and the fetch.

    ``filtered`` ones lead to an index without any wanted platform. ``candidate`` ones were listed and not asked for;
    one is taken when it turns out to hold a signature, or the like, of a manifest that is taken.
    """

    PENDING = "pending"
    UNCHANGED = "unchanged"
    RESOLVED = "resolved"
    HELD = "held"
    GONE = "gone"
    FILTERED = "filtered"
    CANDIDATE = "candidate"


#: Tags that a run was asked for, and counts.
COUNTED_TAG_STATES = (TagState.PENDING, TagState.UNCHANGED, TagState.RESOLVED, TagState.HELD, TagState.GONE)


class LinkKind(str, Enum):
    """Why a manifest is taken along with another one: an index lists it, or it refers to it as its subject."""

    CHILD = "child"
    REFERRER = "referrer"


@dataclass(frozen=True)
class ManifestLink:
    """``child`` is taken along with ``parent``; ``is_missing`` when the registry does not have it."""

    parent: Digest
    child: Digest
    kind: LinkKind = LinkKind.CHILD
    is_missing: bool = False


@dataclass(frozen=True)
class RunKey:
    """What makes a run the same run when its tasks are repeated: the DAG, the DAG run and the task that lists.

    ``scope`` tells several syncs of one DAG run apart: the id of the task that lists, with the map index of a mapped
    one; empty where no other task of the DAG lists, and in what earlier releases recorded of a task ``list_tags``.
    """

    dag_id: str
    run_id: str
    scope: str = ""


@dataclass(frozen=True)
class RequestedSync:
    """A sync as it was asked for over REST: ``id`` is that of its task, ``dag_id`` the DAG that carries it out.

    ``may_replace_upstream`` is whether who asked may let the repository's content come from another upstream. ``error``
    says why it could not begin, None while nothing speaks against it.
    """

    id: str
    dag_id: str
    repository_id: str
    remote_id: str
    mode: SyncMode
    requested_by: str
    may_replace_upstream: bool
    requested_at: datetime
    error: str | None = None


@dataclass(frozen=True)
class KeptHead:
    """What a HEAD of a tag said at ``asked_at`` or later; ``digest`` None when it told none."""

    digest: Digest | None
    asked_at: datetime


@dataclass(frozen=True)
class AskedBy:
    """What a run was begun by: the repository's name as it was asked for, who or what triggered the DAG run, and when
    that began, which a cleared one does anew. None is what nobody said.

    ``is_cleared`` is whether somebody had the DAG run run again, of whom nothing is known.
    """

    repository_name: str | None = None
    triggered_by: str | None = None
    dag_run_started_at: datetime | None = None
    is_cleared: bool = False


NOBODY = AskedBy()


@dataclass(frozen=True)
class ListedTag:
    """A tag that upstream listed. ``digest`` is what upstream hinted, None when it gave none.

    ``shard`` is the number of the mapped task that fetches it; None means that the tag needs no fetch: it is unchanged,
    and then ``digest`` is the present one, or it has the state ``unfetched`` says, ``filtered`` or ``candidate``.
    """

    name: TagName
    digest: Digest | None = None
    shard: int | None = None
    unfetched: TagState = TagState.UNCHANGED

    @property
    def state(self) -> TagState:
        """The state in which it is recorded."""
        return self.unfetched if self.shard is None else TagState.PENDING


@dataclass(frozen=True)
class NeededBlob:
    """A blob that a run's manifests name. Foreign ones are listed and by default not fetched.

    One that ``is_broken`` is fetched again, though the store has some bytes.
    """

    digest: Digest
    size_bytes: int
    media_type: str
    is_foreign: bool = False
    is_stored: bool = False
    is_broken: bool = False


@dataclass(frozen=True)
class RunUsage:
    """What a run cost its registry, added up over all tasks and their repeats."""

    head_count: int = 0
    manifest_get_count: int = 0
    blob_get_count: int = 0
    tag_page_count: int = 0
    received_bytes: int = 0
    retry_count: int = 0


@dataclass(frozen=True)
class RunCounts:
    """How far a run is. ``blob_count`` and ``blob_bytes`` cover what was planned to be fetched."""

    tag_count: int = 0
    pending_tag_count: int = 0
    unchanged_tag_count: int = 0
    resolved_tag_count: int = 0
    held_tag_count: int = 0
    gone_tag_count: int = 0
    blob_count: int = 0
    blob_bytes: int = 0
    stored_blob_count: int = 0
    stored_blob_bytes: int = 0
    failed_blob_count: int = 0


@dataclass(frozen=True)
class SyncRun:
    """A stored run. ``version_number`` is the version it made, None while it has made none.

    ``remote`` is the remote as this run uses it, with what the run overrides; ``remote_id`` None when the remote was
    deleted since. ``remote_changes`` says what the run changed of the stored remote, None when nothing. ``counts`` are
    those at its end; :meth:`SyncRunStore.progress` counts anew. ``attempt`` counts the runs of one key, from 1: one
    that was begun anew after it had settled is another run. ``made_before`` has repository and number of the versions
    that those before it made, where tasks are read, and is empty elsewhere.

    ``repository_name`` is what was asked for, and another one after a rename. ``triggered_by`` says who or what began
    the DAG run, ``removals_approved_by`` who let it remove more than its remote allows; None when nobody did or said.
    ``refused_removals`` tells what it was last refused for, and may be approved for, from other removals.
    ``listing_began`` is the repository's last number when it began to list, which tells tries of its listing apart.
    """

    id: str
    key: RunKey
    repository_id: str
    remote_id: str | None
    mode: SyncMode
    remote: RemoteSpec
    state: RunState
    started_at: datetime
    listed_at: datetime | None = None
    finished_at: datetime | None = None
    version_number: int | None = None
    attempt: int = 1
    error: str | None = None
    usage: RunUsage = field(default_factory=RunUsage)
    counts: RunCounts = field(default_factory=RunCounts)
    authority: Authority = Authority.TRIGGER
    remote_changes: str | None = None
    made_before: tuple[tuple[str, int], ...] = ()
    repository_name: str | None = None
    triggered_by: str | None = None
    removals_approved_by: str | None = None
    refused_removals: str | None = None
    listing_began: int = 0

    @property
    def policy(self) -> Policy:
        """When this run's blobs are downloaded."""
        return self.remote.policy


def is_fed_by(repository: Repository, remote: Remote, latest: SyncRun | None) -> bool:
    """Whether a sync from ``remote`` goes on with what the repository holds: that came from this remote, or is nothing.

    ``latest`` is the sync that last brought the repository up to date.
    """
    return repository.latest_number is None or (latest is not None and latest.remote_id == remote.id)


@dataclass(frozen=True)
class CommitResult:
    """What a commit came to: ``version`` None when nothing differed. ``counts`` as in ``ContentSummary.counts``.

    ``removals_approved_by`` is who let a mirror lose more than its remote allows; None where that was not needed.
    ``left_out`` are tags that have none of the remote's platforms, by name; a repeat does not know them any more.
    """

    version: RepositoryVersion | None
    holds: tuple[Hold, ...] = ()
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    removals_approved_by: str | None = None
    left_out: tuple[TagName, ...] = ()


T = TypeVar("T")


@dataclass
class Shard(Generic[T]):
    """Items for one mapped task, and their summed cost."""

    number: int
    items: list[T] = field(default_factory=list)
    cost: int = 0


def plan_shards(items: Iterable[tuple[T, int]], *, max_shards: int, min_cost: int) -> list[Shard[T]]:
    """``items`` with their costs, over as few shards as keep each at ``min_cost`` or more, at most ``max_shards``.

    The largest items are placed first, each into the cheapest shard. No items give no shards. Equal input gives
    equal shards, so that a task that plans again plans the same.
    """
    ordered = sorted(items, key=lambda pair: (-pair[1], str(pair[0])))
    if not ordered:
        return []
    total = sum(cost for _, cost in ordered)
    count = max(1, min(max_shards, total // max(1, min_cost), len(ordered)))
    shards: list[Shard[T]] = [Shard(number) for number in range(count)]
    heap = [(0, number) for number in range(count)]
    for item, cost in ordered:
        _, number = heapq.heappop(heap)
        shards[number].items.append(item)
        shards[number].cost += cost
        heapq.heappush(heap, (shards[number].cost, number))
    return shards
