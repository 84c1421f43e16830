"""Results of the mirrors of fleets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime, plain_text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mirror_results",
        sa.Column("dag_id", plain_text(250), nullable=False),
        sa.Column("run_id", plain_text(250), nullable=False),
        sa.Column("task_id", plain_text(250), nullable=False),
        sa.Column("repository", plain_text(255), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("outcome", plain_text(16), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=False),
        sa.Column("try_count", sa.Integer(), nullable=False),
        sa.Column("version_number", sa.Integer()),
        sa.Column("held_count", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("request_count", sa.BigInteger(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("is_temporary", sa.Boolean(), nullable=False),
        sa.Column("sync_run_id", plain_text(36)),
        sa.Column("handed_over_to", plain_text(250)),
        sa.PrimaryKeyConstraint("dag_id", "run_id", "task_id", "repository", name="pk_mirror_results"),
    )
    op.create_index("ix_mirror_results_repository_finished_at", "mirror_results", ["repository", "finished_at"])


def downgrade() -> None:
    op.drop_table("mirror_results")
