"""Blobs in any store that fsspec supports (object stores, remote file systems, memory), and its drivers' set-up.

Bytes are first collected and verified on this machine: small blobs in memory, larger ones in a spool folder, where
downloads can be resumed. A blob of one part is uploaded whole (docs/adr/0011-blobs-on-an-object-store.md); the parts of
a larger one are uploaded during the download, so that any machine can resume it
(docs/adr/0012-multipart-uploads-in-the-store.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from registry_sync.blobs import layout
from registry_sync.blobs.layout import QUARANTINE, blob_name, flat_name
from registry_sync.blobs.remote_files import OBJECT_STORES, RemoteFiles, reason
from registry_sync.blobs.resume.bodies import VerifyingWriter, open_writer
from registry_sync.blobs.resume.multipart_upload import PART_BYTES, MultipartUpload, part_bytes, sweep_parts
from registry_sync.blobs.resume.resumable_files import PATIENCE_SECONDS, ResumableFile, ResumableFolder
from registry_sync.blobs.store import StoredBlob, Unlisted, not_removed, store_error
from registry_sync.domain.digests import Digest
from registry_sync.domain.file_modes import OWNER_ONLY
from registry_sync.errors import BlobMissing, BlobStoreUnavailable, ConfigurationError, redact_url


class FsspecBlobStore:
    """A :class:`registry_sync.blobs.store.BlobStore` in ``files``.

    ``spool`` is a local folder for downloads. Writing a blob that is published already uploads it again, unless this
    machine saw another of its processes publish it: a request before each write would cost more. Blobs of more than
    ``part_bytes`` are uploaded in parts.
    """

    def __init__(
        self,
        files: RemoteFiles,
        spool: Path,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._files = files
        self._least_part_bytes = part_bytes
        self._spool = ResumableFolder(spool, patience_seconds)

    def __repr__(self) -> str:
        return f"FsspecBlobStore({self._files.place!r})"

    def has(self, digest: Digest, size_bytes: int | None = None, /) -> bool:
        try:
            found = self._files.size(blob_name(digest))
        except FileNotFoundError:
            return False
        return size_bytes is None or found == size_bytes

    def writer(self, digest: Digest, size_bytes: int, /, *, replaces: bool = False) -> VerifyingWriter:
        length = part_bytes(size_bytes, self._least_part_bytes)
        parts = MultipartUpload(self._files, digest, length) if size_bytes > length else None

        def is_published() -> bool:
            return not replaces and self.has(digest, size_bytes)

        return open_writer(digest, size_bytes, self._spool, self, is_published, parts=parts)

    def resumable_path(self, digest: Digest, /) -> Path:
        return self._spool.path(digest)

    def open(self, digest: Digest, /) -> BinaryIO:
        with self._missing(digest):
            return self._files.open(blob_name(digest))

    def size(self, digest: Digest, /) -> int:
        with self._missing(digest):
            return self._files.size(blob_name(digest))

    def signed_url(self, digest: Digest, lifetime_seconds: int) -> str:
        """A URL with which anybody reads this one blob for that long.

        Makes no request, and does not look whether the blob exists. Raises :class:`ConfigurationError` when the driver
        cannot sign.
        """
        return self._files.signed_url(blob_name(digest), lifetime_seconds)

    def delete(self, digest: Digest, /, *, stored_before: datetime | None = None) -> bool:
        name = blob_name(digest)
        try:
            # Some object stores report success for a missing object, so existence is checked first.
            if self._files.stored_at(name) >= (stored_before or datetime.max.replace(tzinfo=timezone.utc)):
                return False
            self._files.remove(name)
        except FileNotFoundError:
            return False
        return True

    def quarantine(self, digest: Digest, /) -> bool:
        try:
            self._files.move(blob_name(digest), f"{QUARANTINE}/{flat_name(digest)}")
        except FileNotFoundError:
            return False
        return True

    def digests(self) -> Iterator[Digest]:
        return (blob.digest for blob in self.entries())

    def entries(self, unlisted: Unlisted | None = None, /) -> Iterator[StoredBlob]:
        return layout.published(self._files.children, unlisted)

    def quarantined(self) -> Iterator[StoredBlob]:
        return layout.quarantined(self._files.children)

    def unknown_files(self) -> Iterator[str]:
        return layout.unknown_files(self._files.children)

    def sweep_resumables(self, older_than_seconds: float, /) -> int:
        oldest = datetime.now(timezone.utc) - timedelta(seconds=older_than_seconds)
        count, failures = self._spool.sweep(older_than_seconds)
        parts_count, parts_failures = sweep_parts(self._files, oldest)
        if failures + parts_failures:
            raise not_removed(failures + parts_failures, "resumable downloads")
        return count + parts_count

    def publish_bytes(self, digest: Digest, data: bytes | bytearray, /) -> None:
        """Publishes a small blob whose digest has been verified."""
        with self._present():
            self._files.put_bytes(blob_name(digest), data)

    def publish_resumable(self, digest: Digest, resumable: ResumableFile, /) -> None:
        """Publishes a blob whose digest was verified while it was written to the spool."""
        with self._present():
            self._files.put_file(blob_name(digest), resumable.path, resumable.offset)
        resumable.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _missing(self, digest: Digest) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise BlobMissing(f"the blob store at {self._files.place} has no blob {digest}") from None

    @contextlib.contextmanager
    def _present(self) -> Iterator[None]:
        """Translates a missing file during a write: then the location, such as a bucket, is missing."""
        try:
            yield
        except FileNotFoundError as problem:
            raise store_error(problem, self._files.place) from problem


#: Options of S3 requests, with the environment variables that override them. By default requests do not use the framing
#: in which newer clients send checksums: not every S3-compatible store removes it again.
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
    # Another process may publish a blob at any time, so listings must not be cached.
    options: dict[str, Any] = {"use_listings_cache": False} if protocol in OBJECT_STORES else {}
    if protocol in ("s3", "s3a"):
        options["config_kwargs"] = _s3_config()
    try:
        filesystem, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as problem:
        raise ConfigurationError(
            f"[registry_sync] blob_store is {place}, which fsspec cannot open: {problem}; is its driver installed?"
        ) from None
    except Exception as problem:  # drivers that connect at once raise errors of any type
        raise BlobStoreUnavailable(f"the blob store at {place} does not respond: {reason(problem)}") from problem
    base = Path(spool_folder) if spool_folder is not None else private_folder()
    spool = base / hashlib.sha256(place.encode()).hexdigest()[:16]
    return FsspecBlobStore(RemoteFiles(filesystem, root, place=place, protocol=protocol), spool, part_bytes=part_bytes)


def _s3_config() -> dict[str, Any]:
    """The configuration of botocore: the settings of fsspec, and the defaults above where there are none."""
    # URLs are signed with version 2 otherwise, which newer regions refuse.
    config: dict[str, Any] = {"signature_version": "s3v4"}
    config |= {name: "when_required" for name, variable in _S3_CONFIG.items() if variable not in os.environ}
    for protocol in ("s3a", "s3"):
        config |= fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
    return config


def private_folder() -> Path:
    """A temporary folder that belongs to this user alone. Raises :class:`ConfigurationError`."""
    folder = Path(tempfile.gettempdir()) / f"registry_sync_spool_{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigurationError(f"{folder} belongs to another user; configure another spool folder, or remove it")
    OWNER_ONLY.tighten(folder)
    return folder
