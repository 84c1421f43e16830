"""Time that tests advance, a place for blobs in memory, and what a registry holds, for tests of its client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.references import RepositoryName
from registry_sync.errors import DigestMismatch, SizeMismatch, TruncatedBody
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.http.options import Clock
from support.hostile_registry import Raw, reply

REPOSITORY = RepositoryName("library/demo")
#: A blob of it, and where it and the list of tags are.
DATA = b"0123456789" * 1000
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))
PATH = f"/v2/{REPOSITORY}/blobs/{BLOB.digest}"
TAGS = f"/v2/{REPOSITORY}/tags/list"
#: Of a client that needs no challenge.
READY = Credentials(registry_token="ready-token")


def moved(location: str, status: int = 307) -> Raw:
    """A redirect."""
    return reply(status, b"moved", [("Location", location)])


@dataclass
class FakeTime:
    """Time that passes by sleeping only, beside what is added to ``elapsed``."""

    elapsed: float = 1000.0
    now: float = 1_800_000_000.0
    sleeps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.elapsed += seconds
        self.now += seconds

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.elapsed, now=lambda: self.now, sleep=self.sleep)


class SharedTime:
    """Time of several threads, which passes only while all that are :meth:`at_work` sleep, however busy the machine is.

    No thread that is at work may wait for another one but by the clock.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._elapsed = 1000.0
        self._at_work_count = 0
        self._wakes_at: list[float] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Around what one thread does."""
        with self._changed:
            self._at_work_count += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work_count -= 1
                self._pass()

    def wait(self, condition: threading.Condition) -> None:
        """Until ``condition`` is notified, and meanwhile not at work."""
        with self._changed:
            self._at_work_count -= 1
            self._pass()
        condition.wait()
        with self._changed:
            self._at_work_count += 1

    def sleep(self, seconds: float) -> None:
        with self._changed:
            until = self._elapsed + seconds
            self._wakes_at.append(until)
            self._pass()
            while self._elapsed < until:
                self._changed.wait()
            self._wakes_at.remove(until)

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self._elapsed, now=lambda: self._elapsed, sleep=self.sleep, wait=self.wait)

    def _pass(self) -> None:
        if self._wakes_at and len(self._wakes_at) >= self._at_work_count:
            self._elapsed = max(self._elapsed, min(self._wakes_at))
            self._changed.notify_all()


class MemoryWriter:
    """A blob writer in memory that verifies like a store; ``published`` is what was committed."""

    def __init__(self, blob: Descriptor, already: bytes = b"") -> None:
        self.blob = blob
        self.data = bytearray(already)
        self.published: bytes | None = None
        self.restart_count = 0

    @property
    def offset(self) -> int:
        return len(self.data)

    def write(self, chunk: bytes | memoryview, /) -> None:
        if len(self.data) + len(chunk) > self.blob.size_bytes:
            raise SizeMismatch("past the expected size", digest=self.blob.digest)
        self.data += chunk

    def restart(self) -> None:
        self.restart_count += 1
        self.data.clear()

    def commit(self) -> None:
        if len(self.data) < self.blob.size_bytes:
            raise TruncatedBody("short", digest=self.blob.digest)
        if not self.blob.digest.matches(bytes(self.data)):
            self.data.clear()
            raise DigestMismatch("other bytes", digest=self.blob.digest)
        self.published = bytes(self.data)

    def discard(self) -> None:
        self.data.clear()
