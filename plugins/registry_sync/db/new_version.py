"""A new version written down: its number, its counts by the base's, its holds. Intervals are the caller's.

The caller holds the repository's row locked, so that versions of one repository follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from registry_sync.db.batches import in_batches, storable
from registry_sync.db.membership import Difference
from registry_sync.db.retention import keep_newest
from registry_sync.db.tables import repositories, repository_versions, version_holds
from registry_sync.domain.moments import utc_now
from registry_sync.domain.origins import SYNCED, Origin
from registry_sync.domain.records import Hold
from registry_sync.errors import RecordNotFound

_KINDS = ("tags", "manifests", "blobs")


def lock_repository(connection: Connection, repository_id: str) -> Row[Any]:
    """The repository's row, for this transaction alone until it ends. Raises :class:`RecordNotFound`."""
    statement = select(repositories).where(repositories.c.id == repository_id).with_for_update(key_share=True)
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise RecordNotFound(f"there is no repository {repository_id[:255]!r}")
    return row


def next_number(repository: Row[Any]) -> int:
    """The number of the version that comes next; no number is given twice, whatever was deleted."""
    return int(repository.last_number or 0) + 1


def add_version(
    connection: Connection,
    repository: Row[Any],
    difference: Difference,
    *,
    origin: Origin = SYNCED,
    sync_run_id: str | None = None,
    holds: Sequence[Hold] = (),
    description: str | None = None,
    referrers_problem: str | None = None,
) -> int:
    """Makes :func:`next_number` the latest version of ``repository``, whose intervals say so already; its number.

    ``difference`` is that to the version that was the latest until now. Versions beyond what the repository retains
    go.
    """
    base: int | None = repository.latest_number
    number = next_number(repository)
    identity = {"repository_id": repository.id, "number": number}
    values: dict[str, Any] = {
        "base_number": base,
        "sync_run_id": sync_run_id,
        "created_at": utc_now(),
        "description": None if description is None else storable(description),
        "labels": {},
        "origin": origin.kind.value,
        "origin_repository_id": origin.repository_id,
        "origin_number": origin.number,
        "referrers_problem": referrers_problem,
        "created_by": None if origin.created_by is None else storable(origin.created_by),
    }
    counts = _counts(connection, repository.id, base, difference)
    connection.execute(insert(repository_versions).values(**identity, **values, **counts))
    held = [{**identity, "tag": hold.tag, "digest": hold.digest, "reason": hold.reason} for hold in holds]
    for batch in in_batches(held):
        connection.execute(insert(version_holds), batch)
    numbers = {"latest_number": number, "last_number": number}
    connection.execute(update(repositories).where(repositories.c.id == repository.id).values(**numbers))
    keep_newest(connection, repository.id, repository.retain_versions)
    return number


def _counts(connection: Connection, repository_id: str, base: int | None, difference: Difference) -> dict[str, int]:
    present = dict.fromkeys(_KINDS, 0)
    if base is not None:
        is_base = (repository_versions.c.repository_id == repository_id) & (repository_versions.c.number == base)
        row = connection.execute(select(repository_versions).where(is_base)).one()
        present = {kind: getattr(row, f"{kind}_present") for kind in _KINDS}
    counts: dict[str, int] = {}
    for kind in _KINDS:
        counts[f"{kind}_added"] = difference.added[kind]
        counts[f"{kind}_removed"] = difference.removed[kind]
        counts[f"{kind}_present"] = present[kind] + difference.added[kind] - difference.removed[kind]
    return counts
