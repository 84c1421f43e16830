"""Where the bytes of a blob are while they are written: in memory, in a resumable file, or in parts in the store.

Blobs up to :data:`SMALL_BYTES` are collected in memory and touch the disk once, when they are complete or left;
most blobs of most registries are configs and small layers, for which each call to the system counts. Larger ones go
through a :class:`ResumableFile`.

For an object store that file is as on a file system, so that processes of one machine wait for each other. Each part
that is complete is stored while the next one is written; a writer that is left stores the rest as well. The next
writer, wherever it is, finds what its own machine lacks in the store. When all is there and verified, the store joins
the parts, or is given the file.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from registry_sync.blobs.resume.multipart_upload import MultipartUpload, Part
from registry_sync.blobs.resume.resumable_files import ResumableFile, ResumableFolder
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, BlobStoreFull

#: Up to this size a blob is held in memory until it is complete.
SMALL_BYTES = 1024 * 1024


class Publisher(Protocol):
    """How a store takes verified bytes. Both are durable and atomic, and safe when the blob is there already."""

    def publish_bytes(self, digest: Digest, data: bytes | bytearray, /) -> None:
        """From memory."""

    def publish_resumable(self, digest: Digest, partial: ResumableFile, /) -> None:
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

    def __init__(self, digest: Digest, size_bytes: int, folder: ResumableFolder) -> None:
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

    def __init__(self, digest: Digest, partial: ResumableFile) -> None:
        self._digest = digest
        self._resumable = partial

    @property
    def offset(self) -> int:
        return self._resumable.offset

    def append(self, chunk: bytes | memoryview) -> None:
        self._resumable.append(chunk)

    def encoded(self) -> str:
        return self._resumable.hasher.hexdigest()

    def restart(self) -> None:
        self._resumable.restart()

    def publish(self, publisher: Publisher) -> None:
        publisher.publish_resumable(self._digest, self._resumable)
        self._resumable.close()

    def leave(self) -> None:
        self._resumable.leave()

    def discard(self) -> None:
        self._resumable.discard()


log = logging.getLogger(__name__)


class MultipartBody:
    """A :class:`registry_sync.blobs.resume.bodies.Body`; ``partial`` marks its hash at the end of each part."""

    def __init__(
        self,
        digest: Digest,
        size_bytes: int,
        partial: ResumableFile,
        parts: MultipartUpload,
        is_published: Callable[[], bool],
    ) -> None:
        self._digest = digest
        self._size_bytes = size_bytes
        self._resumable = partial
        self._parts = parts
        self._is_published = is_published
        self._part_bytes = parts.part_bytes
        self._stored: set[Part] = set()
        #: How many parts from the beginning are stored or being stored.
        self._sent_count = 0
        self._under_way: tuple[Part, Future[None]] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="blob-part")

    @classmethod
    def continuing(
        cls,
        digest: Digest,
        size_bytes: int,
        partial: ResumableFile,
        parts: MultipartUpload,
        is_published: Callable[[], bool],
    ) -> MultipartBody:
        """One that begins with everything that is in ``partial`` and in ``parts``."""
        body = cls(digest, size_bytes, partial, parts, is_published)
        try:
            body._take_over()
        except BaseException:
            partial.leave()
            raise
        return body

    @property
    def offset(self) -> int:
        return self._resumable.offset

    def append(self, chunk: bytes | memoryview) -> None:
        self._resumable.append(chunk)
        self._send()

    def encoded(self) -> str:
        return self._resumable.hasher.hexdigest()

    def restart(self) -> None:
        self._forget()
        self._resumable.restart()

    def publish(self, publisher: Publisher) -> None:
        try:
            self._publish(publisher)
        except BlobStoreFull:
            with contextlib.suppress(BlobStoreError):
                self.discard()
            raise
        try:
            self._parts.forget()
        except BlobStoreError as problem:
            log.warning(
                "blob %s is stored; parts of it that take room as well are removed by a later sweep: %s",
                self._digest,
                problem,
            )
        self._pool.shutdown()

    def _publish(self, publisher: Publisher) -> None:
        if self._parts.can_join:
            self._send()
            self._send_rest()
        self._settle()
        # Parts may be gone because another machine published the blob, or the store may not know how to join them.
        is_joined = self._parts.can_join and self._parts.join(map(self._part, self._numbers()), self._size_bytes)
        if is_joined or (self._parts.can_join and self._is_published()):
            self._resumable.discard()
        else:
            publisher.publish_resumable(self._digest, self._resumable)
            self._resumable.close()

    def leave(self) -> None:
        with contextlib.suppress(BlobStoreError):  # nothing was promised, and another error is on its way
            self._settle()
            if self._resumable.is_open:
                self._send_rest()
                self._settle()
        self._resumable.leave()
        self._pool.shutdown()

    def discard(self) -> None:
        try:
            self._forget()
        finally:
            self._resumable.discard()
            self._pool.shutdown()

    def _take_over(self) -> None:
        """Makes of what the store has and this machine lacks a part of the partial, as far as one follows another."""
        found = self._parts.found()
        self._stored = set(found)
        for part in found:
            offset = self._resumable.offset
            if part.begin <= offset < part.end <= self._size_bytes:
                data = self._parts.read(part, offset)
                if offset + len(data) == part.end and self._resumable.hasher.hexdigest_with(data) == part.prefix:
                    self._resumable.append(data)
                else:
                    self._stored.discard(part)

    def _numbers(self) -> range:
        """Of all parts that the bytes so far are divided into; the last may be shorter."""
        return range(-(-self._resumable.offset // self._part_bytes))

    def _part(self, number: int) -> Part:
        """The part of that number, of bytes that are there."""
        marks = self._resumable.hasher.marks
        begin = number * self._part_bytes
        if number < len(marks):
            return Part(begin, begin + self._part_bytes, marks[number])
        return Part(begin, self._resumable.offset, self._resumable.hasher.hexdigest())

    def _send(self) -> None:
        """Begins to store what is complete, one part at a time."""
        while self._sent_count < len(self._resumable.hasher.marks):
            self._store(self._part(self._sent_count))
            self._sent_count += 1

    def _send_rest(self) -> None:
        """Begins to store what follows the last complete part."""
        if self._resumable.offset % self._part_bytes:
            self._store(self._part(self._numbers()[-1]))

    def _store(self, part: Part) -> None:
        self._settle()
        if part not in self._stored:
            data = self._resumable.read(part.begin, part.end)
            self._under_way = part, self._pool.submit(self._parts.put, part, data)

    def _settle(self) -> None:
        """Waits for the part under way. Raises what storing it met; then it is stored again by the next call."""
        if self._under_way is None:
            return
        part, stored = self._under_way
        self._under_way = None
        try:
            stored.result()
        except BlobStoreFull:
            with contextlib.suppress(BlobStoreError):
                self.discard()
            raise
        except BlobStoreError:
            self._sent_count = min(self._sent_count, part.begin // self._part_bytes)
            raise
        self._stored.add(part)

    def _forget(self) -> None:
        with contextlib.suppress(BlobStoreError):  # of bytes that are not wanted any more
            self._settle()
        if self._stored:
            self._parts.forget()
        self._stored = set()
        self._sent_count = 0
