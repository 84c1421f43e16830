"""Remotes, repositories and versions as values, and lists of them in pages: what the stores return and the stages
pass on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Generic, TypeVar

from registry_sync.domain.digests import Digest
from registry_sync.domain.platforms import Platform, parse_platforms
from registry_sync.domain.references import MAX_NAME_LENGTH, RegistryUrl, RepositoryName, TagName
from registry_sync.domain.tag_filter import TagFilter
from registry_sync.errors import InvalidReference

T = TypeVar("T")


@dataclass(frozen=True)
class PageRequest:
    """Which part is wanted: ``limit`` items from ``offset``, ordered by a field's name, ``-name`` for descending.

    ``ordering`` empty means the order that suits the list. Stores raise ``InvalidReference`` for unknown fields.
    """

    offset: int = 0
    limit: int = 100
    ordering: str = ""


FIRST_PAGE = PageRequest()


@dataclass(frozen=True)
class Page(Generic[T]):
    """``items`` in order, and how many there are in all (``total_count``), whatever part was asked for."""

    items: tuple[T, ...]
    total_count: int


@dataclass(frozen=True)
class ContentSummary:
    """Counts of units by content type: added and removed since the base version, present in this one."""

    added: Mapping[str, int] = field(default_factory=dict)
    present: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, dict[str, int]]:
        """The same without links, for logs and for what tasks hand on."""
        return {
            part: {kind: count for kind, count in getattr(self, part).items() if count}
            for part in ("added", "present", "removed")
        }


class VersionOriginKind(str, Enum):
    """``rollback`` makes an older version of the repository again; ``copy`` takes tags of another repository."""

    SYNC = "sync"
    ROLLBACK = "rollback"
    COPY = "copy"


@dataclass(frozen=True)
class VersionOrigin:
    """What a version was made from, and by whom.

    ``repository_id`` and ``number`` name the version that a rollback or a copy took its content from; None for a
    sync. That version may be gone since. ``created_by`` is who asked for it, None when nobody said.
    """

    kind: VersionOriginKind = VersionOriginKind.SYNC
    repository_id: str | None = None
    number: int | None = None
    created_by: str | None = None


SYNCED = VersionOrigin()


_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)\s*", re.DOTALL)


def has_private_key(text: str) -> bool:
    """Whether a private key stands in ``text``, whole or cut off."""
    return _KEY.search(text) is not None


def split_private_keys(text: str) -> tuple[str, str]:
    """The rest of ``text``, and the private keys in it."""
    return _KEY.sub("", text), "".join(found.group() for found in _KEY.finditer(text))


class Policy(str, Enum):
    """When the bytes of blobs are downloaded: by the sync, at the first pull and kept, or at each pull."""

    IMMEDIATE = "immediate"
    ON_DEMAND = "on_demand"
    STREAMED = "streamed"


class SyncMode(str, Enum):
    """``mirror`` makes the new version equal the upstream; ``additive`` keeps what is gone there."""

    MIRROR = "mirror"
    ADDITIVE = "additive"


DEFAULT_CONCURRENCY = 20
#: A mirror that would lose more than this share of its tags, however few, stops unless its remote says otherwise.
DEFAULT_REMOVED_SHARE = 0.5


@dataclass(frozen=True)
class RemoteSpec:
    """What a user says of an external source. Checked by :meth:`checked`; holds no secret.

    ``conn_id`` names the Airflow connection with the credentials, None for anonymous. ``include_tags`` None
    means all tags. Certificates are PEM text; a client key is a secret and lives in the connection.

    ``platforms`` None takes every entry of an index, else those of :class:`~registry_sync.domain.platforms.Platform`.
    ``include_referrers`` takes signatures and what else refers to what is taken; ``allow_sparse`` an index of which
    the registry lacks entries; ``allow_schema1`` Docker's first kind of manifest; ``include_foreign_layers``
    layers that lie elsewhere.

    Shares are of tags, from 0 to 1. A sync that would hold more than ``max_held_share`` of its tags, or a mirror that
    would remove more than ``max_removed_share`` or ``max_removed_tags`` of those present, makes no version. None
    sets no limit.
    """

    name: str
    url: str
    upstream_name: str
    include_tags: tuple[str, ...] | None = None
    exclude_tags: tuple[str, ...] = ()
    policy: Policy = Policy.IMMEDIATE
    download_concurrency: int = DEFAULT_CONCURRENCY
    conn_id: str | None = None
    proxy_url: str | None = None
    ssl_validation: bool = True
    ssl_ca_certificate: str | None = None
    ssl_client_certificate: str | None = None
    platforms: tuple[str, ...] | None = None
    include_referrers: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    allow_sparse: bool = False
    allow_schema1: bool = False
    include_foreign_layers: bool = False
    max_held_share: float | None = None
    max_removed_share: float | None = DEFAULT_REMOVED_SHARE
    max_removed_tags: int | None = None

    @property
    def registry(self) -> RegistryUrl:
        """The registry's address. Raises :class:`InvalidReference` when ``url`` is none."""
        return RegistryUrl.parse(self.url)

    @property
    def upstream(self) -> RepositoryName:
        """The name on that registry, ``library/`` added for Docker Hub's official images."""
        return self.registry.upstream_name(self.upstream_name)

    @property
    def source(self) -> str:
        """``host[:port]/repository``: where content comes from, for people and for provenance."""
        return f"{self.registry.netloc}/{self.upstream}"

    @property
    def tag_filter(self) -> TagFilter:
        """The tag filters, parsed."""
        return TagFilter.parse(self.include_tags, self.exclude_tags)

    @property
    def wanted_platforms(self) -> tuple[Platform, ...] | None:
        """The platforms that are taken from indexes, None for all."""
        return None if self.platforms is None else parse_platforms(self.platforms)

    def limits(self) -> tuple[str, ...]:
        """What is not taken of all that its upstream has, for people: ``only the tags 3.*``; nothing where all is."""
        limits = []
        if self.include_tags is not None:
            limits.append(f"only the tags {', '.join(self.include_tags)}")
        if self.exclude_tags:
            limits.append(f"without the tags {', '.join(self.exclude_tags)}")
        if self.platforms is not None:
            limits.append(f"only the platforms {', '.join(self.platforms)}")
        if not self.include_referrers:
            limits.append("without signatures and other referrers")
        return tuple(limits)

    def checked(self) -> RemoteSpec:
        """Itself, after every part that has a grammar was read. Raises :class:`InvalidReference`."""
        _ = (self.upstream, self.tag_filter, self.wanted_platforms)
        return self


#: How the ids of Airflow connections begin that were made for one remote, and that go with it.
OWN_CONNECTION_PREFIX = "registry_sync_remote_"


def own_connection_prefix(remote_id: str) -> str:
    """How the ids of the connections begin that belong to the remote of this id, and to no other."""
    return f"{OWN_CONNECTION_PREFIX}{remote_id.replace('-', '')}_"


def is_own_connection(conn_id: str | None, remote_id: str | None = None) -> bool:
    """Whether a connection was made for a remote: for the one of this id, or for any when that is None.

    For any in whatever case, since a database of Airflow's may take it for the same id.
    """
    if conn_id is None:
        return False
    if remote_id is None:
        return conn_id.lower().startswith(OWN_CONNECTION_PREFIX)
    return conn_id.startswith(own_connection_prefix(remote_id))


@dataclass(frozen=True)
class Remote:
    """A stored remote: ``id`` is its UUID over REST; times are aware UTC.

    ``is_provisional`` is one that a sync made, that no sync has made a version from, and that nobody changed otherwise:
    a typing error in it has cost nothing yet.
    """

    id: str
    spec: RemoteSpec
    created_at: datetime
    updated_at: datetime
    is_provisional: bool = False


def checked_repository_name(text: str, wanted: str) -> str:
    """``text`` without blanks around it; ``wanted`` begins the :class:`InvalidReference` for what cannot be a name."""
    name = text.strip()
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidReference(f"{wanted}, at most {MAX_NAME_LENGTH} printable characters")
    return name


@dataclass(frozen=True)
class RepositorySpec:
    """What a user says of a repository.

    ``retain_versions`` is how many of the newest versions are kept; None keeps every version.
    """

    name: str
    description: str | None = None
    retain_versions: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


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

    @property
    def spec(self) -> RepositorySpec:
        """What a user said of it, to be changed and given back."""
        return RepositorySpec(self.name, self.description, self.retain_versions, self.labels)


@dataclass(frozen=True)
class Hold:
    """A tag that a sync could not bring up to date: ``digest`` is the one it keeps, None when it is left out."""

    tag: TagName
    digest: Digest | None
    reason: str


@dataclass(frozen=True)
class Gap:
    """An entry of the index ``parent`` that its registry did not have, and that a remote allowed to be missing."""

    parent: Digest
    digest: Digest


@dataclass(frozen=True)
class Annotation:
    """What users say of a version, which is no part of what it holds."""

    description: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RepositoryVersion:
    """An immutable, numbered set of content.

    ``base_number`` is the version that added and removed are relative to, None for the first and the oldest that is
    kept. ``description`` and ``labels`` are what users say of it, and may change. ``referrers_problem`` is why its sync
    could not look up what refers to its manifests, None when it could.
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
        """Whether no tag is held, no index lacks an entry that was to be taken along, and referrers were looked up."""
        return not self.holds and not self.gaps and self.referrers_problem is None
