"""Requests of ``container/container/``: the fields that Pulp's clients of today send, in place of the documented ones.

They are read into the same values. A field of Pulp that has no meaning here is accepted when it is null, and refused
with what to do instead when it is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    create_model,
    model_validator,
)

from registry_sync.api.distribution_routes import (
    ChangedDistribution,
    GivenDistribution,
    NewDistribution,
    RepositoryHref,
    VersionHref,
)
from registry_sync.api.fields import GivenHref, invalid, parsed
from registry_sync.api.remote_routes import ChangedRemote, GivenRemote, NewRemote
from registry_sync.api.repository_routes import ChangedRepository, GivenRepository, NewRepository
from registry_sync.api.task_routes import SyncFromRemote
from registry_sync.domain.references import TagFilter
from registry_sync.errors import InvalidReference
from registry_sync.pulp.container_documents import (
    ContainerDistributionDocument,
    ContainerRepositoryDocument,
)
from registry_sync.pulp.hrefs import read_remote_href


def unsupported(kind: str, instead: str, *unset: Any) -> Any:
    """A field of Pulp of that JSON type without a meaning here: None, one of ``unset``, or refused with ``instead``."""

    def check(value: Any) -> None:
        # 0 equals False, and is no boolean in JSON
        is_unset = any(type(value) is type(other) and value == other for other in (None, *unset))
        if not is_unset:
            raise invalid(f"This cannot be set here. {instead}")

    described: dict[str, Any] = {"type": kind, "items": {}} if kind == "array" else {"type": kind}
    schema = WithJsonSchema({"anyOf": [described, {"type": "null"}]})
    return Annotated[None, BeforeValidator(check), schema, Field(description=f"Not set. {instead}")]


def _responses_only(document: type[BaseModel], *given: str) -> frozenset[str]:
    """The fields of a document, by the names in JSON, that a request may have and that are ignored."""
    names = {field.serialization_alias or name for name, field in document.model_fields.items() if not field.exclude}
    return frozenset(names) - frozenset(given)


# -- repositories ------------------------------------------------------------------------------------------------

RemoteHref = Annotated[GivenHref, parsed(read_remote_href)]
_SIGNING: Any = unsupported("string", "Nothing is signed here; signatures are synced with what they sign.")
_CHECKPOINTS: Any = unsupported("integer", "There are no publications here, and so no checkpoints.")


class _OfContainerRepository(GivenRepository):
    only_in_responses: ClassVar[frozenset[str]] = _responses_only(
        ContainerRepositoryDocument,
        "name",
        "description",
        "retain_repo_versions",
        "pulp_labels",
        "remote",
        "manifest_signing_service",
        "retain_checkpoints",
    )

    remote: Annotated[RemoteHref | None, Field(description="Path of the remote of syncs that name none")] = None
    manifest_signing_service: _SIGNING = None
    retain_checkpoints: _CHECKPOINTS = None

    def spec_values(self, *, only_given: bool) -> dict[str, Any]:
        """The fields of a ``RepositorySpec``, the remote by its id."""
        values = super().spec_values(only_given=only_given)
        if not only_given or "remote" in self.model_fields_set:
            values["remote_id"] = None if self.remote is None else read_remote_href(self.remote)
        return values


class NewContainerRepository(_OfContainerRepository, NewRepository):
    """A new repository, or the replacement of a repository's description."""


class ChangedContainerRepository(_OfContainerRepository, ChangedRepository):
    """The changes of a repository; omitted fields are not changed."""


_SIGNED_ONLY: Any = unsupported(
    "boolean", "Signatures are synced with what they sign, and not checked; select tags with includes.", False
)


_OWN = Field(description="Path of a remote; by default that of the repository")


class SyncOfContainerRepository(SyncFromRemote):
    """A sync of a repository from a remote, by default from its own."""

    remote: Annotated[RemoteHref | None, _OWN] = None  # type: ignore[assignment]  # may be omitted in this form
    signed_only: _SIGNED_ONLY = None


# -- remotes -----------------------------------------------------------------------------------------------------

_CONNECTION = "in the Extra of an Airflow connection that conn_id names"
_UNSUPPORTED_OF_REMOTES: Mapping[str, Any] = {
    "max_retries": unsupported("integer", f"Set max_attempts {_CONNECTION}: retries and the first attempt."),
    "total_timeout": unsupported("number", f"A download has no time limit; set timeout {_CONNECTION} to limit waits."),
    "connect_timeout": unsupported("number", f"Set timeout {_CONNECTION}: [10, 60], to connect and to wait."),
    "sock_connect_timeout": unsupported("number", f"Set timeout {_CONNECTION}: [10, 60], to connect and to wait."),
    "sock_read_timeout": unsupported("number", f"Set timeout {_CONNECTION}: [10, 60], to connect and to wait."),
    "rate_limit": unsupported("integer", f"Set requests_per_second {_CONNECTION}, for all tasks together.", 0),
    "headers": unsupported("array", "Requests have no other headers than those of the registry API.", []),
    "sigstore": unsupported("string", "Signatures are read from the registry itself.", ""),
    "proxy_username": unsupported("string", f"Set proxy {_CONNECTION}: http://name:password@host:port."),
    "proxy_password": unsupported("string", f"Set proxy {_CONNECTION}: http://name:password@host:port."),
}


def _checked_tags(tags: list[str]) -> list[str]:
    try:
        TagFilter.parse(tags)
    except InvalidReference as problem:
        raise invalid(str(problem)) from None
    return tags


_TagText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)]
TagPatterns = Annotated[list[_TagText], Field(max_length=10_000), AfterValidator(_checked_tags)]
#: Names in JSON of fields that have another name in the documented form.
REMOTE_NAMES = {
    "ssl_validation": "tls_validation",
    "ssl_ca_certificate": "ca_cert",
    "ssl_client_certificate": "client_cert",
    "ssl_client_key": "client_key",
    "whitelist_tags": "include_tags",
    "earlier_include_tags": "whitelist_tags",
}
#: Fields with the meaning of another one.
_SAME = {"includes": "whitelist_tags", "earlier_include_tags": "whitelist_tags", "excludes": "exclude_tags"}
_fields: dict[str, Any] = {name: (kind, None) for name, kind in _UNSUPPORTED_OF_REMOTES.items()}
_Unsupported: Any = create_model("_Unsupported", __base__=GivenRemote, **_fields)


class _OfContainerRemote(_Unsupported):  # type: ignore[misc]  # made of the table above
    model_config = ConfigDict(alias_generator=lambda name: REMOTE_NAMES.get(name, name))
    only_in_responses: ClassVar[frozenset[str]] = frozenset(
        {"pulp_created", "pulp_href", "pulp_last_updated", "prn", "hidden_fields"}
    )
    not_options: ClassVar[frozenset[str]] = GivenRemote.not_options | _UNSUPPORTED_OF_REMOTES.keys() | _SAME.keys()

    whitelist_tags: Annotated[TagPatterns | None, Field(description="As includes")] = None
    includes: Annotated[TagPatterns | None, Field(description="Tags and globs of tags; null for all")] = None
    earlier_include_tags: Annotated[TagPatterns | None, Field(description="As includes")] = None
    exclude_tags: Annotated[TagPatterns | None, Field(description="As excludes")] = None
    excludes: Annotated[TagPatterns | None, Field(description="Tags and globs of tags to exclude")] = None

    @model_validator(mode="after")
    def _with_one_list_of_each(self) -> _OfContainerRemote:
        for other, name in _SAME.items():
            if other not in self.model_fields_set:
                continue
            value = getattr(self, other)
            if name in self.model_fields_set and getattr(self, name) != value:
                raise invalid("include_tags is includes, and exclude_tags is excludes: send one of them.")
            setattr(self, name, value)
        return self


class NewContainerRemote(_OfContainerRemote, NewRemote):  # type: ignore[misc]  # tags are lists in this form
    """A new remote, or the replacement of a remote's description."""


class ChangedContainerRemote(_OfContainerRemote, ChangedRemote):  # type: ignore[misc]  # tags are lists in this form
    """The changes of a remote; omitted fields are not changed."""


# -- distributions -----------------------------------------------------------------------------------------------


def _null_for_empty(value: Any) -> Any:
    return None if value == "" else value


OrEmpty = BeforeValidator(_null_for_empty)
_GUARD: Any = unsupported("string", "There are no content guards: private says whether a login is required.", "")
_PULL_THROUGH: Any = unsupported("string", "Sync a repository with policy on_demand to fetch blobs at the first pull.")
_HIDDEN: Any = unsupported("boolean", "There is no list of distributions for clients to be hidden from.", False)
_DESCRIPTION: Any = unsupported("string", "Use pulp_labels.", "")


class _OfContainerDistribution(GivenDistribution):
    only_in_responses: ClassVar[frozenset[str]] = _responses_only(
        ContainerDistributionDocument,
        "name",
        "base_path",
        "private",
        "pulp_labels",
        "repository",
        "repository_version",
        "content_guard",
        "remote",
        "hidden",
        "description",
    )

    repository: Annotated[RepositoryHref | None, OrEmpty] = None
    repository_version: Annotated[VersionHref | None, OrEmpty] = None
    content_guard: _GUARD = None
    remote: _PULL_THROUGH = None
    hidden: _HIDDEN = None
    description: _DESCRIPTION = None


class NewContainerDistribution(_OfContainerDistribution, NewDistribution):
    """A distribution to be made, or put in place of another one."""


class ChangedContainerDistribution(_OfContainerDistribution, ChangedDistribution):
    """What to change of a distribution; what is left out stays."""


#: What is read in the container form in place of a request of the documented form.
CONTAINER_REQUESTS: Mapping[type[BaseModel], type[BaseModel]] = {
    NewRepository: NewContainerRepository,
    ChangedRepository: ChangedContainerRepository,
    SyncFromRemote: SyncOfContainerRepository,
    NewRemote: NewContainerRemote,
    ChangedRemote: ChangedContainerRemote,
    NewDistribution: NewContainerDistribution,
    ChangedDistribution: ChangedContainerDistribution,
}
