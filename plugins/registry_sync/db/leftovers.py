"""Whether a repository holds manifests that no tag leads to, which the next mirror has to look for.

A sync knows that of its own; after a rollback, a copy or a deletion it is asked here.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from registry_sync.db.closures import Links, is_present
from registry_sync.db.link_graph import reached, read_children
from registry_sync.db.tables import repositories, repository_manifests, repository_tags, tags


def note_leftovers(connection: Connection, repository_id: str) -> None:
    """Looks through the latest version, as a whole, and notes it with the repository."""
    tagged = (
        select(tags.c.manifest_id)
        .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
        .where(is_present(repository_tags, repository_id))
    )
    present = select(repository_manifests.c.manifest_id).where(is_present(repository_manifests, repository_id))
    children = read_children(connection, Links.of_latest(repository_id))
    needed = reached(connection.execute(tagged).scalars(), children)
    has_leftovers = any(manifest_id not in needed for manifest_id in connection.execute(present).scalars())
    connection.execute(
        update(repositories).where(repositories.c.id == repository_id).values(has_leftovers=has_leftovers)
    )
