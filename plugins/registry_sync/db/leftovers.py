"""Whether a repository holds manifests that no tag leads to, which the next mirror has to look for.

A sync knows that of its own; after a rollback, a copy or a deletion it is asked here.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from registry_sync.db.closures import Links, closure_of, is_present
from registry_sync.db.tables import repositories, repository_manifests, repository_tags, tags


def note_leftovers(connection: Connection, repository_id: str) -> None:
    """Looks through the latest version, as a whole, and notes it with the repository."""
    tagged = (
        select(tags.c.manifest_id)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(is_present(repository_tags, repository_id))
    )
    reached = closure_of(tagged, Links.of_latest(repository_id))
    unreached = (
        select(repository_manifests.c.manifest_id)
        .where(
            is_present(repository_manifests, repository_id),
            repository_manifests.c.manifest_id.not_in(select(reached.c.manifest_id)),
        )
        .limit(1)
    )
    has_leftovers = connection.execute(unreached).first() is not None
    connection.execute(
        update(repositories).where(repositories.c.id == repository_id).values(has_leftovers=has_leftovers)
    )
