"""A dry run: the stages of a sync on a copy of the database, without the download of blobs; and the plan they lead to.

It lists, resolves and compares tags and reads new manifests as the sync does, for only they say which blobs there are.
Blobs are planned and taken for downloaded. What is read from the registry is not kept: neither the database nor the
blob store is written to. So a plan costs the registry what the sync costs it, without the blobs.

What would stop the sync is part of the plan; errors that would fail it before it knows what changed are raised.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.records import PageRequest, RepositoryVersion
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import CommitResult, RequiredBlob, RunUsage, SyncRun
from registry_sync.domain.serving import base_path_of
from registry_sync.domain.sync_plans import (
    SHOWN_CHANGES,
    PlannedDownloads,
    PlannedNames,
    PlannedTags,
    PlanOutcome,
    PlanRefusal,
    SyncPlan,
)
from registry_sync.errors import (
    ApprovalRequired,
    LimitExceeded,
    NothingSynced,
    RegistrySyncError,
    TooManyHolds,
    UnsupportedDigest,
)
from registry_sync.sync.commit_version import commit_version
from registry_sync.sync.digest_hints import CONFIRM_AFTER
from registry_sync.sync.fetch_manifests import fetch_manifests
from registry_sync.sync.list_tags import TagsListed, list_tags
from registry_sync.sync.open_run import SyncRequest
from registry_sync.sync.parallel import warn
from registry_sync.sync.plan_blobs import BlobsPlanned, batches, missing_blobs
from registry_sync.sync.verdicts import reason

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.oci.client import RegistryReader

_APPROVER = "dry run"


def planned_names(request: SyncRequest) -> PlannedNames:
    """The records that a sync for ``request`` uses. Raises :class:`InvalidReference` for an impossible base path."""
    repository = request.repository.strip()
    base_path = None if request.publish_as is None else base_path_of(request.publish_as)
    return PlannedNames(repository, (request.remote or repository,), base_path)


#: Opens a client, and gives the remote with the concurrency that the connection allows.
Connect = Callable[[RemoteSpec], AbstractContextManager[tuple["RegistryReader", RemoteSpec]]]


@dataclass
class _Report:
    """Reports lines; keeps warnings for the plan."""

    report: Callable[[str], None]
    warnings: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.report(line)

    def warning(self, line: str) -> None:
        """A line that the plan names."""
        self.warnings.append(line)
        warn(self.report, line)

    def quiet(self) -> _Report:
        """Keeps warnings, and reports nothing: a version of the copy is none."""
        return _Report(lambda _line: None, self.warnings)


def plan_sync(
    copy: Database,
    store: BlobStore,
    start: Callable[[Database], SyncRun],
    connect: Connect,
    *,
    is_last_try: bool,
    report: Callable[[str], None],
    confirm_after: timedelta = CONFIRM_AFTER,
) -> SyncPlan:
    """What the sync that ``start`` starts would do, found on ``copy``, a database that is thrown away afterwards.

    Raises what ``start`` and the listing raise; with ``is_last_try`` tags that cannot be fetched for now are held.
    """
    reported = _Report(report)
    present = _kinds_present(copy)
    run = start(copy)
    creates = tuple(kind for kind, count in _kinds_present(copy).items() if count > present[kind])
    plan = _Plan(copy, store, run, reported, creates)
    with connect(run.remote) as (client, remote):
        try:
            listed = list_tags(client, copy, run, remote, max_shards=1, report=reported, confirm_after=confirm_after)
        except NothingSynced as refused:
            return plan.made(client.usage.counts(), refusals=[refused])
        plan.listed = listed
        if not listed.is_unchanged:
            for shard in listed.shards:
                plan.manifest_count += fetch_manifests(
                    client, copy, run, remote, shard=shard.number, is_last_try=is_last_try, report=reported
                ).manifest_count
        usage = client.usage.counts()
    if listed.is_unchanged:
        return plan.made(usage)
    return plan.judged(usage)


def _kinds_present(copy: Database) -> dict[str, int]:
    """How many records of each kind that a sync may create there are."""
    none = PageRequest(limit=0)
    return {
        "repository": copy.repositories.page(none).total_count,
        "remote": copy.remotes.page(none).total_count,
        "distribution": copy.distributions.page(none).total_count,
    }


@dataclass
class _Plan:
    """The plan of one run as it grows."""

    copy: Database
    store: BlobStore
    run: SyncRun
    report: _Report
    creates: tuple[str, ...]
    listed: TagsListed | None = None
    manifest_count: int = 0

    def judged(self, usage: RunUsage) -> SyncPlan:
        """The plan of a run whose manifests are read: what the download and the commit would decide."""
        refusals: list[RegistrySyncError] = []
        missing, blobs = missing_blobs(self.store, self.copy, self.run)
        try:
            self.copy.runs.record_plan(self.run.id, ((0, blob) for blob in missing))
        except LimitExceeded as refused:
            refusals.append(refused)
        fetched = missing.selected(array("I", (i for i, blob in enumerate(missing) if blob.digest.is_verifiable)))
        requested_count, received_bytes = 0, usage.received_bytes
        for batch in batches(fetched):
            described = self.copy.contents.descriptors(blob.digest for blob in batch)
            self.copy.contents.mark_stored(blob.digest for blob in batch)
            requested = [blob.size_bytes for blob in batch if _is_requested(blob, described.get(blob.digest))]
            requested_count, received_bytes = requested_count + len(requested), received_bytes + sum(requested)
        unverifiable = (blob.digest for blob in missing if not blob.digest.is_verifiable)
        self.copy.runs.fail_blobs(self.run.id, {digest: _why_unverifiable(digest) for digest in unverifiable})
        usage = replace(usage, blob_get_count=requested_count, received_bytes=received_bytes)
        result = None
        try:
            result = self._committed(refusals)
        except (NothingSynced, TooManyHolds, ApprovalRequired) as refused:
            refusals.append(refused)
        size_bytes = sum(fetched.sizes_bytes)
        return self.made(usage, replace(blobs, missing_count=len(fetched), missing_bytes=size_bytes), result, refusals)

    def _committed(self, refusals: list[RegistrySyncError]) -> CommitResult:
        """The result of the commit; removals that take an approval are approved for the counts."""
        try:
            return commit_version(self.copy, self.run, report=self.report.quiet())
        except ApprovalRequired as refused:
            refusals.append(refused)
        self.copy.runs.approve_removals(self.run.id, _APPROVER)
        return commit_version(self.copy, self.run, report=lambda _line: None)

    def made(
        self,
        usage: RunUsage,
        blobs: BlobsPlanned | None = None,
        result: CommitResult | None = None,
        refusals: Sequence[RegistrySyncError] = (),
    ) -> SyncPlan:
        """The plan as far as it is known."""
        version = None if result is None else result.version
        outcome = PlanOutcome.UNCHANGED if version is None else PlanOutcome.VERSION
        repository = self.copy.repositories.get(self.run.repository_id)
        base_number = repository.latest_number if version is None else version.base_number
        plan = SyncPlan(
            repository=repository.name,
            remote=self.run.remote,
            mode=self.run.mode.value,
            outcome=PlanOutcome.REFUSED if refusals else outcome,
            base_number=base_number,
            number=None if version is None or refusals else version.number,
            creates=self.creates,
            remote_changes=self.run.remote_changes,
            refusals=tuple(PlanRefusal(type(refused).__name__, str(refused)) for refused in refusals),
            tags=self._tags(result),
            downloads=PlannedDownloads(
                manifests=self.manifest_count,
                blobs=0 if blobs is None else blobs.missing_count,
                blob_bytes=0 if blobs is None else blobs.missing_bytes,
                needed_blobs=0 if blobs is None else blobs.needed_count,
                requests=usage,
            ),
            holds=() if result is None else result.holds[:SHOWN_CHANGES],
            notes=tuple(self.report.warnings[:SHOWN_CHANGES]),
        )
        return plan if version is None else self._compared(plan, version)

    def _tags(self, result: CommitResult | None) -> PlannedTags:
        listed = self.listed
        present = len(self.copy.versions.tags(self.run.repository_id))
        return PlannedTags(
            listed=0 if listed is None else listed.listed_count,
            selected=0 if listed is None else listed.selected_count,
            held=0 if result is None else len(result.holds),
            present=present,
        )

    def _compared(self, plan: SyncPlan, version: RepositoryVersion) -> SyncPlan:
        """The plan with the difference of the versions."""
        found = self.copy.versions.difference(
            self.run.repository_id,
            version.number,
            plan.base_number or 0,
            request=PageRequest(limit=SHOWN_CHANGES),
        )
        tags = replace(
            plan.tags, added=found.tags.added_count, moved=found.tags.moved_count, removed=found.tags.removed_count
        )
        return replace(
            plan,
            tags=tags,
            manifests=found.manifests.count,
            blobs=found.blobs.count,
            tag_changes=found.tags.page.items,
        )


def _is_requested(blob: RequiredBlob, described: Descriptor | None) -> bool:
    """Whether the bytes come from the registry, and not from a manifest."""
    descriptor = described or Descriptor(blob.media_type, blob.digest, blob.size_bytes)
    return descriptor.known_bytes is None


def _why_unverifiable(digest: Digest) -> str:
    """Why the sync would hold the tags of such a blob."""
    try:
        digest.hasher()
    except UnsupportedDigest as problem:
        return reason(problem)
    raise AssertionError(f"{digest} can be verified")
