"""The first tables: remotes, repositories, their versions, content, and sync runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from registry_sync.db.columns import UtcDateTime, plain_text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_UNIT_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MEMBERSHIP = {"tags": "tag_id", "manifests": "manifest_id", "blobs": "blob_id"}


def upgrade() -> None:
    _create_repositories_and_remotes()
    _create_content()
    _create_relations()
    _create_runs()
    _create_run_work()
    _create_versions()
    for name, unit in _MEMBERSHIP.items():
        _create_membership(name, unit)


def downgrade() -> None:
    for name in reversed(list(_MEMBERSHIP)):
        op.drop_table(f"repository_{name}")
    for name in ("version_holds", "repository_versions", "run_blobs", "run_tags", "sync_runs"):
        op.drop_table(name)
    for name in ("tags", "manifest_children", "manifest_blobs", "blobs", "manifests", "remotes", "repositories"):
        op.drop_table(name)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))


def _create_repositories_and_remotes() -> None:
    op.create_table(
        "repositories",
        sa.Column("id", plain_text(36), nullable=False),
        sa.Column("name", plain_text(255), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("retain_versions", sa.Integer()),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("latest_number", sa.Integer()),
        sa.Column("has_leftovers", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("id", name="pk_repositories"),
        sa.UniqueConstraint("name", name="uq_repositories_name"),
    )
    op.create_table(
        "remotes",
        sa.Column("id", plain_text(36), nullable=False),
        sa.Column("name", plain_text(255), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("upstream_name", sa.Text(), nullable=False),
        sa.Column("include_tags", sa.JSON()),
        sa.Column("exclude_tags", sa.JSON(), nullable=False),
        sa.Column("policy", plain_text(16), nullable=False),
        sa.Column("download_concurrency", sa.Integer(), nullable=False),
        sa.Column("conn_id", sa.Text()),
        sa.Column("proxy_url", sa.Text()),
        sa.Column("ssl_validation", sa.Boolean(), nullable=False),
        sa.Column("ssl_ca_certificate", sa.Text()),
        sa.Column("ssl_client_certificate", sa.Text()),
        sa.Column("platforms", sa.JSON()),
        sa.Column("include_referrers", sa.Boolean(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_remotes"),
        sa.UniqueConstraint("name", name="uq_remotes_name"),
    )


def _create_content() -> None:
    op.create_table(
        "manifests",
        sa.Column("id", _UNIT_ID, nullable=False),
        sa.Column("digest", plain_text(255), nullable=False),
        sa.Column("media_type", plain_text(255), nullable=False),
        sa.Column("kind", plain_text(16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("artifact_type", plain_text(255)),
        sa.Column("subject_digest", plain_text(255)),
        sa.Column("annotations", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_manifests"),
        sa.UniqueConstraint("digest", name="uq_manifests_digest"),
    )
    op.create_index("ix_manifests_subject_digest", "manifests", ["subject_digest"])
    op.create_table(
        "blobs",
        sa.Column("id", _UNIT_ID, nullable=False),
        sa.Column("digest", plain_text(255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", plain_text(255), nullable=False),
        sa.Column("is_foreign", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("stored_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_blobs"),
        sa.UniqueConstraint("digest", name="uq_blobs_digest"),
    )
    is_missing = sa.text("stored_at IS NULL")
    op.create_index("ix_blobs_missing", "blobs", ["id"], sqlite_where=is_missing, postgresql_where=is_missing)
    op.create_table(
        "tags",
        sa.Column("id", _UNIT_ID, nullable=False),
        sa.Column("name", plain_text(128), nullable=False),
        sa.Column("manifest_id", _UNIT_ID, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tags"),
        sa.UniqueConstraint("name", "manifest_id", name="uq_tags_name_manifest_id"),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifests.id"], name="fk_tags_manifest_id"),
    )
    op.create_index("ix_tags_manifest_id", "tags", ["manifest_id"])


def _create_relations() -> None:
    op.create_table(
        "manifest_blobs",
        sa.Column("manifest_id", _UNIT_ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("blob_id", _UNIT_ID, nullable=False),
        sa.Column("role", plain_text(16), nullable=False),
        sa.Column("media_type", plain_text(255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("is_foreign", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("manifest_id", "position", name="pk_manifest_blobs"),
        sa.ForeignKeyConstraint(
            ["manifest_id"], ["manifests.id"], name="fk_manifest_blobs_manifest_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name="fk_manifest_blobs_blob_id"),
    )
    op.create_index("ix_manifest_blobs_blob_id", "manifest_blobs", ["blob_id"])
    op.create_table(
        "manifest_children",
        sa.Column("parent_id", _UNIT_ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("child_digest", plain_text(255), nullable=False),
        sa.Column("child_id", _UNIT_ID),
        sa.Column("media_type", plain_text(255), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("platform", sa.JSON()),
        sa.PrimaryKeyConstraint("parent_id", "position", name="pk_manifest_children"),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["manifests.id"], name="fk_manifest_children_parent_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["child_id"], ["manifests.id"], name="fk_manifest_children_child_id", ondelete="SET NULL"
        ),
    )
    op.create_index("ix_manifest_children_child_digest", "manifest_children", ["child_digest"])
    op.create_index("ix_manifest_children_child_id", "manifest_children", ["child_id"])


def _create_runs() -> None:
    op.create_table(
        "sync_runs",
        sa.Column("id", plain_text(36), nullable=False),
        sa.Column("dag_id", plain_text(250), nullable=False),
        sa.Column("run_id", plain_text(250), nullable=False),
        sa.Column("scope", plain_text(250), nullable=False),
        sa.Column("repository_id", plain_text(36), nullable=False),
        sa.Column("remote_id", plain_text(36)),
        sa.Column("mode", plain_text(16), nullable=False),
        sa.Column("remote_spec", sa.JSON(), nullable=False),
        sa.Column("state", plain_text(16), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("listed_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("version_number", sa.Integer()),
        sa.Column("error", sa.Text()),
        *(_count(f"{name}_count") for name in ("head", "manifest_get", "blob_get", "tag_page")),
        _count("received_bytes"),
        _count("retry_count"),
        *(_count(f"{name}tag_count") for name in ("", "pending_", "unchanged_", "resolved_", "held_", "gone_")),
        _count("blob_count"),
        _count("blob_bytes"),
        _count("stored_blob_count"),
        _count("stored_blob_bytes"),
        _count("failed_blob_count"),
        sa.PrimaryKeyConstraint("id", name="pk_sync_runs"),
        sa.UniqueConstraint("dag_id", "run_id", "scope", name="uq_sync_runs_dag_id_run_id_scope"),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name="fk_sync_runs_repository_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["remote_id"], ["remotes.id"], name="fk_sync_runs_remote_id", ondelete="SET NULL"),
    )
    op.create_index("ix_sync_runs_remote_id", "sync_runs", ["remote_id"])
    op.create_index("ix_sync_runs_repository_id_started_at", "sync_runs", ["repository_id", "started_at"])
    op.create_index("ix_sync_runs_started_at", "sync_runs", ["started_at"])


def _create_run_work() -> None:
    op.create_table(
        "run_tags",
        sa.Column("sync_run_id", plain_text(36), nullable=False),
        sa.Column("name", plain_text(128), nullable=False),
        sa.Column("shard", sa.Integer()),
        sa.Column("state", plain_text(16), nullable=False),
        sa.Column("digest", plain_text(255)),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("sync_run_id", "name", name="pk_run_tags"),
        sa.ForeignKeyConstraint(["sync_run_id"], ["sync_runs.id"], name="fk_run_tags_sync_run_id", ondelete="CASCADE"),
    )
    op.create_index("ix_run_tags_sync_run_id_shard", "run_tags", ["sync_run_id", "shard"])
    op.create_table(
        "run_blobs",
        sa.Column("sync_run_id", plain_text(36), nullable=False),
        sa.Column("blob_id", _UNIT_ID, nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", plain_text(255), nullable=False),
        sa.Column("is_foreign", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("sync_run_id", "blob_id", name="pk_run_blobs"),
        sa.ForeignKeyConstraint(["sync_run_id"], ["sync_runs.id"], name="fk_run_blobs_sync_run_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name="fk_run_blobs_blob_id", ondelete="CASCADE"),
    )
    op.create_index("ix_run_blobs_blob_id", "run_blobs", ["blob_id"])
    op.create_index("ix_run_blobs_sync_run_id_shard", "run_blobs", ["sync_run_id", "shard"])


def _create_versions() -> None:
    op.create_table(
        "repository_versions",
        sa.Column("repository_id", plain_text(36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("base_number", sa.Integer()),
        sa.Column("sync_run_id", plain_text(36)),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        *(_count(f"{kind}_{part}") for kind in _MEMBERSHIP for part in ("added", "present", "removed")),
        sa.PrimaryKeyConstraint("repository_id", "number", name="pk_repository_versions"),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name="fk_repository_versions_repository_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["sync_run_id"], ["sync_runs.id"], name="fk_repository_versions_sync_run_id", ondelete="SET NULL"
        ),
    )
    op.create_index("ix_repository_versions_sync_run_id", "repository_versions", ["sync_run_id"])
    op.create_table(
        "version_holds",
        sa.Column("repository_id", plain_text(36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tag", plain_text(128), nullable=False),
        sa.Column("digest", plain_text(255)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "number", "tag", name="pk_version_holds"),
        sa.ForeignKeyConstraint(
            ["repository_id", "number"],
            ["repository_versions.repository_id", "repository_versions.number"],
            name="fk_version_holds_repository_id_number",
            ondelete="CASCADE",
        ),
    )


def _create_membership(name: str, unit: str) -> None:
    table = f"repository_{name}"
    op.create_table(
        table,
        sa.Column("repository_id", plain_text(36), nullable=False),
        sa.Column(unit, _UNIT_ID, nullable=False),
        sa.Column("version_added", sa.Integer(), nullable=False),
        sa.Column("version_removed", sa.Integer()),
        sa.PrimaryKeyConstraint("repository_id", unit, "version_added", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name=f"fk_{table}_repository_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint([unit], [f"{name}.id"], name=f"fk_{table}_{unit}"),
    )
    is_open = sa.text("version_removed IS NULL")
    op.create_index(f"ix_{table}_{unit}", table, [unit])
    op.create_index(f"ix_{table}_added", table, ["repository_id", "version_added"])
    op.create_index(f"ix_{table}_removed", table, ["repository_id", "version_removed"])
    op.create_index(
        f"uq_{table}_open",
        table,
        ["repository_id", unit],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
