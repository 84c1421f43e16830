"""What versions take along from each manifest, limits of a sync, the origin of versions, and orphaned content."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime, plain_text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_UNIT_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.text("false"))


def _added_columns() -> dict[str, list[sa.Column[Any]]]:
    """New columns by table; made anew at each call, because a column belongs to one table."""
    return {
        "repositories": [sa.Column("last_number", sa.Integer())],
        "remotes": [
            _flag("allow_sparse"),
            _flag("allow_schema1"),
            _flag("include_foreign_layers"),
            sa.Column("max_held_share", sa.Float()),
            sa.Column("max_removed_share", sa.Float()),
            sa.Column("max_removed_tags", sa.Integer()),
        ],
        "manifest_blobs": [_flag("is_inline")],
        "blobs": [sa.Column("source", sa.Text()), sa.Column("verified_at", UtcDateTime())],
        "sync_runs": [
            sa.Column("has_referrers_api", sa.Boolean()),
            sa.Column("removals_approved_by", sa.Text()),
        ],
        "repository_versions": [
            sa.Column("description", sa.Text()),
            sa.Column("labels", sa.JSON(), nullable=False, server_default=sa.text("'{}'")),
            sa.Column("origin", plain_text(16), nullable=False, server_default=sa.text("'sync'")),
            sa.Column("origin_repository_id", plain_text(36)),
            sa.Column("origin_number", sa.Integer()),
            sa.Column("created_by", sa.Text()),
        ],
    }


def upgrade() -> None:
    for table, columns in _added_columns().items():
        for column in columns:
            op.add_column(table, column)
    _create_run_notes()
    _create_links()
    _create_orphans()
    _fill_links()
    op.execute("UPDATE repositories SET last_number = latest_number")
    # A run in flight has not noted what it takes along; its tags are held and synced by the next run.
    op.execute("UPDATE run_tags SET state = 'pending' WHERE state = 'resolved'")


def downgrade() -> None:
    op.drop_index("ix_run_tags_digest", "run_tags")
    for table in ("orphaned_blobs", "orphaned_manifests", "repository_links", "run_links", "run_manifests"):
        op.drop_table(table)
    for table, columns in _added_columns().items():
        for column in columns:
            op.drop_column(table, column.name)


def _key(table: str, column: str, target: str, ondelete: str | None = None) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], name=f"fk_{table}_{column}", ondelete=ondelete)


def _create_run_notes() -> None:
    op.create_table(
        "run_manifests",
        sa.Column("sync_run_id", plain_text(36), nullable=False),
        sa.Column("manifest_id", _UNIT_ID, nullable=False),
        sa.PrimaryKeyConstraint("sync_run_id", "manifest_id", name="pk_run_manifests"),
        _key("run_manifests", "sync_run_id", "sync_runs.id", "CASCADE"),
        _key("run_manifests", "manifest_id", "manifests.id"),
    )
    op.create_index("ix_run_manifests_manifest_id", "run_manifests", ["manifest_id"])
    op.create_index("ix_run_tags_digest", "run_tags", ["digest"])
    op.create_table(
        "run_links",
        sa.Column("sync_run_id", plain_text(36), nullable=False),
        sa.Column("parent_id", _UNIT_ID, nullable=False),
        sa.Column("child_digest", plain_text(255), nullable=False),
        sa.Column("child_id", _UNIT_ID),
        sa.Column("kind", plain_text(16), nullable=False),
        sa.PrimaryKeyConstraint("sync_run_id", "parent_id", "child_digest", name="pk_run_links"),
        _key("run_links", "sync_run_id", "sync_runs.id", "CASCADE"),
        _key("run_links", "parent_id", "manifests.id"),
        _key("run_links", "child_id", "manifests.id"),
    )
    op.create_index("ix_run_links_parent_id", "run_links", ["parent_id"])
    op.create_index("ix_run_links_child_id", "run_links", ["child_id"])


def _create_links() -> None:
    op.create_table(
        "repository_links",
        sa.Column("repository_id", plain_text(36), nullable=False),
        sa.Column("parent_id", _UNIT_ID, nullable=False),
        sa.Column("child_digest", plain_text(255), nullable=False),
        sa.Column("version_added", sa.Integer(), nullable=False),
        sa.Column("version_removed", sa.Integer()),
        sa.Column("child_id", _UNIT_ID),
        sa.Column("kind", plain_text(16), nullable=False),
        sa.PrimaryKeyConstraint(
            "repository_id", "parent_id", "child_digest", "version_added", name="pk_repository_links"
        ),
        _key("repository_links", "repository_id", "repositories.id", "CASCADE"),
        _key("repository_links", "parent_id", "manifests.id"),
        _key("repository_links", "child_id", "manifests.id"),
    )
    op.create_index("ix_repository_links_parent_id", "repository_links", ["parent_id"])
    op.create_index("ix_repository_links_child_id", "repository_links", ["child_id"])
    op.create_index("ix_repository_links_added", "repository_links", ["repository_id", "version_added"])
    op.create_index("ix_repository_links_removed", "repository_links", ["repository_id", "version_removed"])
    is_open = sa.text("version_removed IS NULL")
    op.create_index(
        "uq_repository_links_open",
        "repository_links",
        ["repository_id", "parent_id", "child_digest"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    is_gap = sa.text("child_id IS NULL")
    op.create_index(
        "ix_repository_links_gaps",
        "repository_links",
        ["repository_id"],
        sqlite_where=is_gap,
        postgresql_where=is_gap,
    )


def _create_orphans() -> None:
    for table, column in (("manifests", "manifest_id"), ("blobs", "blob_id")):
        op.create_table(
            f"orphaned_{table}",
            sa.Column(column, _UNIT_ID, nullable=False),
            sa.Column("orphaned_at", UtcDateTime(), nullable=False),
            sa.PrimaryKeyConstraint(column, name=f"pk_orphaned_{table}"),
            _key(f"orphaned_{table}", column, f"{table}.id", "CASCADE"),
        )


def _fill_links() -> None:
    """Until now a version took along every entry that was stored: for as long as both manifests were present."""
    op.execute(
        """
        INSERT INTO repository_links
            (repository_id, parent_id, child_digest, version_added, version_removed, child_id, kind)
        SELECT DISTINCT parent.repository_id, entry.parent_id, entry.child_digest,
            CASE WHEN parent.version_added > child.version_added
                 THEN parent.version_added ELSE child.version_added END,
            CASE WHEN parent.version_removed IS NULL THEN child.version_removed
                 WHEN child.version_removed IS NULL THEN parent.version_removed
                 WHEN parent.version_removed < child.version_removed
                 THEN parent.version_removed ELSE child.version_removed END,
            entry.child_id, 'child'
        FROM manifest_children AS entry
        JOIN repository_manifests AS parent ON parent.manifest_id = entry.parent_id
        JOIN repository_manifests AS child
            ON child.manifest_id = entry.child_id AND child.repository_id = parent.repository_id
        WHERE (parent.version_removed IS NULL OR parent.version_removed > child.version_added)
          AND (child.version_removed IS NULL OR child.version_removed > parent.version_added)
        """
    )
