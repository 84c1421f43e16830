"""What a run takes along, applied to the links of its repository.

Of the manifests that the run read, it has the say; what it did not read keeps its links.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CTE, Connection, Row, and_, bindparam, func, literal, not_, select, update

from registry_sync.db.batches import in_batches, insert_or_keep
from registry_sync.db.closures import Links, closure_of, is_present, tagged_in_run, there_is_none
from registry_sync.db.tables import repository_links, run_links, run_manifests
from registry_sync.domain.runs import TagState


@dataclass(frozen=True)
class LinkChanges:
    """The links of a repository, about to become those of version ``number``."""

    connection: Connection
    repository_id: str
    run_id: str
    number: int
    is_mirror: bool

    def outdated(self) -> Sequence[Row[Any]]:
        """Links that what the run read has no more; for an additive run only gaps that are filled now."""
        taken, present = self._taken(), repository_links.c
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
            .join(taken, taken.c.manifest_id == present.parent_id)
            .join(run_manifests, run_manifests.c.manifest_id == present.parent_id)
            .where(
                is_present(repository_links, self.repository_id),
                run_manifests.c.sync_run_id == self.run_id,
                condition,
            )
        )
        return list(self.connection.execute(statement))

    def close(self, outdated: Iterable[Row[Any]]) -> None:
        """Ends those links with the version before."""
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
        """Begins what the run takes along, and counts it; a link that is open stays, by the index that allows one."""
        taken = self._taken()
        columns = ("parent_id", "child_digest", "child_id", "kind")
        rows = (
            select(literal(self.repository_id), literal(self.number), *(run_links.c[name] for name in columns))
            .join(taken, taken.c.manifest_id == run_links.c.parent_id)
            .where(run_links.c.sync_run_id == self.run_id)
        )
        names = ["repository_id", "version_added", *columns]
        self.connection.execute(insert_or_keep(self.connection, repository_links).from_select(names, rows))
        is_new = (repository_links.c.repository_id == self.repository_id) & (
            repository_links.c.version_added == self.number
        )
        return self.connection.execute(select(func.count()).select_from(repository_links).where(is_new)).scalar_one()

    def _taken(self) -> CTE:
        """Ids of the manifests that the run takes into the version."""
        return closure_of(tagged_in_run(self.run_id, [TagState.RESOLVED]), Links.of_run(self.run_id), "taken")
