"""The history of repositories as values: where content came from, how versions differ, what is made of them.

Nothing here holds a secret.
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
    """How a version came about.

    ``run`` says for a sync which DAG run it was, by which remote as that was then, when the tags were listed, when it
    began and ended, and what it asked of the registry; None for a rollback, a copy, and a run that is not kept any
    more. ``origin_repository_name`` names the repository of ``version.origin``, None for a sync and when it is gone.
    """

    version: RepositoryVersion
    run: SyncRun | None = None
    origin_repository_name: str | None = None


@dataclass(frozen=True)
class Holder:
    """A repository that has a version with the content; ``first_number`` is since which of its versions."""

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
    """``source`` is ``host[:port]/repository`` that the bytes came from, None when nobody noted it.

    ``stored_at`` is None while the bytes are not in the blob store, ``verified_at`` when they were last read again and
    compared with the digest, None for never. ``fault`` is what was found wrong with the bytes at ``fault_at`` and not
    mended since, None for nothing. ``holders`` are by name.
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
    """What became of a unit from one version to another; only tags are moved."""

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

    Bytes are as manifests say, of foreign blobs too. What the base alone holds is freed only once no other version
    needs it.
    """

    page: Page[UnitChange]
    count: Amounts
    size_bytes: Amounts


@dataclass(frozen=True)
class VersionDifference:
    """How version ``number`` differs from ``base_number``, which is 0 for the empty version before the first.

    ``has_other_links`` says that something else is taken along with a manifest. A version may differ in that alone,
    such as when an entry of an index is there at last that another tag had brought before.
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
        """Whether both hold the same, and take the same along."""
        parts = (self.tags, self.manifests, self.blobs)
        return not self.has_other_links and not any(part.page.total_count for part in parts)


@dataclass(frozen=True)
class CopyRequest:
    """Which tags of which version: ``number`` None means the latest, ``tags`` the names and globs, all by default.

    ``additive`` keeps what else the target holds, and moves tags that it has; ``mirror`` makes the target hold the
    selection and nothing else.
    """

    repository_id: str
    number: int | None = None
    tags: TagFilter = ALL_TAGS
    mode: SyncMode = SyncMode.ADDITIVE


@dataclass(frozen=True)
class DerivedVersion:
    """What a rollback or a copy came to: ``version`` is None when the latest version is so already.

    ``missing_*`` say which of the blobs that the repository now holds are not in the blob store, foreign ones apart:
    they are known by digest, and the next immediate sync that has their tags fetches them.
    """

    version: RepositoryVersion | None
    missing_blob_count: int = 0
    missing_blob_bytes: int = 0
