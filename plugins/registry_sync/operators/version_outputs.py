"""The outputs of operators that make or publish versions: XComs for later tasks, and events of Airflow's assets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from registry_sync.domain.asset_names import (
    FORMER_NAMES_ALIAS,
    PUBLICATIONS_ALIAS,
    REPOSITORY_URIS,
    VERSIONS_ALIAS,
    asset_of_base_path,
    asset_of_repository,
)
from registry_sync.operators.stage import Stage
from registry_sync.operators.task_values import as_text, dag_run_started_at
from registry_sync.operators.triggered import is_literal
from registry_sync.pulp.hrefs import href_of

if TYPE_CHECKING:
    from airflow.sdk.definitions.asset import BaseAsset

    from registry_sync.db.database import Database
    from registry_sync.domain.records import Repository, RepositoryVersion
    from registry_sync.domain.serving import Distribution
    from registry_sync.domain.version_history import DerivedVersion


log = logging.getLogger(__name__)

_CLOCKS_DIFFER_BY = timedelta(hours=1)
_MAX_EVENTS = 1000


def version_outlets(repository: object = None) -> list[BaseAsset]:
    """The outlets of a task that makes versions of ``repository``.

    Where the code of the DAG names it, its asset is among them, so that Airflow shows it before its first version.
    None, a template or an output of another task: the asset is known with the first version.
    """
    outlets: list[BaseAsset] = [AssetAlias(VERSIONS_ALIAS), AssetAlias(FORMER_NAMES_ALIAS)]
    if isinstance(repository, str) and repository.strip() and is_literal(repository):
        outlets.append(declared_asset(repository.strip()))
    return outlets


def withhold_declared(task: Any) -> None:
    """Takes the assets of repositories out of the outlets of the running ``task``.

    Airflow emits an event for each asset among them whenever the task succeeds, also when it made no version. A new
    version is an event by :func:`emit_asset_events`, exactly one for each asset.
    """
    task.outlets = [
        outlet for outlet in task.outlets if not (isinstance(outlet, Asset) and outlet.uri.startswith(REPOSITORY_URIS))
    ]


def publication_outlets() -> list[AssetAlias]:
    """The outlets of a task that changes what a distribution serves."""
    return [AssetAlias(PUBLICATIONS_ALIAS)]


def emit_published(
    context: Mapping[str, Any], repository: str, distribution: Distribution, *, is_changed: bool
) -> None:
    """Adds an event of the alias and of the asset ``registry_sync_published/<base path>`` for a change.

    The repeat of a task that had changed it and failed before it ended adds the event that is missing.
    """
    from registry_sync.pulp.version_events import publication_event

    extra = publication_event(repository, distribution)
    ti, changed_at = context["ti"], distribution.updated_at
    began_at = dag_run_started_at(context)
    is_repeat = ti.try_number > 1 and began_at is not None and changed_at is not None and changed_at >= began_at
    is_missing = is_repeat and changed_at is not None and not _has_own(context, PUBLICATIONS_ALIAS, changed_at, extra)
    if is_changed or is_missing:
        named = asset_of_base_path(distribution.base_path)
        asset = Asset(name=named.name, uri=named.uri)
        context["outlet_events"][AssetAlias(PUBLICATIONS_ALIAS)].add(asset, extra=extra)


def emit_asset_events(
    context: Mapping[str, Any],
    database: Database,
    repository: Repository,
    version: RepositoryVersion,
    *,
    max_tags: int | None = None,
) -> None:
    """Adds an event of the alias and of the asset ``registry_sync/<repository>``, sent when the task succeeds.

    Assets of former names get one too, so that consumers that wait for a former name continue to receive events. The
    extra is that of :func:`~registry_sync.pulp.version_events.version_event` with at most ``max_tags`` tags, None for
    as many as an event may list.
    """
    from registry_sync.pulp.version_events import MAX_EVENT_TAGS, version_event

    former_names = database.repositories.former_names(repository.id)
    difference = database.versions.tag_difference(version, limit=MAX_EVENT_TAGS if max_tags is None else max_tags)
    extra = version_event(repository.name, version, difference)
    for alias, names in ((VERSIONS_ALIAS, (repository.name,)), (FORMER_NAMES_ALIAS, former_names)):
        for name in names:
            context["outlet_events"][AssetAlias(alias)].add(repository_asset(context, name), extra=extra)


def repository_asset(context: Mapping[str, Any], repository: str) -> Asset:
    """The asset of the repository of that name.

    An active asset keeps its URI, also that of a former release, which contains the repository's id.
    """
    asset = declared_asset(repository)
    uri = _active_uri(context, asset.name)
    return Asset(name=asset.name, uri=uri) if uri else asset


def declared_asset(repository: str) -> Asset:
    """The asset of the repository of that name as DAGs declare it."""
    named = asset_of_repository(repository)
    return Asset(name=named.name, uri=named.uri)


def _active_uri(context: Mapping[str, Any], name: str) -> str | None:
    """The URI of the active asset of that name; None when there is none, or Airflow does not respond."""
    if context.get("task") is None:
        return None
    from airflow.sdk.execution_time.comms import AssetResult, GetAssetByName
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    try:
        found = SUPERVISOR_COMMS.send(GetAssetByName(name=name))
    except Exception as problem:  # noqa: BLE001 the version is made; a missing response of Airflow is no reason to fail
        log.debug("Airflow does not return the asset %s: %s", name, problem)
        return None
    uri = found.uri if isinstance(found, AssetResult) else ""
    return uri if uri.startswith(REPOSITORY_URIS) else None


def has_event(context: Mapping[str, Any], version: RepositoryVersion) -> bool:
    """Whether this task has emitted an event for that version before; a task that was cleared emits it only once.

    False when Airflow does not respond: a duplicate event is better than none.
    """
    return _has_own(context, VERSIONS_ALIAS, version.created_at, {"href": href_of(version)})


def _has_own(
    context: Mapping[str, Any], alias: str, made_at: datetime, extra: Mapping[str, Any], *, by_any: bool = False
) -> bool:
    """Whether this task, or ``by_any`` one, has emitted an event of that alias with these extras since ``made_at``."""
    from airflow.sdk.execution_time.context import InletEventsAccessor

    ti = context["ti"]
    # The event follows soon after the version was made; the clocks of two machines may differ.
    after = (made_at - _CLOCKS_DIFFER_BY).isoformat()
    try:
        events = list(InletEventsAccessor(alias_name=alias).after(after).limit(_MAX_EVENTS))
    except Exception as problem:  # noqa: BLE001  the version is made, and whatever Airflow raises does not undo that
        log.warning("Airflow does not return its events, so the event is emitted again: %s", problem)
        return False
    own = (ti.dag_id, ti.run_id, ti.task_id)
    return any(
        (by_any or (event.source_dag_id, event.source_run_id, event.source_task_id) == own)
        and extra.items() <= (event.extra or {}).items()
        for event in events
    )


def find_number(stage: Stage, repository: Repository, number: int | str | None) -> int:
    """The number given by a parameter, else the latest. Raises :class:`InvalidReference`, :class:`RecordNotFound`."""
    from registry_sync.errors import InvalidReference, RecordNotFound

    text = as_text(number)
    if text is not None:
        if not text.isascii() or not text.isdigit():
            raise InvalidReference(f"{text[:40]!r} is not the number of a version of {repository.name!r}")
        return stage.database.versions.get(repository.id, int(text[:10])).number
    if repository.latest_number is None:
        raise RecordNotFound(f"repository {repository.name!r} has no version yet")
    return repository.latest_number


def derived_result(
    stage: Stage, context: Mapping[str, Any], repository: Repository, derived: DerivedVersion
) -> dict[str, Any]:
    """Emits the events of a new version; returns ``repository``, ``version``, ``unchanged_version`` as a commit does.

    The repeat of a task that had made the version and was killed before it ended emits the event that is missing.
    ``missing_blob_count`` counts blobs whose bytes are not in the store; the next immediate sync fetches them.
    """
    from registry_sync.pulp.version_documents import version_document

    latest = stage.database.versions.latest(repository.id) if derived.version is None else None
    new = derived.version or (latest if latest and _lacks_event(context, latest) else None)
    if new is not None:
        emit_asset_events(context, stage.database, repository, new)
    return {
        "repository": repository.name,
        "version": version_document(derived.version) if derived.version else None,
        "unchanged_version": version_document(latest) if latest else None,
        "missing_blob_count": derived.missing_blob_count,
    }


def _lacks_event(context: Mapping[str, Any], latest: RepositoryVersion) -> bool:
    """Whether an earlier try of this task may have made ``latest``, and no task has emitted an event for it."""
    from registry_sync.domain.records import VersionOriginKind

    began_at = dag_run_started_at(context)
    if context["ti"].try_number == 1 or began_at is None or latest.created_at < began_at:
        return False
    if latest.origin.kind is VersionOriginKind.SYNC:
        return False
    return not _has_own(context, VERSIONS_ALIAS, latest.created_at, {"href": href_of(latest)}, by_any=True)
