"""The writer of every store: it verifies the bytes; the store only publishes them."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from registry_sync.blobs.resume.bodies import SMALL_BYTES, Body, FileBody, MemoryBody, MultipartBody, Publisher
from registry_sync.blobs.resume.multipart_upload import MultipartUpload
from registry_sync.blobs.resume.resumable_files import ResumableFolder
from registry_sync.domain.digests import Digest
from registry_sync.errors import DigestMismatch, SizeMismatch, TruncatedBody


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
