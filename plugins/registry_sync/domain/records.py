"""Repositories and versions as values, and lists of them in pages: as the stores return them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Generic, TypeVar

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import MAX_NAME_LENGTH, TagName
from registry_sync.errors import InvalidReference

T = TypeVar("T")


@dataclass(frozen=True)
class PageRequest:
    """A page of a list: ``limit`` items from ``offset``, ordered by a field's name, ``-name`` for descending.

    ``ordering`` empty means the default order of the list. Stores raise ``InvalidReference`` for unknown fields.
    """

    offset: int = 0
    limit: int = 100
    ordering: str = ""


FIRST_PAGE = PageRequest()


@dataclass(frozen=True)
class Page(Generic[T]):
    """``items`` in order, and the number of items on all pages (``total_count``)."""

    items: tuple[T, ...]
    total_count: int


@dataclass(frozen=True)
class ContentSummary:
    """Counts of units by content type: added and removed since the base version, present in this one."""

    added: Mapping[str, int] = field(default_factory=dict)
    present: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, dict[str, int]]:
        """The counts above zero as plain dictionaries, for logs and XCom."""
        return {
            part: {kind: count for kind, count in getattr(self, part).items() if count}
            for part in ("added", "present", "removed")
        }


class VersionOriginKind(str, Enum):
    """``rollback`` repeats an older version of the repository; ``copy`` copies tags or manifests of another repository.

    ``tag`` sets or removes one tag of the version before.
    """

    SYNC = "sync"
    ROLLBACK = "rollback"
    COPY = "copy"
    TAG = "tag"


@dataclass(frozen=True)
class VersionOrigin:
    """What a version was made from, and by whom.

    ``repository_id`` and ``number`` name the version whose content a rollback or a copy repeats; None for a sync. That
    version may have been deleted since. ``created_by`` is the user who requested it, None when unknown.
    """

    kind: VersionOriginKind = VersionOriginKind.SYNC
    repository_id: str | None = None
    number: int | None = None
    created_by: str | None = None


SYNCED = VersionOrigin()


class SyncMode(str, Enum):
    """``mirror`` makes the new version equal the upstream; ``additive`` keeps tags that upstream has deleted."""

    MIRROR = "mirror"
    ADDITIVE = "additive"


def checked_name(text: str, message: str) -> str:
    """``text`` stripped. Raises :class:`InvalidReference`, whose text starts with ``message``, for an invalid name."""
    name = text.strip()
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidReference(f"{message}, at most {MAX_NAME_LENGTH} printable characters")
    return name


@dataclass(frozen=True)
class RepositorySpec:
    """The fields of a repository that a user sets.

    ``retain_versions`` is how many of the newest versions are kept; None keeps every version. ``remote_id`` is the
    remote that a sync uses which names none, None for no such remote.
    """

    name: str
    description: str | None = None
    retain_versions: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    remote_id: str | None = None


@dataclass(frozen=True)
class Repository:
    """A stored repository. ``latest_number`` is None before the first version; times are aware UTC."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    description: str | None = None
    retain_versions: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    latest_number: int | None = None
    remote_id: str | None = None

    @property
    def spec(self) -> RepositorySpec:
        """The fields that a user sets, for a change."""
        return RepositorySpec(self.name, self.description, self.retain_versions, self.labels, self.remote_id)


@dataclass(frozen=True)
class Hold:
    """A tag that a sync could not update: ``digest`` is the one it keeps, None when the version lacks the tag."""

    tag: TagName
    digest: Digest | None
    reason: str


@dataclass(frozen=True)
class Gap:
    """An entry of the index ``parent`` that the registry lacked; the remote has ``allow_sparse``."""

    parent: Digest
    digest: Digest


def version_uuid(repository_id: str, number: int) -> str:
    """A UUID for a version: its repository's, with the number exclusive-ored into the last 32 bits."""
    return str(uuid.UUID(int=uuid.UUID(repository_id).int ^ number))


def version_number(repository_id: str, version_id: str) -> int:
    """The number of the repository's version whose :func:`version_uuid` it is; nonsense for one of another's."""
    return (uuid.UUID(repository_id).int ^ uuid.UUID(version_id).int) & 0x7FFFFFFF


@dataclass(frozen=True)
class Annotation:
    """The description and labels of a version, which are not part of its content."""

    description: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RepositoryVersion:
    """An immutable, numbered set of content.

    ``base_number`` is the version that added and removed are relative to, None for the first and for the oldest kept
    one. Users may change ``description`` and ``labels``. ``referrers_problem`` is why its sync could not list
    referrers, None when it could.
    """

    repository_id: str
    number: int
    created_at: datetime
    summary: ContentSummary
    base_number: int | None = None
    holds: tuple[Hold, ...] = ()
    gaps: tuple[Gap, ...] = ()
    description: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    origin: VersionOrigin = SYNCED
    referrers_problem: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether no tag is held, no index lacks a selected entry, and referrers were listed."""
        return not self.holds and not self.gaps and self.referrers_problem is None
