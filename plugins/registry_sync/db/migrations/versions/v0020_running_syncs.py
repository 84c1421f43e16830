"""The syncs that are running are looked up among all that have been."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    is_running = sa.text("state = 'running'")
    op.create_index(
        "ix_sync_runs_running", "sync_runs", ["started_at"], sqlite_where=is_running, postgresql_where=is_running
    )


def downgrade() -> None:
    op.drop_index("ix_sync_runs_running", "sync_runs")
