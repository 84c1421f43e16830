"""``/remotes/docker/docker/``: list, create, read, change and delete remotes. Secrets are accepted, never returned."""

from __future__ import annotations

import re
import ssl
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from fastapi import Response
from pydantic import AfterValidator, Field, StringConstraints

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
    split_list,
    whole_number,
)
from registry_sync.api.problems import CONFLICT, NOT_FOUND
from registry_sync.api.resources import NamedQuery, Resource
from registry_sync.domain.platforms import Platform
from registry_sync.domain.records import (
    DEFAULT_CONCURRENCY,
    DEFAULT_REMOVED_SHARE,
    OWN_CONNECTION_PREFIX,
    Policy,
    has_private_key,
)
from registry_sync.domain.references import RegistryUrl, RepositoryName
from registry_sync.domain.tag_filter import TagFilter
from registry_sync.hooks.connection import MASK
from registry_sync.pulp.hrefs import remote_href, remotes_href
from registry_sync.pulp.repository_documents import RemoteDocument

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
    TagFilter.parse(split_list(text))


Pem = Annotated[str, StringConstraints(max_length=_MAX_PEM), AfterValidator(_certificates)]
PrivateKey = Annotated[str, StringConstraints(max_length=_MAX_PEM), AfterValidator(_private_key)]
Url = Annotated[str, StringConstraints(max_length=2_000), parsed(RegistryUrl.parse)]
UpstreamName = Annotated[str, StringConstraints(max_length=255), parsed(RepositoryName)]
TagList = Annotated[str, StringConstraints(max_length=100_000), parsed(_tag_list)]
ProxyUrl = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(_proxy)]
ConnectionId = Annotated[str, StringConstraints(min_length=1, max_length=250), AfterValidator(_connection_id)]


Platforms = Annotated[
    list[Annotated[str, StringConstraints(max_length=255), parsed(Platform.parse)]],
    Field(min_length=1, max_length=100, description="Such as linux/amd64 or linux/arm/v7; null for all"),
]
#: A part of the tags.
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Secret = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_secret)]
Concurrency: Any = whole_number(1, 100)
TagCount: Any = whole_number(0, 1_000_000)


class GivenRemote(GivenDocument):
    """The fields of new and changed remotes; an omitted field has its default, or is not changed."""

    only_in_responses: ClassVar[frozenset[str]] = frozenset({"pulp_created", "pulp_href", "pulp_last_updated"})

    policy: Annotated[Policy, Field(description="When the bytes of blobs are downloaded")] = Policy.IMMEDIATE
    download_concurrency: Concurrency = DEFAULT_CONCURRENCY
    whitelist_tags: Annotated[
        TagList | None, Field(description="Tags and globs of tags to include, separated by commas; null for all")
    ] = None
    exclude_tags: Annotated[TagList | None, Field(description="Tags and globs of tags to exclude")] = None
    proxy_url: ProxyUrl | None = None
    ssl_ca_certificate: Pem | None = None
    ssl_client_certificate: Pem | None = None
    ssl_client_key: PrivateKey | None = None
    ssl_validation: Flag = True
    username: Secret | None = None
    password: Secret | None = None
    conn_id: Annotated[
        ConnectionId | None,
        Field(description=f"An Airflow connection with the credentials. Own ones start with {OWN_CONNECTION_PREFIX}"),
    ] = None
    platforms: Platforms | None = None
    include_referrers: Annotated[Flag, Field(description="Whether signatures and other referrers are included")] = True
    allow_sparse: Annotated[
        Flag, Field(description="Whether an index is accepted of which the registry lacks entries")
    ] = False
    allow_schema1: Annotated[Flag, Field(description="Whether Docker's schema 1 manifests are accepted")] = False
    include_foreign_layers: Annotated[
        Flag, Field(description="Whether layers that are kept elsewhere are fetched, from their URLs")
    ] = False
    max_held_share: Annotated[
        Share | None, Field(description="No version is made when more of the tags would be held; null: no limit")
    ] = None
    max_removed_share: Annotated[
        Share | None,
        Field(description="No version is made when a mirror would lose more of its tags, however few; null: no limit"),
    ] = DEFAULT_REMOVED_SHARE
    max_removed_tags: Annotated[TagCount | None, Field(description="The same as a number of tags; null: no limit")] = (
        None
    )
    pulp_labels: Labels

    def spec_values(self, *, only_given: bool) -> dict[str, Any]:
        """The fields of a ``RemoteSpec``, all of them or those that were sent; nothing secret, and no connection."""
        values = self.model_dump(exclude_unset=only_given, exclude={*SECRET_FIELDS, "conn_id"})
        if "whitelist_tags" in values:
            values["include_tags"] = split_list(values.pop("whitelist_tags"))
        if "exclude_tags" in values:
            values["exclude_tags"] = split_list(values["exclude_tags"]) or ()
        if values.get("platforms") is not None:
            values["platforms"] = tuple(values["platforms"])
        if "pulp_labels" in values:
            values["labels"] = values.pop("pulp_labels")
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


router = Router(prefix="/remotes/docker/docker", tags=["remotes"])


Resource(
    one="remote",
    many="remotes",
    listed="Remotes, by name unless ordered otherwise.",
    read="A remote.",
    href=remotes_href(),
    query=NamedQuery,
    document=RemoteDocument,
    page=lambda database, query: database.remotes.page(query.page_request(), **query.names()),
    get=lambda database, remote_id: database.remotes.get(remote_id),
).add_routes(router)


@router.post("/", status_code=201, dependencies=CREATE)
def create_remote(database: UsedDatabase, given: NewRemote, user: SignedIn, response: Response) -> RemoteDocument:
    """Creates a remote. Credentials are kept in a connection of its own, unless ``conn_id`` names one."""
    remote = remote_changes.create_remote(database, given, user)
    response.headers["Location"] = remote_href(remote.id)
    return RemoteDocument.model_validate(remote)


@router.put("/{remote_id}/", dependencies=CHANGE, responses={**NOT_FOUND, **CONFLICT})
def replace_remote(database: UsedDatabase, remote_id: PathUuid, given: NewRemote, user: SignedIn) -> RemoteDocument:
    """Replaces the whole description of the remote; credentials that are omitted or null are kept."""
    return RemoteDocument.model_validate(
        remote_changes.change_remote(database, remote_id, given, user, is_replacement=True)
    )


@router.patch("/{remote_id}/", dependencies=CHANGE, responses={**NOT_FOUND, **CONFLICT})
def change_remote(database: UsedDatabase, remote_id: PathUuid, given: ChangedRemote, user: SignedIn) -> RemoteDocument:
    """Changes the given fields of the remote; null removes a credential."""
    return RemoteDocument.model_validate(
        remote_changes.change_remote(database, remote_id, given, user, is_replacement=False)
    )


@router.delete("/{remote_id}/", status_code=204, dependencies=DELETE, responses=NOT_FOUND)
def delete_remote(database: UsedDatabase, remote_id: PathUuid) -> None:
    """Deletes the remote and its credentials; synced content stays."""
    remote_changes.delete_remote(database, remote_id)
