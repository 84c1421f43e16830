"""What a version takes along as a whole, read at once and followed in memory.

For a version as a whole this is quicker than a recursive query, and does not depend on what a database believes about
the sizes of its tables right after a large sync. Few manifests are better asked for by ``closures``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, select

from registry_sync.db.closures import Links

#: Ids of manifests by the id of the one that they are taken along with.
Children = Mapping[int, Sequence[int]]


def read_children(connection: Connection, links: Links) -> Children:
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
