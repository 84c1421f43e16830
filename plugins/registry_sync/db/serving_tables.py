"""The tables of the pull server: what is published under which name, who may pull, and who pulled what.

Those of the content are in ``tables``.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, ForeignKey, Integer, Table

from registry_sync.db.columns import UtcDateTime, metadata, plain_text

# Under which base path clients pull which repository: its latest version, or always one of them.
distributions = Table(
    "distributions",
    metadata,
    Column("id", plain_text(36), primary_key=True),
    Column("name", plain_text(255), nullable=False, unique=True),
    Column("base_path", plain_text(255), nullable=False, unique=True),
    Column("repository_id", plain_text(36), ForeignKey("repositories.id", ondelete="SET NULL"), index=True),
    Column("version_number", Integer()),
    Column("is_private", Boolean(), nullable=False),
    Column("labels", JSON(), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    Column("updated_at", UtcDateTime(), nullable=False),
)

# Logins of programs that pull; of a secret only the hash is kept.
robots = Table(
    "robots",
    metadata,
    Column("id", plain_text(36), primary_key=True),
    Column("name", plain_text(64), nullable=False, unique=True),
    Column("scopes", JSON(), nullable=False),
    Column("secret_hash", plain_text(64), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    Column("expires_at", UtcDateTime()),
)

# What the servers of an installation share to sign tokens.
serving_keys = Table(
    "serving_keys",
    metadata,
    Column("name", plain_text(32), primary_key=True),
    Column("key", plain_text(128), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
)

# Which process fetches a blob that a pull asked for and the blob store lacks; what a crash leaves is taken over.
blob_downloads = Table(
    "blob_downloads",
    metadata,
    Column("digest", plain_text(255), primary_key=True),
    Column("holder", plain_text(36), nullable=False, index=True),
    Column("beat", BigInteger(), nullable=False),
)

# When a tag was last pulled by its name, or a manifest by its digest; written in batches.
last_pulls = Table(
    "last_pulls",
    metadata,
    Column("repository_id", plain_text(36), ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("reference", plain_text(255), primary_key=True),
    Column("pulled_at", UtcDateTime(), nullable=False),
)

# How much has failed of an account, an address, or both, as the time until which it counts, in seconds since 1970 by
# the clock of the database. The key is a hash: what somebody types as a name may be a password.
login_failures = Table(
    "login_failures",
    metadata,
    Column("key", plain_text(64), primary_key=True),
    Column("until", Double(), nullable=False, index=True),
)
