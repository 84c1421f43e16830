"""Blobs wherever fsspec reaches: object stores, remote file systems, memory.

Bytes are collected and verified on this machine first: small blobs in memory, larger ones in a spool folder, where
they can be continued. Blobs of one part are handed over whole (docs/adr/0011-blobs-on-an-object-store.md); larger ones
go into the store part by part meanwhile, where any machine can continue them (docs/adr/0012-parts-in-the-store.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO

from registry_sync.blobs import listing
from registry_sync.blobs.failures import not_removed, store_error
from registry_sync.blobs.names import QUARANTINE, blob_name, flat_name
from registry_sync.blobs.partial_file import Partial
from registry_sync.blobs.partials import PATIENCE_SECONDS, PartialFolder
from registry_sync.blobs.parts import PART_BYTES, Parts, part_bytes, sweep_parts
from registry_sync.blobs.remote_files import RemoteFiles
from registry_sync.blobs.store import StoredBlob, Unlisted
from registry_sync.blobs.writers import VerifyingWriter, open_writer
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobMissing


class FsspecBlobStore:
    """A :class:`registry_sync.blobs.store.BlobStore` in ``files``.

    ``spool`` is a local folder for blobs on their way. To write a blob that is there already uploads it again, unless
    another process of this machine was seen to publish it: to ask each time would cost more. Blobs of more than
    ``part_bytes`` go into the store in parts.
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
        self._spool = PartialFolder(spool, patience_seconds)

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
        parts = Parts(self._files, digest, length) if size_bytes > length else None

        def is_published() -> bool:
            return not replaces and self.has(digest, size_bytes)

        return open_writer(digest, size_bytes, self._spool, self, is_published, parts=parts)

    def open(self, digest: Digest, /) -> BinaryIO:
        with self._missing(digest):
            return self._files.open(blob_name(digest))

    def size(self, digest: Digest, /) -> int:
        with self._missing(digest):
            return self._files.size(blob_name(digest))

    def delete(self, digest: Digest, /, *, stored_before: datetime | None = None) -> bool:
        name = blob_name(digest)
        try:
            # Some object stores remove what is not there without a word, so the answer must be asked for first.
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
        return listing.published(self._files.children, unlisted)

    def quarantined(self) -> Iterator[StoredBlob]:
        return listing.quarantined(self._files.children)

    def strangers(self) -> Iterator[str]:
        return listing.strangers(self._files.children)

    def sweep_partials(self, older_than_seconds: float, /) -> int:
        oldest = datetime.now(timezone.utc) - timedelta(seconds=older_than_seconds)
        count, failures = self._spool.sweep(older_than_seconds)
        parts_count, parts_failures = sweep_parts(self._files, oldest)
        if failures + parts_failures:
            raise not_removed(failures + parts_failures, "partials")
        return count + parts_count

    def publish_bytes(self, digest: Digest, data: bytes | bytearray, /) -> None:
        """Publishes a small blob whose digest was verified."""
        with self._present():
            self._files.put_bytes(blob_name(digest), data)

    def publish_partial(self, digest: Digest, partial: Partial, /) -> None:
        """Publishes a blob whose digest was verified while it was written to the spool."""
        with self._present():
            self._files.put_file(blob_name(digest), partial.path, partial.offset)
        partial.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _missing(self, digest: Digest) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise BlobMissing(f"the blob store at {self._files.place} has no blob {digest}") from None

    @contextlib.contextmanager
    def _present(self) -> Iterator[None]:
        """What is missing when something is written is the place to write it to, such as a bucket."""
        try:
            yield
        except FileNotFoundError as problem:
            raise store_error(problem, self._files.place) from problem
