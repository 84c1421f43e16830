"""Which versions of a repository are kept: the newest ones, as many as its owner wants.

A version that goes takes along only the record of what it was. Content that other versions hold stays theirs, and
bytes stay in the blob store.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, update

from registry_sync.db.tables import (
    repository_blobs,
    repository_manifests,
    repository_tags,
    repository_versions,
)


def keep_newest(connection: Connection, repository_id: str, latest_number: int, retain_count: int | None) -> None:
    """Removes versions older than the newest ``retain_count``; None keeps all. Safe to repeat.

    Intervals that ended before the oldest kept version go; the one that ends there stays, because it is what that
    version removed. The oldest kept version then names no base.
    """
    oldest = latest_number if retain_count is None else latest_number - retain_count + 1
    if retain_count is None or oldest <= 1:
        return
    versions = repository_versions.c
    in_repository = versions.repository_id == repository_id
    connection.execute(delete(repository_versions).where(in_repository, versions.number < oldest))
    is_dangling = versions.base_number < oldest
    connection.execute(update(repository_versions).where(in_repository, is_dangling).values(base_number=None))
    for table in (repository_tags, repository_manifests, repository_blobs):
        connection.execute(
            delete(table).where(table.c.repository_id == repository_id, table.c.version_removed < oldest)
        )
