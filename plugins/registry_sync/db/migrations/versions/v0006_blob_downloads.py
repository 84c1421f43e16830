"""Which process fetches a blob that a pull asked for and the blob store lacks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import plain_text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "blob_downloads",
        sa.Column("digest", plain_text(255), nullable=False),
        sa.Column("holder", plain_text(36), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blob_downloads"),
    )
    op.create_index("ix_blob_downloads_holder", "blob_downloads", ["holder"])


def downgrade() -> None:
    op.drop_index("ix_blob_downloads_holder", table_name="blob_downloads")
    op.drop_table("blob_downloads")
