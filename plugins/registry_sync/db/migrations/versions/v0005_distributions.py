"""What is served under which name, and who may pull it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime, plain_text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "distributions",
        sa.Column("id", plain_text(36), nullable=False),
        sa.Column("name", plain_text(255), nullable=False),
        sa.Column("base_path", plain_text(255), nullable=False),
        sa.Column("repository_id", plain_text(36)),
        sa.Column("version_number", sa.Integer()),
        sa.Column("is_private", sa.Boolean(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_distributions"),
        sa.UniqueConstraint("name", name="uq_distributions_name"),
        sa.UniqueConstraint("base_path", name="uq_distributions_base_path"),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name="fk_distributions_repository_id", ondelete="SET NULL"
        ),
    )
    op.create_index("ix_distributions_repository_id", "distributions", ["repository_id"])
    op.create_table(
        "robots",
        sa.Column("id", plain_text(36), nullable=False),
        sa.Column("name", plain_text(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("secret_hash", plain_text(64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_robots"),
        sa.UniqueConstraint("name", name="uq_robots_name"),
    )
    op.create_table(
        "serving_keys",
        sa.Column("name", plain_text(32), nullable=False),
        sa.Column("key", plain_text(128), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_serving_keys"),
    )


def downgrade() -> None:
    op.drop_table("serving_keys")
    op.drop_table("robots")
    op.drop_index("ix_distributions_repository_id", table_name="distributions")
    op.drop_table("distributions")
