"""``copy_tags/`` of a repository: tags of another repository, with all that is below them, as a new version."""

from __future__ import annotations

from fastapi import Response

from registry_sync.api.access import CHANGE, SignedIn
from registry_sync.api.copies.schemas import NewCopy
from registry_sync.api.fields import PathUuid
from registry_sync.api.parts import UsedDatabase
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.api.threads import Router
from registry_sync.api.versions.derived import DERIVED, derived_answer
from registry_sync.api.versions.schemas import DerivedVersionDocument
from registry_sync.db.database import Database
from registry_sync.domain.history import CopyRequest
from registry_sync.errors import RecordNotFound

router = Router(tags=["versions"])


@router.post(
    "/repositories/docker/docker/{repository_id}/copy_tags/",
    status_code=201,
    dependencies=CHANGE,
    responses={**NOT_FOUND, **DERIVED},
)
def copy_tags(
    database: UsedDatabase, repository_id: PathUuid, given: NewCopy, user: SignedIn, response: Response
) -> DerivedVersionDocument:
    """Makes a new version with tags of another repository. When the latest has them so, it is the answer, with 200."""
    database.repositories.get(repository_id)
    request = given.request()
    _require_source(database, given, request)
    try:
        made = database.versions.copy(repository_id, request, by=user.get_name(), description=given.description)
    except RecordNotFound as problem:
        raise InvalidField("names", str(problem)) from None
    return derived_answer(database, repository_id, made, response)


def _require_source(database: Database, given: NewCopy, request: CopyRequest) -> None:
    """What is wrong with the source is said of its field."""
    field = "source_repository" if given.source_repository is not None else "source_repository_version"
    try:
        source = database.repositories.get(request.repository_id)
        if request.number is not None:
            database.versions.get(source.id, request.number)
    except RecordNotFound as problem:
        raise InvalidField(field, str(problem)) from None
    if source.latest_number is None:
        raise InvalidField(field, f"repository {source.name!r} has no version yet")
