"""The answer of what makes a version out of another one.

It is short work in one transaction, so the version itself is the answer and there is no task to wait for.
"""

from __future__ import annotations

from typing import Any

from fastapi import Response

from registry_sync.api.versions.schemas import DerivedVersionDocument
from registry_sync.db.database import Database
from registry_sync.domain.history import DerivedVersion
from registry_sync.errors import RecordNotFound

#: What such an operation answers besides 201.
DERIVED: dict[int | str, dict[str, Any]] = {
    200: {"model": DerivedVersionDocument, "description": "The latest version is so already; none was made"}
}


def derived_answer(
    database: Database, repository_id: str, derived: DerivedVersion, response: Response
) -> DerivedVersionDocument:
    """The version that was made with its path as ``Location``, or the latest with 200 when none was."""
    version = derived.version
    if version is None:
        response.status_code = 200
        version = database.versions.latest(repository_id)
    else:
        response.headers["Location"] = version.href
    if version is None:
        raise RecordNotFound(f"repository {repository_id!r} has no version")
    return DerivedVersionDocument.of_derived(derived, version)
