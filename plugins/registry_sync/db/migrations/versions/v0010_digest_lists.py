"""What a sync learned from a registry's list of the digests of all tags."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import plain_text

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("digest_page_count", "listed_digest_count"):
        op.add_column("sync_runs", sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.add_column("sync_runs", sa.Column("digest_list", plain_text(16)))
    op.add_column("sync_runs", sa.Column("digest_list_problem", sa.Text()))


def downgrade() -> None:
    for name in ("digest_list_problem", "digest_list", "listed_digest_count", "digest_page_count"):
        op.drop_column("sync_runs", name)
