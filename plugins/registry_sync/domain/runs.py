"""Sync runs as values: their parameters, states and results, and the shards of their work."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import Hold, Repository, RepositoryVersion, SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.registry_pace import RegistryPace
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
    """With whose rights a run acts.

    ``author``: the author of its DAG, or a trusted trigger; ``request``: a user who requested it over REST, where their
    rights were checked; ``trigger``: an unknown user who triggered the DAG run.
    """

    AUTHOR = "author"
    REQUEST = "request"
    TRIGGER = "trigger"


#: The prefix of the ids of DAG runs that were requested over REST; the id of the request follows.
REQUESTED_RUN_PREFIX = "registry_sync__"


def request_id_of(run_id: str) -> str | None:
    """The id of the request in the id of a DAG run; None for one that was not requested over REST."""
    return run_id.removeprefix(REQUESTED_RUN_PREFIX) if run_id.startswith(REQUESTED_RUN_PREFIX) else None


#: What Airflow permits in the id of a run, and how much of a repository's name stands in one.
_NOT_IN_RUN_ID = re.compile(r"[^A-Za-z0-9_.~:+-]+|\.{2,}")
_MOST_OF_NAME = 80


def run_id_about(kind: str, repository: str, which: str) -> str:
    """The id of a DAG run that Airflow's list of runs shows: ``kind``, the repository, and ``which`` run it is.

    A name is shortened, and characters that Airflow does not permit become dashes, so that names may look alike.
    """
    return f"{kind}__{_NOT_IN_RUN_ID.sub('-', repository)[:_MOST_OF_NAME]}__{which}"


#: Stands for the DAG of syncs that a command runs in its own process; no DAG can have this id.
LOCAL_DAG_ID = "airflow registry-sync"


class DagRunEnd(str, Enum):
    """How a DAG run ended while its sync had not; ``gone`` when Airflow has no such DAG run any more.

    ``lost`` is that of a command whose process has gone.
    """

    FAILED = "failed"
    SUCCESS = "success"
    CANCELED = "canceled"
    GONE = "gone"
    LOST = "lost"

    @property
    def state(self) -> RunState:
        """The resulting state of the sync: failed also when the DAG run succeeded, as there is no version."""
        return RunState.CANCELED if self in (DagRunEnd.CANCELED, DagRunEnd.GONE) else RunState.FAILED

    @property
    def reason(self) -> str:
        """The error of the sync, for people."""
        return _END_REASONS[self]


_END_REASONS = {
    DagRunEnd.FAILED: (
        "the DAG run failed in Airflow and no task says why: it was marked as failed, timed out, or lost its worker"
    ),
    DagRunEnd.SUCCESS: (
        "the DAG run ended well in Airflow and made no version: its commit, or a stage before it, was skipped or "
        "marked by a user; clear the task that lists with all that come after it, or start a new run"
    ),
    DagRunEnd.CANCELED: "the DAG run was canceled",
    DagRunEnd.LOST: "the process of airflow registry-sync sync --local ended before the sync had",
    DagRunEnd.GONE: "the DAG run was deleted in Airflow before the sync had ended",
}


class TagState(str, Enum):
    """The state of a tag in a run: ``gone`` tags were deleted upstream between the listing and the fetch.

    ``filtered`` ones refer to an index without any selected platform. ``candidate`` ones were listed and not selected;
    one is selected when it turns out to be a referrer tag of a selected manifest. ``unlisted`` ones are in the latest
    version, and the listing did not have them.
    """

    PENDING = "pending"
    UNCHANGED = "unchanged"
    RESOLVED = "resolved"
    HELD = "held"
    GONE = "gone"
    FILTERED = "filtered"
    CANDIDATE = "candidate"
    UNLISTED = "unlisted"


#: States of selected tags, which are counted.
COUNTED_TAG_STATES = (TagState.PENDING, TagState.UNCHANGED, TagState.RESOLVED, TagState.HELD, TagState.GONE)


class LinkKind(str, Enum):
    """Why a manifest is selected with another one: an index lists it, or that one is its subject."""

    CHILD = "child"
    REFERRER = "referrer"


@dataclass(frozen=True)
class ManifestLink:
    """``child`` is selected with ``parent``; ``is_missing`` when the registry lacks it."""

    parent: Digest
    child: Digest
    kind: LinkKind = LinkKind.CHILD
    is_missing: bool = False


@dataclass(frozen=True)
class RunKey:
    """Identifies a run when its tasks are retried: the DAG, the DAG run and the listing task.

    ``scope`` distinguishes syncs of one DAG run: the id of the listing task, with the map index of a mapped one; empty
    where the DAG has only one listing task, and in records of earlier releases of a task ``list_tags``.
    """

    dag_id: str
    run_id: str
    scope: str = ""


@dataclass(frozen=True)
class RequestedSync:
    """A sync requested over REST: ``id`` is that of its task, ``dag_id`` the DAG that runs it.

    ``may_replace_upstream`` is whether the user may replace the repository's upstream. ``error`` is why it could not
    start, None without an error. ``path_form`` is the form of the paths that it was requested with.
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
    path_form: str = "docker"


@dataclass(frozen=True)
class FinishedTask:
    """A task that had ended when its request was responded to: ``name`` is what it did, ``triggered_by`` for whom.

    ``path_form`` is the form of the paths in it. ``error`` is None unless it failed. ``created_resources`` and
    ``reserved_resources`` are paths; ``result`` is a JSON value, None for none. Times are aware UTC.
    """

    task_id: str
    name: str
    triggered_by: str
    path_form: str
    created_at: datetime
    started_at: datetime
    finished_at: datetime
    error: str | None = None
    created_resources: tuple[str, ...] = ()
    reserved_resources: tuple[str, ...] = ()
    result: Any = None


@dataclass(frozen=True)
class CachedHead:
    """The response to a HEAD of a tag at ``asked_at`` or later; ``digest`` None when it had none."""

    digest: Digest | None
    asked_at: datetime


class DigestListUse(str, Enum):
    """What became of a registry's list of the digests of all tags in a sync that has read one.

    ``used``: it showed that tags are unchanged. ``failed``: it could not be read this time. ``refused``: the registry
    has none for this reader. ``stale``: it did not show a move that the registry itself confirmed.
    """

    USED = "used"
    FAILED = "failed"
    REFUSED = "refused"
    STALE = "stale"

    @property
    def is_lasting(self) -> bool:
        """Whether later syncs do without the list for some time."""
        return self in (DigestListUse.REFUSED, DigestListUse.STALE)


@dataclass(frozen=True)
class Confirmation:
    """When a sync last requested every tag of a repository, and what syncs found of the registry's digest list.

    ``confirmed_at`` and ``listed_at`` are the times of the listings of the last sync that did, and of the last sync at
    all; None for none. ``used_count`` syncs have used the list since ``confirmed_at``. ``problem`` is why the list is
    not used for some time from ``problem_at`` on; None when nothing speaks against it. ``is_stale`` says that it was
    out of date, as that of other repositories of the registry may be.
    """

    confirmed_at: datetime | None = None
    listed_at: datetime | None = None
    used_count: int = 0
    problem: str | None = None
    problem_at: datetime | None = None
    is_stale: bool = False


@dataclass(frozen=True)
class RunTrigger:
    """How a run was started: the repository's name as requested, who or what triggered the DAG run, and its start time,
    which is a new one after clearing. None is unknown.

    ``is_cleared`` is whether an unknown user cleared the DAG run.
    """

    repository_name: str | None = None
    triggered_by: str | None = None
    dag_run_started_at: datetime | None = None
    is_cleared: bool = False


UNKNOWN_TRIGGER = RunTrigger()


@dataclass(frozen=True, slots=True)
class ListedTag:
    """A listed tag. ``digest`` is that of a HEAD or of the listing, None when unknown.

    ``shard`` is the number of the mapped task that fetches it; None means that the tag is not fetched: it is unchanged,
    and then ``digest`` is the present one, or its state is ``unfetched``: ``filtered`` or ``candidate``.
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
class LatestTags:
    """The tags of the latest version, and its number; None and no tags before the first version."""

    number: int | None
    digests: Mapping[TagName, Digest]


@dataclass(frozen=True, slots=True)
class RequiredBlob:
    """A blob that a run's manifests list. Foreign ones are recorded and by default not fetched.

    One that ``is_broken`` is fetched again, although the store has some bytes. One that ``is_config`` is the config of
    a manifest, whatever it is to others.
    """

    digest: Digest
    size_bytes: int
    media_type: str
    is_foreign: bool = False
    is_stored: bool = False
    is_broken: bool = False
    is_config: bool = False


@dataclass(frozen=True)
class RunUsage:
    """Requests to the registry and received bytes of a run, summed over all tasks and their retries."""

    head_count: int = 0
    manifest_get_count: int = 0
    blob_get_count: int = 0
    tag_page_count: int = 0
    digest_page_count: int = 0
    received_bytes: int = 0
    retry_count: int = 0


@dataclass(frozen=True)
class RunCounts:
    """The progress of a run. ``blob_count`` and ``blob_bytes`` are of the blobs that were planned to be fetched."""

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

    ``remote`` is the remote with the run's overrides; ``remote_id`` None when the remote was deleted since.
    ``remote_changes`` describes the run's changes of the stored remote, None without any. ``counts`` are those at its
    end; :meth:`SyncRunStore.progress` counts them now. ``attempt`` numbers the runs of one key, from 1: one that was
    started again after it had settled is another run. ``made_before`` has repository and number of the versions of
    earlier attempts where tasks are read, and is empty elsewhere.

    ``repository_name`` is the requested name, and the new one after a rename. ``triggered_by`` is who or what started
    the DAG run, ``removals_approved_by`` who approved more removals than its remote allows; None when nobody or
    unknown. ``removals_approved_at`` is when; None for approvals of earlier releases, too. ``refused_removals``
    identifies the removals that it was last refused for, which may be approved.
    ``listing_began`` is the repository's latest number at the start of its listing, which identifies that attempt.
    ``challenge`` is what the registry taught an earlier task about authentication, no secret; None before. ``pace`` is
    how many requests at once it has served, in an earlier task or the sync before; None where that is not known.
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
    removals_approved_at: datetime | None = None
    refused_removals: str | None = None
    listing_began: int = 0
    challenge: Mapping[str, Any] | None = None
    pace: RegistryPace | None = None

    @property
    def policy(self) -> Policy:
        """When blobs of this run are downloaded."""
        return self.remote.policy


def is_fed_by(repository: Repository, remote: Remote, latest: SyncRun | None) -> bool:
    """Whether the content of the repository is of ``remote``, or there is none.

    ``latest`` is the sync that last updated the repository.
    """
    return repository.latest_number is None or (latest is not None and latest.remote_id == remote.id)


@dataclass(frozen=True)
class FedRepository:
    """A repository by name, the remote that its content comes from, and the ``mode`` of the last sync.

    Without content it is the repository's own remote, and tags that the upstream deletes are kept.
    """

    name: str
    remote: Remote
    mode: SyncMode


@dataclass(frozen=True)
class CommitResult:
    """The result of a commit: ``version`` None when nothing changed. ``counts`` as in ``ContentSummary.counts``.

    ``removals_approved_by`` is who approved more removals than the remote allows; None where none were needed.
    ``filtered_tags`` have none of the remote's platforms, by name; empty when a commit is repeated.
    """

    version: RepositoryVersion | None
    holds: tuple[Hold, ...] = ()
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    removals_approved_by: str | None = None
    filtered_tags: tuple[TagName, ...] = ()


T = TypeVar("T")


def shard_label(number: int, count: int, *contents: str) -> str:
    """``1/2 · 307 blobs · 53 MiB``: what the grid shows of the mapped task ``number``, from 0; without it if alone."""
    return " \N{MIDDLE DOT} ".join([*([f"{number + 1}/{count}"] if count > 1 else []), *contents])


#: The overhead of fetching a blob, in bytes that could have been fetched meanwhile: about a millisecond of processor
#: time at about a gigabyte a second.
BLOB_OVERHEAD_BYTES = 1024 * 1024
#: Work from which a task of its own pays off, by default: bytes, and the overhead of each blob and manifest.
MIN_SHARD_BYTES = 1024 * BLOB_OVERHEAD_BYTES


def shard_count(item_count: int, total_cost: int, *, max_shards: int, min_cost: int) -> int:
    """How many shards so many items make that cost so much together; 0 for no items."""
    return min(item_count, max(1, min(max_shards, total_cost // max(1, min_cost))))


def deal(costs: Iterable[int], count: int) -> Iterator[int]:
    """The number of the shard of each item, of ``count``: the cheapest one so far, of equal ones the first."""
    heap = [(0, number) for number in range(count)]
    for cost in costs:
        so_far, number = heap[0]
        heapq.heapreplace(heap, (so_far + cost, number))
        yield number
