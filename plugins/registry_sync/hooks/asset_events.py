"""Events of Airflow's assets for what was made outside of a task: over REST and by commands.

A task's events are sent by Airflow when it succeeds (:mod:`registry_sync.operators.version_outputs`). These are written
into Airflow's own database right after the version; DAGs that follow a repository are started by both alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from registry_sync.db.engine import FOREIGN_ERROR
from registry_sync.domain.asset_names import (
    FORMER_NAMES_ALIAS,
    PUBLICATIONS_ALIAS,
    VERSIONS_ALIAS,
    AssetName,
    asset_of_base_path,
    asset_of_repository,
)

if TYPE_CHECKING:
    from registry_sync.db.database import Database
    from registry_sync.domain.records import RepositoryVersion
    from registry_sync.domain.serving import Distribution, DistributionSpec
    from registry_sync.domain.version_history import TagDifference

    #: The extra of the event of a repository's version, by name, and its difference from its base.
    ExtraOf = Callable[[str, RepositoryVersion, TagDifference], dict[str, Any]]
    #: That of a distribution, with the name of its repository.
    PublicationExtraOf = Callable[[str, Distribution], dict[str, Any]]

log = logging.getLogger(__name__)


def announce_version(database: Database, version: RepositoryVersion, extra_of: ExtraOf, *, max_tags: int) -> None:
    """Emits an event of the assets of the repository's name and former names, with at most ``max_tags`` tags.

    For the API server and for commands. The version is made, so that an event that cannot be written is only logged.
    """
    repository = database.repositories.get(version.repository_id)
    extra = extra_of(repository.name, version, database.versions.tag_difference(version, limit=max_tags))
    events = [(VERSIONS_ALIAS, asset_of_repository(repository.name))]
    events += [
        (FORMER_NAMES_ALIAS, asset_of_repository(name)) for name in database.repositories.former_names(repository.id)
    ]
    _emit(events, extra, f"version {version.number} of {repository.name}")


def announce_publication(
    database: Database, before: DistributionSpec | None, distribution: Distribution, extra_of: PublicationExtraOf
) -> None:
    """Emits an event of the asset of the base path if other content is served there than ``before``, None for none.

    Otherwise as :func:`announce_version`. What serves nothing has no event.
    """
    spec = distribution.spec
    if spec.repository_id is None or (before is not None and before.content == spec.content):
        return
    extra = extra_of(database.repositories.get(spec.repository_id).name, distribution)
    path = distribution.base_path
    _emit([(PUBLICATIONS_ALIAS, asset_of_base_path(path))], extra, f"what is served below {path}")


def _emit(events: list[tuple[str, AssetName]], extra: dict[str, Any], about: str) -> None:
    from airflow.utils.session import create_session

    try:
        with create_session() as session:
            for alias, name in events:
                _register(alias, name, extra, session)
    except FOREIGN_ERROR as problem:
        log.warning("Airflow's database has no event of %s, so DAGs that follow it do not start: %s", about, problem)


def _register(alias: str, name: AssetName, extra: dict[str, Any], session: Any) -> None:
    """As Airflow does for an event of an alias: an asset that it does not know yet is made."""
    from airflow.assets.manager import asset_manager
    from airflow.models.asset import AssetActive, AssetAliasModel, AssetModel
    from airflow.serialization.definitions.assets import SerializedAsset

    active = session.query(AssetActive.uri).filter(AssetActive.name == name.name).scalar()
    asset = SerializedAsset(name=name.name, uri=active or name.uri, group="asset", extra={}, watchers=[])
    is_known = session.query(AssetAliasModel.id).filter(AssetAliasModel.name == alias).first() is not None
    # Looked at first: of an asset that it does not know, Airflow logs that there can be no event.
    if session.query(AssetModel.id).filter(AssetModel.name == asset.name, AssetModel.uri == asset.uri).first() is None:
        session.add(AssetModel.from_serialized(asset))
        session.flush()
    aliases = [alias] if is_known else []
    asset_manager.register_asset_change(asset=asset, extra=extra, session=session, source_alias_names=aliases)
