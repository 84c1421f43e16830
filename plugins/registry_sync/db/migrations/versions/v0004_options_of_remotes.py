"""The options of a remote as one document, so that a new one needs no column."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import plain_text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Every column that is not searched moves into the document as it is."""
    op.add_column("remotes", _options())
    connection, remotes = op.get_bind(), _remotes()
    for row in connection.execute(sa.select(remotes)).all():
        options = {column.name: getattr(row, column.name) for column in _columns()}
        connection.execute(sa.update(remotes).where(remotes.c.id == row.id).values(options=options))
    for column in _columns():
        op.drop_column("remotes", column.name)


def downgrade() -> None:
    """Options that earlier releases do not know are forgotten."""
    is_required = {column.name for column in _columns() if not column.nullable and column.server_default is None}
    for column in _columns():
        column.nullable = column.nullable or column.name in is_required
        op.add_column("remotes", column)
    connection, remotes = op.get_bind(), _remotes()
    for row in connection.execute(sa.select(remotes.c.id, remotes.c.options)).all():
        values = {column.name: row.options[column.name] for column in _columns() if column.name in row.options}
        connection.execute(sa.update(remotes).where(remotes.c.id == row.id).values(**values))
    with op.batch_alter_table("remotes") as table:
        for name in sorted(is_required):
            table.alter_column(name, nullable=False)
        table.drop_column("options")


def _options() -> sa.Column[Any]:
    return sa.Column("options", sa.JSON(), nullable=False, server_default=sa.text("'{}'"))


def _columns() -> list[sa.Column[Any]]:
    """The columns that the document takes the place of; made anew at each call, for a column belongs to one table."""
    return [
        sa.Column("include_tags", sa.JSON(none_as_null=True)),
        sa.Column("exclude_tags", sa.JSON(), nullable=False),
        sa.Column("policy", plain_text(16), nullable=False),
        sa.Column("download_concurrency", sa.Integer(), nullable=False),
        sa.Column("proxy_url", sa.Text()),
        sa.Column("ssl_validation", sa.Boolean(), nullable=False),
        sa.Column("ssl_ca_certificate", sa.Text()),
        sa.Column("ssl_client_certificate", sa.Text()),
        sa.Column("platforms", sa.JSON(none_as_null=True)),
        sa.Column("include_referrers", sa.Boolean(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        _flag("allow_sparse"),
        _flag("allow_schema1"),
        _flag("include_foreign_layers"),
        sa.Column("max_held_share", sa.Float()),
        sa.Column("max_removed_share", sa.Float()),
        sa.Column("max_removed_tags", sa.Integer()),
    ]


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.text("false"))


def _remotes() -> sa.Table:
    """The table while it has both."""
    return sa.Table("remotes", sa.MetaData(), sa.Column("id", plain_text(36)), _options(), *_columns())
