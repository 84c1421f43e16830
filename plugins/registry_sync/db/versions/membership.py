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

from sqlalchemy import Connection, Insert, Row, Table

from registry_sync.db.queries import in_batches
from registry_sync.db.tables import repository_blobs, repository_links, repository_manifests, repository_tags
from registry_sync.db.versions import membership_rows as rows
from registry_sync.domain.quantities import utc_now


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
    ``is_difference`` says that the run has no rows of the tags that are as in the latest version, see
    :mod:`~registry_sync.db.runs.unchanged_tags`.
    """

    connection: Connection
    repository_id: str
    run_id: str
    number: int
    is_mirror: bool
    has_leftovers: bool
    is_difference: bool = False

    def apply(self) -> Difference:
        """Opens and closes the intervals, and returns the counts."""
        listed = (self.repository_id, self.run_id)
        to_remove = self.connection.execute(
            *rows.tags_to_remove(*listed, is_mirror=self.is_mirror, is_difference=self.is_difference)
        ).all()
        outdated = self.connection.execute(*rows.outdated_links(*listed, is_mirror=self.is_mirror)).all()
        candidates = self._candidates(to_remove, outdated) if self.is_mirror else set()
        for batch in in_batches(row.tag_id for row in to_remove):
            self._close(repository_tags, "tag_id", batch)
        added = {"tags": self._open_tags(), "manifests": 0, "blobs": 0}
        self._close_links(outdated)
        opened_links = self._open_links()
        if added["tags"] or opened_links:
            new = (self.repository_id, self.number)
            added["manifests"] = self._open(repository_manifests, rows.insert_manifests(*new, dialect=self._dialect))
            added["blobs"] = self._open(repository_blobs, rows.insert_blobs(*new, dialect=self._dialect))
        if candidates:
            self._close_manifests(candidates)
            self._close_blobs()
        removed = {
            "tags": len(to_remove),
            "manifests": self._count(repository_manifests, "version_removed"),
            "blobs": self._count(repository_blobs, "version_removed"),
        }
        return Difference(added, removed, has_other_links=bool(outdated or opened_links))

    def tags_to_change(self) -> set[str]:
        """Names of tags that differ from the previous version: added, moved and removed ones."""
        listed = (self.repository_id, self.run_id)
        changed = self.connection.execute(*rows.names_of_changed_tags(*listed)).scalars()
        removed = self.connection.execute(
            *rows.names_of_tags_to_remove(*listed, is_mirror=self.is_mirror, is_difference=self.is_difference)
        ).scalars()
        return {*changed, *removed}

    def tags_to_remove(self) -> Sequence[str]:
        """Names of present tags that a mirror no longer finds upstream, in order."""
        listed = (self.repository_id, self.run_id)
        gone = rows.names_of_gone_tags(*listed, is_difference=self.is_difference)
        return self.connection.execute(*gone).scalars().all()

    def _close_links(self, outdated: Iterable[Row[Any]]) -> None:
        """Ends those links with the previous version."""
        statement, of_version = rows.close_link(self.repository_id, self.number)
        for batch in in_batches({"parent": row.parent_id, "child": row.child_digest} for row in outdated):
            self.connection.execute(statement, [{**of_version, **link} for link in batch])

    def _open_links(self) -> int:
        """Starts the links of the run and returns their count; a unique index keeps links that are open already."""
        return self._open(
            repository_links, rows.insert_links(self.repository_id, self.run_id, self.number, dialect=self._dialect)
        )

    def _open_tags(self) -> int:
        self.connection.execute(*rows.insert_units(self.repository_id, self.run_id, utc_now(), dialect=self._dialect))
        opening = rows.insert_tags(self.repository_id, self.run_id, self.number, dialect=self._dialect)
        return self._open(repository_tags, opening)

    def _open(self, table: Table, opening: tuple[Insert, dict[str, Any]]) -> int:
        """Opens intervals for the units that have none open, by the unique index; their count."""
        self.connection.execute(*opening)
        return self._count(table, "version_added")

    def _candidates(self, to_remove: Iterable[Row[Any]], outdated: Iterable[Row[Any]]) -> set[int]:
        """Ids of manifests that may have to be removed: all below removed tags and links; with leftovers, all."""
        if self.has_leftovers:
            return set(self.connection.execute(*rows.present_manifests(self.repository_id)).scalars())
        starts = {row.manifest_id for row in to_remove} | {row.child_id for row in outdated if row.child_id is not None}
        found: set[int] = set()
        for batch in in_batches(sorted(starts)):
            found.update(self.connection.execute(*rows.all_below(self.repository_id, batch)).scalars())
        return found

    def _close_manifests(self, candidates: set[int]) -> None:
        kept: set[int] = set()
        children: dict[int, list[int]] = defaultdict(list)
        for batch in in_batches(sorted(candidates)):
            kept.update(self.connection.execute(*rows.with_present_tag(self.repository_id, batch)).scalars())
            for parent, child in self.connection.execute(*rows.with_present_parent(self.repository_id, batch)):
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
            self._close(repository_manifests, "manifest_id", batch)
            self._close(repository_links, "parent_id", batch)

    def _close_blobs(self) -> None:
        candidates = self.connection.execute(*rows.blobs_of_removed(self.repository_id, self.number)).scalars()
        for batch in in_batches(sorted(set(candidates))):
            self.connection.execute(*rows.close_unnamed_blobs(self.repository_id, self.number, batch))

    def _close(self, table: Table, unit: str, ids: Sequence[int]) -> None:
        """Closes the open intervals of those units."""
        self.connection.execute(*rows.close_units(self.repository_id, self.number, ids, table=table, unit=unit))

    def _count(self, table: Table, bound: str) -> int:
        # Counted by a query: SQLite's driver gives no row count for a statement that starts with WITH.
        statement = rows.count_of(self.repository_id, self.number, table=table, bound=bound)
        count: int = self.connection.execute(*statement).scalar_one()
        return count

    @property
    def _dialect(self) -> str:
        return self.connection.dialect.name
