"""Versions made by setting and removing single tags of a repository.

A tag is set to a manifest that the latest version has already, so that nothing is fetched. A manifest whose last tag is
removed stays in the version; a mirror removes it with its next sync.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from registry_sync.db.content.closures import is_in_latest, is_present, lost_bytes_of_derived
from registry_sync.db.queries import insert_or_keep
from registry_sync.db.tables import manifests, repository_tags, tags
from registry_sync.db.versions.commit import add_version, next_number
from registry_sync.db.versions.derived_versions import made_difference
from registry_sync.db.versions.version_rows import record_leftovers
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import VersionOrigin, VersionOriginKind
from registry_sync.domain.references import TagName
from registry_sync.errors import RecordNotFound


def set_tag(
    connection: Connection, repository: Row[Any], name: TagName, digest: Digest, *, by: str | None
) -> int | None:
    """The number of the new version, None when the tag is at that manifest; the caller has locked ``repository``.

    Raises :class:`RecordNotFound` for a manifest that the latest version does not have.
    """
    is_wanted = (manifests.c.digest == digest) & is_in_latest("manifests", manifests.c.id, repository.id)
    manifest_id = connection.execute(select(manifests.c.id).where(is_wanted)).scalar_one_or_none()
    if manifest_id is None:
        raise RecordNotFound(f"the latest version of repository {repository.name!r} has no manifest {digest}")
    unit = {"name": name, "manifest_id": manifest_id}
    connection.execute(insert_or_keep(connection, tags), {**unit, "created_at": utc_now()})
    same = select(tags.c.id).where(tags.c.name == name, tags.c.manifest_id == manifest_id)
    tag_id = connection.execute(same).scalar_one()
    present = _present(connection, repository.id, name)
    if tag_id in present:
        return None
    number = next_number(repository)
    _close(connection, repository.id, present, number)
    row = {"repository_id": repository.id, "tag_id": tag_id, "version_added": number, "name": name}
    connection.execute(insert(repository_tags), row)
    return _add(connection, repository, number, by)


def remove_tag(connection: Connection, repository: Row[Any], name: TagName, *, by: str | None) -> int:
    """The number of the new version; the caller has locked ``repository``.

    Raises :class:`RecordNotFound` for a tag that the latest version does not have.
    """
    present = _present(connection, repository.id, name)
    if not present:
        raise RecordNotFound(f"the latest version of repository {repository.name!r} has no tag {name!r}")
    number = next_number(repository)
    _close(connection, repository.id, present, number)
    return _add(connection, repository, number, by)


def _present(connection: Connection, repository_id: str, name: str) -> list[int]:
    statement = select(repository_tags.c.tag_id).where(
        is_present(repository_tags, repository_id), repository_tags.c.name == name
    )
    return list(connection.execute(statement).scalars())


def _close(connection: Connection, repository_id: str, tag_ids: list[int], number: int) -> None:
    is_one = repository_tags.c.tag_id.in_(tag_ids)
    closed = update(repository_tags).where(is_present(repository_tags, repository_id), is_one)
    connection.execute(closed.values(version_removed=number))


def _add(connection: Connection, repository: Row[Any], number: int, by: str | None) -> int:
    latest = repository.latest_number
    difference = made_difference(connection, repository.id, number)
    record_leftovers(connection, repository.id)
    origin = VersionOrigin(VersionOriginKind.TAG, repository.id, latest, by)
    holds = lost_bytes_of_derived(connection, repository.id, repository.id, latest)
    return add_version(connection, repository, difference, origin=origin, holds=holds)
