"""The bytes of a blob of several parts: in a partial of this machine, and part by part in the store.

The partial is as on a file system, so that processes of one machine wait for each other. Each part that is complete is
stored while the next one is written; a writer that is left stores the rest as well. The next writer, wherever it is,
finds what its own machine lacks in the store. When all is there and verified, the store joins the parts, or is
given the partial.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from registry_sync.blobs.bodies import Publisher
from registry_sync.blobs.partial_file import Partial
from registry_sync.blobs.parts import Part, Parts
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, BlobStoreFull

log = logging.getLogger(__name__)


class PartedBody:
    """A :class:`registry_sync.blobs.bodies.Body`; ``partial`` marks its hash at the end of each part."""

    def __init__(
        self, digest: Digest, size_bytes: int, partial: Partial, parts: Parts, is_published: Callable[[], bool]
    ) -> None:
        self._digest = digest
        self._size_bytes = size_bytes
        self._partial = partial
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
        cls, digest: Digest, size_bytes: int, partial: Partial, parts: Parts, is_published: Callable[[], bool]
    ) -> PartedBody:
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
        return self._partial.offset

    def append(self, chunk: bytes | memoryview) -> None:
        self._partial.append(chunk)
        self._send()

    def encoded(self) -> str:
        return self._partial.hasher.hexdigest()

    def restart(self) -> None:
        self._forget()
        self._partial.restart()

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
            self._partial.discard()
        else:
            publisher.publish_partial(self._digest, self._partial)
            self._partial.close()

    def leave(self) -> None:
        with contextlib.suppress(BlobStoreError):  # nothing was promised, and another error is on its way
            self._settle()
            if self._partial.is_open:
                self._send_rest()
                self._settle()
        self._partial.leave()
        self._pool.shutdown()

    def discard(self) -> None:
        try:
            self._forget()
        finally:
            self._partial.discard()
            self._pool.shutdown()

    def _take_over(self) -> None:
        """Makes of what the store has and this machine lacks a part of the partial, as far as one follows another."""
        found = self._parts.found()
        self._stored = set(found)
        for part in found:
            offset = self._partial.offset
            if part.begin <= offset < part.end <= self._size_bytes:
                data = self._parts.read(part, offset)
                if offset + len(data) == part.end and self._partial.hasher.hexdigest_with(data) == part.prefix:
                    self._partial.append(data)
                else:
                    self._stored.discard(part)

    def _numbers(self) -> range:
        """Of all parts that the bytes so far are divided into; the last may be shorter."""
        return range(-(-self._partial.offset // self._part_bytes))

    def _part(self, number: int) -> Part:
        """The part of that number, of bytes that are there."""
        marks = self._partial.hasher.marks
        begin = number * self._part_bytes
        if number < len(marks):
            return Part(begin, begin + self._part_bytes, marks[number])
        return Part(begin, self._partial.offset, self._partial.hasher.hexdigest())

    def _send(self) -> None:
        """Begins to store what is complete, one part at a time."""
        while self._sent_count < len(self._partial.hasher.marks):
            self._store(self._part(self._sent_count))
            self._sent_count += 1

    def _send_rest(self) -> None:
        """Begins to store what follows the last complete part."""
        if self._partial.offset % self._part_bytes:
            self._store(self._part(self._numbers()[-1]))

    def _store(self, part: Part) -> None:
        self._settle()
        if part not in self._stored:
            data = self._partial.read(part.begin, part.end)
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
