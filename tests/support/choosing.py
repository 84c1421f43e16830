"""Syncs of one repository, in memory or scripted, and what they took along: for tests of what is chosen."""

from __future__ import annotations

from typing import Any

from registry_sync.domain.content_units import Relation, UnitQuery
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import PageRequest, RepositoryVersion
from registry_sync.domain.remote import RemoteSpec
from support.hostile_registry import HostileRegistry
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry
from support.serving import serve
from support.syncing import Installation

NAME = "team/app"
EVERYTHING = PageRequest(limit=1000)
#: What a remote says and a single sync cannot.
OF_THE_REMOTE = {
    "allow_sparse", "include_foreign_layers", "max_held_share", "max_removed_share", "max_removed_tags", "min_tags",
}  # fmt: skip


def sync(
    here: Installation, registry: MemoryRegistry | HostileRegistry, build: ContentBuilder | None = None, **request: Any
) -> RepositoryVersion | None:
    """Syncs what was built so far, or what the registry serves already; requests are counted from here."""
    if isinstance(registry, HostileRegistry):
        url = registry.base
        if build is not None:
            serve(registry, NAME, build.content())
        registry.requests.clear()
    else:
        url = registry.url
        if build is not None:
            registry.serve(NAME, build.content())
        registry.reset_counts()
    remote = {name: request.pop(name) for name in list(request) if name in OF_THE_REMOTE}
    here.database.remotes.ensure(RemoteSpec.parse("app", url, NAME, **remote))
    return here.sync("app", url, NAME, **request)


def held(here: Installation, version: RepositoryVersion, relation: Relation = Relation.PRESENT) -> set[Digest]:
    """Digests of a version's manifests."""
    query = UnitQuery(version.repository_id, version.number, relation)
    return {unit.digest for unit in here.database.units.manifests(query, EVERYTHING).items}


def tags(here: Installation, version: RepositoryVersion) -> set[str]:
    return set(here.database.versions.tags(version.repository_id, version.number))


def got(registry: MemoryRegistry) -> set[str]:
    """Digests and tags by which manifests were got."""
    return {request.reference for request in registry.log().select("GET", "manifest")}
