"""When content was last pulled, by repository and reference."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime, plain_text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "last_pulls",
        sa.Column("repository_id", plain_text(36), nullable=False),
        sa.Column("reference", plain_text(255), nullable=False),
        sa.Column("pulled_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "reference", name="pk_last_pulls"),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name="fk_last_pulls_repository_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("last_pulls")
