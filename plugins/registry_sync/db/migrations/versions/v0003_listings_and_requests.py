"""What a sync was asked for, which listing a version stands on, and what was found broken."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime, plain_text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _added_columns() -> dict[str, list[sa.Column[Any]]]:
    """New columns by table; made anew at each call, because a column belongs to one table."""
    return {
        "repositories": [
            _number("last_listing", "0"),
            _number("last_rollback", "0"),
            sa.Column("settled_run_id", plain_text(36)),
            sa.Column("settled_version", sa.Integer()),
            sa.Column("former_names", sa.JSON()),
        ],
        "sync_runs": [
            _number("attempt", "1"),
            _number("listing_began", "0"),
            sa.Column("listing_number", sa.Integer()),
            sa.Column("authority", plain_text(16)),
            sa.Column("may_replace_upstream", sa.Boolean()),
            sa.Column("remote_changes", sa.Text()),
            sa.Column("referrers_problem", sa.Text()),
            sa.Column("refused_removals", plain_text(255)),
            sa.Column("repository_name", plain_text(255)),
            sa.Column("triggered_by", sa.Text()),
            sa.Column("dag_run_started_at", UtcDateTime()),
            sa.Column("is_dag_run_over", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        ],
        "remotes": [sa.Column("is_provisional", sa.Boolean(), nullable=False, server_default=sa.text("false"))],
        "repository_versions": [sa.Column("referrers_problem", sa.Text())],
        "blobs": [sa.Column("fault", plain_text(16)), sa.Column("fault_at", UtcDateTime())],
    }


def _number(name: str, default: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text(default))


def upgrade() -> None:
    for table, columns in _added_columns().items():
        for column in columns:
            op.add_column(table, column)
    _tell_attempts_apart()
    _number_listings()
    _note_settled()
    _forget_approvals()
    _create_requests()
    _create_heads()
    _index_faults()
    _create_deleted_runs()


def downgrade() -> None:
    op.drop_table("deleted_runs")
    op.drop_index("ix_blobs_fault", "blobs")
    op.drop_table("run_heads")
    op.drop_table("sync_requests")
    _forget_attempts()
    for table, columns in _added_columns().items():
        for column in columns:
            op.drop_column(table, column.name)


_KEY = ["dag_id", "run_id", "scope"]


def _tell_attempts_apart() -> None:
    """One row for each time that a sync was begun anew after it had settled."""
    with op.batch_alter_table("sync_runs") as table:
        table.drop_constraint("uq_sync_runs_dag_id_run_id_scope", type_="unique")
        table.create_unique_constraint("uq_sync_runs_dag_id_run_id_scope_attempt", [*_KEY, "attempt"])
    op.create_index(_BY_LISTING, "sync_runs", ["repository_id", "listing_number"])


def _forget_attempts() -> None:
    """The last attempt keeps the key of the sync; those before it keep what they were under a scope of their own."""
    op.drop_index(_BY_LISTING, "sync_runs")
    op.execute(
        """
        UPDATE sync_runs SET scope = substr(scope, 1, 230) || '#' || attempt
        WHERE attempt < (
            SELECT max(other.attempt) FROM sync_runs AS other
            WHERE other.dag_id = sync_runs.dag_id AND other.run_id = sync_runs.run_id
              AND other.scope = sync_runs.scope
        )
        """
    )
    with op.batch_alter_table("sync_runs") as table:
        table.drop_constraint("uq_sync_runs_dag_id_run_id_scope_attempt", type_="unique")
        table.create_unique_constraint("uq_sync_runs_dag_id_run_id_scope", _KEY)


def _number_listings() -> None:
    """Numbers listings and rollbacks in the order of their times, so that no sync under way undoes a later one."""
    connection = op.get_bind()
    runs = sa.table("sync_runs", *map(sa.column, ("id", "repository_id", "state", "listing_began", "listing_number")))
    versions = sa.table("repository_versions", sa.column("repository_id"), sa.column("origin"))
    repositories = sa.table("repositories", *map(sa.column, ("id", "last_listing", "last_rollback")))
    listed_at, created_at = sa.column("listed_at", UtcDateTime()), sa.column("created_at", UtcDateTime())
    events: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    under_way: list[tuple[str, str, datetime]] = []
    listed = sa.select(runs.c.id, runs.c.repository_id, runs.c.state, listed_at).select_from(runs)
    for row in connection.execute(listed.where(listed_at.is_not(None))):
        if row.state in ("completed", "unchanged"):
            events[row.repository_id].append((row.listed_at, row.id))
        else:
            under_way.append((row.id, row.repository_id, row.listed_at))
    rolled_back = sa.select(versions.c.repository_id, created_at).select_from(versions)
    for row in connection.execute(rolled_back.where(versions.c.origin == "rollback")):
        events[row.repository_id].append((row.created_at, ""))
    for repository_id, found in events.items():
        found.sort()
        last_rollback = max((number for number, (_, run_id) in enumerate(found, 1) if not run_id), default=0)
        connection.execute(
            sa.update(repositories)
            .where(repositories.c.id == repository_id)
            .values(last_listing=len(found), last_rollback=last_rollback)
        )
        for number, (_, run_id) in enumerate(found, 1):
            if run_id:
                connection.execute(sa.update(runs).where(runs.c.id == run_id).values(listing_number=number))
    for run_id, repository_id, moment in under_way:
        began = bisect_left(events.get(repository_id, []), (moment, ""))
        connection.execute(sa.update(runs).where(runs.c.id == run_id).values(listing_began=began))


def _note_settled() -> None:
    """The last of what had settled by the clock, which is all that was noted; and the version that it was about."""
    connection = op.get_bind()
    runs = sa.table("sync_runs", *map(sa.column, ("id", "repository_id", "state", "version_number")))
    versions = sa.table("repository_versions", *map(sa.column, ("repository_id", "number")))
    repositories = sa.table(
        "repositories", *map(sa.column, ("id", "latest_number", "last_number", "settled_run_id", "settled_version"))
    )
    finished_at, created_at = sa.column("finished_at", UtcDateTime()), sa.column("created_at", UtcDateTime())
    made = sa.select(versions, created_at).select_from(versions)
    made_at = {(row.repository_id, row.number): row.created_at for row in connection.execute(made)}
    latest_of = {row.id: row for row in connection.execute(sa.select(repositories))}
    is_settled = runs.c.state.in_(["completed", "unchanged"]) & finished_at.is_not(None)
    settled = sa.select(runs, finished_at).select_from(runs).where(is_settled).order_by(finished_at)
    for repository_id, run in {row.repository_id: row for row in connection.execute(settled)}.items():
        latest, about = latest_of[repository_id], run.version_number
        is_of_latest = latest.latest_number is not None and latest.latest_number == latest.last_number
        if about is None and is_of_latest and run.finished_at > made_at[repository_id, latest.latest_number]:
            about = latest.latest_number
        noted = {"settled_run_id": run.id, "settled_version": about}
        connection.execute(sa.update(repositories).where(repositories.c.id == repository_id).values(**noted))


def _forget_approvals() -> None:
    """An approval that no commit has used is not known to be for what would go; an author's is given anew."""
    runs = sa.table("sync_runs", sa.column("state"), sa.column("removals_approved_by"))
    is_open = runs.c.state.not_in(["completed", "unchanged"])
    op.execute(sa.update(runs).where(is_open).values(removals_approved_by=None))


_BY_LISTING = "ix_sync_runs_repository_id_listing_number"


def _create_requests() -> None:
    op.create_table(
        "sync_requests",
        sa.Column("id", plain_text(36), nullable=False),
        sa.Column("dag_id", plain_text(250), nullable=False),
        sa.Column("repository_id", plain_text(36), nullable=False),
        sa.Column("remote_id", plain_text(36), nullable=False),
        sa.Column("mode", plain_text(16), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("may_replace_upstream", sa.Boolean(), nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_sync_requests"),
    )
    op.create_index("ix_sync_requests_requested_at", "sync_requests", ["requested_at"])


def _index_faults() -> None:
    is_faulty = sa.text("fault IS NOT NULL")
    op.create_index("ix_blobs_fault", "blobs", ["digest"], sqlite_where=is_faulty, postgresql_where=is_faulty)


def _create_heads() -> None:
    """What a listing under way has asked for, for another try of its task."""
    op.create_table(
        "run_heads",
        sa.Column("sync_run_id", plain_text(36), nullable=False),
        sa.Column("name", plain_text(128), nullable=False),
        sa.Column("digest", plain_text(255)),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.Column("listing_began", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sync_run_id", "name", name="pk_run_heads"),
        sa.ForeignKeyConstraint(["sync_run_id"], ["sync_runs.id"], name="fk_run_heads_sync_run_id", ondelete="CASCADE"),
    )


def _create_deleted_runs() -> None:
    op.create_table(
        "deleted_runs",
        sa.Column("sync_run_id", plain_text(36), nullable=False),
        sa.Column("dag_id", plain_text(250), nullable=False),
        sa.Column("run_id", plain_text(250), nullable=False),
        sa.Column("scope", plain_text(250), nullable=False),
        sa.Column("repository_name", plain_text(255), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("sync_run_id", name="pk_deleted_runs"),
    )
    op.create_index("ix_deleted_runs_dag_id_run_id_scope", "deleted_runs", _KEY)
