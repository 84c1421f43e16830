"""When the removals of a sync were approved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sync_runs", sa.Column("removals_approved_at", UtcDateTime()))


def downgrade() -> None:
    op.drop_column("sync_runs", "removals_approved_at")
