"""Since when the tags of upstreams are known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime, plain_text

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "seen_tags",
        sa.Column(
            "repository_id", plain_text(36), sa.ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("name", plain_text(128), nullable=False),
        sa.Column("first_seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "name", name="pk_seen_tags"),
    )


def downgrade() -> None:
    op.drop_table("seen_tags")
