"""Blobs that are downloaded while the same task still reads manifests, the large ones first.

Only what the task would fetch next anyway, where nothing that is known later could forbid it: :meth:`BlobPrefetch.of`.
A download ends in the blob store and nowhere else. To plan, to record and to report is left to the stage that fetches
blobs, which finds the bytes or the error here; so a crash leaves stored bytes and nothing more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from heapq import heappop, heappush
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest
from registry_sync.domain.remote import Policy, RemoteSpec
from registry_sync.domain.runs import BLOB_OVERHEAD_BYTES, RequiredBlob, SyncRun
from registry_sync.errors import RegistrySyncError

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.oci.client import RegistryReader

#: So many blobs, or bytes, are claimed and started at once, and none while fewer wait: those are not worth a claim of
#: their own, nor the threads.
GROUP_COUNT, GROUP_BYTES = 200, 8 * 1024 * 1024
#: How long others wait at most for a blob that has come.
_RELEASED_EVERY_SECONDS = 2.0
#: In the place of the result while a blob is downloaded.
_RUNNING = -1


class BlobPrefetch:
    """Downloads between ``with`` and its end, which waits for those that run.

    ``most_work_bytes`` is how much work the task does, in bytes with an overhead for each blob: once more is known to
    be needed, other tasks do the rest. It takes at most half of the requests that the client makes at once, so that the
    manifests, which lead to more, are not kept waiting. None is started once ``is_over``.
    """

    def __init__(
        self,
        client: RegistryReader,
        store: BlobStore,
        database: Database,
        remote: RemoteSpec,
        *,
        most_work_bytes: int,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client, self._store, self._remote = client, store, remote
        self._is_over = is_over
        self._left_bytes = most_work_bytes
        self._claims = database.held_claims()
        self._pool = ThreadPoolExecutor(thread_name_prefix="prefetch", max_workers=remote.download_concurrency)
        self._changed = threading.Condition()
        self._seen: set[Digest] = set()
        self._waiting: list[tuple[int, Digest, str]] = []
        self._waiting_bytes = 0
        self._claimed: list[tuple[int, Digest, str]] = []
        self._is_claiming = False
        self._is_stopped = False
        self._thread_count = 0
        self._ended: list[Digest] = []
        self._released_at = monotonic()
        # By digest: the size that was expected, and the result.
        self._started: dict[Digest, tuple[int, int | BaseException | None]] = {}

    @classmethod
    def of(
        cls,
        client: RegistryReader,
        store: BlobStore,
        database: Database,
        run: SyncRun,
        remote: RemoteSpec,
        *,
        min_shard_bytes: int,
        is_over: Callable[[], bool] = lambda: False,
    ) -> BlobPrefetch:
        """That of a task which goes on to :func:`~registry_sync.sync.fetch_blobs.fetch_small_run`.

        It begins nothing where the policy leaves blobs for a pull, and where a sync that would store too much stops
        before its first download.
        """
        may_begin = run.policy is Policy.IMMEDIATE and remote.max_total_bytes is None
        most = 2 * min_shard_bytes if may_begin else 0
        return cls(client, store, database, remote, most_work_bytes=most, is_over=is_over)

    def __enter__(self) -> BlobPrefetch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._pool.shutdown()
        self._claims.__exit__(kind, problem, trace)
        for _, result in self._started.values():
            if kind is None and isinstance(result, BaseException) and not isinstance(result, RegistrySyncError):
                raise result

    def add(self, manifest: Manifest) -> None:
        """Takes note of a manifest that the sync has just read; may begin downloads of its blobs."""
        with self._changed:
            if self._is_stopped or self._left_bytes <= 0:
                return
            for _role, blob in manifest.blobs():
                self._add(blob)
            if self._left_bytes <= 0:  # other tasks take these
                self._waiting, self._waiting_bytes = [], 0
            self._start_threads()

    def _add(self, blob: Descriptor) -> None:
        if blob.digest in self._seen or blob.is_foreign or blob.known_bytes is not None:
            return
        if not blob.digest.is_verifiable:
            return
        self._seen.add(blob.digest)
        self._left_bytes -= blob.size_bytes + BLOB_OVERHEAD_BYTES
        heappush(self._waiting, (-blob.size_bytes, blob.digest, blob.media_type))
        self._waiting_bytes += blob.size_bytes

    def _has_group(self) -> bool:
        return len(self._waiting) >= GROUP_COUNT or self._waiting_bytes >= GROUP_BYTES

    def _start_threads(self) -> None:
        most = min(self._client.requests_at_once, self._remote.download_concurrency) // 2
        waiting_count = len(self._claimed) + (min(GROUP_COUNT, len(self._waiting)) if self._has_group() else 0)
        for _ in range(min(most, waiting_count) - self._thread_count):
            with suppress(RuntimeError):  # the system allows no more threads
                self._pool.submit(self._work)
                self._thread_count += 1

    def stop(self) -> None:
        """Begins no more. What runs can be waited for by :meth:`result`."""
        with self._changed:
            self._is_stopped = True
            while self._is_claiming:
                self._changed.wait()
            self._abandon()
        self._release()

    def _abandon(self) -> None:
        """Starts none of what was claimed or waits; the claims are for :meth:`_release`."""
        self._is_stopped = True
        self._ended += [digest for _, digest, _ in self._claimed]
        self._claimed, self._waiting, self._waiting_bytes = [], [], 0

    def has_result(self, blob: RequiredBlob) -> bool:
        """Whether :meth:`result` is what a download of ``blob`` would be now, or is about to be.

        Not where the store had it already, nor after a temporary failure, which may have passed since.
        """
        size_bytes, result = self._started.get(blob.digest, (None, None))
        has_passed = isinstance(result, RegistrySyncError) and result.is_temporary
        return size_bytes == blob.size_bytes and result is not None and not has_passed

    def started(self) -> set[Digest]:
        """The blobs that this process downloads, has downloaded, or has failed to."""
        with self._changed:
            return {digest for digest, (_, result) in self._started.items() if result is not None}

    def result(self, blob: RequiredBlob) -> int | None:
        """The bytes received of one that was started here, once it has ended; raises its error.

        None for one that the store had already.
        """
        with self._changed:
            while (result := self._started[blob.digest][1]) == _RUNNING:
                self._changed.wait()
        if isinstance(result, BaseException):
            raise result
        return result

    def _work(self) -> None:
        while (started := self._begin()) is not None:
            blob = Descriptor(started[2], started[1], -started[0])
            result: int | BaseException | None = None
            try:
                # What is stored already may be known to be broken.
                if not self._store.has(blob.digest, blob.size_bytes):
                    with self._store.writer(blob.digest, blob.size_bytes) as writer:
                        result = self._client.fetch_blob(self._remote.upstream, blob, writer)
            except BaseException as problem:  # noqa: BLE001  raised by who asks for the result
                result = problem
            self._end(blob, result)
        self._release()

    def _begin(self) -> tuple[int, Digest, str] | None:
        """The largest of a claimed group; None where this thread has nothing left to do."""
        with self._changed:
            while True:
                while self._is_claiming:
                    self._changed.wait()
                if self._is_stopped or self._is_over():
                    self._abandon()
                if not (self._claimed or self._has_group()):
                    self._thread_count -= 1
                    return None
                if not self._claimed:
                    self._claim_group()
                    continue
                size, digest, media_type = self._claimed.pop()
                self._started[digest] = -size, _RUNNING
                return size, digest, media_type

    def _claim_group(self) -> None:
        """Claims the largest that wait. Others do not wait for the database meanwhile, but who needs a claimed one."""
        group, size_bytes = list[tuple[int, Digest, str]](), 0
        while self._waiting and len(group) < GROUP_COUNT and size_bytes < GROUP_BYTES:
            group.append(heappop(self._waiting))
            size_bytes -= group[-1][0]
        self._waiting_bytes -= size_bytes
        ended, self._ended = self._ended, []
        self._is_claiming = True
        self._changed.release()
        try:
            self._claims.release(ended)
            others = self._claims.take_all(digest for _, digest, _ in group)
        finally:
            self._changed.acquire()
            self._is_claiming = False
            self._changed.notify_all()
        self._claimed = [one for one in reversed(group) if one[1] not in others]

    def _end(self, blob: Descriptor, result: int | BaseException | None) -> None:
        with self._changed:
            self._started[blob.digest] = blob.size_bytes, result
            self._ended.append(blob.digest)
            # Whether an error concerns others as well is judged where it is reported.
            if self._is_stopped or isinstance(result, BaseException):
                self._abandon()
            self._changed.notify_all()
            is_due = self._is_stopped or monotonic() >= self._released_at + _RELEASED_EVERY_SECONDS
        if is_due:
            self._release()

    def _release(self) -> None:
        with self._changed:
            ended, self._ended = self._ended, []
            self._released_at = monotonic()
        self._claims.release(ended)
