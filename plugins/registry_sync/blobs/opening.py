"""The blob store of a URL. Only here is decided which store stands for which URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.blobs.resume.multipart_upload import PART_BYTES
from registry_sync.blobs.store import BlobStore
from registry_sync.domain.file_modes import OWNER_ONLY, FileModes
from registry_sync.errors import ConfigurationError, redact_url


def open_blob_store(
    url: str,
    *,
    spool_folder: Path | str | None = None,
    part_bytes: int = PART_BYTES,
    modes: FileModes = OWNER_ONLY,
) -> BlobStore:
    """The store at ``url``; nothing is made or asked before it is used.

    ``file:///path`` or an absolute path is a :class:`LocalBlobStore`; every other URL goes to fsspec, which must
    know its scheme (``s3`` needs s3fs, and so on) and takes credentials from its own configuration. Such a store
    collects large blobs in ``spool_folder`` before it uploads them, those of more than ``part_bytes`` in parts; None
    means a private folder of this user among the system's temporary files. ``modes`` is who may use what is made in a
    folder. Raises :class:`ConfigurationError`.
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
