"""What a run counts: its tags by state, its blobs by what became of them, and what it cost the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Row, Select, case, func, select

from registry_sync.db.tables import blobs, run_blobs, run_tags
from registry_sync.domain.runs import COUNTED_TAG_STATES, RunCounts, RunUsage


def stored(row: Row[Any]) -> RunCounts:
    """The counts that a run's row keeps."""
    return RunCounts(**{field.name: getattr(row, field.name) for field in fields(RunCounts)})


def usage(row: Row[Any]) -> RunUsage:
    """What a run's row says it cost."""
    return RunUsage(**{field.name: getattr(row, field.name) for field in fields(RunUsage)})


def count(connection: Connection, run_id: str) -> RunCounts:
    """The counts as they are now, in two queries."""
    return count_many(connection, [run_id])[run_id]


def count_many(connection: Connection, run_ids: Sequence[str]) -> dict[str, RunCounts]:
    """The counts of several runs as they are now, by run, in two queries; at most as many as a statement takes."""
    by_state: dict[str, dict[str, int]] = {run_id: {} for run_id in run_ids}
    if not run_ids:
        return {}
    for row in connection.execute(
        select(run_tags.c.sync_run_id, run_tags.c.state, func.count().label("tag_count"))
        .where(run_tags.c.sync_run_id.in_(run_ids), run_tags.c.state.in_([s.value for s in COUNTED_TAG_STATES]))
        .group_by(run_tags.c.sync_run_id, run_tags.c.state)
    ):
        by_state[row.sync_run_id][row.state] = row.tag_count
    planned = {row["sync_run_id"]: row for row in connection.execute(_planned_blobs(run_ids)).mappings()}
    return {
        run_id: RunCounts(
            tag_count=sum(states.values()),
            **{f"{state.value}_tag_count": states.get(state.value, 0) for state in COUNTED_TAG_STATES},
            **{name: int(value) for name, value in planned.get(run_id, {}).items() if name != "sync_run_id"},
        )
        for run_id, states in by_state.items()
    }


def _planned_blobs(run_ids: Sequence[str]) -> Select[Any]:
    is_stored, size_bytes = blobs.c.stored_at.is_not(None), run_blobs.c.size_bytes
    has_failed = blobs.c.stored_at.is_(None) & run_blobs.c.reason.is_not(None)
    return (
        select(
            run_blobs.c.sync_run_id,
            func.count().label("blob_count"),
            func.coalesce(func.sum(size_bytes), 0).label("blob_bytes"),
            func.coalesce(func.sum(case((is_stored, 1), else_=0)), 0).label("stored_blob_count"),
            func.coalesce(func.sum(case((is_stored, size_bytes), else_=0)), 0).label("stored_blob_bytes"),
            func.coalesce(func.sum(case((has_failed, 1), else_=0)), 0).label("failed_blob_count"),
        )
        .join(blobs, blobs.c.id == run_blobs.c.blob_id)
        .where(run_blobs.c.sync_run_id.in_(run_ids))
        .group_by(run_blobs.c.sync_run_id)
    )
