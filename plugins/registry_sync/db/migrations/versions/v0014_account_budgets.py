"""Budgets of accounts at registries, and the leases of the processes that use them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime, plain_text

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "registry_accounts",
        sa.Column("account", plain_text(500), nullable=False),
        sa.Column("remaining", sa.Integer()),
        sa.Column("limit", sa.Integer()),
        sa.Column("window_seconds", sa.Integer()),
        sa.Column("reported_at", UtcDateTime()),
        sa.Column("began_at", UtcDateTime()),
        sa.Column("paused_until", UtcDateTime()),
        sa.Column("important_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("account", name="pk_registry_accounts"),
    )
    op.create_table(
        "budget_leases",
        sa.Column("account", plain_text(500), nullable=False),
        sa.Column("holder", plain_text(64), nullable=False),
        sa.Column("pulls", sa.Integer(), nullable=False),
        sa.Column("requests_per_second", sa.Float(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("waiting_since", UtcDateTime()),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("account", "holder", name="pk_budget_leases"),
    )


def downgrade() -> None:
    op.drop_table("budget_leases")
    op.drop_table("registry_accounts")
