"""Reports on storage as values: disk usage, collections, verifications and repairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, BlobStoreUnavailable, RegistrySyncError

#: The failures that a removal's error lists; all of them are counted.
_NAMED_FAILURES = 5


@dataclass(frozen=True)
class Amount:
    """A count of objects and their size in bytes."""

    count: int = 0
    size_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.count + other.count, self.size_bytes + other.size_bytes)

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Amount:
        """The amount of objects with these ``sizes`` in bytes."""
        listed = list(sizes)
        return cls(len(listed), sum(listed))


class ContentKind(str, Enum):
    """The kinds of collected content; manifests precede the blobs that they name."""

    MANIFEST = "manifest"
    BLOB = "blob"


@dataclass(frozen=True)
class ContentRecord:
    """The database's record of a manifest or blob."""

    id: int
    digest: Digest
    size_bytes: int


@dataclass(frozen=True)
class Collection:
    """The result of a collection; for a dry run, what it would remove.

    ``blobs`` are records, ``freed`` bytes that were in the blob store, ``untracked`` bytes without a record, which are
    freed too. ``waiting_manifests`` and ``waiting_blobs`` are orphans within the grace period. ``released_runs`` failed
    or were canceled before the grace period, and no longer protect the content they had fetched.
    """

    is_dry_run: bool = False
    manifests: Amount = Amount()
    blobs: Amount = Amount()
    freed: Amount = Amount()
    untracked: Amount = Amount()
    waiting_manifests: Amount = Amount()
    waiting_blobs: Amount = Amount()
    released_runs: int = 0

    @property
    def freed_bytes(self) -> int:
        """Bytes freed in the blob store."""
        return self.freed.size_bytes + self.untracked.size_bytes


@dataclass(frozen=True)
class RepositoryUsage:
    """The disk usage of one repository in all of its versions, each blob once.

    ``blobs`` are those in the blob store, ``own_blobs`` those of them that no other repository holds, and that would
    become orphans with it. ``missing`` are not in the blob store, foreign ones excepted; ``broken`` were found broken
    or missing there, and not repaired since. ``by_versions`` counts a blob once for each version that holds it.
    """

    repository_id: str
    name: str
    version_count: int = 0
    manifests: Amount = Amount()
    blobs: Amount = Amount()
    own_blobs: Amount = Amount()
    missing: Amount = Amount()
    broken: Amount = Amount()
    by_versions: Amount = Amount()


@dataclass(frozen=True)
class DiskUsage:
    """The disk usage of all content. ``stored`` counts each blob in the blob store once.

    ``by_repositories`` and ``by_versions`` count a blob once for each repository, and each version, that holds it.
    ``orphaned_*`` was recorded as unreachable by the last collection; ``missing`` is held by a version and not in the
    blob store, foreign blobs excepted. ``broken`` was found broken or missing by a verification, and not repaired
    since.
    """

    repositories: tuple[RepositoryUsage, ...] = ()
    manifests: Amount = Amount()
    stored: Amount = Amount()
    held: Amount = Amount()
    orphaned_manifests: Amount = Amount()
    orphaned_blobs: Amount = Amount()
    missing: Amount = Amount()
    broken: Amount = Amount()

    @property
    def by_repositories(self) -> Amount:
        """The usage if repositories did not share blobs."""
        return sum((usage.blobs for usage in self.repositories), Amount())

    @property
    def by_versions(self) -> Amount:
        """The usage if versions did not share blobs."""
        return sum((usage.by_versions for usage in self.repositories), Amount())

    @property
    def saved_bytes(self) -> int:
        """Bytes saved because repositories share blobs."""
        return self.by_repositories.size_bytes - self.held.size_bytes


class FindingKind(str, Enum):
    """The kind of a finding.

    ``broken``: bytes that do not match the digest. ``missing``: recorded as stored, and not in the store.
    ``unrecorded``: in the store, and recorded as missing. ``untracked``: a blob without a record. ``unknown_file``: a
    file in the store which is no blob. ``unreadable``: the bytes exist and could not be read.
    """

    BROKEN = "broken"
    MISSING = "missing"
    UNRECORDED = "unrecorded"
    UNTRACKED_BLOB = "untracked"
    UNKNOWN_FILE = "unknown_file"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class BlobRecord:
    """The database's record of a blob's bytes.

    ``fault`` is the fault that was found, at ``fault_at`` for the first time, and not repaired since: ``BROKEN``,
    ``MISSING``, or None.
    """

    digest: Digest
    size_bytes: int
    media_type: str
    is_stored: bool
    is_foreign: bool = False
    fault: FindingKind | None = None
    fault_at: datetime | None = None

    @property
    def is_broken(self) -> bool:
        """Whether the stored bytes must not be used."""
        return self.fault is FindingKind.BROKEN


@dataclass(frozen=True)
class Finding:
    """One finding of a verification; ``name`` is a digest, or the name of an unknown file."""

    kind: FindingKind
    name: str
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """The result of a verification. ``findings`` are the first ones; ``counts`` count all of them by kind.

    ``verified`` is the amount of intact blobs. ``lost`` are the digests of all blobs that were found broken or missing,
    now or by an earlier verification and not repaired since; they are recorded as such, and broken bytes are
    quarantined.
    """

    verified: Amount = Amount()
    counts: dict[FindingKind, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    lost: tuple[Digest, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether there are no findings."""
        return not self.counts


@dataclass(frozen=True)
class Repair:
    """The result of a repair; ``failures`` are the reasons of the blobs that are still missing.

    ``transient`` is one of the transient errors among them, None when there is none.
    """

    fetched: Amount = Amount()
    found_count: int = 0
    failures: dict[Digest, str] = field(default_factory=dict)
    transient: RegistrySyncError | None = field(default=None, compare=False)


def removal_error(failures: Mapping[str, BlobStoreError]) -> BlobStoreError:
    """The error for failed removals, by name; temporary when all of them are."""
    kind = BlobStoreUnavailable if all(error.is_temporary for error in failures.values()) else BlobStoreError
    named = "; ".join(f"{name}: {error}" for name, error in list(failures.items())[:_NAMED_FAILURES])
    more = f"; and {len(failures) - _NAMED_FAILURES:,} more" if len(failures) > _NAMED_FAILURES else ""
    return kind(f"{len(failures):,} could not be removed, and will be tried again the next time: {named}{more}")
