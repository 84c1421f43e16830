"""The bytes of a blob during its download: in memory, in a resumable file, or in a multipart upload; and their writer.

The writer is that of every store: it verifies the bytes; the store only publishes them.

Blobs up to :data:`SMALL_BYTES` are collected in memory and written to disk once, when they are complete or the writer
is closed: most blobs of most registries are configs and small layers, for which each system call counts. Larger ones
use a :class:`ResumableFile`.

A store of objects uses the same local file, so that processes of one machine wait for each other. Each complete part is
uploaded while the next one is written; a writer that is closed early uploads the rest as well. The next writer, on any
machine, reads from the store the parts that its machine lacks. Once all bytes are verified, the store joins the parts,
or the file is uploaded whole.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol

from registry_sync.blobs.resume.multipart_upload import MultipartUpload, Part
from registry_sync.blobs.resume.resumable_files import ResumableFile, ResumableFolder
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, BlobStoreFull, DigestMismatch, SizeMismatch, TruncatedBody

#: Up to this size a blob is kept in memory until it is complete.
SMALL_BYTES = 1024 * 1024


class Publisher(Protocol):
    """Publishes verified bytes, durably and atomically; safe when the blob exists already."""

    def publish_bytes(self, digest: Digest, data: bytes | bytearray, /) -> None:
        """Publishes a blob from memory."""

    def publish_resumable(self, digest: Digest, resumable: ResumableFile, /) -> None:
        """Publishes a resumable file and moves or removes it; the caller closes it."""


class Body(Protocol):
    """The bytes of one blob during its download, not verified. Publish, leave and discard end it."""

    @property
    def offset(self) -> int:
        """The number of bytes so far."""

    @property
    def path(self) -> Path | None:
        """The local file that has them; None for memory."""

    def append(self, chunk: bytes | memoryview) -> None:
        """Adds the next bytes."""

    def encoded(self) -> str:
        """The encoded part of the digest of the bytes."""

    def restart(self) -> None:
        """Drops the bytes."""

    def publish(self, publisher: Publisher) -> None:
        """Publishes the bytes."""

    def leave(self) -> None:
        """Keeps the bytes for the next writer."""

    def discard(self) -> None:
        """Drops the bytes, on disk and in the store too."""


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

    @property
    def path(self) -> None:
        return None

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
            with contextlib.suppress(BlobStoreError):  # keeping is best effort, and another error is being raised
                self._folder.keep(self._digest, self._data)

    def discard(self) -> None:
        self.restart()


class FileBody:
    """The bytes of a larger blob, in a resumable file."""

    def __init__(self, digest: Digest, resumable: ResumableFile) -> None:
        self._digest = digest
        self._resumable = resumable

    @property
    def offset(self) -> int:
        return self._resumable.offset

    @property
    def path(self) -> Path:
        return self._resumable.path

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
    """The bytes of a larger blob in a resumable file and a multipart upload, one part behind.

    ``resumable`` records its hash at the end of each part.
    """

    def __init__(
        self,
        digest: Digest,
        size_bytes: int,
        resumable: ResumableFile,
        parts: MultipartUpload,
        is_published: Callable[[], bool],
    ) -> None:
        self._digest = digest
        self._size_bytes = size_bytes
        self._resumable = resumable
        self._parts = parts
        self._is_published = is_published
        self._part_bytes = parts.part_bytes
        self._stored: set[Part] = set()
        #: How many parts from the start are uploaded or being uploaded.
        self._sent_count = 0
        self._running: tuple[Part, Future[None]] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="blob-part")

    @classmethod
    def resuming(
        cls,
        digest: Digest,
        size_bytes: int,
        resumable: ResumableFile,
        parts: MultipartUpload,
        is_published: Callable[[], bool],
    ) -> MultipartBody:
        """A body that resumes with the bytes in ``resumable`` and ``parts``."""
        body = cls(digest, size_bytes, resumable, parts, is_published)
        try:
            body._read_stored_parts()
        except BaseException:
            resumable.leave()
            raise
        return body

    @property
    def offset(self) -> int:
        return self._resumable.offset

    @property
    def path(self) -> Path:
        return self._resumable.path

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
                "blob %s is stored; its remaining parts, which use space, are removed by a later sweep: %s",
                self._digest,
                problem,
            )
        self._pool.shutdown()

    def _publish(self, publisher: Publisher) -> None:
        if self._parts.can_join:
            self._send()
            self._send_rest()
        self._settle()
        # Parts may be missing because another machine published the blob, or the store may not support joining.
        is_joined = self._parts.can_join and self._parts.join(map(self._part, self._numbers()), self._size_bytes)
        if is_joined or (self._parts.can_join and self._is_published()):
            self._resumable.discard()
        else:
            publisher.publish_resumable(self._digest, self._resumable)
            self._resumable.close()

    def leave(self) -> None:
        with contextlib.suppress(BlobStoreError):  # keeping is best effort, and another error is being raised
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

    def _read_stored_parts(self) -> None:
        """Appends to the resumable file the stored parts that this machine lacks, as far as they are contiguous."""
        found = self._parts.found()
        self._stored = set(found)
        for part in found:
            offset = self._resumable.offset
            if part.start <= offset < part.end <= self._size_bytes:
                data = self._parts.read(part, offset)
                if offset + len(data) == part.end and self._resumable.hasher.hexdigest_with(data) == part.prefix:
                    self._resumable.append(data)
                else:
                    self._stored.discard(part)

    def _numbers(self) -> range:
        """The numbers of all parts of the bytes so far; the last part may be shorter."""
        return range(-(-self._resumable.offset // self._part_bytes))

    def _part(self, number: int) -> Part:
        """The part with that number, which has been written."""
        marks = self._resumable.hasher.marks
        start = number * self._part_bytes
        if number < len(marks):
            return Part(start, start + self._part_bytes, marks[number])
        return Part(start, self._resumable.offset, self._resumable.hasher.hexdigest())

    def _send(self) -> None:
        """Starts to upload the complete parts, one at a time."""
        while self._sent_count < len(self._resumable.hasher.marks):
            self._store(self._part(self._sent_count))
            self._sent_count += 1

    def _send_rest(self) -> None:
        """Starts to upload the bytes after the last complete part."""
        if self._resumable.offset % self._part_bytes:
            self._store(self._part(self._numbers()[-1]))

    def _store(self, part: Part) -> None:
        self._settle()
        if part not in self._stored:
            data = self._resumable.read(part.start, part.end)
            self._running = part, self._pool.submit(self._parts.put, part, data)

    def _settle(self) -> None:
        """Waits for the running upload. Raises its error; the next call then uploads that part again."""
        if self._running is None:
            return
        part, stored = self._running
        self._running = None
        try:
            stored.result()
        except BlobStoreFull:
            with contextlib.suppress(BlobStoreError):
                self.discard()
            raise
        except BlobStoreError:
            self._sent_count = min(self._sent_count, part.start // self._part_bytes)
            raise
        self._stored.add(part)

    def _forget(self) -> None:
        with contextlib.suppress(BlobStoreError):  # its bytes are no longer wanted
            self._settle()
        if self._stored:
            self._parts.forget()
        self._stored = set()
        self._sent_count = 0


class VerifyingWriter:
    """A :class:`registry_sync.blobs.store.BlobWriter`; ``body`` None for a blob that is published already."""

    def __init__(self, digest: Digest, size_bytes: int, publisher: Publisher, body: Body | None) -> None:
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

    @property
    def is_published(self) -> bool:
        return self._is_published

    @property
    def path(self) -> Path | None:
        return self._body.path if self._body is not None else None

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
            raise DigestMismatch(f"blob {self._digest} has other bytes: {got}", digest=self._digest, got=got)
        self._body.publish(self._publisher)
        self._body = None
        self._is_published = True

    def discard(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.discard()


def open_writer(
    digest: Digest,
    size_bytes: int,
    folder: ResumableFolder,
    publisher: Publisher,
    is_published: Callable[[], bool],
    *,
    parts: MultipartUpload | None = None,
) -> VerifyingWriter:
    """A writer that resumes the download in ``folder``; calls ``is_published`` after waiting for another writer.

    With ``parts``, the bytes are also uploaded there, and uploaded parts are resumed. Raises
    :class:`UnsupportedDigest`.
    """
    body: Body | None = None
    mark_bytes = parts.part_bytes if parts is not None else None
    if size_bytes <= SMALL_BYTES:
        digest.hasher()
        body = MemoryBody(digest, size_bytes, folder)
    elif (resumable := folder.acquire(digest, size_bytes, is_published, mark_bytes)) is not None:
        if parts is None:
            body = FileBody(digest, resumable)
        else:
            body = MultipartBody.resuming(digest, size_bytes, resumable, parts, is_published)
    return VerifyingWriter(digest, size_bytes, publisher, body)


def published_writer(digest: Digest, size_bytes: int, publisher: Publisher) -> VerifyingWriter:
    """A writer of a published blob: it requires no bytes, and its commit does nothing."""
    return VerifyingWriter(digest, size_bytes, publisher, None)
