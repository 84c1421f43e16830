"""What a set of manifests leads to: recursive queries over the entries of indexes.

Digests make cycles impossible; UNION, which drops repeats, bounds the work where children are shared.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, literal_column, not_, select

from registry_sync.db.tables import (
    manifest_children,
    manifests,
    repository_blobs,
    repository_manifests,
    repository_tags,
    run_tags,
)
from registry_sync.domain.runs import TagState


def closure_of(roots: Select[Any], name: str = "closure") -> CTE:
    """``roots``, a SELECT of one column of manifest ids, and all that they list, as a CTE with ``manifest_id``."""
    start = select(roots.subquery(f"{name}_roots").c[0].label("manifest_id")).cte(name, recursive=True)
    return start.union(
        select(manifest_children.c.child_id)
        .join(start, manifest_children.c.parent_id == start.c.manifest_id)
        .where(manifest_children.c.child_id.is_not(None))
    )


def closure_by_root(roots: Select[Any]) -> CTE:
    """As :func:`closure_of`, with the root that led there: ``root_id`` and ``manifest_id``."""
    given = roots.subquery("rooted_roots").c[0]
    start = select(given.label("root_id"), given.label("manifest_id")).cte("rooted", recursive=True)
    return start.union(
        select(start.c.root_id, manifest_children.c.child_id)
        .join(start, manifest_children.c.parent_id == start.c.manifest_id)
        .where(manifest_children.c.child_id.is_not(None))
    )


def run_manifests(run_id: str, *states: TagState) -> Select[Any]:
    """Ids of the manifests that a run's tags in one of ``states`` stand for; those not stored are left out."""
    return (
        select(manifests.c.id)
        .join(run_tags, run_tags.c.digest == manifests.c.digest)
        .where(run_tags.c.sync_run_id == run_id, run_tags.c.state.in_([state.value for state in states]))
    )


def is_present(membership: Any, repository_id: str) -> ColumnElement[bool]:
    """Whether a row of a membership table is in the repository's latest version."""
    condition: ColumnElement[bool] = (membership.c.repository_id == repository_id) & (
        membership.c.version_removed.is_(None)
    )
    return condition


def is_in_version(membership: Any, repository_id: str, number: int) -> ColumnElement[bool]:
    """Whether a row of a membership table is in that version."""
    condition: ColumnElement[bool] = (
        (membership.c.repository_id == repository_id)
        & (membership.c.version_added <= number)
        & (membership.c.version_removed.is_(None) | (membership.c.version_removed > number))
    )
    return condition


def there_is_none(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """NOT EXISTS of rows that fit, looked up through an index for each row of the enclosing statement.

    NOT EXISTS itself may be planned as a join, and right after a large sync, when PostgreSQL has no statistics yet,
    as one that compares everything with everything.
    """
    return select(literal_column("1")).where(*conditions).limit(1).scalar_subquery().is_(None)


def is_in_latest(kind: str, unit: ColumnElement[Any], repository_id: str) -> ColumnElement[bool]:
    """Whether a unit, by its id, is in the repository's latest version; looked up for each row."""
    table, own_id = MEMBERSHIP[kind]
    return not_(there_is_none(own_id == unit, is_present(table, repository_id)))


#: The unit column of each membership table, by the word that summaries use for it.
MEMBERSHIP = {
    "tags": (repository_tags, repository_tags.c.tag_id),
    "manifests": (repository_manifests, repository_manifests.c.manifest_id),
    "blobs": (repository_blobs, repository_blobs.c.blob_id),
}
