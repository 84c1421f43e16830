"""The remote that a repository is synced with by default, and the form of the paths that a sync was requested with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import plain_text

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("repositories", sa.Column("remote_id", plain_text(36)))
    op.create_index("ix_repositories_remote_id", "repositories", ["remote_id"])
    op.add_column(
        "sync_requests", sa.Column("path_form", plain_text(16), nullable=False, server_default=sa.text("'docker'"))
    )


def downgrade() -> None:
    op.drop_column("sync_requests", "path_form")
    op.drop_index("ix_repositories_remote_id", "repositories")
    op.drop_column("repositories", "remote_id")
