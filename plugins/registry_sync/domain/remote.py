"""Remotes, and the one definition of their options: type, bounds, default, and the parameter of a sync that sets it.

A remote is parsed once, when it is made or read: it holds values, not texts. Stored documents, the options that a sync
may override, messages and ``airflow registry-sync remote show`` are derived from :data:`OPTIONS`. REST fields, the
parameters of ``ListTagsOperator`` and the form of the DAG are written out, and tests compare them with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from registry_sync.domain.known_registries import DIGEST_APIS, DigestList, known_registry
from registry_sync.domain.platforms import Platform, parse_platforms
from registry_sync.domain.quantities import parse_choice, parse_flag
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagPattern
from registry_sync.domain.tag_options import RULE_DESCRIPTIONS, RULE_READERS, TagSet, read_tag_sets, rule_value
from registry_sync.domain.tag_rules import Newest, TagAge, TagOrder, VersionRule
from registry_sync.domain.tag_selector import TagSelector
from registry_sync.errors import ConfigurationError


class Policy(str, Enum):
    """When blobs are downloaded: by the sync, at the first pull and then kept, or at each pull."""

    IMMEDIATE = "immediate"
    ON_DEMAND = "on_demand"
    STREAMED = "streamed"


class Typed(Enum):
    """How the value of an option is typed where everything is text: in templates and in a terminal.

    ``LIST`` with commas, ``LINES`` with one entry a line, ``JSON`` as a text, or as JSON where it is more than that.
    """

    TEXT = "text"
    LIST = "list"
    LINES = "lines"
    JSON = "json"


#: Parses the value of an option; called with the option, its name and the value as given.
Reader = Callable[["Option", str, Any], Any]


@dataclass(frozen=True)
class Option:
    """One option of a remote.

    ``read`` parses its value as typed, as stored, or already parsed; it is never called with None. ``parameter`` is the
    parameter of the operator and of the DAG's form that overrides it in a sync; None where a sync cannot. ``minimum``
    and ``maximum`` are bounds of a number. ``unset`` is the meaning of None, for messages. An unknown user who triggers
    a run may lower an option that ``may_be_lowered``; None is no limit, and so the highest value.
    """

    description: str
    read: Reader
    parameter: str | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    unset: str = "none"
    may_be_lowered: bool = False

    @property
    def typed(self) -> Typed:
        """How its value is typed."""
        return _TYPED.get(self.read, Typed.TEXT)


def _text(_option: Option, _name: str, given: str) -> str:
    return given


def _share(option: Option, name: str, given: float) -> float:
    lowest, highest = option.minimum or 0, option.maximum or 0
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not is_number or not lowest <= float(given) <= highest:
        raise ConfigurationError(f"{name} is {str(given)[:40]!r}; give a share from {lowest} to {highest}", option=name)
    return float(given)


def _labels(_option: Option, _name: str, given: Mapping[str, str]) -> Mapping[str, str]:
    return dict(given)


def _flag(_option: Option, name: str, given: bool | str) -> bool | None:
    return parse_flag(given, name)


def _number(option: Option, name: str, given: int | str) -> int:
    lowest, highest = int(option.minimum or 0), int(option.maximum or 0)
    text = "" if isinstance(given, bool) else str(given)
    if not (text.isascii() and text.isdigit() and lowest <= int(text[:20]) <= highest):
        raise ConfigurationError(f"{name} is {str(given)[:40]!r}; give a number from {lowest} to {highest}")
    return int(text)


def _policy(_option: Option, name: str, given: str) -> Policy:
    return parse_choice(Policy, given, name)


def _digest_list(_option: Option, name: str, given: str) -> DigestList:
    return parse_choice(DigestList, given, name)


def _tag_patterns(_option: Option, _name: str, given: tuple[str, ...]) -> tuple[TagPattern, ...]:
    return TagPattern.parse_all(given)


def _regexes(_option: Option, name: str, given: Any) -> tuple[str, ...]:
    found: tuple[str, ...] = RULE_READERS["regex"](name, given)
    return found


def _rule(_option: Option, name: str, given: Any) -> Any:
    return RULE_READERS[name](name, given)


def _order(_option: Option, name: str, given: str) -> TagOrder:
    return parse_choice(TagOrder, given, name)


def _tag_sets(_option: Option, name: str, given: Any) -> tuple[TagSet, ...]:
    return read_tag_sets(name, given)


def _platforms(_option: Option, _name: str, given: tuple[str | Platform, ...]) -> tuple[Platform, ...]:
    return parse_platforms(map(str, given))


_TYPED: Mapping[Reader, Typed] = {
    _tag_patterns: Typed.LIST,
    _platforms: Typed.LIST,
    _regexes: Typed.LINES,
    _rule: Typed.JSON,
    _tag_sets: Typed.JSON,
}


def _option(description: str, read: Reader, **more: Any) -> Mapping[str, Option]:
    """The metadata of a field of :class:`RemoteSpec`."""
    return {"option": Option(description, read, **more)}


def _rule_option(name: str, read: Reader = _rule, unset: str = "none") -> Mapping[str, Option]:
    """The metadata of a rule for tags, which a sync may override by the same name."""
    return _option(RULE_DESCRIPTIONS[name], read, parameter=name, unset=unset)


#: The prefix of Airflow connections that were made for one remote, and that are deleted with it.
OWN_CONNECTION_PREFIX = "registry_sync_remote_"
#: Requests at once in a task: how many it begins with, and how many they may become.
FIRST_CONCURRENCY, DEFAULT_CONCURRENCY = 20, 64
#: By default a mirror stops before it removes more than this share of its tags, however few they are.
DEFAULT_REMOVED_SHARE = 0.5
#: The largest number that JSON holds exactly everywhere: 8 PiB.
MAX_TOTAL_BYTES = 2**53 - 1


@dataclass(frozen=True)
class RemoteSpec:
    """The fields of a remote that a user sets; holds no secret. Parsed by :meth:`parse`.

    ``upstream_name`` is as typed; :attr:`upstream` is the name on that registry. ``conn_id`` names the Airflow
    connection with the credentials, None for anonymous. ``include_tags`` None means all tags. Certificates are PEM
    text; a client key is a secret and is in the connection.

    ``platforms`` None selects every entry of an index. ``include_referrers`` selects signatures and other referrers of
    selected manifests, too; ``allow_sparse`` accepts an index of which the registry lacks entries, ``allow_schema1``
    Docker's schema 1 manifests; ``include_foreign_layers`` fetches layers from URLs outside the registry.

    Shares are of tags, from 0 to 1. A sync that would hold more than ``max_held_share`` of its tags, or a mirror that
    would remove more than ``max_removed_share`` or ``max_removed_tags`` of those present, or that would
    leave fewer tags than ``min_tags``, makes no version. One that
    would store more than ``max_total_bytes`` that the blob store lacks stops before it downloads. None sets no limit.

    ``digest_list`` says from where a sync learns that tags have not moved without a request for each.

    ``regex`` to ``digests`` are the rules for tags besides names and globs, as
    :class:`~registry_sync.domain.tag_rules.TagRules` has them; of ``tag_sets``, sets of such rules, any may select a
    tag.
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
            "The most requests at once in each task, which begins with 20",
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
    min_tags: int | None = field(
        default=None,
        metadata=_option(
            "No version is made that would have fewer tags, not counting those of signatures; null: no limit",
            _number,
            minimum=1,
            maximum=1_000_000,
        ),
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
    digest_list: DigestList = field(
        default=DigestList.AUTO,
        metadata=_option(
            "From where the digests of all tags are taken at once; off: by a request for each tag",
            _digest_list,
            parameter="digest_list",
        ),
    )
    regex: tuple[str, ...] = field(default=(), metadata=_rule_option("regex", _regexes))
    regex_all: tuple[str, ...] = field(default=(), metadata=_rule_option("regex_all", _regexes))
    exclude_regex: tuple[str, ...] = field(default=(), metadata=_rule_option("exclude_regex", _regexes))
    semver: VersionRule | None = field(default=None, metadata=_rule_option("semver", unset="all"))
    newest: Newest | None = field(default=None, metadata=_rule_option("newest", unset="all"))
    order: TagOrder = field(default=TagOrder.VERSION, metadata=_rule_option("order", _order))
    newer_than: TagAge | None = field(default=None, metadata=_rule_option("newer_than", unset="any age"))
    digests: tuple[str, ...] = field(default=(), metadata=_rule_option("digests"))
    tag_sets: tuple[TagSet, ...] = field(default=(), metadata=_rule_option("tag_sets", _tag_sets))

    def __post_init__(self) -> None:
        _ = self.tag_filter
        api = DIGEST_APIS.get(self.digest_list)
        if api is not None and api.host is not None and api.host not in known_registry(self.url.netloc).websites:
            raise ConfigurationError(
                f"digest_list is {self.digest_list.value}, which {api.host} serves for its own registry and not for "
                f"{self.url.netloc}",
                option="digest_list",
            )

    @classmethod
    def parse(cls, name: str, url: str, upstream_name: str, **options: Any) -> RemoteSpec:
        """Parses texts, and options as typed, as stored or as values.

        Raises :class:`~registry_sync.errors.InvalidReference`, :class:`~registry_sync.errors.ConfigurationError`.
        """
        registry = RegistryUrl.parse(url)
        registry.upstream_name(upstream_name)
        return cls(name, registry, RepositoryName(upstream_name), **read_options(options))

    def changed(self, **values: Any) -> RemoteSpec:
        """A copy with other values, given and checked as by :meth:`parse`; the remote itself where they are its own."""
        if not _PLACE.intersection(values) and self.has(read_options(values)):
            return self
        place = {name: _plain(values.pop(name, getattr(self, name))) for name in _PLACE}
        made = RemoteSpec.parse(**place)
        return replace(self, name=made.name, url=made.url, upstream_name=made.upstream_name, **read_options(values))

    def has(self, values: Mapping[str, Any]) -> bool:
        """Whether the fields named there have these values."""
        return all(getattr(self, name) == value for name, value in values.items())

    @cached_property
    def upstream(self) -> RepositoryName:
        """The name on that registry, with ``library/`` for Docker Hub's official images."""
        return self.url.upstream_name(self.upstream_name)

    @cached_property
    def source(self) -> str:
        """``host[:port]/repository``: the source of content, for messages and provenance."""
        return f"{self.url.netloc}/{self.upstream}"

    @property
    def upstream_page(self) -> str:
        """The URL of the upstream for people: its web page where one is known, otherwise its list of tags."""
        page = known_registry(self.url.netloc).page
        return page.replace("<name>", self.upstream) if page else f"{self.url}/v2/{self.upstream}/tags/list"

    @cached_property
    def tag_filter(self) -> TagSelector:
        """All rules for tags. Raises :class:`ConfigurationError` for ones that do not fit together."""
        named = {"include": self.include_tags, "exclude": self.exclude_tags}
        rules = {name: getattr(self, name) for name in RULE_READERS if name not in named}
        return TagSelector.of({**named, **rules}, self.tag_sets)

    def tag_rules(self, only: Iterable[str] | None = None) -> list[str]:
        """The rules for tags that are set, ``include_tags 3.*, latest``, for messages."""
        names = (*_RULES, "order") if self.order is not TagOrder.VERSION else _RULES
        return [f"{name} {shown_value(name, self)}" for name in only or names if getattr(self, name) not in (None, ())]

    def limits(self) -> tuple[str, ...]:
        """What the options exclude of the upstream, for messages: ``only the tags 3.*``; empty when nothing is."""
        limits = []
        if self.include_tags is not None:
            limits.append(f"only the tags {', '.join(self.include_tags)}")
        if self.exclude_tags:
            limits.append(f"without the tags {', '.join(self.exclude_tags)}")
        limits += self.tag_rules(_OTHER_RULES)
        if self.platforms is not None:
            limits.append(f"only the platforms {', '.join(map(str, self.platforms))}")
        if not self.include_referrers:
            limits.append("without signatures and other referrers")
        return tuple(limits)

    def document(self) -> dict[str, Any]:
        """All fields as JSON values, as typed: what is stored and shown."""
        return {name: _plain(getattr(self, name)) for name in _FIELDS}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> RemoteSpec:
        """The remote of a :meth:`document`, also of an earlier release.

        Absent fields have their defaults; a number that an earlier release let pass its bound has that bound.
        The last ones are kept: a sync reads its remote from several records, in nearly all of which it is the same.
        """
        text = json.dumps(document, sort_keys=True)
        found = _READ.get(text)
        if found is None:
            known = {name: document[name] for name in _FIELDS if name in document}
            found = cls.parse(**{name: _within_bounds(name, value) for name, value in known.items()})
            while len(_READ) >= _MOST_READ:
                _READ.pop(next(iter(_READ)), None)
            _READ[text] = found
        return found


_FIELDS = tuple(field.name for field in fields(RemoteSpec))
#: Every option by its name in :class:`RemoteSpec`, in the order of its fields.
OPTIONS: Mapping[str, Option] = MappingProxyType(
    {field.name: field.metadata["option"] for field in fields(RemoteSpec) if "option" in field.metadata}
)
#: The rules for tags: names and globs, and the others.
_OTHER_RULES = ("regex", "regex_all", "exclude_regex", "semver", "newest", "newer_than", "digests", "tag_sets")
_RULES = ("include_tags", "exclude_tags", *_OTHER_RULES)
#: Those that a sync may override.
SYNC_OPTIONS: Mapping[str, Option] = MappingProxyType(
    {name: option for name, option in OPTIONS.items() if option.parameter is not None}
)


#: Types whose values are JSON values already; not those derived from them.
_AS_THEY_ARE = frozenset({bool, float, int, str})
#: The fields of a remote that are no options.
_PLACE = frozenset({"name", "url", "upstream_name"})
#: Remotes by the text of the document they were read from, the first ones first.
_READ: dict[str, RemoteSpec] = {}
_MOST_READ = 512


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parses options by name; None stays None. Raises as :meth:`RemoteSpec.parse`."""
    return {
        name: None if value is None else OPTIONS[name].read(OPTIONS[name], name, value) for name, value in given.items()
    }


def _within_bounds(name: str, stored: Any) -> Any:
    """A stored number, or the bound that it passes; other values as they are."""
    option = OPTIONS.get(name)
    if option is None or option.minimum is None or option.maximum is None or not isinstance(stored, (int, float)):
        return stored
    return min(max(stored, option.minimum), option.maximum)


def parameter_name(name: str) -> str:
    """The parameter of a sync that sets a field of a remote, such as ``tags``; else the name of the field."""
    option = OPTIONS.get(name)
    return name if option is None else option.parameter or name


def shown_value(name: str, spec: RemoteSpec) -> str:
    """A field of a remote for messages: ``true``, ``on_demand``, ``3.*, latest``, or the meaning of None."""
    value = _plain(getattr(spec, name))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict) or (isinstance(value, list) and not all(isinstance(entry, str) for entry in value)):
        return json.dumps(value)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return OPTIONS[name].unset if value is None else str(value)


def _plain(value: Any) -> Any:
    if value is None or type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, RegistryUrl):
        return value.written or str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return rule_value(value)


def own_connection_prefix(remote_id: str) -> str:
    """The prefix of the connections of the remote of this id."""
    return f"{OWN_CONNECTION_PREFIX}{remote_id.replace('-', '')}_"


def is_own_connection(conn_id: str | None, remote_id: str | None = None) -> bool:
    """Whether a connection was made for the remote of this id, or for any remote when that is None.

    Then regardless of case, since Airflow's database may compare ids without it.
    """
    if conn_id is None:
        return False
    if remote_id is None:
        return conn_id.lower().startswith(OWN_CONNECTION_PREFIX)
    return conn_id.startswith(own_connection_prefix(remote_id))


@dataclass(frozen=True)
class Remote:
    """A stored remote: ``id`` is its UUID over REST; times are aware UTC.

    ``is_provisional``: a sync made it, no version was made from it, and nobody has changed it since, so that the next
    sync may correct a typing error in it.
    """

    id: str
    spec: RemoteSpec
    created_at: datetime
    updated_at: datetime
    is_provisional: bool = False
