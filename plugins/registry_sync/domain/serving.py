"""Distributions and robots as values: under which names repositories are pulled from here, and by whom.

A base path is matched exactly; ``<base_path>/versions/<number>`` names one version of what is distributed there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from fnmatch import fnmatchcase

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import RepositoryName
from registry_sync.errors import InvalidReference

_OF_A_VERSION = re.compile(r"(?P<base_path>.+)/versions/(?P<number>[1-9][0-9]{0,8})")
_ROBOT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_SECRET_BYTES = 32
_ROBOT_SECRET = re.compile(r"rs_[A-Za-z0-9_-]{43}")
#: How long a signed URL of an object store can be used, in seconds.
DEFAULT_URL_SECONDS, LEAST_URL_SECONDS, MOST_URL_SECONDS = 300, 10, 3600


class BlobDelivery(str, Enum):
    """Who sends the bytes of a stored blob: the server itself, the object store by a signed URL, or nginx in front."""

    DIRECT = "direct"
    REDIRECT = "redirect"
    NGINX = "nginx"


def base_path_of(text: str) -> RepositoryName:
    """``text`` as a base path. Raises :class:`InvalidReference` when clients could not ask for it, or not alone."""
    name = RepositoryName(text)
    if _OF_A_VERSION.fullmatch(name):
        raise InvalidReference(
            f"{name!r} is the name of a version of {name.rpartition('/versions/')[0]!r}: choose another"
        )
    return name


def version_of_name(name: str) -> tuple[str, int] | None:
    """Base path and number of a name such as ``hello-world/versions/3``; None for other names."""
    found = _OF_A_VERSION.fullmatch(name)
    return None if found is None else (found["base_path"], int(found["number"]))


@dataclass(frozen=True)
class DistributionSpec:
    """What a user says of a distribution.

    It serves the latest version of ``repository_id``, or always ``version_number`` of it. Without a repository (it was
    deleted, or none was chosen yet) nothing is served. ``is_private`` asks for a login.
    """

    name: str
    base_path: str
    repository_id: str | None = None
    version_number: int | None = None
    is_private: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> tuple[str, str | None, int | None]:
        """What clients get where: base path, repository and version."""
        return self.base_path, self.repository_id, self.version_number

    def checked(self) -> DistributionSpec:
        """The same. Raises :class:`InvalidReference` for a base path that cannot be served, or a number alone."""
        base_path_of(self.base_path)
        if self.version_number is not None and self.repository_id is None:
            raise InvalidReference("a version is of a repository: give both")
        return self


@dataclass(frozen=True)
class Distribution(DistributionSpec):
    """A stored distribution; times are aware UTC."""

    id: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def spec(self) -> DistributionSpec:
        """What a user said of it, to be changed and given back."""
        return DistributionSpec(
            self.name, self.base_path, self.repository_id, self.version_number, self.is_private, self.labels
        )


@dataclass(frozen=True)
class PublishedVersion:
    """What a name stands for at the time of one request.

    ``number`` is None before the first version of the repository. ``is_fixed`` is whether content of other versions is
    out of reach. ``oldest`` is the oldest version that the repository still has. ``state`` changes whenever versions of
    it come or go, and never comes back.
    """

    name: str
    repository_id: str
    number: int | None
    is_fixed: bool
    is_private: bool
    oldest: int = 0
    state: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class PullRecord:
    """One request to the pull server and how it was answered, for metrics, the access log and the last pulls.

    ``kind`` is manifests, blobs, tags, referrers, catalog, token, root or other. ``name`` and ``reference`` are as the
    client wrote them. ``code`` is that of an error. ``account`` is ``robot:NAME`` or ``user:NAME``, empty for nobody.
    ``repository_id`` is that of the version which was looked at, ``tag`` the tag that led to ``digest``.
    """

    at: datetime
    method: str
    kind: str
    status: int
    seconds: float
    sent_bytes: int
    path: str = ""
    name: str | None = None
    reference: str | None = None
    digest: str | None = None
    tag: str | None = None
    code: str | None = None
    repository_id: str | None = None
    account: str = ""
    address: str = ""
    user_agent: str = ""

    @property
    def is_pull(self) -> bool:
        """Whether a manifest was sent."""
        return self.kind == "manifests" and self.method == "GET" and self.status == 200


@dataclass(frozen=True)
class PulledTag:
    """A tag, and when it was last pulled, by its name or by the digest that it stands for; None for never."""

    name: str
    digest: Digest
    last_pulled: datetime | None


@dataclass(frozen=True)
class Robot:
    """A login for programs: which base paths it may pull, as globs (``team-a/*``), and until when (None: no end)."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None

    def may_pull(self, base_path: str) -> bool:
        """Whether one of the globs fits."""
        return any(fnmatchcase(base_path, scope) for scope in self.scopes)


@dataclass(frozen=True)
class User:
    """A user of Airflow who logged in; ``is_reader`` is whether the REST API shows them what is mirrored."""

    name: str
    is_reader: bool

    def may_pull(self, _base_path: str) -> bool:
        """As over REST: a user reads everything or nothing."""
        return self.is_reader


def robot_name(text: str) -> str:
    """``text`` as the name of a robot. Raises :class:`InvalidReference`."""
    if not _ROBOT_NAME.fullmatch(text):
        raise InvalidReference(
            f"{text[:80]!r} is not a robot's name: lower-case letters, digits, . _ and -, at most 64"
        )
    return text


def robot_scopes(globs: Iterable[str]) -> tuple[str, ...]:
    """``globs`` without repeats. Raises :class:`InvalidReference` for none, or one that no base path could fit."""
    scopes = tuple(dict.fromkeys(globs))
    for scope in scopes:
        if not re.fullmatch(r"[a-z0-9._/*?-]{1,255}", scope):
            raise InvalidReference(f"{scope[:80]!r} fits no base path: lower-case letters, digits, . _ - / and * ?")
    if not scopes:
        raise InvalidReference("a robot needs the base paths that it may pull; give * for all")
    return scopes


def new_secret() -> str:
    """A secret for a robot, shown once: it is kept as its hash."""
    return f"rs_{secrets.token_urlsafe(_SECRET_BYTES)}"


def is_robot_secret(text: str) -> bool:
    """Whether it has the form of a robot's secret, and so is no password of a user."""
    return _ROBOT_SECRET.fullmatch(text) is not None


def secret_hash(secret: str) -> str:
    """What is kept of a secret. It is random and long, so that one pass of SHA-256 is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_secret(secret: str, kept_hash: str) -> bool:
    """Whether ``secret`` is the one of which ``kept_hash`` was kept; takes the same time either way."""
    return hmac.compare_digest(secret_hash(secret), kept_hash)
