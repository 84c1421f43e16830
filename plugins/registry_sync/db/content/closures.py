"""What lies below manifests: recursive queries over the links of a run or of a repository, and a graph in memory.

For a version as a whole the graph is quicker than a recursive query, and does not depend on what a database believes
about the sizes of its tables right after a large sync. Few manifests are better asked for by a query.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CTE, ColumnElement, Connection, Select, literal_column, not_, select

from registry_sync.db.tables import (
    manifests,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    run_links,
    run_tags,
)
from registry_sync.domain.runs import TagState

#: Ids of manifests by the id of the one that they are taken along with.
Children = Mapping[int, Sequence[int]]


def read_children(connection: Connection, links: LinkRows) -> Children:
    """Where ``links`` lead to; those to manifests that are not there lead nowhere."""
    table = links.table
    children: dict[int, list[int]] = defaultdict(list)
    for parent, child in connection.execute(select(table.c.parent_id, table.c.child_id).where(links.is_followed)):
        children[parent].append(child)
    return children


def reached(roots: Iterable[int], children: Children) -> set[int]:
    """``roots`` and all that they lead to."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        manifest_id = waiting.pop()
        if manifest_id not in found:
            found.add(manifest_id)
            waiting += children.get(manifest_id, ())
    return found


@dataclass(frozen=True)
class LinkRows:
    """Rows of a table of links that count; those to manifests that are not there are never followed."""

    table: Any
    condition: ColumnElement[bool]

    @classmethod
    def of_run(cls, run_id: str) -> LinkRows:
        """What a run has noted to take along."""
        return cls(run_links, run_links.c.sync_run_id == run_id)

    @classmethod
    def of_latest(cls, repository_id: str) -> LinkRows:
        """Those of a repository's latest version."""
        return cls(repository_links, is_present(repository_links, repository_id))

    @classmethod
    def of_version(cls, repository_id: str, number: int) -> LinkRows:
        """Those of one version."""
        return cls(repository_links, is_in_version(repository_links, repository_id, number))

    @property
    def is_followed(self) -> ColumnElement[bool]:
        """Whether a row leads on."""
        condition: ColumnElement[bool] = self.condition & self.table.c.child_id.is_not(None)
        return condition


def closure_of(roots: Select[Any], links: LinkRows, name: str = "closure") -> CTE:
    """``roots``, a SELECT of one column of manifest ids, and all that links lead to, as a CTE with ``manifest_id``."""
    table = links.table
    start = select(roots.subquery(f"{name}_roots").c[0].label("manifest_id")).cte(name, recursive=True)
    return start.union(
        select(table.c.child_id).join(start, table.c.parent_id == start.c.manifest_id).where(links.is_followed)
    )


def closure_by_root(roots: Select[Any], links: LinkRows) -> CTE:
    """As :func:`closure_of`, with the root that led there: ``root_id`` and ``manifest_id``."""
    table = links.table
    given = roots.subquery("rooted_roots").c[0]
    start = select(given.label("root_id"), given.label("manifest_id")).cte("rooted", recursive=True)
    return start.union(
        select(start.c.root_id, table.c.child_id)
        .join(start, table.c.parent_id == start.c.manifest_id)
        .where(links.is_followed)
    )


def manifests_above(starts: Select[Any], links: LinkRows) -> CTE:
    """``starts``, a SELECT of manifest ids, and every manifest from which links lead to them, as ``manifest_id``."""
    table = links.table
    start = select(starts.subquery("above_starts").c[0].label("manifest_id")).cte("above", recursive=True)
    return start.union(
        select(table.c.parent_id).join(start, table.c.child_id == start.c.manifest_id).where(links.condition)
    )


def above_by_start(starts: Select[Any], links: LinkRows) -> CTE:
    """As :func:`manifests_above`, with the manifest that it began at: ``start_id`` and ``manifest_id``."""
    table = links.table
    given = starts.subquery("lacking_starts").c[0]
    start = select(given.label("start_id"), given.label("manifest_id")).cte("above_start", recursive=True)
    return start.union(
        select(start.c.start_id, table.c.parent_id)
        .join(start, table.c.child_id == start.c.manifest_id)
        .where(links.condition)
    )


def tagged_in_run(run_id: str, states: Iterable[TagState]) -> Select[Any]:
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
