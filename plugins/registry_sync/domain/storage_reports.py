"""Room and integrity as values: what content takes, what was collected, what verification found and repair mended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, BlobStoreUnavailable, RegistrySyncError

#: What could not be removed and is named; all of it is counted.
_NAMED_FAILURES = 5


@dataclass(frozen=True)
class Amount:
    """A number of things and the bytes they take."""

    count: int = 0
    size_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.count + other.count, self.size_bytes + other.size_bytes)

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Amount:
        """As many things as there are ``sizes`` in bytes."""
        listed = list(sizes)
        return cls(len(listed), sum(listed))


class ContentKind(str, Enum):
    """What is collected; manifests before the blobs that they name."""

    MANIFEST = "manifest"
    BLOB = "blob"


@dataclass(frozen=True)
class ContentRecord:
    """A manifest or blob as the database has it, by its number."""

    id: int
    digest: Digest
    size_bytes: int


@dataclass(frozen=True)
class Collection:
    """What a collection removed; a dry run says what would go.

    ``blobs`` are records, ``freed`` bytes that lay in the blob store, ``untracked`` bytes that no record named, which
    are freed too. ``waiting_manifests`` and ``waiting_blobs`` are orphans younger than the grace. ``released_runs``
    ended badly before the grace, and what they had fetched is no longer kept for them.
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
        """Bytes that the blob store has more room."""
        return self.freed.size_bytes + self.untracked.size_bytes


@dataclass(frozen=True)
class RepositoryUsage:
    """What one repository holds in all of its versions, each blob once.

    ``blobs`` are those in the blob store, ``own_blobs`` those of them that no other repository holds: what would
    become orphaned with it. ``missing`` are not in the blob store, foreign ones apart; ``broken`` were found broken or
    missing there, and are still. ``by_versions`` counts a blob once for each version that holds it.
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
    """What all content takes. ``stored`` is each blob in the blob store once, whoever needs it.

    ``by_repositories`` and ``by_versions`` count a blob once for each repository, and each version, that holds it.
    ``orphaned_*`` was noted by the last collection as needed by nothing; ``missing`` is held by a version and not in
    the blob store, foreign blobs apart. ``broken`` was found broken or missing by a verification, and is still.
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
        """What the repositories would take if they shared nothing with each other."""
        return sum((usage.blobs for usage in self.repositories), Amount())

    @property
    def by_versions(self) -> Amount:
        """What the versions would take if each had blobs of its own."""
        return sum((usage.by_versions for usage in self.repositories), Amount())

    @property
    def saved_bytes(self) -> int:
        """Bytes that are not stored again because repositories share them."""
        return self.by_repositories.size_bytes - self.held.size_bytes


class FindingKind(str, Enum):
    """What is wrong with a blob.

    ``broken``: other bytes than its digest. ``missing``: the database says stored, the store has nothing.
    ``unnoted``: the store has it, the database says missing. ``stray``: bytes that no record names. ``stranger``: a
    name in the store that is no blob. ``unreadable``: the bytes are there and could not be read.
    """

    BROKEN = "broken"
    MISSING = "missing"
    UNNOTED = "unnoted"
    UNTRACKED_BLOB = "stray"
    UNKNOWN_FILE = "stranger"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class BlobRecord:
    """What the database says of a blob, as far as it concerns its bytes.

    ``fault`` is what was found wrong with them, at ``fault_at`` for the first time, and nobody mended since:
    ``BROKEN``, ``MISSING``, or None.
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
        """Whether bytes that lie under the digest are not to be trusted."""
        return self.fault is FindingKind.BROKEN


@dataclass(frozen=True)
class Finding:
    """One thing that verification found; ``name`` is a digest, or the name of a stranger."""

    kind: FindingKind
    name: str
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """What a verification read and found. ``findings`` are the first ones; ``counts`` count all of them by kind.

    ``verified`` was read and is good. ``lost`` are the digests of all blobs that were found broken or missing, now or
    by an earlier verification and not mended since; they are noted as such, broken bytes set aside.
    """

    verified: Amount = Amount()
    counts: dict[FindingKind, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    lost: tuple[Digest, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.counts


@dataclass(frozen=True)
class Repair:
    """What a repair brought back; ``failures`` says of each blob that is still lacking why.

    ``transient`` is one of the errors behind them that may pass, None when none may.
    """

    fetched: Amount = Amount()
    found_count: int = 0
    failures: dict[Digest, str] = field(default_factory=dict)
    transient: RegistrySyncError | None = field(default=None, compare=False)


def removal_error(failures: Mapping[str, BlobStoreError]) -> BlobStoreError:
    """The error of what could not be removed, by name, while everything else was; temporary when all of it is."""
    kind = BlobStoreUnavailable if all(error.is_temporary for error in failures.values()) else BlobStoreError
    named = "; ".join(f"{name}: {error}" for name, error in list(failures.items())[:_NAMED_FAILURES])
    more = f"; and {len(failures) - _NAMED_FAILURES:,} more" if len(failures) > _NAMED_FAILURES else ""
    return kind(f"{len(failures):,} could not be removed, and will be tried again the next time: {named}{more}")
