"""Applies a run to the intervals of a repository: tags and links first, then manifests, then blobs.

For manifests that the run read, its links apply; manifests that it did not read keep their links.

The cost of every step is proportional to the difference, not to the size of the version, and depends on no statistics:

- manifests that the run read get the links that it recorded; others keep theirs;
- additions are what lies below the added tags and links, except what is present;
- candidates for removal are what lay below the removed tags and links. Of these, a manifest stays if a kept tag refers
  to it or a kept manifest includes it, with all below it; a blob stays if a kept manifest names it.

Additive syncs remove no manifests, links and blobs. The next mirror looks, once, for what they left behind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    update,
)

from registry_sync.db.content.closures import (
    LinkRows,
    closure_of,
    is_in_latest,
    is_present,
    tagged_in_run,
    there_is_none,
)
from registry_sync.db.queries import in_batches, insert_or_keep
from registry_sync.db.tables import (
    manifest_blobs,
    manifests,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    run_links,
    run_manifests,
    run_tags,
    tags,
)
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.runs import TagState


@dataclass(frozen=True)
class LinkChanges:
    """Changes the links of a repository to those of version ``number``."""

    connection: Connection
    repository_id: str
    run_id: str
    number: int
    is_mirror: bool

    def outdated(self) -> Sequence[Row[Any]]:
        """Links that manifests read by the run no longer have; for an additive run only gaps that are filled now."""
        included, present = self._included(), repository_links.c
        is_same = and_(
            run_links.c.sync_run_id == self.run_id,
            run_links.c.parent_id == present.parent_id,
            run_links.c.child_digest == present.child_digest,
        )
        is_gap, has_gap = present.child_id.is_(None), run_links.c.child_id.is_(None)
        if self.is_mirror:
            condition = there_is_none(is_same, is_gap == has_gap)
        else:
            condition = is_gap & not_(there_is_none(is_same, ~has_gap))
        statement = (
            select(present.parent_id, present.child_digest, present.child_id)
            .join(included, included.c.manifest_id == present.parent_id)
            .join(run_manifests, run_manifests.c.manifest_id == present.parent_id)
            .where(
                is_present(repository_links, self.repository_id),
                run_manifests.c.sync_run_id == self.run_id,
                condition,
            )
        )
        return list(self.connection.execute(statement))

    def close(self, outdated: Iterable[Row[Any]]) -> None:
        """Ends those links with the previous version."""
        statement = (
            update(repository_links)
            .where(
                is_present(repository_links, self.repository_id),
                repository_links.c.parent_id == bindparam("parent"),
                repository_links.c.child_digest == bindparam("child"),
            )
            .values(version_removed=self.number)
        )
        for batch in in_batches({"parent": row.parent_id, "child": row.child_digest} for row in outdated):
            self.connection.execute(statement, batch)

    def open(self) -> int:
        """Starts the links of the run and returns their count; a unique index keeps links that are open already."""
        included = self._included()
        columns = ("parent_id", "child_digest", "child_id", "kind")
        rows = (
            select(literal(self.repository_id), literal(self.number), *(run_links.c[name] for name in columns))
            .join(included, included.c.manifest_id == run_links.c.parent_id)
            .where(run_links.c.sync_run_id == self.run_id)
        )
        names = ["repository_id", "version_added", *columns]
        self.connection.execute(insert_or_keep(self.connection, repository_links).from_select(names, rows))
        is_new = (repository_links.c.repository_id == self.repository_id) & (
            repository_links.c.version_added == self.number
        )
        return self.connection.execute(select(func.count()).select_from(repository_links).where(is_new)).scalar_one()

    def _included(self) -> CTE:
        """Ids of the manifests that the run includes in the version."""
        return closure_of(
            tagged_in_run(self.run_id, [TagState.RESOLVED]), LinkRows.of_run(self.run_id), name="included"
        )


_WANTED = (TagState.RESOLVED.value, TagState.UNCHANGED.value)


@dataclass(frozen=True)
class Difference:
    """Counts of units added and removed, by the names used in summaries, and whether any links differ."""

    added: dict[str, int]
    removed: dict[str, int]
    has_other_links: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the version would equal the previous one."""
        return not any(self.added.values()) and not any(self.removed.values()) and not self.has_other_links


@dataclass(frozen=True)
class Membership:
    """Changes the content of one repository to that of version ``number``, by the tags that a run listed.

    ``is_mirror`` removes what the run did not list; ``has_leftovers`` says that an additive sync preceded it.
    """

    connection: Connection
    repository_id: str
    run_id: str
    number: int
    is_mirror: bool
    has_leftovers: bool

    def apply(self) -> Difference:
        """Opens and closes the intervals, and returns the counts."""
        to_remove = self.connection.execute(self._tags_to_remove()).all()
        links = LinkChanges(self.connection, self.repository_id, self.run_id, self.number, self.is_mirror)
        outdated = links.outdated()
        candidates = self._candidates(to_remove, outdated) if self.is_mirror else set()
        for batch in in_batches(row.tag_id for row in to_remove):
            self._close(repository_tags, repository_tags.c.tag_id.in_(batch))
        added = {"tags": self._open_tags(), "manifests": 0, "blobs": 0}
        links.close(outdated)
        opened_links = links.open()
        if added["tags"] or opened_links:
            added["manifests"] = self._open_manifests()
            added["blobs"] = self._open_blobs()
        if candidates:
            self._close_manifests(candidates)
            self._close_blobs()
        removed = {
            "tags": len(to_remove),
            "manifests": self._count(self._removed(repository_manifests), repository_manifests),
            "blobs": self._count(self._removed(repository_blobs), repository_blobs),
        }
        return Difference(added, removed, has_other_links=bool(outdated or opened_links))

    def tags_to_change(self) -> set[str]:
        """Names of tags that differ from the previous version: added, moved and removed ones."""
        to_remove = self._tags_to_remove().subquery("to_remove")
        removed = select(tags.c.name).join(to_remove, to_remove.c.tag_id == tags.c.id)
        changed = self._changed_tags().subquery("changed")
        return {
            *self.connection.execute(select(changed.c.name)).scalars(),
            *self.connection.execute(removed).scalars(),
        }

    def tags_to_remove(self) -> Select[Any]:
        """Names of present tags that a mirror no longer finds upstream, in order."""
        listed = (run_tags.c.sync_run_id == self.run_id) & (run_tags.c.name == tags.c.name)
        return (
            select(tags.c.name)
            .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
            .where(
                is_present(repository_tags, self.repository_id),
                there_is_none(listed, run_tags.c.state.in_([*_WANTED, TagState.HELD.value])),
            )
            .order_by(tags.c.name)
        )

    def _changed_tags(self) -> Select[Any]:
        """Tags that the run read and that are new or moved: ``name``, ``digest``, ``manifest_id``."""
        is_absent = there_is_none(
            tags.c.name == run_tags.c.name,
            tags.c.manifest_id == manifests.c.id,
            is_in_latest("tags", tags.c.id, self.repository_id),
        )
        return (
            select(run_tags.c.name, run_tags.c.digest, manifests.c.id.label("manifest_id"))
            .join(manifests, manifests.c.digest == run_tags.c.digest)
            .where(run_tags.c.sync_run_id == self.run_id, run_tags.c.state == TagState.RESOLVED.value, is_absent)
        )

    def _tags_to_remove(self) -> Select[Any]:
        """Present tags that moved, and those that a mirror no longer finds upstream: ``tag_id``, ``manifest_id``."""
        listed = (run_tags.c.sync_run_id == self.run_id) & (run_tags.c.name == tags.c.name)
        is_wanted, is_same = run_tags.c.state.in_(_WANTED), run_tags.c.digest == manifests.c.digest
        if self.is_mirror:
            is_held = run_tags.c.state == TagState.HELD.value
            condition = there_is_none(listed, or_(is_held, and_(is_wanted, is_same)))
        else:
            condition = not_(there_is_none(listed, is_wanted, ~is_same))
        return (
            select(repository_tags.c.tag_id, tags.c.manifest_id)
            .join(tags, tags.c.id == repository_tags.c.tag_id)
            .join(manifests, manifests.c.id == tags.c.manifest_id)
            .where(is_present(repository_tags, self.repository_id), condition)
        )

    def _open_tags(self) -> int:
        changed = self._changed_tags().subquery("changed")
        self.connection.execute(
            insert_or_keep(self.connection, tags).from_select(
                ["name", "manifest_id", "created_at"],
                select(changed.c.name, changed.c.manifest_id, literal(utc_now(), tags.c.created_at.type)).order_by(
                    changed.c.name, changed.c.digest
                ),
            )
        )
        units = select(tags.c.id, tags.c.name).join(
            changed, and_(changed.c.name == tags.c.name, changed.c.manifest_id == tags.c.manifest_id)
        )
        return self._open(repository_tags, units)

    def _open_manifests(self) -> int:
        tagged = (
            select(tags.c.manifest_id)
            .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
            .where(self._added(repository_tags))
        )
        linked = select(repository_links.c.child_id).where(
            self._added(repository_links), repository_links.c.child_id.is_not(None)
        )
        below = closure_of(select(tagged.union(linked).subquery("starts").c[0]), LinkRows.of_latest(self.repository_id))
        return self._open(repository_manifests, select(below.c.manifest_id))

    def _open_blobs(self) -> int:
        below = (
            select(manifest_blobs.c.blob_id)
            .join(repository_manifests, repository_manifests.c.manifest_id == manifest_blobs.c.manifest_id)
            .where(self._added(repository_manifests))
            .distinct()
        )
        return self._open(repository_blobs, below)

    def _candidates(self, to_remove: Iterable[Row[Any]], outdated: Iterable[Row[Any]]) -> set[int]:
        """Ids of manifests that may have to be removed: all below removed tags and links; with leftovers, all."""
        if self.has_leftovers:
            present = select(repository_manifests.c.manifest_id).where(
                is_present(repository_manifests, self.repository_id)
            )
            return set(self.connection.execute(present).scalars())
        starts = {row.manifest_id for row in to_remove} | {row.child_id for row in outdated if row.child_id is not None}
        found: set[int] = set()
        for batch in in_batches(sorted(starts)):
            roots = select(manifests.c.id).where(manifests.c.id.in_(batch))
            below = closure_of(roots, LinkRows.of_latest(self.repository_id))
            found.update(self.connection.execute(select(below.c.manifest_id)).scalars())
        return found

    def _close_manifests(self, candidates: set[int]) -> None:
        kept: set[int] = set()
        children: dict[int, list[int]] = defaultdict(list)
        for batch in in_batches(sorted(candidates)):
            kept.update(self.connection.execute(self._with_present_tag(batch)).scalars())
            for parent, child in self.connection.execute(self._with_present_parent(batch)):
                # A parent that is itself a candidate keeps its children only if something keeps the parent.
                if parent in candidates:
                    children[parent].append(child)
                else:
                    kept.add(child)
        waiting = list(kept)
        while waiting:
            below = [child for child in children.pop(waiting.pop(), ()) if child not in kept]
            kept.update(below)
            waiting += below
        for batch in in_batches(sorted(candidates - kept)):
            self._close(repository_manifests, repository_manifests.c.manifest_id.in_(batch))
            self._close(repository_links, repository_links.c.parent_id.in_(batch))

    def _with_present_tag(self, manifest_ids: Sequence[int]) -> Select[Any]:
        return select(tags.c.manifest_id).where(
            tags.c.manifest_id.in_(manifest_ids), is_in_latest("tags", tags.c.id, self.repository_id)
        )

    def _with_present_parent(self, manifest_ids: Sequence[int]) -> Select[Any]:
        return select(repository_links.c.parent_id, repository_links.c.child_id).where(
            repository_links.c.child_id.in_(manifest_ids),
            is_present(repository_links, self.repository_id),
            is_in_latest("manifests", repository_links.c.parent_id, self.repository_id),
        )

    def _close_blobs(self) -> None:
        candidates = (
            select(manifest_blobs.c.blob_id)
            .join(repository_manifests, repository_manifests.c.manifest_id == manifest_blobs.c.manifest_id)
            .where(self._removed(repository_manifests))
        )
        is_unnamed = there_is_none(
            manifest_blobs.c.blob_id == repository_blobs.c.blob_id,
            is_in_latest("manifests", manifest_blobs.c.manifest_id, self.repository_id),
        )
        for batch in in_batches(sorted(set(self.connection.execute(candidates).scalars()))):
            self._close(repository_blobs, repository_blobs.c.blob_id.in_(batch), is_unnamed)

    def _open(self, table: Any, units: Select[Any]) -> int:
        """Opens intervals for those of ``units`` that have none open, by the unique index; their count."""
        unit = next(column.name for column in table.c if column.name.endswith("_id") and column.name != "repository_id")
        unit_id, *described = units.subquery("wanted").c
        rows = select(literal(self.repository_id), unit_id, literal(self.number), *described)
        names = ["repository_id", unit, "version_added", *(column.name for column in described)]
        # WHERE true: without it SQLite reads ON CONFLICT as the condition of a join.
        statement = insert_or_keep(self.connection, table).from_select(names, rows.where(true()))
        self.connection.execute(statement)
        return self._count(self._added(table), table)

    def _close(self, table: Any, *conditions: ColumnElement[bool]) -> None:
        """Closes the open intervals that match."""
        statement = update(table).where(is_present(table, self.repository_id), *conditions)
        self.connection.execute(statement.values(version_removed=self.number))

    def _count(self, condition: ColumnElement[bool], table: Any) -> int:
        # Counted by a query: SQLite's driver gives no row count for a statement that starts with WITH.
        return self.connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()

    def _added(self, table: Any) -> ColumnElement[bool]:
        return and_(table.c.repository_id == self.repository_id, table.c.version_added == self.number)

    def _removed(self, table: Any) -> ColumnElement[bool]:
        return and_(table.c.repository_id == self.repository_id, table.c.version_removed == self.number)
