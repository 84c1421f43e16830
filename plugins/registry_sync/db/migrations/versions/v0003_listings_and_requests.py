"""What a sync was asked for, which listing a version stands on, and what was found broken."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _added_columns() -> dict[str, list[sa.Column[Any]]]:
    """New columns by table; made anew at each call, because a column belongs to one table."""
    return {}


def upgrade() -> None:
    for table, columns in _added_columns().items():
        for column in columns:
            op.add_column(table, column)


def downgrade() -> None:
    for table, columns in _added_columns().items():
        for column in columns:
            op.drop_column(table, column.name)
