"""Of which states of mirrors people were notified."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime, plain_text

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notified_states",
        sa.Column("repository", plain_text(255), nullable=False),
        sa.Column("recipient", plain_text(250), nullable=False),
        sa.Column("kind", plain_text(16), nullable=False),
        sa.Column("fingerprint", plain_text(250), nullable=False),
        sa.Column("notified_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "recipient", "kind", name="pk_notified_states"),
    )


def downgrade() -> None:
    op.drop_table("notified_states")
