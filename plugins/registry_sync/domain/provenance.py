"""Where versions and content came from, as values; nothing here holds a secret."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RepositoryVersion
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
