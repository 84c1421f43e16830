"""New versions told to Airflow's assets, and handed on between tasks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from registry_sync.domain.records import RepositoryVersion

log = logging.getLogger(__name__)

_CLOCKS_DIFFER_BY = timedelta(hours=1)
_EVENTS_LOOKED_AT = 1000
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


def was_told(context: Mapping[str, Any], version: RepositoryVersion) -> bool:
    """Whether this task has told of that version before, as Airflow knows: a task that was cleared tells it no more.

    False when Airflow cannot be asked: rather an event twice than none.
    """
    from airflow.sdk.execution_time.context import InletEventsAccessor

    ti = context["ti"]
    # What is told of a version is told soon after it was made; the clocks of two machines may differ.
    after = (version.created_at - _CLOCKS_DIFFER_BY).isoformat()
    try:
        events = list(InletEventsAccessor(alias_name=VERSIONS_ALIAS).after(after).limit(_EVENTS_LOOKED_AT))
    except Exception as problem:  # noqa: BLE001  the version is made, and whatever Airflow raises does not undo that
        log.warning("Airflow does not say which versions it was told of, so it is told again: %s", problem)
        return False
    own = (ti.dag_id, ti.run_id, ti.task_id)
    return any(
        (event.source_dag_id, event.source_run_id, event.source_task_id) == own
        and (event.extra or {}).get("href") == version.href
        for event in events
    )
