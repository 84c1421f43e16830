"""The writer that every store hands out: it verifies, and leaves to the store only how bytes are published.

Blobs up to :data:`SMALL_BYTES` are collected in memory and touch the disk once, when they are complete or left;
most blobs of most registries are configs and small layers, for which each call to the system counts. Larger ones go
through a :class:`Partial`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from registry_sync.blobs.partial_file import Partial
from registry_sync.blobs.partials import PartialFolder
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, DigestMismatch, SizeMismatch, TruncatedBody

#: Up to this size a blob is held in memory until it is complete.
SMALL_BYTES = 1024 * 1024


class Publisher(Protocol):
    """How a store takes verified bytes. Both are durable and atomic, and safe when the blob is there already."""

    def publish_bytes(self, digest: Digest, data: bytes | bytearray, /) -> None:
        """From memory."""

    def publish_partial(self, digest: Digest, partial: Partial, /) -> None:
        """From a partial, whose file is gone from its place afterwards; it is closed by the caller."""


class _MemoryBody:
    """The bytes of a small blob."""

    def __init__(self, digest: Digest, size_bytes: int, folder: PartialFolder) -> None:
        self._digest = digest
        self._folder = folder
        self._data = bytearray(folder.read(digest, size_bytes))
        self._found_count = len(self._data)

    @property
    def offset(self) -> int:
        return len(self._data)

    def append(self, chunk: bytes | memoryview) -> None:
        self._data += chunk

    def encoded(self) -> str:
        hasher = self._digest.hasher()
        hasher.update(self._data)
        return hasher.hexdigest()

    def restart(self) -> None:
        self._data = bytearray()
        if self._found_count:
            self._folder.forget(self._digest)
            self._found_count = 0

    def publish(self, publisher: Publisher) -> None:
        publisher.publish_bytes(self._digest, self._data)
        self.restart()

    def leave(self) -> None:
        if len(self._data) > self._found_count:
            with contextlib.suppress(BlobStoreError):  # nothing was promised, and another error is on its way
                self._folder.keep(self._digest, self._data)

    def discard(self) -> None:
        self.restart()


class _FileBody:
    """The bytes of a larger blob, in a partial."""

    def __init__(self, digest: Digest, partial: Partial) -> None:
        self._digest = digest
        self._partial = partial

    @property
    def offset(self) -> int:
        return self._partial.offset

    def append(self, chunk: bytes | memoryview) -> None:
        self._partial.append(chunk)

    def encoded(self) -> str:
        return self._partial.hasher.hexdigest()

    def restart(self) -> None:
        self._partial.restart()

    def publish(self, publisher: Publisher) -> None:
        publisher.publish_partial(self._digest, self._partial)
        self._partial.close()

    def leave(self) -> None:
        self._partial.leave()

    def discard(self) -> None:
        self._partial.discard()


class VerifyingWriter:
    """A :class:`registry_sync.blobs.store.BlobWriter`; ``body`` None means that the blob is published already."""

    def __init__(
        self, digest: Digest, size_bytes: int, publisher: Publisher, body: _MemoryBody | _FileBody | None
    ) -> None:
        self._digest = digest
        self._size_bytes = size_bytes
        self._publisher = publisher
        self._body = body
        self._is_published = body is None

    def __enter__(self) -> VerifyingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.leave()

    @property
    def offset(self) -> int:
        if self._is_published:
            return self._size_bytes
        return self._body.offset if self._body is not None else 0

    def write(self, chunk: bytes | memoryview, /) -> None:
        if not len(chunk):
            return
        got = self.offset + len(chunk)
        if got > self._size_bytes or self._body is None:
            raise SizeMismatch(
                f"blob {self._digest} is longer than the {self._size_bytes} bytes of its descriptor",
                digest=self._digest,
                expected=self._size_bytes,
                got=got,
            )
        self._body.append(chunk)

    def restart(self) -> None:
        if self._body is not None:
            self._body.restart()

    def commit(self) -> None:
        if self._is_published:
            return
        if self._body is None or self.offset < self._size_bytes:
            raise TruncatedBody(
                f"blob {self._digest} ended after {self.offset} of {self._size_bytes} bytes", digest=self._digest
            )
        encoded = self._body.encoded()
        if encoded != self._digest.encoded:
            self._body.restart()
            got = f"{self._digest.algorithm}:{encoded}"
            raise DigestMismatch(f"blob {self._digest} came with other bytes: {got}", digest=self._digest, got=got)
        self._body.publish(self._publisher)
        self._body = None
        self._is_published = True

    def discard(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.discard()


def open_writer(
    digest: Digest, size_bytes: int, folder: PartialFolder, publisher: Publisher, is_published: Callable[[], bool]
) -> VerifyingWriter:
    """A writer that continues what lies in ``folder``; ``is_published`` is asked after waiting for another writer.

    Raises :class:`UnsupportedDigest`.
    """
    body: _MemoryBody | _FileBody | None = None
    if size_bytes <= SMALL_BYTES:
        digest.hasher()
        body = _MemoryBody(digest, size_bytes, folder)
    elif (partial := folder.take(digest, size_bytes, is_published)) is not None:
        body = _FileBody(digest, partial)
    return VerifyingWriter(digest, size_bytes, publisher, body)


def published_writer(digest: Digest, size_bytes: int, publisher: Publisher) -> VerifyingWriter:
    """A writer of a blob that is there already: it needs no bytes, and to commit it does nothing."""
    return VerifyingWriter(digest, size_bytes, publisher, None)
