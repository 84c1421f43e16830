"""What a sync would do, as a dry run found it: counts first, then the first changes of each kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from registry_sync.domain.quantities import format_bytes, format_count
from registry_sync.domain.records import Hold
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import RunUsage
from registry_sync.domain.version_history import Amounts, TagChange

#: The most tags, and the most holds, that a plan names; its counts are of all.
SHOWN_CHANGES = 50


@dataclass(frozen=True)
class PlannedNames:
    """The records that a dry run reads, as far as they exist: the repository and the remotes of these names, and what
    is served under ``base_path``, None for nothing.
    """

    repository: str
    remotes: tuple[str, ...]
    base_path: str | None = None


class PlanOutcome(str, Enum):
    """What the sync would end with: a new version, none because nothing changed, or a refusal."""

    VERSION = "version"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True)
class PlanRefusal:
    """Why the sync would stop: the class of the error, and its message, as the sync would report it."""

    error: str
    message: str


@dataclass(frozen=True)
class PlannedTags:
    """Tags of the upstream, and how the repository's would change.

    ``selected`` of the ``listed`` ones pass the filters, referrer tags included. ``added``, ``moved`` and ``removed``
    are the difference to the latest version, ``present`` the tags of the new one. ``held`` ones could not be updated.
    """

    listed: int = 0
    selected: int = 0
    added: int = 0
    moved: int = 0
    removed: int = 0
    held: int = 0
    present: int = 0


@dataclass(frozen=True)
class PlannedDownloads:
    """What would be downloaded: manifests, and blobs that the blob store lacks; of ``needed_blobs`` it has the others.

    ``requests`` are those of the whole sync if none has to be repeated. Requests for tokens are not counted.
    """

    manifests: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    needed_blobs: int = 0
    requests: RunUsage = field(default_factory=RunUsage)

    @property
    def request_count(self) -> int:
        """All requests."""
        usage = self.requests
        pages = usage.tag_page_count + usage.digest_page_count
        return usage.head_count + usage.manifest_get_count + usage.blob_get_count + pages


@dataclass(frozen=True)
class SyncPlan:
    """What a sync would do. ``number`` is that of the version that it would make, None for none.

    ``base_number`` is the latest version's, None before the first. ``creates`` are the kinds of the records that it
    would create: repository, remote, distribution; ``remote_changes`` describes its changes of the remote, None without
    any. ``refusals`` are all that would stop it; those after the first are found by going on as if it were approved,
    and so are the counts. ``manifests`` and ``blobs`` compare the two versions. ``tag_changes``
    and ``holds`` are the first ones by name. ``notes`` are warnings that the sync would report.
    """

    repository: str
    remote: RemoteSpec
    mode: str
    outcome: PlanOutcome
    base_number: int | None
    number: int | None
    creates: tuple[str, ...] = ()
    remote_changes: str | None = None
    refusals: tuple[PlanRefusal, ...] = ()
    tags: PlannedTags = field(default_factory=PlannedTags)
    manifests: Amounts = field(default_factory=Amounts)
    blobs: Amounts = field(default_factory=Amounts)
    downloads: PlannedDownloads = field(default_factory=PlannedDownloads)
    tag_changes: tuple[TagChange, ...] = ()
    holds: tuple[Hold, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """``app: would make version 3, 61 tags added, 2 moved; downloads 300 manifests and 614 blobs, 158 MiB``."""
        what = {
            PlanOutcome.VERSION: f"would make version {self.number}",
            PlanOutcome.UNCHANGED: "nothing changed, no version would be made",
            PlanOutcome.REFUSED: f"would stop with {' and '.join(refusal.error for refusal in self.refusals)}",
        }[self.outcome]
        if self.outcome is PlanOutcome.UNCHANGED:
            return f"{self.repository}: {what}"
        tags, downloads = self.tags, self.downloads
        counts = {"moved": tags.moved, "removed": tags.removed, "held": tags.held}
        changes = "".join(f", {count:,} {change}" for change, count in counts.items() if count)
        manifests, blobs = format_count(downloads.manifests, "manifest"), format_count(downloads.blobs, "blob")
        return (
            f"{self.repository}: {what}, {format_count(tags.added, 'tag')} added{changes}; "
            f"downloads {manifests} and {blobs}, {format_bytes(downloads.blob_bytes)}"
        )
