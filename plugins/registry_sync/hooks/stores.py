"""The metadata database and the blob store that the settings name, opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry_sync.hooks.settings import Settings, load_settings

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database


def open_database(settings: Settings | None = None, *, patience_seconds: float | None = None) -> Database:
    """The metadata database, its schema ready: an embedded one is created or upgraded, others are checked.

    ``patience_seconds`` is how long it is waited for a lock or a connection; None as long as a task waits.

    Raises :class:`~registry_sync.errors.DatabaseError`; its message says what to do.
    """
    from registry_sync.db.database import Database

    settings = settings or load_settings()
    database = Database.connect(settings.sql_alchemy_conn, patience_seconds, modes=settings.file_modes)
    if settings.home is not None:
        settings.file_modes.tighten(settings.home)
    database.ready()
    return database


def open_blobs(settings: Settings | None = None) -> BlobStore:
    """The blob store. Raises :class:`~registry_sync.errors.BlobStoreError` when it cannot be used."""
    from registry_sync.blobs.opening import open_blob_store

    settings = settings or load_settings()
    return open_blob_store(settings.blob_store, modes=settings.file_modes)
