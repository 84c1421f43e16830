"""Blobs wherever fsspec reaches: object stores, remote file systems, memory.

Bytes are collected and verified on this machine first (small blobs in memory, larger ones in a spool folder, where
they can be continued) and handed over whole. How they get under their digest depends on the store: an object store
shows an object when its upload is complete, so the upload goes straight to its place; elsewhere it goes to a
temporary name and is moved. See docs/adr/0011-blobs-on-an-object-store.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from registry_sync.blobs.failures import store_error
from registry_sync.blobs.partial_file import Partial
from registry_sync.blobs.partials import FOLDER_NAME, PATIENCE_SECONDS, PartialFolder
from registry_sync.blobs.writers import VerifyingWriter, open_writer
from registry_sync.domain.digests import Digest
from registry_sync.errors import (
    BlobMissing,
    BlobStoreUnavailable,
    ConfigurationError,
    InvalidReference,
    RegistrySyncError,
    redact_url,
)

#: Object stores, in which an object appears whole or not at all.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
#: Of these the drivers take a size of parts; their own choice of 50 MB, ten at once, is much memory per upload.
_PARTS = {"s3": 8 * 1024 * 1024, "s3a": 8 * 1024 * 1024, "gs": 8 * 1024 * 1024, "gcs": 8 * 1024 * 1024}


def open_fsspec_store(url: str, spool_folder: Path | str | None = None) -> FsspecBlobStore:
    """The store at an fsspec URL. Raises :class:`ConfigurationError` for one that fsspec cannot open."""
    place = redact_url(url)
    protocol = url.partition("://")[0]
    # Another process may have published a blob meanwhile, so that listings must not be remembered.
    options = {"use_listings_cache": False} if protocol in _OBJECT_STORES else {}
    try:
        filesystem, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as problem:
        raise ConfigurationError(
            f"[registry_sync] blob_store is {place}, which fsspec cannot open: {problem}; is its driver installed?"
        ) from None
    except Exception as problem:  # drivers that connect at once raise what they like
        raise BlobStoreUnavailable(f"the blob store at {place} does not answer: {_reason(problem)}") from problem
    base = Path(spool_folder) if spool_folder is not None else private_folder()
    spool = base / hashlib.sha256(place.encode()).hexdigest()[:16]
    return FsspecBlobStore(filesystem, root, spool, place=place, protocol=protocol)


def private_folder() -> Path:
    """A folder among the system's temporary files that belongs to this user alone. Raises ConfigurationError."""
    folder = Path(tempfile.gettempdir()) / f"registry_sync_spool_{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigurationError(f"{folder} belongs to somebody else; name another spool folder, or remove it")
    return folder


class FsspecBlobStore:
    """A :class:`registry_sync.blobs.store.BlobStore` below ``root`` of an fsspec file system.

    ``spool`` is a local folder for blobs on their way; ``place`` is how messages call the store. To write a blob
    that is there already uploads it again, unless another process of this machine was seen to publish it: to ask
    each time would cost more.
    """

    def __init__(
        self,
        filesystem: Any,
        root: str,
        spool: Path,
        *,
        place: str,
        protocol: str,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._place = place
        self._protocol = protocol
        self._spool = PartialFolder(spool, patience_seconds)

    def __repr__(self) -> str:
        return f"FsspecBlobStore({self._place!r})"

    def has(self, digest: Digest, size_bytes: int | None = None, /) -> bool:
        try:
            found = self.size(digest)
        except BlobMissing:
            return False
        return size_bytes is None or found == size_bytes

    def writer(self, digest: Digest, size_bytes: int, /) -> VerifyingWriter:
        return open_writer(digest, size_bytes, self._spool, self, lambda: self.has(digest, size_bytes))

    def open(self, digest: Digest, /) -> BinaryIO:
        with self._errors(), self._missing(digest):
            if self._protocol == "memory":  # its files share one position
                return io.BytesIO(self._filesystem.cat_file(self._key(digest)))
            return cast("BinaryIO", self._filesystem.open(self._key(digest), "rb"))

    def size(self, digest: Digest, /) -> int:
        with self._errors(), self._missing(digest):
            return int(self._filesystem.info(self._key(digest))["size"])

    def delete(self, digest: Digest, /) -> bool:
        if not self.has(digest):
            return False
        with self._errors():
            try:
                self._filesystem.rm_file(self._key(digest))
            except FileNotFoundError:
                return False
        return True

    def digests(self) -> Iterator[Digest]:
        with self._errors():
            try:
                names = self._filesystem.find(self._root)
            except FileNotFoundError:
                names = []
        for name in names:
            parts = name.rsplit("/", 3)
            with contextlib.suppress(InvalidReference):  # a stranger's object is no blob
                if len(parts) == 4 and parts[2] == parts[3][:2]:
                    yield Digest(f"{parts[1]}:{parts[3]}")

    def sweep_partials(self, older_than_seconds: float, /) -> int:
        count = self._spool.sweep(older_than_seconds)
        oldest = time.time() - older_than_seconds
        with self._errors():
            try:
                names = self._filesystem.find(f"{self._root}/{FOLDER_NAME}")
            except FileNotFoundError:
                names = []
            for name in names:
                if self._filesystem.modified(name).timestamp() <= oldest:
                    self._filesystem.rm_file(name)
                    count += 1
        return count

    def publish_bytes(self, digest: Digest, data: bytes | bytearray, /) -> None:
        """Publishes a small blob whose digest was verified."""
        self._hand_over(digest, lambda key: self._filesystem.pipe_file(key, bytes(data)))

    def publish_partial(self, digest: Digest, partial: Partial, /) -> None:
        """Publishes a blob whose digest was verified while it was written to the spool."""
        options = {"chunksize": _PARTS[self._protocol]} if self._protocol in _PARTS else {}
        self._hand_over(digest, lambda key: self._filesystem.put_file(str(partial.path), key, **options))
        partial.path.unlink(missing_ok=True)

    def _hand_over(self, digest: Digest, upload: Callable[[str], object]) -> None:
        key = self._key(digest)
        with self._errors():
            if self._protocol in _OBJECT_STORES:
                upload(key)
                return
            temporary = f"{self._root}/{FOLDER_NAME}/{uuid.uuid4().hex}"
            for parent in (temporary, key):
                self._filesystem.makedirs(parent.rpartition("/")[0], exist_ok=True)
            try:
                upload(temporary)
                self._filesystem.mv(temporary, key)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._filesystem.rm_file(temporary)
                raise

    def _key(self, digest: Digest) -> str:
        return f"{self._root}/{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}"

    @contextlib.contextmanager
    def _missing(self, digest: Digest) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise BlobMissing(f"the blob store at {self._place} has no blob {digest}") from None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except RegistrySyncError:
            raise
        except OSError as problem:
            raise store_error(problem, self._place) from problem
        except Exception as problem:  # each driver has errors of its own, of no common type
            raise BlobStoreUnavailable(
                f"the blob store at {self._place} does not answer: {_reason(problem)}"
            ) from problem


def _reason(problem: Exception) -> str:
    return f"{type(problem).__name__}: {str(problem)[:300]}"
