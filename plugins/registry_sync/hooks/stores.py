"""Opens the metadata database and the blob store of the settings."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.blobs.resume.multipart_upload import PART_BYTES
from registry_sync.blobs.store import BlobStore
from registry_sync.domain.file_modes import OWNER_ONLY, FileModes
from registry_sync.errors import ConfigurationError, redact_url
from registry_sync.hooks.settings import Settings, load_settings

if TYPE_CHECKING:
    from registry_sync.db.database import Database


def open_blob_store(
    url: str,
    *,
    spool_folder: Path | str | None = None,
    part_bytes: int = PART_BYTES,
    modes: FileModes = OWNER_ONLY,
) -> BlobStore:
    """The store at ``url``; nothing is created or requested before it is used.

    ``file:///path`` or an absolute path is a :class:`LocalBlobStore`; every other URL is opened by fsspec, which must
    support its scheme (``s3`` requires s3fs, and so on) and reads credentials from its own configuration. Such a store
    collects large blobs in ``spool_folder`` before it uploads them, those of more than ``part_bytes`` in parts; None
    means a private folder of this user among the system's temporary files. ``modes`` sets the permissions of created
    files. Raises :class:`ConfigurationError`.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError("[registry_sync] blob_store is a URL that cannot be read") from None
    if parts.scheme in ("", "file"):
        path = Path(unquote(parts.path) if parts.scheme else url)
        if not path.is_absolute() or parts.netloc not in ("", "localhost"):
            place = redact_url(url[:200])
            raise ConfigurationError(
                f"[registry_sync] blob_store is {place!r}: an absolute path or file:///absolute/path is needed"
            )
        return LocalBlobStore(path, modes=modes)
    from registry_sync.blobs.object_store import open_fsspec_store

    return open_fsspec_store(url, spool_folder, part_bytes=part_bytes)


def open_database(settings: Settings | None = None, *, patience_seconds: float | None = None) -> Database:
    """The metadata database, its schema ready: an embedded one is created or upgraded, others are checked.

    ``patience_seconds`` limits the wait for a lock or a connection; None waits as long as a task does.

    Raises :class:`~registry_sync.errors.DatabaseError`; its message says what to do.
    """
    from registry_sync.db.database import Database

    settings = settings or load_settings()
    database = Database.connect(settings.sql_alchemy_conn, patience_seconds, modes=settings.file_modes)
    if settings.home is not None:
        settings.file_modes.tighten(settings.home)
    database.ready()
    return database


def temporary_database() -> AbstractContextManager[Database]:
    """An empty database of the kind in the settings, which is gone when the context ends.

    On PostgreSQL temporary tables of its server, for one thread; SQLite where there is no Airflow, and so no setting.
    Raises :class:`ConfigurationError`.
    """
    from registry_sync.db import repository_copy

    url = "sqlite:"
    with suppress(ImportError):
        url = load_settings().sql_alchemy_conn
    is_embedded = url.startswith("sqlite")
    return repository_copy.temporary_database() if is_embedded else repository_copy.temporary_tables(url)


def open_blobs(settings: Settings | None = None) -> BlobStore:
    """The blob store. Raises :class:`~registry_sync.errors.BlobStoreError` when it cannot be used."""
    settings = settings or load_settings()
    return open_blob_store(settings.blob_store, modes=settings.file_modes)
