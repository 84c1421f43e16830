"""The version that the listing of a running sync is recorded as a difference to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

#: What a sync found unchanged, as earlier releases record it: one row for each tag.
_RECORD_EACH = """
INSERT INTO run_tags (sync_run_id, name, state, digest)
SELECT sync_runs.id, tags.name, 'unchanged', manifests.digest
FROM sync_runs
JOIN repository_tags ON repository_tags.repository_id = sync_runs.repository_id
JOIN tags ON tags.id = repository_tags.tag_id
JOIN manifests ON manifests.id = tags.manifest_id
WHERE repository_tags.version_added <= sync_runs.base_number
AND (repository_tags.version_removed IS NULL OR repository_tags.version_removed > sync_runs.base_number)
AND NOT EXISTS (SELECT 1 FROM run_tags WHERE run_tags.sync_run_id = sync_runs.id AND run_tags.name = tags.name)
"""


def upgrade() -> None:
    op.add_column("sync_runs", sa.Column("base_number", sa.Integer()))
    op.add_column(
        "sync_runs", sa.Column("base_tag_count", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    )
    has_base = sa.text("base_number IS NOT NULL")
    op.create_index(
        "ix_sync_runs_base", "sync_runs", ["repository_id"], sqlite_where=has_base, postgresql_where=has_base
    )


def downgrade() -> None:
    op.execute(_RECORD_EACH)
    op.execute("DELETE FROM run_tags WHERE state = 'unlisted'")
    op.drop_index("ix_sync_runs_base", "sync_runs")
    op.drop_column("sync_runs", "base_tag_count")
    op.drop_column("sync_runs", "base_number")
