"""The tables. Content is stored once; the content of a repository's versions is stored as intervals.

A row in ``repository_tags``, ``repository_manifests`` or ``repository_blobs`` says that a unit was added in version
``version_added`` and is present up to, not including, ``version_removed`` (None: still present). A unit that is added
again gets a second row. So a version costs its difference to the one before, and any two can be compared.

The migrations in ``migrations/versions`` create these tables and those of ``serving_tables`` and ``fleet_tables``; a
test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)

from registry_sync.db import fleet_tables, serving_tables
from registry_sync.db.columns import NULLABLE_JSON, UNIT_ID, UtcDateTime, plain_text

#: All tables, also those of the pull server and of fleets.
metadata = next(table.metadata for table in (serving_tables.distributions, fleet_tables.mirror_results))


def _counts(*names: str) -> list[Column[Any]]:
    return [Column(name, BigInteger(), nullable=False, server_default=text("0")) for name in names]


repositories = Table(
    "repositories",
    metadata,
    Column("id", plain_text(36), primary_key=True),
    Column("name", plain_text(255), nullable=False, unique=True),
    Column("description", Text()),
    Column("retain_versions", Integer()),
    Column("labels", JSON(), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    Column("updated_at", UtcDateTime(), nullable=False),
    Column("latest_number", Integer()),
    # Whether an additive sync may have left content that no tag reaches, which the next mirror has to look for.
    Column("has_leftovers", Boolean(), nullable=False, server_default=text("false")),
    # The highest number ever given to a version: numbers of deleted versions are not reused.
    Column("last_number", Integer()),
    # Listings and rollbacks are numbered, so that a commit detects those since its sync started to list.
    Column("last_listing", Integer(), nullable=False, server_default=text("0")),
    Column("last_rollback", Integer(), nullable=False, server_default=text("0")),
    # The sync that settled last, in the order of transactions, and the latest version at that point.
    Column("settled_run_id", plain_text(36)),
    Column("settled_version", Integer()),
    # Earlier names, whose assets also receive events for new versions while no other repository has the name.
    Column("former_names", NULLABLE_JSON),
    # The remote of syncs that name none; cleared when the remote is deleted.
    Column("remote_id", plain_text(36), index=True),
)

remotes = Table(
    "remotes",
    metadata,
    Column("id", plain_text(36), primary_key=True),
    Column("name", plain_text(255), nullable=False, unique=True),
    Column("url", Text(), nullable=False),
    Column("upstream_name", Text(), nullable=False),
    Column("conn_id", Text()),
    # Every other option, as `RemoteSpec.document` gives it: none of them is searched.
    Column("options", JSON(), nullable=False, server_default=text("'{}'")),
    Column("created_at", UtcDateTime(), nullable=False),
    Column("updated_at", UtcDateTime(), nullable=False),
    # Created by a sync and not confirmed yet: no version came from it and no person changed it.
    Column("is_provisional", Boolean(), nullable=False, server_default=text("false")),
)

manifests = Table(
    "manifests",
    metadata,
    Column("id", UNIT_ID, primary_key=True),
    Column("digest", plain_text(255), nullable=False, unique=True),
    Column("media_type", plain_text(255), nullable=False),
    Column("kind", plain_text(16), nullable=False),
    Column("size_bytes", BigInteger(), nullable=False),
    Column("artifact_type", plain_text(255)),
    Column("subject_digest", plain_text(255), index=True),
    Column("annotations", JSON(), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    # Last, so that reading the other columns does not load the pages of a large document.
    Column("data", LargeBinary(), nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("id", UNIT_ID, primary_key=True),
    Column("digest", plain_text(255), nullable=False, unique=True),
    Column("size_bytes", BigInteger(), nullable=False),
    Column("media_type", plain_text(255), nullable=False),
    Column("is_foreign", Boolean(), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    Column("stored_at", UtcDateTime()),
    # Host and repository that the bytes came from, and when they were last verified against the digest.
    Column("source", Text()),
    Column("verified_at", UtcDateTime()),
    # The fault that a verification found, and since when; None once the bytes are stored again.
    Column("fault", plain_text(16)),
    Column("fault_at", UtcDateTime()),
)
Index(
    "ix_blobs_missing",
    blobs.c.id,
    sqlite_where=blobs.c.stored_at.is_(None),
    postgresql_where=blobs.c.stored_at.is_(None),
)
Index(
    "ix_blobs_fault",
    blobs.c.digest,
    sqlite_where=blobs.c.fault.is_not(None),
    postgresql_where=blobs.c.fault.is_not(None),
)

# A manifest's description of a blob is stored with the relation: two manifests may describe one digest differently.
manifest_blobs = Table(
    "manifest_blobs",
    metadata,
    Column("manifest_id", UNIT_ID, ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer(), primary_key=True),
    Column("blob_id", UNIT_ID, ForeignKey("blobs.id"), nullable=False, index=True),
    Column("role", plain_text(16), nullable=False),
    Column("media_type", plain_text(255), nullable=False),
    Column("size_bytes", BigInteger(), nullable=False),
    Column("is_foreign", Boolean(), nullable=False),
    # Whether the manifest contains the bytes itself (the descriptor's ``data``).
    Column("is_inline", Boolean(), nullable=False, server_default=text("false")),
)

# child_id is None while the child is not stored: an index may be held without all its entries.
manifest_children = Table(
    "manifest_children",
    metadata,
    Column("parent_id", UNIT_ID, ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer(), primary_key=True),
    Column("child_digest", plain_text(255), nullable=False, index=True),
    Column("child_id", UNIT_ID, ForeignKey("manifests.id", ondelete="SET NULL"), index=True),
    Column("media_type", plain_text(255), nullable=False),
    Column("size_bytes", BigInteger(), nullable=False),
    Column("platform", NULLABLE_JSON),
)

tags = Table(
    "tags",
    metadata,
    Column("id", UNIT_ID, primary_key=True),
    Column("name", plain_text(128), nullable=False),
    Column("manifest_id", UNIT_ID, ForeignKey("manifests.id"), nullable=False, index=True),
    Column("created_at", UtcDateTime(), nullable=False),
    UniqueConstraint("name", "manifest_id"),
)

sync_runs = Table(
    "sync_runs",
    metadata,
    Column("id", plain_text(36), primary_key=True),
    Column("dag_id", plain_text(250), nullable=False),
    Column("run_id", plain_text(250), nullable=False),
    Column("scope", plain_text(250), nullable=False),
    Column("repository_id", plain_text(36), ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("remote_id", plain_text(36), ForeignKey("remotes.id", ondelete="SET NULL"), index=True),
    Column("mode", plain_text(16), nullable=False),
    # The remote as this run uses it: later changes of the remote apply to later runs.
    Column("remote_spec", JSON(), nullable=False),
    Column("state", plain_text(16), nullable=False),
    Column("started_at", UtcDateTime(), nullable=False),
    Column("listed_at", UtcDateTime()),
    Column("finished_at", UtcDateTime()),
    Column("version_number", Integer()),
    Column("error", Text()),
    *_counts("head_count", "manifest_get_count", "blob_get_count", "tag_page_count", "received_bytes", "retry_count"),
    *_counts("digest_page_count", "listed_digest_count"),
    *_counts("tag_count", "pending_tag_count", "unchanged_tag_count", "resolved_tag_count"),
    *_counts("held_tag_count", "gone_tag_count", "blob_count", "blob_bytes"),
    *_counts("stored_blob_count", "stored_blob_bytes", "failed_blob_count"),
    # Whether the registry has the referrers API; None while the run has not requested it.
    Column("has_referrers_api", Boolean()),
    # Why referrers could not be looked up; None: they were, or none were requested.
    Column("referrers_problem", Text()),
    # What became of the registry's list of the digests of all tags, and why it was not used; None: no list was read.
    Column("digest_list", plain_text(16)),
    Column("digest_list_problem", Text()),
    # What the registry taught a task about authentication, for the others: no secret. Empty: it asks for nothing. With
    # how many requests at once it has served, for later syncs as well, both below names; see run_rows.py.
    Column("challenge", JSON(none_as_null=True)),
    # Who approved that the run removes more than its remote allows, and when; None: nobody, or no time was recorded.
    Column("removals_approved_by", Text()),
    Column("removals_approved_at", UtcDateTime()),
    # The fingerprint of the removals that were last refused and may be approved; without it an approval is for any.
    Column("refused_removals", plain_text(255)),
    # The authority it acts on, None for runs of earlier releases; and its changes to the remote, for people.
    Column("authority", plain_text(16)),
    Column("remote_changes", Text()),
    # Whether it may replace content that another remote added since it started; None for runs of earlier releases.
    Column("may_replace_upstream", Boolean()),
    # A sync that is started again after it settled is a new attempt; the row of the first one is history.
    Column("attempt", Integer(), nullable=False, server_default=text("1")),
    # The repository's last number when the run started to list, and the number of its listing; see listings.py.
    Column("listing_began", Integer(), nullable=False, server_default=text("0")),
    Column("listing_number", Integer()),
    # The name of the repository as requested; it may have been renamed since. None before schema 0003.
    Column("repository_name", plain_text(255)),
    # Who or what started the DAG run; when it started, which changes when it is cleared; whether it has ended since.
    Column("triggered_by", Text()),
    Column("dag_run_started_at", UtcDateTime()),
    Column("is_dag_run_over", Boolean(), nullable=False, server_default=text("false")),
    # The version that its listing is recorded as a difference to, None for one that is recorded in full; and how many
    # tags it found unchanged without a row. See unchanged_tags.py.
    Column("base_number", Integer()),
    *_counts("base_tag_count"),
    UniqueConstraint("dag_id", "run_id", "scope", "attempt"),
    Index("ix_sync_runs_repository_id_started_at", "repository_id", "started_at"),
    Index("ix_sync_runs_started_at", "started_at"),
    Index("ix_sync_runs_repository_id_listing_number", "repository_id", "listing_number"),
)

#: Whether a run is running, as the index of these has it; with a parameter in it SQLite could not use that.
is_running = sync_runs.c.state == literal_column("'running'")
Index("ix_sync_runs_running", sync_runs.c.started_at, sqlite_where=is_running, postgresql_where=is_running)
Index(
    "ix_sync_runs_base",
    sync_runs.c.repository_id,
    sqlite_where=sync_runs.c.base_number.is_not(None),
    postgresql_where=sync_runs.c.base_number.is_not(None),
)

# Syncs requested over REST, by the id of the task; ids of deleted records stay, so that a run can report them.
sync_requests = Table(
    "sync_requests",
    metadata,
    Column("id", plain_text(36), primary_key=True),
    Column("dag_id", plain_text(250), nullable=False),
    Column("repository_id", plain_text(36), nullable=False),
    Column("remote_id", plain_text(36), nullable=False),
    Column("mode", plain_text(16), nullable=False),
    Column("requested_by", Text(), nullable=False),
    Column("may_replace_upstream", Boolean(), nullable=False),
    Column("requested_at", UtcDateTime(), nullable=False, index=True),
    # Why it could not start.
    Column("error", Text()),
    # The form of the paths that it was requested with, which those of its task have.
    Column("path_form", plain_text(16), nullable=False, server_default=text("'docker'")),
)

# Tasks of requests that were done at once, so that clients can read them; each has ended.
finished_tasks = Table(
    "finished_tasks",
    metadata,
    Column("task_id", plain_text(36), primary_key=True),
    Column("name", Text(), nullable=False),
    Column("triggered_by", Text(), nullable=False),
    # The form of their paths.
    Column("path_form", plain_text(16), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False, index=True),
    Column("started_at", UtcDateTime(), nullable=False),
    Column("finished_at", UtcDateTime(), nullable=False, index=True),
    # Why it failed; NULL where it did not.
    Column("error", Text()),
    Column("created_resources", JSON(), nullable=False),
    Column("reserved_resources", JSON(), nullable=False),
    Column("result", NULLABLE_JSON),
)

# Runs of deleted repositories: a repeated task of one must not create the repository again.
deleted_runs = Table(
    "deleted_runs",
    metadata,
    Column("sync_run_id", plain_text(36), primary_key=True),
    Column("dag_id", plain_text(250), nullable=False),
    Column("run_id", plain_text(250), nullable=False),
    Column("scope", plain_text(250), nullable=False),
    Column("repository_name", plain_text(255), nullable=False),
    Column("deleted_at", UtcDateTime(), nullable=False),
    Index("ix_deleted_runs_dag_id_run_id_scope", "dag_id", "run_id", "scope"),
)

run_tags = Table(
    "run_tags",
    metadata,
    Column("sync_run_id", plain_text(36), ForeignKey("sync_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("name", plain_text(128), primary_key=True),
    Column("shard", Integer()),
    Column("state", plain_text(16), nullable=False),
    Column("digest", plain_text(255)),
    Column("reason", Text()),
    Index("ix_run_tags_sync_run_id_shard", "sync_run_id", "shard"),
    Index("ix_run_tags_digest", "digest"),
)

run_heads = Table(
    "run_heads",
    metadata,
    Column("sync_run_id", plain_text(36), ForeignKey("sync_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("name", plain_text(128), primary_key=True),
    Column("digest", plain_text(255)),
    Column("asked_at", UtcDateTime(), nullable=False),
    Column("listing_began", Integer(), nullable=False),
)

# Since when each tag of an upstream is known, for rules that select the newest by that.
seen_tags = Table(
    "seen_tags",
    metadata,
    Column("repository_id", plain_text(36), ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("name", plain_text(128), primary_key=True),
    Column("first_seen_at", UtcDateTime(), nullable=False),
)

run_blobs = Table(
    "run_blobs",
    metadata,
    Column("sync_run_id", plain_text(36), ForeignKey("sync_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("blob_id", UNIT_ID, ForeignKey("blobs.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("shard", Integer(), nullable=False),
    Column("size_bytes", BigInteger(), nullable=False),
    Column("media_type", plain_text(255), nullable=False),
    Column("is_foreign", Boolean(), nullable=False),
    Column("reason", Text()),
    Index("ix_run_blobs_sync_run_id_shard", "sync_run_id", "shard"),
)

# Which manifests a run has read, and which it includes from each: the selected entries of an index, and referrers.
# child_id is None for a selected entry that the registry does not have.
run_manifests = Table(
    "run_manifests",
    metadata,
    Column("sync_run_id", plain_text(36), ForeignKey("sync_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("manifest_id", UNIT_ID, ForeignKey("manifests.id"), primary_key=True, index=True),
)

run_links = Table(
    "run_links",
    metadata,
    Column("sync_run_id", plain_text(36), ForeignKey("sync_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("parent_id", UNIT_ID, ForeignKey("manifests.id"), primary_key=True, index=True),
    Column("child_digest", plain_text(255), primary_key=True),
    Column("child_id", UNIT_ID, ForeignKey("manifests.id"), index=True),
    Column("kind", plain_text(16), nullable=False),
)

repository_versions = Table(
    "repository_versions",
    metadata,
    Column("repository_id", plain_text(36), ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer(), primary_key=True),
    Column("base_number", Integer()),
    Column("sync_run_id", plain_text(36), ForeignKey("sync_runs.id", ondelete="SET NULL"), index=True),
    Column("created_at", UtcDateTime(), nullable=False),
    *_counts("tags_added", "tags_present", "tags_removed"),
    *_counts("manifests_added", "manifests_present", "manifests_removed"),
    *_counts("blobs_added", "blobs_present", "blobs_removed"),
    Column("description", Text()),
    Column("labels", JSON(), nullable=False, server_default=text("'{}'")),
    # How it was made: by a sync, or from a version of this or another repository, given by origin_*.
    Column("origin", plain_text(16), nullable=False, server_default=text("'sync'")),
    Column("origin_repository_id", plain_text(36)),
    Column("origin_number", Integer()),
    Column("created_by", Text()),
    # Why its sync could not look up referrers; None when it could, and for versions of other origins.
    Column("referrers_problem", Text()),
)

version_holds = Table(
    "version_holds",
    metadata,
    Column("repository_id", plain_text(36), primary_key=True),
    Column("number", Integer(), primary_key=True),
    Column("tag", plain_text(128), primary_key=True),
    Column("digest", plain_text(255)),
    Column("reason", Text(), nullable=False),
    ForeignKeyConstraint(
        ["repository_id", "number"],
        ["repository_versions.repository_id", "repository_versions.number"],
        ondelete="CASCADE",
    ),
)


def _membership(name: str, unit: str, *more: Column[Any] | Index) -> Table:
    """Intervals of one type of unit; at most one of a unit's intervals in a repository is open."""
    table = Table(
        f"repository_{name}",
        metadata,
        Column("repository_id", plain_text(36), ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
        Column(unit, UNIT_ID, ForeignKey(f"{name}.id"), primary_key=True, index=True),
        Column("version_added", Integer(), primary_key=True),
        Column("version_removed", Integer()),
        Index(f"ix_repository_{name}_added", "repository_id", "version_added"),
        Index(f"ix_repository_{name}_removed", "repository_id", "version_removed"),
        *more,
    )
    is_open = table.c.version_removed.is_(None)
    Index(
        f"uq_repository_{name}_open",
        table.c.repository_id,
        table.c[unit],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    return table


# A pull asks for the tag of a name: a repository's own are found without those of all others, the newest first.
repository_tags = _membership(
    "tags",
    "tag_id",
    Column("name", plain_text(128), nullable=False, server_default=text("''")),
    Index("ix_repository_tags_name", "repository_id", "name", "version_added"),
)
repository_manifests = _membership("manifests", "manifest_id")
repository_blobs = _membership("blobs", "blob_id")

# The manifests that a repository's versions include from each manifest they hold, as intervals like the units'.
repository_links = Table(
    "repository_links",
    metadata,
    Column("repository_id", plain_text(36), ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("parent_id", UNIT_ID, ForeignKey("manifests.id"), primary_key=True, index=True),
    Column("child_digest", plain_text(255), primary_key=True),
    Column("version_added", Integer(), primary_key=True),
    Column("version_removed", Integer()),
    Column("child_id", UNIT_ID, ForeignKey("manifests.id")),
    Column("kind", plain_text(16), nullable=False),
    Index("ix_repository_links_child_id", "child_id"),
    Index("ix_repository_links_added", "repository_id", "version_added"),
    Index("ix_repository_links_removed", "repository_id", "version_removed"),
)
_is_open_link = repository_links.c.version_removed.is_(None)
Index(
    "uq_repository_links_open",
    repository_links.c.repository_id,
    repository_links.c.parent_id,
    repository_links.c.child_digest,
    unique=True,
    sqlite_where=_is_open_link,
    postgresql_where=_is_open_link,
)

_is_gap = repository_links.c.child_id.is_(None)
Index(
    "ix_repository_links_gaps",
    repository_links.c.repository_id,
    sqlite_where=_is_gap,
    postgresql_where=_is_gap,
)

# Content that was unreachable at the last collection, and since when; removed after the grace period.
orphaned_manifests = Table(
    "orphaned_manifests",
    metadata,
    Column("manifest_id", UNIT_ID, ForeignKey("manifests.id", ondelete="CASCADE"), primary_key=True),
    Column("orphaned_at", UtcDateTime(), nullable=False),
)

orphaned_blobs = Table(
    "orphaned_blobs",
    metadata,
    Column("blob_id", UNIT_ID, ForeignKey("blobs.id", ondelete="CASCADE"), primary_key=True),
    Column("orphaned_at", UtcDateTime(), nullable=False),
)
