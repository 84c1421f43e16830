"""Tasks of requests that were done at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime, plain_text

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "finished_tasks",
        sa.Column("task_id", plain_text(36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("triggered_by", sa.Text(), nullable=False),
        sa.Column("path_form", plain_text(16), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("created_resources", sa.JSON(), nullable=False),
        sa.Column("reserved_resources", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True)),
        sa.PrimaryKeyConstraint("task_id", name="pk_finished_tasks"),
    )
    op.create_index("ix_finished_tasks_created_at", "finished_tasks", ["created_at"])
    op.create_index("ix_finished_tasks_finished_at", "finished_tasks", ["finished_at"])


def downgrade() -> None:
    op.drop_table("finished_tasks")
