"""The tables of fleets: what became of their mirrors, and what accounts at registries allow all processes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, Table, Text

from registry_sync.db.columns import UtcDateTime, metadata, plain_text

# What became of the mirrors of a fleet in a DAG run: the names stay when a repository is deleted.
mirror_results = Table(
    "mirror_results",
    metadata,
    Column("dag_id", plain_text(250), primary_key=True),
    Column("run_id", plain_text(250), primary_key=True),
    Column("task_id", plain_text(250), primary_key=True),
    Column("repository", plain_text(255), primary_key=True),
    Column("position", Integer(), nullable=False),
    Column("priority", Integer(), nullable=False),
    Column("outcome", plain_text(16), nullable=False),
    Column("started_at", UtcDateTime(), nullable=False),
    Column("finished_at", UtcDateTime(), nullable=False),
    Column("try_count", Integer(), nullable=False),
    Column("version_number", Integer()),
    Column("held_count", Integer(), nullable=False),
    Column("seconds", Float(), nullable=False),
    Column("request_count", BigInteger(), nullable=False),
    Column("received_bytes", BigInteger(), nullable=False),
    Column("error", Text()),
    # Whether the same may succeed later.
    Column("is_temporary", Boolean(), nullable=False),
    Column("sync_run_id", plain_text(36)),
    # The DAG run that syncs a mirror which is too large for a task of many.
    Column("handed_over_to", plain_text(250)),
    Index("ix_mirror_results_repository_finished_at", "repository", "finished_at"),
)

# What a registry allows a user, as it reported last; the key is its host and the user.
registry_accounts = Table(
    "registry_accounts",
    metadata,
    Column("account", plain_text(500), primary_key=True),
    # The pulls that remain of a window, which began at the latest at began_at; None while nothing was reported.
    Column("remaining", Integer()),
    Column("limit", Integer()),
    Column("window_seconds", Integer()),
    Column("reported_at", UtcDateTime()),
    Column("began_at", UtcDateTime()),
    # Until when it accepts no requests.
    Column("paused_until", UtcDateTime()),
    # When a mirror with a priority asked for pulls last; None while none did.
    Column("important_at", UtcDateTime()),
)

# The processes that use an account, and what each may do of what it allows; those that died expire.
budget_leases = Table(
    "budget_leases",
    metadata,
    Column("account", plain_text(500), primary_key=True),
    Column("holder", plain_text(64), primary_key=True),
    Column("pulls", Integer(), nullable=False),
    Column("requests_per_second", Float(), nullable=False),
    Column("priority", Integer(), nullable=False),
    # Since when it waits for pulls; None while it has some.
    Column("waiting_since", UtcDateTime()),
    Column("expires_at", UtcDateTime(), nullable=False),
)

# Of which states of mirrors somebody was notified; a state that has ended has no row.
notified_states = Table(
    "notified_states",
    metadata,
    Column("repository", plain_text(255), primary_key=True),
    Column("recipient", plain_text(250), primary_key=True),
    Column("kind", plain_text(16), primary_key=True),
    # What tells one state of a kind from the next: a version's number, the held tags.
    Column("fingerprint", plain_text(250), nullable=False),
    Column("notified_at", UtcDateTime(), nullable=False),
)
