"""Where the bytes of a blob are while they are written: in memory, or in a partial.

Blobs up to :data:`SMALL_BYTES` are collected in memory and touch the disk once, when they are complete or left;
most blobs of most registries are configs and small layers, for which each call to the system counts. Larger ones go
through a :class:`Partial`.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

from registry_sync.blobs.partial_file import Partial
from registry_sync.blobs.partials import PartialFolder
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError

#: Up to this size a blob is held in memory until it is complete.
SMALL_BYTES = 1024 * 1024


class Publisher(Protocol):
    """How a store takes verified bytes. Both are durable and atomic, and safe when the blob is there already."""

    def publish_bytes(self, digest: Digest, data: bytes | bytearray, /) -> None:
        """From memory."""

    def publish_partial(self, digest: Digest, partial: Partial, /) -> None:
        """From a partial, whose file is gone from its place afterwards; it is closed by the caller."""


class Body(Protocol):
    """The bytes of one blob while they are written. Which are right is not its business."""

    @property
    def offset(self) -> int:
        """How many there are."""

    def append(self, chunk: bytes | memoryview) -> None:
        """Takes the next ones."""

    def encoded(self) -> str:
        """The encoded part of their digest."""

    def restart(self) -> None:
        """Forgets them."""

    def publish(self, publisher: Publisher) -> None:
        """Hands them over, and is done."""

    def leave(self) -> None:
        """Keeps them for the next writer, and is done."""

    def discard(self) -> None:
        """Forgets them, and is done."""


class MemoryBody:
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


class FileBody:
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
