"""What a run counts: its tags by state, its blobs by what became of them, and what it cost the registry."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Row, case, func, select

from registry_sync.db.tables import blobs, run_blobs, run_tags
from registry_sync.domain.runs import RunCounts, RunUsage, TagState


def stored(row: Row[Any]) -> RunCounts:
    """The counts that a run's row keeps."""
    return RunCounts(**{field.name: getattr(row, field.name) for field in fields(RunCounts)})


def usage(row: Row[Any]) -> RunUsage:
    """What a run's row says it cost."""
    return RunUsage(**{field.name: getattr(row, field.name) for field in fields(RunUsage)})


def count(connection: Connection, run_id: str) -> RunCounts:
    """The counts as they are now, in two queries."""
    by_state: dict[str, int] = {
        row.state: row.tag_count
        for row in connection.execute(
            select(run_tags.c.state, func.count().label("tag_count"))
            .where(run_tags.c.sync_run_id == run_id)
            .group_by(run_tags.c.state)
        )
    }
    is_stored, size_bytes = blobs.c.stored_at.is_not(None), run_blobs.c.size_bytes
    has_failed = blobs.c.stored_at.is_(None) & run_blobs.c.reason.is_not(None)
    planned = (
        connection.execute(
            select(
                func.count().label("blob_count"),
                func.coalesce(func.sum(size_bytes), 0).label("blob_bytes"),
                func.coalesce(func.sum(case((is_stored, 1), else_=0)), 0).label("stored_blob_count"),
                func.coalesce(func.sum(case((is_stored, size_bytes), else_=0)), 0).label("stored_blob_bytes"),
                func.coalesce(func.sum(case((has_failed, 1), else_=0)), 0).label("failed_blob_count"),
            )
            .select_from(run_blobs)
            .join(blobs, blobs.c.id == run_blobs.c.blob_id)
            .where(run_blobs.c.sync_run_id == run_id)
        )
        .mappings()
        .one()
    )
    return RunCounts(
        tag_count=sum(by_state.values()),
        **{f"{state.value}_tag_count": by_state.get(state.value, 0) for state in TagState},
        **{name: int(value) for name, value in planned.items()},
    )
