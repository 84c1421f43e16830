"""Actions on repositories at ``container/container/``: tag, untag, and copies, each with a task that has ended.

All of them make a version in one short transaction. A task that made none, because the latest version has that content
already, has no created resources.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from pydantic import Field, StringConstraints

from registry_sync.api.access import CHANGE, SignedIn
from registry_sync.api.dependencies import Router, UsedDatabase
from registry_sync.api.fields import GivenDocument, PathUuid, parsed
from registry_sync.api.form_routes import record_task
from registry_sync.api.problems import NOT_FOUND, InvalidField
from registry_sync.api.version_routes import MAX_NAMES, NewCopy, SourceOfCopy, require_source
from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.references import TagName
from registry_sync.domain.version_history import DerivedVersion, ManifestCopy
from registry_sync.errors import InvalidReference, RecordNotFound
from registry_sync.hooks.asset_events import announce_version
from registry_sync.pulp.hrefs import href_of, repository_href
from registry_sync.pulp.task_documents import TaskStarted
from registry_sync.pulp.version_events import MAX_EVENT_TAGS, version_event

TagText = Annotated[str, StringConstraints(strip_whitespace=True), parsed(TagName)]
DigestText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=255), parsed(Digest)]


class TagImage(GivenDocument):
    """A tag to set, and the digest of a manifest in the latest version."""

    tag: TagText
    digest: DigestText


class UntagImage(GivenDocument):
    """A tag to remove from the latest version."""

    tag: TagText


class NewManifestCopy(SourceOfCopy):
    """The manifests to copy, and their repository or version. Exactly one of the two paths is required."""

    digests: Annotated[
        list[DigestText] | None, Field(max_length=MAX_NAMES, description="Digests of manifests; null for all")
    ] = None
    media_types: Annotated[
        list[Annotated[str, StringConstraints(max_length=255)]] | None,
        Field(max_length=MAX_NAMES, description="Only manifests of these types; null for all"),
    ] = None

    def request(self) -> ManifestCopy:
        """The request for the store."""
        digests = None if not self.digests else tuple(Digest(text) for text in self.digests)
        return ManifestCopy(*self.source(), digests, tuple(self.media_types) if self.media_types else None)


router = Router(prefix="/repositories/container/container/{repository_id}", tags=["repositories"])


@router.post("/tag/", status_code=202, dependencies=CHANGE, responses=NOT_FOUND)
def tag_image(database: UsedDatabase, repository_id: PathUuid, given: TagImage, user: SignedIn) -> TaskStarted:
    """Sets a tag to a manifest of the latest version, by a new version."""
    name, digest, started_at = TagName(given.tag), Digest(given.digest), utc_now()
    database.repositories.get(repository_id)
    made = _named("digest", lambda: database.versions.set_tag(repository_id, name, digest, by=user.get_name()))
    return recorded(database, "registry_sync.tag", repository_id, made, user=user, started_at=started_at)


@router.post("/untag/", status_code=202, dependencies=CHANGE, responses=NOT_FOUND)
def untag_image(database: UsedDatabase, repository_id: PathUuid, given: UntagImage, user: SignedIn) -> TaskStarted:
    """Removes a tag, by a new version; what it named stays until the next mirror."""
    name, started_at = TagName(given.tag), utc_now()
    database.repositories.get(repository_id)
    made = _named("tag", lambda: database.versions.remove_tag(repository_id, name, by=user.get_name()))
    return recorded(database, "registry_sync.untag", repository_id, made, user=user, started_at=started_at)


@router.post("/copy_tags/", status_code=202, dependencies=CHANGE, responses=NOT_FOUND)
def copy_tags_by_task(database: UsedDatabase, repository_id: PathUuid, given: NewCopy, user: SignedIn) -> TaskStarted:
    """Makes a new version with tags of another repository."""
    started_at = utc_now()
    database.repositories.get(repository_id)
    require_source(database, given)
    made = _named(
        "names",
        lambda: database.versions.copy(
            repository_id, given.request(), by=user.get_name(), description=given.description
        ),
    )
    return recorded(database, "registry_sync.copy_tags", repository_id, made, user=user, started_at=started_at)


@router.post("/copy_manifests/", status_code=202, dependencies=CHANGE, responses=NOT_FOUND)
def copy_manifests(
    database: UsedDatabase, repository_id: PathUuid, given: NewManifestCopy, user: SignedIn
) -> TaskStarted:
    """Makes a new version with manifests of another repository and all below them, without tags."""
    started_at = utc_now()
    database.repositories.get(repository_id)
    require_source(database, given)
    made = _named(
        "digests", lambda: database.versions.copy_manifests(repository_id, given.request(), by=user.get_name())
    )
    return recorded(database, "registry_sync.copy_manifests", repository_id, made, user=user, started_at=started_at)


def _named(field: str, work: Callable[[], DerivedVersion]) -> DerivedVersion:
    """What ``work`` makes. What is not there is invalid input, since a field names it."""
    try:
        return work()
    except (RecordNotFound, InvalidReference) as problem:
        raise InvalidField(field, f"{problem}.") from None


def recorded(
    database: Database,
    name: str,
    repository_id: str,
    made: DerivedVersion,
    *,
    user: BaseUser,
    started_at: datetime,
) -> TaskStarted:
    """The task of an action that has been done, recorded for its client."""
    if made.version is not None:
        announce_version(database, made.version, version_event, max_tags=MAX_EVENT_TAGS)
    created = () if made.version is None else (href_of(made.version),)
    reserved = (repository_href(repository_id),)
    return record_task(database, name, user, started_at, created=created, reserved=reserved)
