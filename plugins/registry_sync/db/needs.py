"""What keeps content: the conditions under which a manifest or a blob may not be collected.

A manifest is needed while a version holds it, or a sync under way has listed, read or linked it; that a stored index
lists it is no reason, because what a version takes along is decided by its links. A blob is needed while a stored
manifest names it, or a sync under way plans it. Whoever lost its notes needs nothing, see ``OrphanStore.release_runs``.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, not_, or_

from registry_sync.db.closures import there_is_none
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    manifests,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    run_blobs,
    run_links,
    run_manifests,
    run_tags,
    tags,
)
from registry_sync.domain.runs import TagState

#: Tags in these states lead to nothing that the run takes.
_LEFT_OUT = (TagState.HELD.value, TagState.GONE.value, TagState.FILTERED.value)


def manifest_is_needed() -> ColumnElement[bool]:
    """Whether a row of ``manifests`` is needed; looked up for each row of the enclosing statement."""
    unit = manifests.c.id
    return or_(
        _there_is(repository_manifests.c.manifest_id == unit),
        _there_is(repository_links.c.child_id == unit),
        _there_is(repository_links.c.parent_id == unit),
        _there_is(tags.c.manifest_id == unit, repository_tags.c.tag_id == tags.c.id),
        manifest_is_in_run(),
    )


def manifest_is_in_run() -> ColumnElement[bool]:
    """Whether a sync under way has listed, read or linked a row of ``manifests``."""
    unit = manifests.c.id
    return or_(
        _there_is(run_manifests.c.manifest_id == unit),
        _there_is(run_links.c.child_id == unit),
        _there_is(run_links.c.parent_id == unit),
        _there_is(run_tags.c.digest == manifests.c.digest, run_tags.c.state.not_in(_LEFT_OUT)),
    )


def blob_is_needed() -> ColumnElement[bool]:
    """Whether a row of ``blobs`` is needed; looked up for each row of the enclosing statement."""
    unit = blobs.c.id
    return or_(
        _there_is(manifest_blobs.c.blob_id == unit),
        _there_is(repository_blobs.c.blob_id == unit),
        _there_is(run_blobs.c.blob_id == unit),
    )


def blob_is_in_run() -> ColumnElement[bool]:
    """Whether a sync under way plans a row of ``blobs``, or has a manifest that names it."""
    unit = blobs.c.id
    in_run = manifest_is_in_run()
    return or_(
        _there_is(run_blobs.c.blob_id == unit),
        _there_is(manifest_blobs.c.blob_id == unit, manifests.c.id == manifest_blobs.c.manifest_id, in_run),
    )


def _there_is(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return not_(there_is_none(*conditions))
