"""``orphans/cleanup/``, ``repair/`` and ``versions/<number>/repair/``: tasks that are runs of the DAGs for maintenance.

Removing orphans requires the right to delete, and to start runs of its DAG; a repair requires the latter.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from pydantic import Field

from registry_sync.api import sync_dag
from registry_sync.api.access import DELETE, SignedIn, run_of
from registry_sync.api.container_requests import unsupported
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import Flag, GivenDocument, PathNumber, PathUuid, whole_number
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.hooks.settings import load_settings
from registry_sync.pulp.hrefs import task_href
from registry_sync.pulp.task_documents import COLLECT_DAG_ID, SCRUB_DAG_ID, TaskStarted

#: Ten years, the longest that orphans are kept.
_Minutes: Any = whole_number(0, 87_600 * 60)


_CONTENT: Any = unsupported("array", "All orphans are removed that are old enough.", [])


class OrphansToRemove(GivenDocument):
    """How long orphans are kept."""

    orphan_protection_time: Annotated[
        _Minutes | None, Field(description="Minutes since when content must be an orphan; null for the setting")
    ] = None
    content_hrefs: _CONTENT = None


class NewRepair(GivenDocument):
    """How blobs are verified."""

    verify_checksums: Annotated[Flag, Field(description="Whether the bytes are read; else only what exists")] = True


router = Router(tags=["maintenance"])


@router.post("/orphans/cleanup/", status_code=202, dependencies=[*DELETE, *run_of(COLLECT_DAG_ID)])
def remove_orphans(given: OrphansToRemove, user: SignedIn) -> TaskStarted:
    """Removes content that no version and no sync references, by a run of the DAG for that."""
    minutes = given.orphan_protection_time
    kept = load_settings().orphan_grace.total_seconds() / 60
    if minutes is not None and minutes < kept:
        raise InvalidField(
            "orphan_protection_time",
            f"This installation keeps orphans for {kept:.0f} minutes ([registry_sync] orphan_grace_hours).",
        )
    return _start(COLLECT_DAG_ID, {} if minutes is None else {"grace_hours": minutes / 60}, user)


@router.post("/repair/", status_code=202, dependencies=run_of(SCRUB_DAG_ID))
def repair(given: NewRepair, user: SignedIn) -> TaskStarted:
    """Verifies all stored blobs, and fetches broken and missing ones again, by a run of the DAG for that."""
    return _start(SCRUB_DAG_ID, {"share": 1 if given.verify_checksums else 0, "repair": True}, user)


@router.post(
    "/repositories/docker/docker/{repository_id}/versions/{number}/repair/",
    status_code=202,
    dependencies=run_of(SCRUB_DAG_ID),
    responses=NOT_FOUND,
)
def repair_version(
    database: UsedDatabase, repository_id: PathUuid, number: PathNumber, given: NewRepair, user: SignedIn
) -> TaskStarted:
    """Repairs the blobs of a version, with all others: blobs are shared by versions."""
    database.versions.get(repository_id, number)
    return _start(SCRUB_DAG_ID, {"share": 1 if given.verify_checksums else 0, "repair": True}, user)


def _start(dag_id: str, conf: dict[str, Any], user: BaseUser) -> TaskStarted:
    task_id = str(uuid.uuid4())
    sync_dag.trigger(dag_id, task_id, conf, user.get_name())
    return TaskStarted(task=task_href(task_id))
