"""Bytes that tags lack: those that a run brings, and those that a version keeps.

Asked from the few blobs that are missing up to the tags, so that a version that lacks nothing costs one look.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, literal, not_, or_, select, update

from registry_sync.db.content.closures import (
    LinkRows,
    above_by_start,
    closure_by_root,
    closure_of,
    is_in_latest,
    is_present,
    tagged_in_run,
    there_is_none,
)
from registry_sync.db.queries import in_batches
from registry_sync.db.remotes import last_synced_by
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    manifests,
    repository_tags,
    repository_versions,
    run_blobs,
    run_tags,
    sync_runs,
    tags,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import Hold, Policy, RemoteSpec
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import TagState

#: How many versions that were made out of one another are followed to the sync that the first came from.
_LONGEST_ORIGIN = 20
#: Tags in these states are of the run's remote, whose policy counts for them.
_LISTED = (TagState.RESOLVED.value, TagState.UNCHANGED.value, TagState.HELD.value)
_NAMING = manifest_blobs.c.manifest_id


def hold_new_tags(connection: Connection, run_id: str, *, with_foreign: bool) -> None:
    """Holds tags below which a blob is lacking in what the run takes along; foreign ones count ``with_foreign``."""
    roots, links = tagged_in_run(run_id, [TagState.RESOLVED]), LinkRows.of_run(run_id)
    below = closure_of(roots, links)
    lacking = (
        select(blobs.c.id)
        .join(manifest_blobs, manifest_blobs.c.blob_id == blobs.c.id)
        .join(below, below.c.manifest_id == manifest_blobs.c.manifest_id)
        .where(_is_lacking(with_foreign))
    )
    if connection.execute(lacking.limit(1)).first() is None:
        return
    rooted = closure_by_root(roots, links)
    noted = (run_blobs.c.blob_id == blobs.c.id) & (run_blobs.c.sync_run_id == run_id)
    rows = connection.execute(
        select(rooted.c.root_id, blobs.c.digest, run_blobs.c.reason)
        .join(manifest_blobs, manifest_blobs.c.manifest_id == rooted.c.manifest_id)
        .join(blobs, blobs.c.id == manifest_blobs.c.blob_id)
        .outerjoin(run_blobs, noted)
        .where(_is_lacking(with_foreign))
        .order_by(rooted.c.root_id, run_blobs.c.reason.is_(None), blobs.c.digest)
    )
    reason_of: dict[int, str] = {}
    for row in rows:
        reason_of.setdefault(row.root_id, _reason(row.digest, row.reason))
    resolved = (
        select(run_tags.c.name, manifests.c.id.label("manifest_id"))
        .join(manifests, manifests.c.digest == run_tags.c.digest)
        .where(run_tags.c.sync_run_id == run_id, run_tags.c.state == TagState.RESOLVED.value)
    )
    named = connection.execute(resolved).all()
    hold_tags(
        connection, run_id, {row.name: reason_of[row.manifest_id] for row in named if row.manifest_id in reason_of}
    )


def hold_tags(connection: Connection, run_id: str, reasons: dict[str, str]) -> None:
    """Notes that these tags of a run are held, and why."""
    statement = (
        update(run_tags)
        .where(run_tags.c.sync_run_id == run_id, run_tags.c.name == bindparam("tag"))
        .values(state=TagState.HELD.value, reason=bindparam("new_reason"))
    )
    for batch in in_batches(sorted(reasons.items())):
        connection.execute(statement, [{"tag": name, "new_reason": reason} for name, reason in batch])


def tags_lacking_blobs(
    connection: Connection, repository_id: str, *, with_foreign: bool, run_id: str | None = None
) -> list[Hold]:
    """Tags of the latest version below which a blob is not stored, as holds by name.

    The latest version is what the intervals say within the transaction. A run says why the bytes could not be had. Tags
    that it does not list, and that came by a sync that leaves bytes for the first pull, are left out for it.
    """
    is_member = is_in_latest("blobs", blobs.c.id, repository_id)
    if connection.execute(select(blobs.c.id).where(blobs.c.stored_at.is_(None), is_member).limit(1)).first() is None:
        return []
    noted = and_(run_blobs.c.blob_id == blobs.c.id, run_blobs.c.sync_run_id == (run_id or ""))
    is_named = (_is_lacking(with_foreign), is_member, is_in_latest("manifests", _NAMING, repository_id))
    rows = connection.execute(
        select(_NAMING, blobs.c.digest, run_blobs.c.reason)
        .join(blobs, blobs.c.id == manifest_blobs.c.blob_id)
        .outerjoin(run_blobs, noted)
        .where(*is_named)
        .order_by(_NAMING, run_blobs.c.reason.is_(None), blobs.c.digest)
    )
    lacking: dict[int, tuple[bool, str]] = {}
    for row in rows:
        lacking.setdefault(row.manifest_id, (row.reason is None, _reason(row.digest, row.reason)))
    if not lacking:
        return []
    starts = select(_NAMING).join(blobs, blobs.c.id == manifest_blobs.c.blob_id).where(*is_named).distinct()
    digest_of: dict[str, str] = {}
    worst: dict[str, tuple[bool, str]] = {}
    for found in connection.execute(_tags_above(starts, repository_id)):
        digest_of[found.name] = found.digest
        worst[found.name] = min(worst.get(found.name, lacking[found.start_id]), lacking[found.start_id])
    if run_id is not None:
        for name in _left_for_first_pull(connection, repository_id, run_id, worst):
            del worst[name]
    return [Hold(TagName(name), Digest(digest_of[name]), worst[name][1]) for name in sorted(worst)]


def came_for_first_pull() -> ColumnElement[bool]:
    """Whether a row of ``repository_tags`` came with a version of a sync that leaves bytes for the first pull."""
    return not_(
        there_is_none(
            repository_versions.c.repository_id == repository_tags.c.repository_id,
            repository_versions.c.number == repository_tags.c.version_added,
            sync_runs.c.id == repository_versions.c.sync_run_id,
            sync_runs.c.remote_spec["policy"].as_string() != Policy.IMMEDIATE.value,
        )
    )


def _left_for_first_pull(connection: Connection, repository_id: str, run_id: str, names: Iterable[str]) -> list[str]:
    is_listed = and_(run_tags.c.sync_run_id == run_id, run_tags.c.name == tags.c.name, run_tags.c.state.in_(_LISTED))
    found: list[str] = []
    for batch in in_batches(sorted(names)):
        statement = (
            select(tags.c.name)
            .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
            .where(tags.c.name.in_(batch), is_present(repository_tags, repository_id))
            .where(there_is_none(is_listed), came_for_first_pull())
        )
        found += connection.execute(statement).scalars()
    return found


def lost_bytes_of_derived(connection: Connection, repository_id: str, origin_id: str, origin_number: int) -> list[Hold]:
    """Tags of a version that was just made whose bytes are not stored, as holds, as far as they come from another one.

    None when the content of that one came by a sync that leaves bytes for the first pull.
    """
    remote = _synced_by(connection, origin_id, origin_number)
    if remote is not None and remote.policy is not Policy.IMMEDIATE:
        return []
    with_foreign = remote is not None and remote.include_foreign_layers
    return tags_lacking_blobs(connection, repository_id, with_foreign=with_foreign)


def _synced_by(connection: Connection, repository_id: str, number: int) -> RemoteSpec | None:
    """The remote of the last sync of a repository; of one that was never synced, that of what it was copied from."""
    for _ in range(_LONGEST_ORIGIN):
        last = last_synced_by(connection, repository_id)
        if last is not None:
            return last
        versions = repository_versions.c
        origin = connection.execute(
            select(versions.origin_repository_id, versions.origin_number).where(
                versions.repository_id == repository_id, versions.number == number
            )
        ).first()
        if origin is None or origin.origin_repository_id is None:
            return None
        repository_id, number = origin.origin_repository_id, origin.origin_number
    return None


def _tags_above(starts: Select[Any], repository_id: str) -> Select[Any]:
    """Tags of the latest version from which links lead to one of ``starts``: ``name``, ``digest``, ``start_id``."""
    above = above_by_start(starts, LinkRows.of_latest(repository_id))
    return (
        select(tags.c.name, manifests.c.digest, above.c.start_id)
        .join(tags, tags.c.manifest_id == above.c.manifest_id)
        .join(manifests, manifests.c.id == tags.c.manifest_id)
        .where(is_in_latest("tags", tags.c.id, repository_id))
    )


def _is_lacking(with_foreign: bool) -> ColumnElement[bool]:
    return blobs.c.stored_at.is_(None) & or_(manifest_blobs.c.is_foreign.is_(False), literal(with_foreign))


def _reason(digest: str, said: str | None) -> str:
    return f"blob {digest}: {said or 'not stored'}"
