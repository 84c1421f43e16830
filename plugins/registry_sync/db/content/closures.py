"""The content below manifests: recursive queries over links, a graph in memory, and missing blobs of tags.

For a whole version the graph in memory is faster than a recursive query, and does not depend on a database's statistics
right after a large sync. For few manifests a query is faster.

Tags with missing blobs are found from the few missing blobs upwards, so that a complete version costs one query.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    update,
)

from registry_sync.db.queries import built_once, in_batches
from registry_sync.db.remotes import last_synced_by
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    manifests,
    repositories,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    repository_versions,
    run_blobs,
    run_links,
    run_tags,
    sync_runs,
    tags,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import Hold
from registry_sync.domain.references import TagName
from registry_sync.domain.remote import Policy, RemoteSpec
from registry_sync.domain.runs import TagState

#: Ids of included manifests by the id of the including one.
Children = Mapping[int, Sequence[int]]


def read_children(connection: Connection, links: LinkRows) -> Children:
    """The targets of ``links`` by source; links to missing manifests have none."""
    table = links.table
    children: dict[int, list[int]] = defaultdict(list)
    for parent, child in connection.execute(select(table.c.parent_id, table.c.child_id).where(links.is_followed)):
        children[parent].append(child)
    return children


def reached(roots: Iterable[int], children: Children) -> set[int]:
    """``roots`` and all ids reachable from them."""
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
    """The rows of a table of links that apply; links to missing manifests are never followed."""

    table: Any
    condition: ColumnElement[bool]

    @classmethod
    def of_run(cls, run_id: str) -> LinkRows:
        """The links that a run has recorded."""
        return cls(run_links, run_links.c.sync_run_id == run_id)

    @classmethod
    def of_latest(cls, repository_id: str) -> LinkRows:
        """The links of a repository's latest version."""
        return cls(repository_links, is_present(repository_links, repository_id))

    @classmethod
    def of_version(cls, repository_id: str, number: int) -> LinkRows:
        """The links of one version."""
        return cls(repository_links, is_in_version(repository_links, repository_id, number))

    @property
    def is_followed(self) -> ColumnElement[bool]:
        """Whether a row is followed."""
        condition: ColumnElement[bool] = self.condition & self.table.c.child_id.is_not(None)
        return condition


class Direction(Enum):
    """The direction in which links are followed: down to included manifests, or up to the including ones."""

    DOWN = "down"
    UP = "up"

    def step(self, table: Any) -> tuple[Any, Any]:
        """The source and target columns of a table of links."""
        ends = (table.c.parent_id, table.c.child_id)
        return ends if self is Direction.DOWN else ends[::-1]


def closure_of(
    starts: Select[Any], links: LinkRows, direction: Direction = Direction.DOWN, *, name: str = "closure"
) -> CTE:
    """``starts``, a SELECT of one column of manifest ids, and all that links reach, as a CTE with ``manifest_id``."""
    left, arrived = direction.step(links.table)
    found = select(starts.subquery(f"{name}_starts").c[0].label("manifest_id")).cte(name, recursive=True)
    return found.union(select(arrived).join(found, left == found.c.manifest_id).where(links.is_followed))


def closure_by_start(
    starts: Select[Any], links: LinkRows, direction: Direction = Direction.DOWN, *, name: str = "by_start"
) -> CTE:
    """As :func:`closure_of`, with the start of each path: ``start_id`` and ``manifest_id``."""
    left, arrived = direction.step(links.table)
    given = starts.subquery(f"{name}_starts").c[0]
    found = select(given.label("start_id"), given.label("manifest_id")).cte(name, recursive=True)
    return found.union(
        select(found.c.start_id, arrived).join(found, left == found.c.manifest_id).where(links.is_followed)
    )


def tagged_in_run(run_id: str, states: Iterable[TagState]) -> Select[Any]:
    """Ids of the manifests of a run's tags in one of ``states``; those that are not stored are omitted."""
    return (
        select(manifests.c.id)
        .join(run_tags, run_tags.c.digest == manifests.c.digest)
        .where(run_tags.c.sync_run_id == run_id, run_tags.c.state.in_([state.value for state in states]))
    )


def is_present(membership: Any, repository_id: str | ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a row of a membership table is in the repository's latest version."""
    condition: ColumnElement[bool] = (membership.c.repository_id == repository_id) & (
        membership.c.version_removed.is_(None)
    )
    return condition


def is_in_version(
    membership: Any, repository_id: str | ColumnElement[str], number: int | ColumnElement[int]
) -> ColumnElement[bool]:
    """Whether a row of a membership table is in that version."""
    condition: ColumnElement[bool] = (
        (membership.c.repository_id == repository_id)
        & (membership.c.version_added <= number)
        & (membership.c.version_removed.is_(None) | (membership.c.version_removed > number))
    )
    return condition


def there_is_none(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """NOT EXISTS of matching rows, looked up through an index for each row of the enclosing statement.

    NOT EXISTS itself may be planned as a join, and right after a large sync, when PostgreSQL has no statistics yet, as
    one that compares all rows with each other.
    """
    return select(literal_column("1")).where(*conditions).limit(1).scalar_subquery().is_(None)


def in_run(run_id: Any, name: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a row of ``run_tags`` is that of the tag ``name`` in a run."""
    return and_(run_tags.c.sync_run_id == run_id, run_tags.c.name == name)


#: The intervals of the tags of the version that a run's listing is recorded as a difference to.
BASE_TAGS = repository_tags.alias("base_tags")


def is_in_base() -> ColumnElement[bool]:
    """Whether a row of :data:`BASE_TAGS` is of a tag in the base version of a row of ``sync_runs``."""
    return is_in_version(BASE_TAGS, sync_runs.c.repository_id, sync_runs.c.base_number)


def is_listed(run_id: Any, name: ColumnElement[str], states: Sequence[str]) -> ColumnElement[bool]:
    """Whether the run has the tag ``name`` in one of ``states``, also without a row, which means unchanged.

    See :mod:`~registry_sync.db.runs.unchanged_tags`; looked up for each row of the enclosing statement.
    """
    row = in_run(run_id, name)
    has_row = not_(there_is_none(row, run_tags.c.state.in_(states)))
    if TagState.UNCHANGED.value not in states:
        return has_row
    in_base = not_(there_is_none(sync_runs.c.id == run_id, is_in_base(), BASE_TAGS.c.name == name))
    return or_(has_row, and_(there_is_none(row), in_base))


def is_in_latest(kind: str, unit: ColumnElement[Any], repository_id: str | ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a unit, by its id, is in the repository's latest version; looked up for each row."""
    table, own_id = MEMBERSHIP[kind]
    return not_(there_is_none(own_id == unit, is_present(table, repository_id)))


def has_unit(kind: str, unit_id: int) -> ColumnElement[bool]:
    """Whether a row of ``repository_versions`` in the enclosing statement has a unit; looked up for each row."""
    table, own_id = MEMBERSHIP[kind]
    versions = repository_versions.c
    return not_(there_is_none(own_id == unit_id, is_in_version(table, versions.repository_id, versions.number)))


#: The unit column of each membership table, by its name in summaries.
MEMBERSHIP = {
    "tags": (repository_tags, repository_tags.c.tag_id),
    "manifests": (repository_manifests, repository_manifests.c.manifest_id),
    "blobs": (repository_blobs, repository_blobs.c.blob_id),
}


#: The longest chain of derived versions that is followed to the original sync.
_LONGEST_ORIGIN = 20
#: Tags in these states come from the run's remote, whose policy applies to them.
_LISTED = (TagState.RESOLVED.value, TagState.UNCHANGED.value, TagState.HELD.value)
_NAMING = manifest_blobs.c.manifest_id


def hold_new_tags(connection: Connection, run_id: str, *, with_foreign: bool) -> None:
    """Holds tags of the run below which a blob is missing; foreign ones count ``with_foreign``."""
    if connection.execute(*_first_lacking_below(run_id, with_foreign=with_foreign)).first() is None:
        return
    rooted = closure_by_start(tagged_in_run(run_id, [TagState.RESOLVED]), LinkRows.of_run(run_id))
    planned = (run_blobs.c.blob_id == blobs.c.id) & (run_blobs.c.sync_run_id == run_id)
    rows = connection.execute(
        select(rooted.c.start_id, blobs.c.digest, run_blobs.c.reason)
        .join(manifest_blobs, manifest_blobs.c.manifest_id == rooted.c.manifest_id)
        .join(blobs, blobs.c.id == manifest_blobs.c.blob_id)
        .outerjoin(run_blobs, planned)
        .where(_is_lacking(with_foreign))
        .order_by(rooted.c.start_id, run_blobs.c.reason.is_(None), blobs.c.digest)
    )
    reason_of: dict[int, str] = {}
    for row in rows:
        reason_of.setdefault(row.start_id, _reason(row.digest, row.reason))
    resolved = (
        select(run_tags.c.name, manifests.c.id.label("manifest_id"))
        .join(manifests, manifests.c.digest == run_tags.c.digest)
        .where(run_tags.c.sync_run_id == run_id, run_tags.c.state == TagState.RESOLVED.value)
    )
    named = connection.execute(resolved).all()
    hold_tags(
        connection, run_id, {row.name: reason_of[row.manifest_id] for row in named if row.manifest_id in reason_of}
    )


@built_once
def _first_lacking_below(run_id: str, *, with_foreign: bool) -> Select[Any]:
    """A missing blob below the tags that the run read."""
    below = closure_of(tagged_in_run(run_id, [TagState.RESOLVED]), LinkRows.of_run(run_id))
    return (
        select(blobs.c.id)
        .join(manifest_blobs, manifest_blobs.c.blob_id == blobs.c.id)
        .join(below, below.c.manifest_id == manifest_blobs.c.manifest_id)
        .where(_is_lacking(with_foreign))
        .limit(1)
    )


def hold_tags(connection: Connection, run_id: str, reasons: dict[str, str]) -> None:
    """Records that these tags of a run are held, and why; those that its listing did not have stay unlisted."""
    statement = (
        update(run_tags)
        .where(run_tags.c.sync_run_id == run_id, run_tags.c.name == bindparam("tag"))
        .where(run_tags.c.state != TagState.UNLISTED.value)
        .values(state=TagState.HELD.value, reason=bindparam("new_reason"))
    )
    for batch in in_batches(sorted(reasons.items())):
        connection.execute(statement, [{"tag": name, "new_reason": reason} for name, reason in batch])


def lacks_blob(connection: Connection, repository_id: str) -> bool:
    """Whether a blob of the latest version is not stored.

    Costs what the smaller one of two sets does: the blobs that are missing anywhere, of which there are many where
    others sync on demand, or are under way; and those of the latest version.
    """
    return connection.execute(*_first_missing_blob(repository_id)).scalar_one() is not None


#: Missing blobs are looked at as long as they are so many more than the repository's.
_FEW_BLOBS = 100


@built_once
def _first_missing_blob(repository_id: str) -> Select[Any]:
    """The id of a missing blob of the latest version, NULL for none. Only one of the two queries is executed."""
    versions, is_missing = repository_versions.c, blobs.c.stored_at.is_(None)
    blob_count = (
        select(func.coalesce(func.max(versions.blobs_present), 0) + _FEW_BLOBS)
        .join(repositories, repositories.c.latest_number == versions.number)
        .where(versions.repository_id == repository_id, repositories.c.id == repository_id)
    )
    beyond = select(blobs.c.id).where(is_missing).order_by(blobs.c.id).limit(1).offset(blob_count.scalar_subquery())
    is_member = is_in_latest("blobs", blobs.c.id, repository_id)
    of_missing = select(blobs.c.id).where(is_missing, is_member).limit(1)
    stored_at = select(blobs.c.stored_at).where(blobs.c.id == repository_blobs.c.blob_id)
    of_members = select(repository_blobs.c.blob_id).where(
        is_present(repository_blobs, repository_id), stored_at.scalar_subquery().is_(None)
    )
    chosen = case(
        (beyond.scalar_subquery().is_(None), of_missing.scalar_subquery()),
        else_=of_members.limit(1).scalar_subquery(),
    )
    return select(chosen)


def tags_lacking_blobs(
    connection: Connection, repository_id: str, *, with_foreign: bool, run_id: str | None = None
) -> list[Hold]:
    """Tags of the latest version below which a blob is not stored, as holds by name.

    The latest version is that of the intervals within the transaction. With a run, its reasons for missing bytes are
    given, and tags are omitted that it does not list and that came from a sync with a policy that downloads on pull.
    """
    if not lacks_blob(connection, repository_id):
        return []
    is_member = is_in_latest("blobs", blobs.c.id, repository_id)
    planned = and_(run_blobs.c.blob_id == blobs.c.id, run_blobs.c.sync_run_id == (run_id or ""))
    is_named = (_is_lacking(with_foreign), is_member, is_in_latest("manifests", _NAMING, repository_id))
    rows = connection.execute(
        select(_NAMING, blobs.c.digest, run_blobs.c.reason)
        .join(blobs, blobs.c.id == manifest_blobs.c.blob_id)
        .outerjoin(run_blobs, planned)
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
    """Whether a row of ``repository_tags`` came from a sync with a policy that downloads on pull."""
    return not_(
        there_is_none(
            repository_versions.c.repository_id == repository_tags.c.repository_id,
            repository_versions.c.number == repository_tags.c.version_added,
            sync_runs.c.id == repository_versions.c.sync_run_id,
            sync_runs.c.remote_spec["policy"].as_string() != Policy.IMMEDIATE.value,
        )
    )


def _left_for_first_pull(connection: Connection, repository_id: str, run_id: str, names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for batch in in_batches(sorted(names)):
        statement = (
            select(tags.c.name)
            .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
            .where(tags.c.name.in_(batch), is_present(repository_tags, repository_id))
            .where(not_(is_listed(run_id, tags.c.name, _LISTED)), came_for_first_pull())
        )
        found += connection.execute(statement).scalars()
    return found


def lost_bytes_of_derived(connection: Connection, repository_id: str, origin_id: str, origin_number: int) -> list[Hold]:
    """Holds for tags of a new version whose bytes are missing, for those that come from the version of origin.

    Empty when the content of that version came from a sync with a policy that downloads on pull.
    """
    remote = _synced_by(connection, origin_id, origin_number)
    if remote is not None and remote.policy is not Policy.IMMEDIATE:
        return []
    with_foreign = remote is not None and remote.include_foreign_layers
    return tags_lacking_blobs(connection, repository_id, with_foreign=with_foreign)


def _synced_by(connection: Connection, repository_id: str, number: int) -> RemoteSpec | None:
    """The remote of the last sync of a repository, or of its origin if it was only copied into."""
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
    above = closure_by_start(starts, LinkRows.of_latest(repository_id), Direction.UP)
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
