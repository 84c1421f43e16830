"""Failed logins, which all servers of an installation count together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import plain_text

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "login_failures",
        sa.Column("key", plain_text(64), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_login_failures"),
    )
    op.create_index("ix_login_failures_until", "login_failures", ["until"])


def downgrade() -> None:
    op.drop_table("login_failures")
