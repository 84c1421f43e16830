"""New versions told to Airflow's assets, and handed on between tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from registry_sync.domain.records import RepositoryVersion

#: Every version that a task makes is an event of this alias, and of an asset of its repository; schedule DAGs on it.
VERSIONS_ALIAS = "registry_sync_versions"


def versions_alias() -> AssetAlias:
    """The outlet of a task that makes versions."""
    return AssetAlias(VERSIONS_ALIAS)


def tell_assets(context: Mapping[str, Any], repository: str, version: RepositoryVersion) -> None:
    """An event of the alias and of the asset ``registry_sync/<repository>``, when the task ends well."""
    uri = f"x-registry-sync://repositories/{version.repository_id}"
    extra: dict[str, Any] = {
        "repository": repository,
        "number": version.number,
        "href": version.href,
        "counts": version.summary.counts(),
        "hold_count": len(version.holds),
    }
    asset = Asset(name=f"registry_sync/{repository}", uri=uri)
    context["outlet_events"][versions_alias()].add(asset, extra=extra)
