"""The name of a tag beside its intervals, so that a pull finds it by an index of its repository alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import plain_text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("repository_tags", sa.Column("name", plain_text(128), nullable=False, server_default=sa.text("''")))
    op.execute("UPDATE repository_tags SET name = (SELECT tags.name FROM tags WHERE tags.id = repository_tags.tag_id)")
    op.create_index("ix_repository_tags_name", "repository_tags", ["repository_id", "name", "version_added"])


def downgrade() -> None:
    op.drop_index("ix_repository_tags_name", table_name="repository_tags")
    op.drop_column("repository_tags", "name")
