"""Repositories, remotes and distributions as they are shown, and the storage that repositories use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AliasGenerator, AliasPath, ConfigDict, Field

from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.private_keys import split_private_keys
from registry_sync.domain.remote import Policy
from registry_sync.domain.serving import Distribution
from registry_sync.domain.tag_options import rule_value
from registry_sync.domain.tag_rules import TagOrder
from registry_sync.pulp.documents import (
    WHOLE,
    Document,
    Timestamp,
    WrittenPlatforms,
    WrittenUrl,
    domain_name,
    made,
)
from registry_sync.pulp.hrefs import (
    distribution_href,
    latest_href_of,
    remote_href,
    repository_href,
    version_href,
    versions_href,
)


class RepositoryDocument(Document):
    """A repository. ``latest_version_href`` is null before the first version."""

    pulp_created: Timestamp
    pulp_href: Annotated[str, made(repository_href), Field(validation_alias="id")]
    latest_version_href: Annotated[str | None, made(latest_href_of), WHOLE]
    versions_href: Annotated[str, made(versions_href), Field(validation_alias="id")]
    description: str | None
    name: str
    retain_repo_versions: Annotated[int | None, Field(validation_alias="retain_versions")]
    pulp_labels: dict[str, str]
    pulp_last_updated: Timestamp


class AmountDocument(Document):
    """A number of units and their bytes."""

    count: int
    size: int


class UsageDocument(Document):
    """The space used by all versions of a repository, each unit counted once.

    ``blobs`` are those in the blob store, ``own_blobs`` those of them that no other repository references and that
    could be removed with it. ``missing_blobs`` are not in the store, ``broken_blobs`` were lost there and are not
    repaired. ``by_versions`` counts a blob once for each version that has it.
    """

    version_count: int
    manifests: AmountDocument
    blobs: AmountDocument
    own_blobs: AmountDocument
    missing_blobs: Annotated[AmountDocument, Field(validation_alias="missing")]
    broken_blobs: Annotated[AmountDocument, Field(validation_alias="broken")]
    by_versions: AmountDocument


class PulledTagDocument(Document):
    """A tag of the latest version, and when it was last pulled from here; ``last_pulled`` is null for never."""

    name: str
    digest: str
    last_pulled: Timestamp | None


def _without_keys(certificates: str | None) -> str | None:
    """The text without a private key, which earlier releases accepted among certificates."""
    return None if certificates is None else split_private_keys(certificates)[0]


def _joined(tags: Sequence[str] | None) -> str | None:
    return None if tags is None else ",".join(tags)


def _joined_or_null(tags: Sequence[str]) -> str | None:
    return ",".join(tags) or None


def _null(_remote: Any) -> None:
    return None


def _attribute_of_remote(field: str) -> str | AliasPath:
    """Options of a remote are in its specification, Pulp's additional fields in the remote itself."""
    name = domain_name(field)
    return name if field in ("pulp_created", "pulp_last_updated") else AliasPath("spec", name)


#: A field that is stored and never returned.
Hidden = Annotated[None, made(_null), WHOLE]
#: What options of a remote are called over REST that have another name there.
REST_NAMES = {"include_tags": "whitelist_tags", "labels": "pulp_labels"}
#: A rule for tags as it is sent: a text or number, or an object where it says more.
RuleValue = Annotated[str | int | dict[str, Any] | None, made(rule_value)]
Certificates = Annotated[str | None, made(_without_keys)]


class RemoteDocument(Document):
    """A remote. ``username``, ``password`` and ``ssl_client_key`` are always null: they are never returned."""

    model_config = ConfigDict(alias_generator=AliasGenerator(validation_alias=_attribute_of_remote))

    pulp_created: Timestamp
    pulp_href: Annotated[str, made(remote_href), Field(validation_alias="id")]
    pulp_last_updated: Timestamp
    download_concurrency: int
    name: str
    policy: Policy
    proxy_url: str | None
    ssl_ca_certificate: Certificates
    ssl_client_certificate: Certificates
    ssl_client_key: Hidden
    ssl_validation: bool
    upstream_name: str
    url: WrittenUrl
    whitelist_tags: Annotated[str | None, made(_joined), Field(validation_alias=AliasPath("spec", "include_tags"))]
    exclude_tags: Annotated[str | None, made(_joined_or_null)]
    username: Hidden
    password: Hidden
    conn_id: str | None
    platforms: WrittenPlatforms
    include_referrers: bool
    allow_sparse: bool
    allow_schema1: bool
    include_foreign_layers: bool
    max_held_share: float | None
    max_removed_share: float | None
    max_removed_tags: int | None
    min_tags: int | None
    max_total_bytes: int | None
    digest_list: DigestList
    regex: list[str]
    regex_all: list[str]
    exclude_regex: list[str]
    semver: RuleValue
    newest: RuleValue
    order: TagOrder
    newer_than: str | None
    digests: list[str]
    tag_sets: Annotated[list[dict[str, Any]], made(rule_value)]
    pulp_labels: dict[str, str]


def _served_repository(distribution: Distribution) -> str | None:
    """Where the latest version is served; null where always one is."""
    if distribution.repository_id is None or distribution.version_number is not None:
        return None
    return repository_href(distribution.repository_id)


def _served_version(distribution: Distribution) -> str | None:
    if distribution.repository_id is None or distribution.version_number is None:
        return None
    return version_href(distribution.repository_id, distribution.version_number)


class DistributionDocument(Document):
    """A distribution. Of ``repository`` and ``repository_version`` one is null, or both when nothing is served.

    ``registry_path`` is what clients pull below the host of the pull server.
    """

    pulp_created: Timestamp
    pulp_href: Annotated[str, made(distribution_href), Field(validation_alias="id")]
    pulp_last_updated: Timestamp
    name: str
    base_path: str
    registry_path: Annotated[str, Field(validation_alias="base_path")]
    repository: Annotated[str | None, made(_served_repository), WHOLE]
    repository_version: Annotated[str | None, made(_served_version), WHOLE]
    private: Annotated[bool, Field(validation_alias="is_private")]
    pulp_labels: dict[str, str]
