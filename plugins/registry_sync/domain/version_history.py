"""The history of repositories as values: provenance of content, differences of versions, and derived versions.

Nothing here contains a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import Page, RepositoryVersion, SyncMode
from registry_sync.domain.references import TagFilter, TagName
from registry_sync.domain.runs import SyncRun


@dataclass(frozen=True)
class VersionProvenance:
    """The provenance of a version.

    ``run`` records for a sync its DAG run, its remote at that time, when tags were listed, when it started and ended,
    and its requests to the registry; None for a rollback, a copy, and a run that is no longer kept.
    ``origin_repository_name`` is the name of the repository of ``version.origin``, None for a sync and when it was
    deleted.
    """

    version: RepositoryVersion
    run: SyncRun | None = None
    origin_repository_name: str | None = None


@dataclass(frozen=True)
class Holder:
    """A repository with the content in a version; ``first_number`` is the first such version."""

    repository_id: str
    repository_name: str
    first_number: int
    is_in_latest: bool


@dataclass(frozen=True)
class ManifestProvenance:
    """``created_at`` is when the manifest was stored; ``holders`` are by name."""

    digest: Digest
    size_bytes: int
    created_at: datetime
    holders: tuple[Holder, ...]


@dataclass(frozen=True)
class BlobProvenance:
    """The provenance of a blob. ``source`` is the ``host[:port]/repository`` of its bytes, None when not recorded.

    ``stored_at`` is None while the bytes are not in the blob store, ``verified_at`` when they were last verified
    against the digest, None for never. ``fault`` is the fault that was found at ``fault_at`` and not repaired since, or
    None. ``holders`` are by name.
    """

    digest: Digest
    size_bytes: int
    source: str | None
    created_at: datetime
    stored_at: datetime | None
    verified_at: datetime | None
    fault: str | None
    fault_at: datetime | None
    holders: tuple[Holder, ...]


ALL_TAGS = TagFilter()


class Change(str, Enum):
    """The change of a unit from one version to another; only tags are moved."""

    ADDED = "added"
    REMOVED = "removed"
    MOVED = "moved"


@dataclass(frozen=True)
class TagChange:
    """A tag that differs: ``before`` is its digest in the base, None when added; ``after`` None when removed."""

    name: TagName
    before: Digest | None
    after: Digest | None

    @property
    def change(self) -> Change:
        """Added, removed or moved."""
        if self.before is None:
            return Change.ADDED
        return Change.REMOVED if self.after is None else Change.MOVED


@dataclass(frozen=True)
class UnitChange:
    """A manifest or blob that only one of the two versions holds."""

    change: Change
    digest: Digest
    media_type: str
    size_bytes: int


@dataclass(frozen=True)
class Amounts:
    """Units, or bytes of them, by the side that holds them: the version alone, both, the base alone."""

    added: int = 0
    shared: int = 0
    removed: int = 0


@dataclass(frozen=True)
class TagDifference:
    """``page`` by name; counts are those of all. A moved tag is in neither ``added_count`` nor ``removed_count``."""

    page: Page[TagChange]
    added_count: int
    removed_count: int
    moved_count: int
    shared_count: int


@dataclass(frozen=True)
class UnitDifference:
    """``page`` by digest; amounts are those of all, whatever the page holds.

    Bytes are the sizes in manifests, foreign blobs included. Content of the base alone is freed only once no other
    version holds it.
    """

    page: Page[UnitChange]
    count: Amounts
    size_bytes: Amounts


@dataclass(frozen=True)
class VersionDifference:
    """The difference from ``base_number``, which is 0 for the empty version before the first, to ``number``.

    ``has_other_links`` says that manifests include other manifests. A version may differ in that alone, such as when an
    entry of an index was missing before and its manifest came with another tag.
    """

    repository_id: str
    number: int
    base_repository_id: str
    base_number: int
    tags: TagDifference
    manifests: UnitDifference
    blobs: UnitDifference
    has_other_links: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether both hold the same content and links."""
        kinds = (self.tags, self.manifests, self.blobs)
        return not self.has_other_links and not any(kind.page.total_count for kind in kinds)


@dataclass(frozen=True)
class CopyRequest:
    """The tags of a version to copy: ``number`` None means the latest, ``tags`` the names and globs, all by default.

    ``additive`` keeps the target's other content, and moves tags that it has; ``mirror`` makes the target equal the
    selection.
    """

    repository_id: str
    number: int | None = None
    tags: TagFilter = ALL_TAGS
    mode: SyncMode = SyncMode.ADDITIVE


@dataclass(frozen=True)
class ManifestCopy:
    """The manifests of a version to copy, with all below them: ``number`` None means the latest.

    ``digests`` and ``media_types`` select them; None selects all.
    """

    repository_id: str
    number: int | None = None
    digests: tuple[Digest, ...] | None = None
    media_types: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DerivedVersion:
    """The result of a rollback or copy: ``version`` is None when the latest version has the same content.

    ``missing_*`` are the amounts of the repository's blobs that are not in the blob store, foreign ones excepted; the
    next immediate sync of their tags fetches them.
    """

    version: RepositoryVersion | None
    missing_blob_count: int = 0
    missing_blob_bytes: int = 0
