"""Remotes, and the one definition of their options: what each may be, and what it is where people and programs say it.

A remote is parsed once, when it is made or read: it holds values, not texts. Stored documents, what a sync may say of a
remote, messages and ``airflow registry-sync remote show`` follow from :data:`OPTIONS`. REST fields, the parameters of
``ListTagsOperator`` and the form of the DAG are written out where they are, and tests hold them against it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from registry_sync.domain.platforms import Platform, parse_platforms
from registry_sync.domain.quantities import parse_choice, parse_flag
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagFilter, TagPattern
from registry_sync.errors import ConfigurationError


class Policy(str, Enum):
    """When the bytes of blobs are downloaded: by the sync, at the first pull and kept, or at each pull."""

    IMMEDIATE = "immediate"
    ON_DEMAND = "on_demand"
    STREAMED = "streamed"


#: Makes a value of what is said of an option, which it is given with its name.
Reader = Callable[["Option", str, Any], Any]


@dataclass(frozen=True)
class Option:
    """What there is to know of one option of a remote.

    ``read`` makes its value of what a person typed, of what is stored, and of a value; it is never given None.
    ``parameter`` is the name by which a sync may say it, of the operator and of the DAG's form; None where only the
    remote may. ``minimum`` and ``maximum`` are bounds of what is typed. ``unset`` is what None means, for people. A run
    that was triggered by somebody of whom nothing is known may lower one that ``may_be_lowered``; None is without
    limit, and so the highest.
    """

    description: str
    read: Reader
    parameter: str | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    unset: str = "none"
    may_be_lowered: bool = False

    @property
    def is_list(self) -> bool:
        """Whether it is several texts."""
        return self.read in (_tag_patterns, _platforms)


def _text(_option: Option, _name: str, given: str) -> str:
    return given


def _share(_option: Option, _name: str, given: float) -> float:
    return given


def _labels(_option: Option, _name: str, given: Mapping[str, str]) -> Mapping[str, str]:
    return dict(given)


def _flag(_option: Option, name: str, given: bool | str) -> bool | None:
    return parse_flag(given, name)


def _number(option: Option, name: str, given: int | str) -> int:
    if isinstance(given, int):
        return given
    lowest, highest = int(option.minimum or 0), int(option.maximum or 0)
    if not (given.isascii() and given.isdigit()) or not lowest <= int(given) <= highest:
        raise ConfigurationError(f"{name} is {given[:40]!r}; give a number from {lowest} to {highest}")
    return int(given)


def _policy(_option: Option, name: str, given: str) -> Policy:
    return parse_choice(Policy, given, name)


def _tag_patterns(_option: Option, _name: str, given: tuple[str, ...]) -> tuple[TagPattern, ...]:
    return TagPattern.parse_all(given)


def _platforms(_option: Option, _name: str, given: tuple[str | Platform, ...]) -> tuple[Platform, ...]:
    return parse_platforms(map(str, given))


def _option(description: str, read: Reader, **more: Any) -> Mapping[str, Option]:
    """What there is to know of a field of :class:`RemoteSpec`, as its metadata."""
    return {"option": Option(description, read, **more)}


#: How the ids of Airflow connections begin that were made for one remote, and that go with it.
OWN_CONNECTION_PREFIX = "registry_sync_remote_"
DEFAULT_CONCURRENCY = 20
#: A mirror that would lose more than this share of its tags, however few, stops unless its remote says otherwise.
DEFAULT_REMOVED_SHARE = 0.5
#: The largest number that JSON holds exactly everywhere: 8 PiB.
MAX_TOTAL_BYTES = 2**53 - 1


@dataclass(frozen=True)
class RemoteSpec:
    """What a user says of an external source; holds no secret. Made of texts by :meth:`parse`.

    ``upstream_name`` is as it was written; :attr:`upstream` is the name on that registry. ``conn_id`` names the Airflow
    connection with the credentials, None for anonymous. ``include_tags`` None means all tags. Certificates are PEM
    text; a client key is a secret and lives in the connection.

    ``platforms`` None takes every entry of an index. ``include_referrers`` takes signatures and what else refers to
    what is selected; ``allow_sparse`` an index of which the registry lacks entries; ``allow_schema1`` Docker's first
    kind of manifest; ``include_foreign_layers`` layers that lie elsewhere.

    Shares are of tags, from 0 to 1. A sync that would hold more than ``max_held_share`` of its tags, or a mirror that
    would remove more than ``max_removed_share`` or ``max_removed_tags`` of those present, makes no version. One that
    would store more than ``max_total_bytes`` that the blob store lacks stops before it downloads. None sets no limit.
    """

    name: str
    url: RegistryUrl
    upstream_name: RepositoryName
    include_tags: tuple[TagPattern, ...] | None = field(
        default=None,
        metadata=_option(
            "Tags and globs of tags to include, separated by commas; null for all",
            _tag_patterns,
            parameter="tags",
            unset="all",
        ),
    )
    exclude_tags: tuple[TagPattern, ...] = field(
        default=(),
        metadata=_option("Tags and globs of tags to exclude", _tag_patterns, parameter="exclude_tags"),
    )
    policy: Policy = field(
        default=Policy.IMMEDIATE,
        metadata=_option("When the bytes of blobs are downloaded", _policy, parameter="policy"),
    )
    download_concurrency: int = field(
        default=DEFAULT_CONCURRENCY,
        metadata=_option(
            "Requests at once in each task",
            _number,
            parameter="download_concurrency",
            minimum=1,
            maximum=100,
            may_be_lowered=True,
        ),
    )
    conn_id: str | None = field(
        default=None,
        metadata=_option(
            f"An Airflow connection with the credentials. Own ones start with {OWN_CONNECTION_PREFIX}",
            _text,
            parameter="conn_id",
        ),
    )
    proxy_url: str | None = field(default=None, metadata=_option("The proxy to go through", _text))
    ssl_validation: bool = field(
        default=True,
        metadata=_option("Whether the registry's TLS certificate is checked", _flag, parameter="ssl_validation"),
    )
    ssl_ca_certificate: str | None = field(
        default=None, metadata=_option("Certificates of the authorities to trust, as PEM", _text)
    )
    ssl_client_certificate: str | None = field(
        default=None, metadata=_option("The certificate to show to the registry, as PEM", _text)
    )
    platforms: tuple[Platform, ...] | None = field(
        default=None,
        metadata=_option(
            "Such as linux/amd64 or linux/arm/v7; null for all", _platforms, parameter="platforms", unset="all"
        ),
    )
    include_referrers: bool = field(
        default=True,
        metadata=_option("Whether signatures and other referrers are included", _flag, parameter="include_referrers"),
    )
    labels: Mapping[str, str] = field(default_factory=dict, metadata=_option("Labels, for people", _labels))
    allow_sparse: bool = field(
        default=False, metadata=_option("Whether an index is accepted of which the registry lacks entries", _flag)
    )
    allow_schema1: bool = field(
        default=False, metadata=_option("Whether Docker's schema 1 manifests are accepted", _flag)
    )
    include_foreign_layers: bool = field(
        default=False, metadata=_option("Whether layers that are kept elsewhere are fetched, from their URLs", _flag)
    )
    max_held_share: float | None = field(
        default=None,
        metadata=_option(
            "No version is made when more of the tags would be held; null: no limit", _share, minimum=0, maximum=1
        ),
    )
    max_removed_share: float | None = field(
        default=DEFAULT_REMOVED_SHARE,
        metadata=_option(
            "No version is made when a mirror would lose more of its tags, however few; null: no limit",
            _share,
            minimum=0,
            maximum=1,
        ),
    )
    max_removed_tags: int | None = field(
        default=None,
        metadata=_option("The same as a number of tags; null: no limit", _number, minimum=0, maximum=1_000_000),
    )
    max_total_bytes: int | None = field(
        default=None,
        metadata=_option(
            "A sync stops before it downloads when the blobs that it would store are larger together; null: no limit",
            _number,
            parameter="max_total_bytes",
            minimum=1,
            maximum=MAX_TOTAL_BYTES,
            may_be_lowered=True,
        ),
    )

    @classmethod
    def parse(cls, name: str, url: str, upstream_name: str, **options: Any) -> RemoteSpec:
        """A remote of texts, and of options as typed, as stored or as values.

        Raises :class:`~registry_sync.errors.InvalidReference`, :class:`~registry_sync.errors.ConfigurationError`.
        """
        registry = RegistryUrl.parse(url)
        registry.upstream_name(upstream_name)
        return cls(name, registry, RepositoryName(upstream_name), **read_options(options))

    def changed(self, **values: Any) -> RemoteSpec:
        """Itself with other values, given as to :meth:`parse`, which raises the same."""
        place = {name: _plain(values.pop(name, getattr(self, name))) for name in ("name", "url", "upstream_name")}
        made = RemoteSpec.parse(**place)
        return replace(self, name=made.name, url=made.url, upstream_name=made.upstream_name, **read_options(values))

    @cached_property
    def upstream(self) -> RepositoryName:
        """The name on that registry, ``library/`` added for Docker Hub's official images."""
        return self.url.upstream_name(self.upstream_name)

    @cached_property
    def source(self) -> str:
        """``host[:port]/repository``: where content comes from, for people and for provenance."""
        return f"{self.url.netloc}/{self.upstream}"

    @cached_property
    def tag_filter(self) -> TagFilter:
        """The tag filters, as one."""
        return TagFilter(self.include_tags, self.exclude_tags)

    def limits(self) -> tuple[str, ...]:
        """What is not taken of all that its upstream has, for people: ``only the tags 3.*``; nothing where all is."""
        limits = []
        if self.include_tags is not None:
            limits.append(f"only the tags {', '.join(self.include_tags)}")
        if self.exclude_tags:
            limits.append(f"without the tags {', '.join(self.exclude_tags)}")
        if self.platforms is not None:
            limits.append(f"only the platforms {', '.join(map(str, self.platforms))}")
        if not self.include_referrers:
            limits.append("without signatures and other referrers")
        return tuple(limits)

    def document(self) -> dict[str, Any]:
        """All of it in texts, numbers, lists and maps, as it was written: what is stored, and shown."""
        return {said.name: _plain(getattr(self, said.name)) for said in fields(self)}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> RemoteSpec:
        """What :meth:`document` gave, now or in an earlier release: what it does not have is as by default."""
        known = {said.name: document[said.name] for said in fields(cls) if said.name in document}
        return cls.parse(**known)


#: Every option by its name in :class:`RemoteSpec`, in the order of its fields.
OPTIONS: Mapping[str, Option] = MappingProxyType(
    {said.name: said.metadata["option"] for said in fields(RemoteSpec) if "option" in said.metadata}
)
#: Those that a sync may say too.
SYNC_OPTIONS: Mapping[str, Option] = MappingProxyType(
    {name: option for name, option in OPTIONS.items() if option.parameter is not None}
)


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of options by name; None stays None. Raises as :meth:`RemoteSpec.parse`."""
    return {
        name: None if value is None else OPTIONS[name].read(OPTIONS[name], name, value) for name, value in given.items()
    }


def said_name(name: str) -> str:
    """The name by which people who start a sync say a field of a remote: ``tags``."""
    option = OPTIONS.get(name)
    return name if option is None else option.parameter or name


def shown_value(name: str, spec: RemoteSpec) -> str:
    """A field of a remote for messages: ``true``, ``on_demand``, ``3.*, latest``, or what it means to have none."""
    value = _plain(getattr(spec, name))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return OPTIONS[name].unset if value is None else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, RegistryUrl):
        return value.written or str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [str(entry) for entry in value]
    return str(value) if isinstance(value, str) else value


_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)\s*", re.DOTALL)


def has_private_key(text: str) -> bool:
    """Whether a private key stands in ``text``, whole or cut off."""
    return _KEY.search(text) is not None


def split_private_keys(text: str) -> tuple[str, str]:
    """The rest of ``text``, and the private keys in it."""
    return _KEY.sub("", text), "".join(found.group() for found in _KEY.finditer(text))


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
