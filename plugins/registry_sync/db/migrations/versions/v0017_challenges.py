"""What a registry taught the first task of a sync about authentication."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sync_runs", sa.Column("challenge", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    op.drop_column("sync_runs", "challenge")
