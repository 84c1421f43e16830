"""The store at an fsspec URL: a driver found, a spool folder chosen."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import fsspec

from registry_sync.blobs.fsspec_store import FsspecBlobStore
from registry_sync.blobs.parts import PART_BYTES
from registry_sync.blobs.remote_files import OBJECT_STORES, RemoteFiles, reason
from registry_sync.domain.file_modes import OWNER_ONLY
from registry_sync.errors import BlobStoreUnavailable, ConfigurationError, redact_url

#: What is asked of S3 unless somebody says otherwise: a request without the framing in which newer clients send
#: checksums, and which not every store that speaks like S3 takes off again. Variables by which one says otherwise.
_S3_CONFIG = {
    "request_checksum_calculation": "AWS_REQUEST_CHECKSUM_CALCULATION",
    "response_checksum_validation": "AWS_RESPONSE_CHECKSUM_VALIDATION",
}


def open_fsspec_store(
    url: str, spool_folder: Path | str | None = None, *, part_bytes: int = PART_BYTES
) -> FsspecBlobStore:
    """The store at an fsspec URL. Raises :class:`ConfigurationError` for one that fsspec cannot open."""
    place = redact_url(url)
    protocol = url.partition("://")[0]
    # Another process may have published a blob meanwhile, so that listings must not be remembered.
    options: dict[str, Any] = {"use_listings_cache": False} if protocol in OBJECT_STORES else {}
    if protocol in ("s3", "s3a"):
        options["config_kwargs"] = _s3_config()
    try:
        filesystem, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as problem:
        raise ConfigurationError(
            f"[registry_sync] blob_store is {place}, which fsspec cannot open: {problem}; is its driver installed?"
        ) from None
    except Exception as problem:  # drivers that connect at once raise what they like
        raise BlobStoreUnavailable(f"the blob store at {place} does not answer: {reason(problem)}") from problem
    base = Path(spool_folder) if spool_folder is not None else private_folder()
    spool = base / hashlib.sha256(place.encode()).hexdigest()[:16]
    return FsspecBlobStore(RemoteFiles(filesystem, root, place=place, protocol=protocol), spool, part_bytes=part_bytes)


def _s3_config() -> dict[str, Any]:
    """What botocore is configured with: what is set for fsspec, and our own choice where nothing is."""
    ours = {name: "when_required" for name, variable in _S3_CONFIG.items() if variable not in os.environ}
    for protocol in ("s3a", "s3"):
        ours |= fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
    return ours


def private_folder() -> Path:
    """A folder among the system's temporary files that belongs to this user alone. Raises ConfigurationError."""
    folder = Path(tempfile.gettempdir()) / f"registry_sync_spool_{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigurationError(f"{folder} belongs to somebody else; name another spool folder, or remove it")
    OWNER_ONLY.tighten(folder)
    return folder
