"""What the stages need from the parts they work on, as small Protocols.

``oci``, ``blobs`` and ``db`` have classes of these shapes; a test may bring its own. Each method says in its
own class what it raises; the stages rely on :attr:`RegistrySyncError.is_temporary` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifests import Descriptor, Manifest
from registry_sync.domain.records import RepositoryVersion
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.domain.runs import CommitResult, ListedTag, NeededBlob, RunState, SyncRun


class ManifestHead(Protocol):
    """What a HEAD of a manifest says; ``digest`` is None when the registry does not."""

    @property
    def digest(self) -> Digest | None: ...


class TagListing(Protocol):
    """A complete listing: well-formed tags, and the names that were skipped."""

    @property
    def tags(self) -> tuple[TagName, ...]: ...
    @property
    def skipped(self) -> tuple[str, ...]: ...
    @property
    def listed_at(self) -> datetime: ...


class BlobWriter(Protocol):
    """Where one blob is written; see :mod:`registry_sync.blobs`."""

    @property
    def offset(self) -> int: ...
    def write(self, chunk: bytes | memoryview, /) -> None: ...
    def restart(self) -> None: ...
    def commit(self) -> None: ...
    def discard(self) -> None: ...


class RegistryClient(Protocol):
    """The registry API of one registry, safe to use from several threads."""

    def list_tags(self, repository: RepositoryName, /) -> TagListing: ...
    def head_manifest(self, repository: RepositoryName, reference: TagName | Digest, /) -> ManifestHead: ...
    def get_manifest(
        self, repository: RepositoryName, reference: TagName | Digest, /, *, expected: Descriptor | None = None
    ) -> Manifest: ...
    def fetch_blob(self, repository: RepositoryName, blob: Descriptor, writer: Any, /) -> int: ...


class BlobStore(Protocol):
    """Blobs by digest."""

    def has(self, digest: Digest, size_bytes: int | None = None, /) -> bool: ...
    def writer(self, digest: Digest, size_bytes: int, /) -> AbstractContextManager[BlobWriter]: ...


class Runs(Protocol):
    """The record of one sync run: its tags, its blobs, its end."""

    def record_listing(self, run_id: str, listed_at: datetime, tags: Sequence[ListedTag], /) -> None: ...
    def tags_of_shard(self, run_id: str, shard: int, /) -> list[ListedTag]: ...
    def resolve_tags(self, run_id: str, digests: Mapping[TagName, Digest], /) -> None: ...
    def hold_tags(self, run_id: str, reasons: Mapping[TagName, str], /) -> None: ...
    def drop_tags(self, run_id: str, tags: Iterable[TagName], /) -> None: ...
    def needed_blobs(self, run_id: str, /) -> list[NeededBlob]: ...
    def record_plan(self, run_id: str, shards: Mapping[int, Sequence[Digest]], /) -> None: ...
    def blobs_of_shard(self, run_id: str, shard: int, /) -> list[NeededBlob]: ...
    def fail_blobs(self, run_id: str, reasons: Mapping[Digest, str], /) -> None: ...
    def finish(self, run_id: str, state: RunState, /) -> None: ...


class Contents(Protocol):
    """Manifests and blobs that are known."""

    def known_manifests(self, digests: Iterable[Digest], /) -> set[Digest]: ...
    def add_manifests(self, manifests: Sequence[Manifest], /) -> None: ...
    def mark_stored(self, digests: Iterable[Digest], /) -> None: ...
    def mark_missing(self, digests: Iterable[Digest], /) -> None: ...


class Versions(Protocol):
    """Repository versions."""

    def latest(self, repository_id: str, /) -> RepositoryVersion | None: ...
    def tags(self, repository_id: str, number: int | None = None, /) -> dict[TagName, Digest]: ...
    def missing_blob_count(self, repository_id: str, /) -> int: ...
    def commit(self, run_id: str, /) -> CommitResult: ...


class Database(Protocol):
    """The stores that the stages use."""

    @property
    def runs(self) -> Runs: ...
    @property
    def contents(self) -> Contents: ...
    @property
    def versions(self) -> Versions: ...


__all__ = [
    "BlobStore",
    "BlobWriter",
    "CommitResult",
    "Contents",
    "Database",
    "ManifestHead",
    "RegistryClient",
    "Runs",
    "SyncRun",
    "TagListing",
    "Versions",
]
