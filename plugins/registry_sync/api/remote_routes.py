"""``/remotes/docker/docker/``: list, create, read, change and delete remotes. Secrets are accepted, never returned."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, get_args, get_type_hints
from urllib.parse import urlsplit

from fastapi import Response
from pydantic import AfterValidator, Field, StringConstraints, create_model

from registry_sync.api import remote_changes
from registry_sync.api.access import CHANGE, CREATE, DELETE, SignedIn
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import (
    Flag,
    GivenDocument,
    Labels,
    Name,
    PathUuid,
    invalid,
    parsed,
    printable,
    whole_number,
)
from registry_sync.api.list_filters import FilterField, filtered, named_fields
from registry_sync.api.preconditions import IfMatch
from registry_sync.api.problems import CONFLICT, NOT_FOUND, PRECONDITION
from registry_sync.api.resources import NamedQuery, Resource
from registry_sync.api.tag_rule_fields import RULE_LISTS, RULE_SCHEMAS, rule_field
from registry_sync.db.database import Database
from registry_sync.domain.filters import Operator
from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.platforms import Platform
from registry_sync.domain.private_keys import has_private_key
from registry_sync.domain.records import Page
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagFilter, split_patterns
from registry_sync.domain.remote import (
    OPTIONS,
    Policy,
    Remote,
    RemoteSpec,
)
from registry_sync.domain.tag_rules import TagOrder
from registry_sync.hooks import own_connections
from registry_sync.hooks.connection import MASK
from registry_sync.pulp.container_documents import StoredSecrets, shown
from registry_sync.pulp.documents import Together
from registry_sync.pulp.hrefs import read_remote_href, remote_href, remotes_href
from registry_sync.pulp.path_forms import PathForm, current_form
from registry_sync.pulp.repository_documents import REST_NAMES, RemoteDocument
from registry_sync.pulp.resource_names import REMOTE, read_prn

#: Fields that are kept in an Airflow connection.
SECRET_FIELDS = ("username", "password", "ssl_client_key")
_MAX_PEM = 500_000
_KEY = re.compile(r"\s*-----BEGIN [A-Z ]*PRIVATE KEY-----\s.*-----END [A-Z ]*PRIVATE KEY-----\s*", re.DOTALL)


def _certificates(text: str) -> str:
    if has_private_key(text):
        raise invalid("It includes a private key, which would be readable; send the key as ssl_client_key.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: text that is not ASCII
        raise invalid("Send certificates in PEM format.") from None
    return text


def _private_key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise invalid("Send a private key in PEM format.")
    return text


def _proxy(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_proxy = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_proxy = False
    if not is_proxy or not text.isprintable() or " " in text:
        raise invalid("Send the URL of a proxy, such as http://proxy.example:3128.")
    if parts.username is not None or parts.password is not None:
        raise invalid("Credentials of a proxy belong in an Airflow connection: its Extra has a field proxy.")
    return text


def _connection_id(text: str) -> str:
    if not re.fullmatch(r"[\w.:/#!()\\-]+", text):
        raise invalid("This cannot be the id of an Airflow connection.")
    return text


def _secret(text: str) -> str:
    if text == MASK:
        raise invalid(f"{MASK} is what Airflow shows in place of a secret; send the secret itself.")
    return text


def _tag_list(text: str) -> None:
    TagFilter.parse(split_patterns(text))


Pem = Annotated[str, StringConstraints(max_length=_MAX_PEM), AfterValidator(_certificates)]
PrivateKey = Annotated[str, StringConstraints(max_length=_MAX_PEM), AfterValidator(_private_key)]
Url = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(printable), parsed(RegistryUrl.parse)]
UpstreamName = Annotated[str, StringConstraints(max_length=255), parsed(RepositoryName)]
TagList = Annotated[str, StringConstraints(max_length=100_000), parsed(_tag_list)]
ProxyUrl = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(_proxy)]
ConnectionId = Annotated[str, StringConstraints(min_length=1, max_length=250), AfterValidator(_connection_id)]


def _about(name: str) -> Any:
    """What an option is."""
    return Field(description=OPTIONS[name].description)


def _number(name: str) -> Any:
    """A whole number within the bounds of an option."""
    lowest, highest = int(OPTIONS[name].minimum or 0), int(OPTIONS[name].maximum or 0)
    return whole_number(lowest, highest, digit_count=max(9, len(str(highest))))


Platforms = Annotated[
    list[Annotated[str, StringConstraints(max_length=255), parsed(Platform.parse)]],
    Field(min_length=1, max_length=100, description=OPTIONS["platforms"].description),
]
#: A part of the tags.
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Secret = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_secret)]


def _plain_options() -> dict[str, Any]:
    """A field for each option that is a yes or no, a whole number or a share: its bounds, default and meaning."""
    hints, plain = get_type_hints(RemoteSpec), {}
    for name in OPTIONS:
        types = get_args(hints[name]) or (hints[name],)
        kinds = {bool: Flag, int: _number(name), float: Share}
        kind = next((kinds[found] for found in types if found in kinds), None)
        if kind is not None:
            allowed = kind | None if type(None) in types else kind
            plain[name] = (Annotated[allowed, _about(name)], getattr(RemoteSpec, name))
    return plain


def _rule_options() -> dict[str, Any]:
    """A field for each rule for tags besides names and globs."""
    return {name: (rule_field(name), None) for name in RULE_SCHEMAS}


def _tags(given: str | list[str] | None) -> tuple[str, ...] | None:
    """The entries of a text with commas or of a list; None for None."""
    if given is None:
        return None
    return tuple(given) if isinstance(given, list) else tuple(split_patterns(given))


_PlainOptions: Any = create_model("_PlainOptions", __base__=GivenDocument, **_plain_options(), **_rule_options())


class GivenRemote(_PlainOptions):  # type: ignore[misc]  # made of the definition of the options
    """The fields of new and changed remotes; an omitted field has its default, or is not changed."""

    only_in_responses: ClassVar[frozenset[str]] = frozenset({"pulp_created", "pulp_href", "pulp_last_updated"})
    #: Fields that are no options of a ``RemoteSpec``.
    not_options: ClassVar[frozenset[str]] = frozenset({*SECRET_FIELDS, "conn_id"})

    policy: Annotated[Policy, _about("policy")] = Policy.IMMEDIATE
    whitelist_tags: Annotated[TagList | None, _about("include_tags")] = None
    exclude_tags: Annotated[TagList | None, _about("exclude_tags")] = None
    proxy_url: ProxyUrl | None = None
    ssl_ca_certificate: Pem | None = None
    ssl_client_certificate: Pem | None = None
    ssl_client_key: PrivateKey | None = None
    username: Secret | None = None
    password: Secret | None = None
    conn_id: Annotated[ConnectionId | None, _about("conn_id")] = None
    platforms: Platforms | None = None
    digest_list: Annotated[DigestList, _about("digest_list")] = DigestList.AUTO
    order: Annotated[TagOrder, _about("order")] = TagOrder.VERSION
    pulp_labels: Labels

    def spec_values(self, *, only_given: bool) -> dict[str, Any]:
        """The fields of a ``RemoteSpec``, all of them or those that were sent; nothing secret, and no connection."""
        values: dict[str, Any] = self.model_dump(exclude_unset=only_given, exclude=set(self.not_options))
        values.update({name: values.pop(field) for name, field in REST_NAMES.items() if field in values})
        if "include_tags" in values:
            values["include_tags"] = _tags(values["include_tags"])
        if "exclude_tags" in values:
            values["exclude_tags"] = _tags(values["exclude_tags"]) or ()
        if values.get("platforms") is not None:
            values["platforms"] = tuple(values["platforms"])
        values.update({name: () for name in RULE_LISTS if name in values and values[name] is None})
        return values

    def secrets(self) -> dict[str, str | None]:
        """The secret fields that were sent."""
        return {name: getattr(self, name) for name in SECRET_FIELDS if name in self.model_fields_set}


class NewRemote(GivenRemote):
    """A new remote, or the replacement of a remote's description."""

    name: Name
    url: Annotated[Url, Field(description="The registry, such as https://registry-1.docker.io")]
    upstream_name: Annotated[UpstreamName, Field(description="The repository there, such as library/hello-world")]


class ChangedRemote(GivenRemote):
    """The changes of a remote; omitted fields are not changed."""

    name: Annotated[Name, Field(default_factory=str)]
    url: Annotated[Url, Field(default_factory=str)]
    upstream_name: Annotated[UpstreamName, Field(default_factory=str)]


RemoteQuery = filtered(
    NamedQuery,
    "RemoteQuery",
    "The filters and order of remotes.",
    *named_fields(read_remote_href, partial(read_prn, model=REMOTE)),
    FilterField("url", how=(Operator.EQUAL, Operator.CONTAINS, Operator.STARTS)),
    FilterField("upstream_name", how=(Operator.EQUAL, Operator.IN, Operator.CONTAINS, Operator.STARTS)),
)
router = Router(prefix="/remotes/docker/docker", tags=["remotes"])


def with_secrets(remotes: Sequence[Remote]) -> tuple[Any, ...]:
    """Remotes as they are shown: in the container form with which of their credentials are stored."""
    if current_form() is PathForm.DOCKER:
        return tuple(remotes)
    stored = own_connections.stored_secrets(remotes)
    return tuple(Together(remote, StoredSecrets(stored.get(remote.id, frozenset()))) for remote in remotes)


def page_of_remotes(database: Database, query: Any) -> Page[Any]:
    """The page of a query."""
    page = database.remotes.page(query.page_request(), where=query.wanted())
    return Page(with_secrets(page.items), page.total_count)


def _shown(remote: Remote) -> RemoteDocument:
    return shown(RemoteDocument, *with_secrets([remote]))


Resource(
    one="remote",
    many="remotes",
    listed="Remotes, by name unless ordered otherwise.",
    read="A remote.",
    href=remotes_href,
    query=RemoteQuery,
    document=RemoteDocument,
    page=page_of_remotes,
    get=lambda database, remote_id: with_secrets([database.remotes.get(remote_id)])[0],
).add_routes(router)


@router.post("/", status_code=201, dependencies=CREATE)
def create_remote(database: UsedDatabase, given: NewRemote, user: SignedIn, response: Response) -> RemoteDocument:
    """Creates a remote. Credentials are kept in a connection of its own, unless ``conn_id`` names one."""
    remote = remote_changes.create_remote(database, given, user)
    response.headers["Location"] = remote_href(remote.id)
    return _shown(remote)


@router.put("/{remote_id}/", dependencies=CHANGE, responses={**NOT_FOUND, **CONFLICT, **PRECONDITION})
def replace_remote(
    database: UsedDatabase, remote_id: PathUuid, given: NewRemote, *, user: SignedIn, if_match: IfMatch
) -> RemoteDocument:
    """Replaces the whole description of the remote; credentials that are omitted or null are kept."""
    only_if = if_match.of(RemoteDocument)
    changed = remote_changes.change_remote(database, remote_id, given, user, is_replacement=True, only_if=only_if)
    return _shown(changed)


@router.patch("/{remote_id}/", dependencies=CHANGE, responses={**NOT_FOUND, **CONFLICT, **PRECONDITION})
def change_remote(
    database: UsedDatabase, remote_id: PathUuid, given: ChangedRemote, *, user: SignedIn, if_match: IfMatch
) -> RemoteDocument:
    """Changes the given fields of the remote; null removes a credential."""
    only_if = if_match.of(RemoteDocument)
    changed = remote_changes.change_remote(database, remote_id, given, user, is_replacement=False, only_if=only_if)
    return _shown(changed)


@router.delete("/{remote_id}/", status_code=204, dependencies=DELETE, responses={**NOT_FOUND, **PRECONDITION})
def delete_remote(database: UsedDatabase, remote_id: PathUuid, if_match: IfMatch) -> None:
    """Deletes the remote and its credentials; synced content stays."""
    own_connections.delete_remote(database, remote_id, only_if=if_match.of(RemoteDocument))
