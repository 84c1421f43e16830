"""The difference between two versions, applied to the intervals: tags first, then manifests, then blobs.

Every step is a statement over sets, and its cost follows the difference, not the size of the version:

- what is added is the closure of the added tags, less what is present;
- what may be removed is the closure of the removed tags. Of that, a manifest stays that a kept tag stands for or
  that a kept index lists, with all below it; a blob stays that a kept manifest names.

Additive syncs remove no manifests and blobs. What they leave behind is looked for, once, by the next mirror.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, literal, or_, select, update

from registry_sync.db.batches import insert_or_keep
from registry_sync.db.closures import closure_of, is_present, present_tags
from registry_sync.db.tables import (
    manifest_blobs,
    manifest_children,
    manifests,
    repository_blobs,
    repository_manifests,
    repository_tags,
    run_tags,
    tags,
    utc_now,
)
from registry_sync.domain.runs import TagState

_WANTED = (TagState.RESOLVED.value, TagState.UNCHANGED.value)


@dataclass(frozen=True)
class Difference:
    """Counts of units added and removed, by the words of summaries."""

    added: dict[str, int]
    removed: dict[str, int]

    @property
    def is_empty(self) -> bool:
        """Whether the version would equal the one before."""
        return not any(self.added.values()) and not any(self.removed.values())


@dataclass(frozen=True)
class Membership:
    """The membership of one repository, about to become version ``number`` by what a run lists.

    ``is_mirror`` removes what the run does not list; ``has_leftovers`` says that an additive sync went before.
    """

    connection: Connection
    repository_id: str
    run_id: str
    number: int
    is_mirror: bool
    has_leftovers: bool

    def changed_tags(self) -> Select[Any]:
        """Tags of the run that are new or moved: ``name``, ``digest``, ``manifest_id``. Held ones are none."""
        present = present_tags(self.repository_id).subquery("present")
        return (
            select(run_tags.c.name, run_tags.c.digest, manifests.c.id.label("manifest_id"))
            .join(manifests, manifests.c.digest == run_tags.c.digest)
            .outerjoin(present, and_(present.c.name == run_tags.c.name, present.c.manifest_id == manifests.c.id))
            .where(run_tags.c.sync_run_id == self.run_id, run_tags.c.state.in_(_WANTED), present.c.tag_id.is_(None))
        )

    def apply(self) -> Difference:
        """Opens and closes the intervals, and counts."""
        tags_removed = self._close(repository_tags, repository_tags.c.tag_id.in_(self._tags_to_remove()))
        tags_added = self._open_tags()
        added = {"tags": tags_added, "manifests": 0, "blobs": 0}
        removed = {"tags": tags_removed, "manifests": 0, "blobs": 0}
        if tags_added:
            added["manifests"] = self._open_manifests()
            added["blobs"] = self._open_blobs()
        if self.is_mirror and (tags_removed or self.has_leftovers):
            removed["manifests"] = self._close_manifests()
            removed["blobs"] = self._close_blobs()
        return Difference(added, removed)

    def differs(self) -> bool:
        """Whether :meth:`apply` would find tags to add or to remove, or leftovers to look for."""
        if self.is_mirror and self.has_leftovers:
            return True
        return any(
            self.connection.execute(statement.limit(1)).first() is not None
            for statement in (self.changed_tags(), self._tags_to_remove())
        )

    def _tags_to_remove(self) -> Select[Any]:
        """Ids of present tags that moved, and of those that a mirror no longer finds upstream."""
        present = present_tags(self.repository_id).subquery("present")
        listed = (run_tags.c.sync_run_id == self.run_id) & (run_tags.c.name == present.c.name)
        is_same = run_tags.c.digest == select(manifests.c.digest).where(
            manifests.c.id == present.c.manifest_id
        ).scalar_subquery().correlate(present)
        if self.is_mirror:
            is_kept = or_(run_tags.c.state == TagState.HELD.value, and_(run_tags.c.state.in_(_WANTED), is_same))
            condition: ColumnElement[bool] = ~exists().where(listed, is_kept)
        else:
            condition = exists().where(listed, run_tags.c.state.in_(_WANTED), ~is_same)
        return select(present.c.tag_id).where(condition)

    def _open_tags(self) -> int:
        changed = self.changed_tags().subquery("changed")
        self.connection.execute(
            insert_or_keep(self.connection, tags).from_select(
                ["name", "manifest_id", "created_at"],
                select(changed.c.name, changed.c.manifest_id, literal(utc_now(), tags.c.created_at.type)).order_by(
                    changed.c.name, changed.c.digest
                ),
            )
        )
        units = select(tags.c.id).join(
            changed, and_(changed.c.name == tags.c.name, changed.c.manifest_id == tags.c.manifest_id)
        )
        return self._open(repository_tags, units)

    def _open_manifests(self) -> int:
        added = (
            select(tags.c.manifest_id)
            .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
            .where(self._added(repository_tags))
        )
        return self._open(repository_manifests, select(closure_of(added).c.manifest_id))

    def _open_blobs(self) -> int:
        below = (
            select(manifest_blobs.c.blob_id)
            .join(repository_manifests, repository_manifests.c.manifest_id == manifest_blobs.c.manifest_id)
            .where(self._added(repository_manifests))
            .distinct()
        )
        return self._open(repository_blobs, below)

    def _close_manifests(self) -> int:
        candidates = closure_of(self._roots_of_candidates(), "candidates")
        of_tag = exists().where(
            tags.c.manifest_id == candidates.c.manifest_id,
            repository_tags.c.tag_id == tags.c.id,
            is_present(repository_tags, self.repository_id),
        )
        # A parent that is itself a candidate keeps its children only if something keeps the parent.
        of_parent = exists().where(
            manifest_children.c.child_id == candidates.c.manifest_id,
            repository_manifests.c.manifest_id == manifest_children.c.parent_id,
            is_present(repository_manifests, self.repository_id),
            manifest_children.c.parent_id.not_in(select(candidates.c.manifest_id)),
        )
        kept = closure_of(select(candidates.c.manifest_id).where(or_(of_tag, of_parent)), "kept")
        unit = repository_manifests.c.manifest_id
        return self._close(
            repository_manifests,
            unit.in_(select(candidates.c.manifest_id)),
            unit.not_in(select(kept.c.manifest_id)),
        )

    def _roots_of_candidates(self) -> Select[Any]:
        if self.has_leftovers:
            return select(repository_manifests.c.manifest_id).where(
                is_present(repository_manifests, self.repository_id)
            )
        return (
            select(tags.c.manifest_id)
            .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
            .where(self._removed(repository_tags))
        )

    def _close_blobs(self) -> int:
        gone = repository_manifests.alias("gone")
        candidates = (
            select(manifest_blobs.c.blob_id)
            .join(gone, gone.c.manifest_id == manifest_blobs.c.manifest_id)
            .where(gone.c.repository_id == self.repository_id, gone.c.version_removed == self.number)
        )
        naming = manifest_blobs.alias("naming")
        is_named = exists().where(
            naming.c.blob_id == repository_blobs.c.blob_id,
            repository_manifests.c.manifest_id == naming.c.manifest_id,
            is_present(repository_manifests, self.repository_id),
        )
        return self._close(repository_blobs, repository_blobs.c.blob_id.in_(candidates), ~is_named)

    def _open(self, table: Any, units: Select[Any]) -> int:
        """Opens intervals for those of ``units`` that have none open; how many."""
        wanted = units.subquery("wanted").c[0]
        unit = next(column for column in table.c if column.name.endswith("_id") and column.name != "repository_id")
        is_absent = ~exists().where(unit == wanted, is_present(table, self.repository_id))
        rows = select(literal(self.repository_id), wanted, literal(self.number)).where(is_absent)
        statement = table.insert().from_select(["repository_id", unit.name, "version_added"], rows)
        self.connection.execute(statement)
        return self._count(self._added(table), table)

    def _close(self, table: Any, *conditions: ColumnElement[bool]) -> int:
        """Closes the open intervals that fit; how many."""
        statement = update(table).where(is_present(table, self.repository_id), *conditions)
        self.connection.execute(statement.values(version_removed=self.number))
        return self._count(self._removed(table), table)

    def _count(self, condition: ColumnElement[bool], table: Any) -> int:
        # Asked, not taken from the driver: SQLite's knows no row count of a statement that begins with WITH.
        return self.connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()

    def _added(self, table: Any) -> ColumnElement[bool]:
        return and_(table.c.repository_id == self.repository_id, table.c.version_added == self.number)

    def _removed(self, table: Any) -> ColumnElement[bool]:
        return and_(table.c.repository_id == self.repository_id, table.c.version_removed == self.number)
