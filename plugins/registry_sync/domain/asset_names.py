"""The assets and aliases of Airflow by which other DAGs follow repositories and distributions: names and URIs.

An asset is named after the repository, and so is its URI: Airflow keeps one asset of each name and one of each URI
active, so that an asset whose URI outlives its name, or the reverse, never becomes active again.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

#: Every version is an event of this alias, and of its repository's asset; schedule DAGs on it.
VERSIONS_ALIAS = "registry_sync_versions"
#: The same for assets of a repository's former names, so that each version is one event of the alias above.
FORMER_NAMES_ALIAS = "registry_sync_former_names"
#: Every change of what is published is an event of this alias, and of its base path's asset.
PUBLICATIONS_ALIAS = "registry_sync_publications"
#: What the URIs of assets begin with; without the slash, the namespaces of their datasets.
REPOSITORIES, BASE_PATHS = "x-registry-sync://repositories", "x-registry-sync://base-paths"
REPOSITORY_URIS = f"{REPOSITORIES}/"
_REPOSITORY = "registry_sync/"
_PUBLISHED = "registry_sync_published/"


@dataclass(frozen=True)
class AssetName:
    """The ``name`` and the ``uri`` of an asset."""

    name: str
    uri: str


def asset_of_repository(repository: str) -> AssetName:
    """That of the repository of that name."""
    # Airflow accepts ASCII only; a quoted name is another repository's only if that one has a quoted name itself.
    quoted = quote(repository, safe="/")
    return AssetName(f"{_REPOSITORY}{repository if repository.isascii() else quoted}", f"{REPOSITORY_URIS}{quoted}")


def asset_of_base_path(base_path: str) -> AssetName:
    """That of what is served below ``base_path``."""
    return AssetName(f"{_PUBLISHED}{base_path}", f"{BASE_PATHS}/{quote(base_path, safe='/')}")
