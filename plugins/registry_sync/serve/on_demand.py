"""Blobs that the store lacks, fetched at a pull from the remote that they came from.

One download serves everybody who asks meanwhile: in this process by :class:`BlobDownload`, in others by a claim in the
metadata database. A process without the claim reads what another one of its machine has downloaded so far, or waits
until the blob is stored; when the holder of the claim dies, it takes the download over and resumes it. Of whose
download it sees nothing for :data:`UNSEEN_SECONDS`, it waits for no longer. A download goes on when its clients leave,
unless it is not kept. docs/adr/0041-blobs-at-the-first-pull.md has the reasons.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachetools import TTLCache

from registry_sync.blobs.store import BlobStore, BlobWriter
from registry_sync.db.database import Database
from registry_sync.db.held_claims import HeldClaims
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.remote import Policy, RemoteSpec
from registry_sync.domain.serving import PublishedVersion
from registry_sync.errors import (
    BlobStoreError,
    ContentError,
    DatabaseError,
    DigestMismatch,
    NotFound,
    RegistryError,
    RegistrySyncError,
    TruncatedBody,
)
from registry_sync.serve.downloads import BlobDownload, BlobReader, DownloadAbandoned, DownloadWriter
from registry_sync.serve.replies import PullError, unavailable

if TYPE_CHECKING:
    from registry_sync.hooks.pull_clients import OpenPullClient, PullClient

_log = logging.getLogger(__name__)
#: Downloads of one process at a time: those that are kept, and those that are not.
MOST_KEPT, MOST_STREAMED = 16, 16
#: Bytes in memory of a download that goes to one client alone.
_ALONE_BYTES = 512 * 1024
#: Downloads that may wait for their turn.
MOST_WAITING = 256
#: How long a client waits for the first byte. The download goes on.
FIRST_BYTE_SECONDS = 30.0
_POLL_SECONDS = 0.05
#: How long a pull waits for another process of which no byte is seen: a sync claims many blobs, and begins a few.
UNSEEN_SECONDS = 10.0
#: A failure is repeated to clients for this long without asking the upstream again.
_REMEMBERED_SECONDS = 5.0
#: Registries of which a process keeps connections and tokens, and for how long: credentials may change.
_MOST_CLIENTS, _CLIENT_SECONDS = 32, 300.0


@dataclass
class BlobFetch:
    """What a pull needs that the store lacks: ``sources`` in the order to try, ``descriptor`` what to ask them for."""

    descriptor: Descriptor
    sources: tuple[RemoteSpec, ...]
    name: str
    is_damaged: bool

    @property
    def is_kept(self) -> bool:
        return self.sources[0].policy is not Policy.STREAMED


class _Clients:
    """Clients of remotes. An expired one is used on by the downloads that have it."""

    def __init__(self, open_client: OpenPullClient) -> None:
        self._open = open_client
        self._found: TTLCache[str, PullClient] = TTLCache(_MOST_CLIENTS, _CLIENT_SECONDS)
        self._lock = threading.Lock()

    def of(self, remote: RemoteSpec) -> PullClient:
        """Opens one at a time: looking up a connection may take seconds of a processor."""
        with self._lock:
            client = self._found.get(_key(remote))
            if client is None:
                client = self._found[_key(remote)] = self._open(remote)
            return client

    def forget(self, remote: RemoteSpec) -> None:
        """The next download opens a new one."""
        with self._lock:
            self._found.pop(_key(remote), None)


def _key(remote: RemoteSpec) -> str:
    return repr(sorted(remote.document().items()))


class _Failures:
    """What could not be fetched a moment ago."""

    def __init__(self) -> None:
        self._found: TTLCache[Digest, Exception] = TTLCache(1000, _REMEMBERED_SECONDS)
        self._lock = threading.Lock()

    def add(self, digest: Digest, problem: Exception) -> None:
        with self._lock:
            self._found[digest] = problem

    def get(self, digest: Digest) -> Exception | None:
        with self._lock:
            return self._found.get(digest)


class OnDemand:
    """Fetches for the pulls of one process. Used on its event loop; the work is done by threads.

    ``count`` is called with ``miss`` for each pull of a blob that is not stored, ``fetch`` for each download that an
    upstream is asked for, ``failure`` for each that failed, and ``bytes`` with the number of bytes received.
    """

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        open_client: OpenPullClient,
        *,
        count: Callable[[str, int], None] = lambda _event, _amount: None,
        first_byte_seconds: float = FIRST_BYTE_SECONDS,
    ) -> None:
        self._database = database
        self._store = store
        self._clients = _Clients(open_client)
        self._count = count
        self._first_byte_seconds = first_byte_seconds
        self._claims = HeldClaims(database)
        self._kept = ThreadPoolExecutor(MOST_KEPT, thread_name_prefix="on-demand")
        self._streamed = ThreadPoolExecutor(MOST_STREAMED, thread_name_prefix="streamed")
        self._shared: dict[Digest, BlobDownload] = {}
        self._alone: set[BlobDownload] = set()
        self._failures = _Failures()

    def close(self) -> None:
        """Ends the downloads; what they have is resumed by the next pull."""
        for download in (*self._shared.values(), *self._alone):
            download.abandon()
        for threads in (self._kept, self._streamed):
            threads.shutdown(wait=False, cancel_futures=True)
        self._claims.close()

    def plan(self, version: PublishedVersion, digest: Digest, *, is_damaged: bool = False) -> BlobFetch | None:
        """How a blob that the version holds can be fetched; None when it comes from nowhere. Asks the database."""
        record = self._database.blob_checks.records([digest]).get(digest)
        sources = self._database.blob_checks.sources_for(version.repository_id, digest)
        if record is not None and record.is_foreign:
            sources = tuple(remote for remote in sources if remote.include_foreign_layers)
        if record is None or not sources or not digest.is_verifiable:
            return None
        descriptor = Descriptor(record.media_type, digest, record.size_bytes)
        described = self._database.contents.descriptors([digest]).get(digest)
        if described is not None and (record.is_foreign or described.inline is not None):
            descriptor = described
        return BlobFetch(descriptor, sources, version.name, is_damaged)

    async def read(self, fetch: BlobFetch, offset: int, length: int) -> BlobReader | None:
        """A reader of the blob once its bytes come; None when the store has it meanwhile. Raises :class:`PullError`."""
        digest = fetch.descriptor.digest
        self._count("miss", 1)
        if (problem := self._failures.get(digest)) is not None:
            raise _refusal(problem)
        download = self._shared.get(digest)
        if download is None or not download.can_join():
            download = self._start(fetch)
        reader = download.reader(offset, length)
        is_wanted = False
        try:
            has_started = await download.started(self._first_byte_seconds)
            is_wanted = has_started and download.problem is None and not download.is_stored
        finally:
            if not is_wanted:
                reader.close()
        if not has_started:
            raise unavailable("the registry that this blob comes from takes long; try again", 10)
        if download.problem is not None:
            raise _refusal(download.problem)
        return None if download.is_stored else reader

    def _start(self, fetch: BlobFetch) -> BlobDownload:
        digest = fetch.descriptor.digest
        is_shared = fetch.is_kept and digest not in self._shared
        if len(self._shared) >= MOST_KEPT + MOST_WAITING or (not is_shared and len(self._alone) >= MOST_STREAMED):
            raise unavailable("too many downloads are under way; try again", 10)
        if is_shared:
            download = self._shared[digest] = BlobDownload(digest, fetch.descriptor.size_bytes)
        else:
            download = BlobDownload(digest, fetch.descriptor.size_bytes, window_bytes=_ALONE_BYTES)
            self._alone.add(download)
        try:
            (self._kept if is_shared else self._streamed).submit(self._run, fetch, download)
        except RuntimeError:
            raise unavailable("the server is being stopped", 5) from None
        return download

    def _run(self, fetch: BlobFetch, download: BlobDownload) -> None:
        digest = fetch.descriptor.digest
        is_shared = self._shared.get(digest) is download
        problem: Exception | None = None
        is_stored = False
        try:
            if is_shared:
                is_stored = self._fetch_once(fetch, download)
            else:
                self._fetch_from_sources(fetch, download, DownloadWriter(download, None, _ignore))
        except DownloadAbandoned:
            problem = unavailable("the server is being stopped, or the client has gone", 5)
        except Exception as error:  # noqa: BLE001 - the thread ends here, and the clients hear of it
            problem = error
            _log.error("blob %s of %s could not be fetched: %s", digest, fetch.name, error)
            if is_shared:
                self._failures.add(digest, error)
        finally:
            if is_shared:
                self._shared.pop(digest, None)
            self._alone.discard(download)
            download.end(problem, is_stored=is_stored)

    def _fetch_once(self, fetch: BlobFetch, download: BlobDownload) -> bool:
        """Whether another process stored the blob meanwhile and it is to be read from the store."""
        digest = fetch.descriptor.digest
        following, ends_at = _Following(self._store, download), time.monotonic() + UNSEEN_SECONDS
        while not self._claims.take(digest):
            if following.has_all():
                return False
            if not download.offset and time.monotonic() >= ends_at:
                break
            time.sleep(_POLL_SECONDS)
        try:
            if following.has_all():
                return False
            if self._store.has(digest, fetch.descriptor.size_bytes):  # stored just before its claim ended
                return True
            return self._fetch_and_keep(fetch, download)
        finally:
            self._claims.release([digest])

    def _fetch_and_keep(self, fetch: BlobFetch, download: BlobDownload) -> bool:
        """Downloads into the store; True when a sync stored the blob meanwhile."""
        digest, size = fetch.descriptor.digest, fetch.descriptor.size_bytes
        with self._writer(fetch) as kept:
            if kept is not None and kept.is_published:
                return True
            if download.offset:
                download.restart()

            def lost(problem: BlobStoreError) -> None:
                _log.error("blob %s is served but cannot be stored: %s", digest, problem)

            writer = DownloadWriter(download, kept, lost)
            writer.resume()
            remote = self._fetch_from_sources(fetch, download, writer)
            if writer.is_kept:
                self._record(digest, size, remote, is_foreign=bool(fetch.descriptor.urls))
        return False

    def _writer(self, fetch: BlobFetch) -> AbstractContextManager[BlobWriter | None]:
        digest, size = fetch.descriptor.digest, fetch.descriptor.size_bytes
        try:
            return self._store.writer(digest, size, replaces=fetch.is_damaged)
        except BlobStoreError as problem:
            _log.error("blob %s is served but cannot be stored: %s", digest, problem)
            return nullcontext(None)

    def _fetch_from_sources(self, fetch: BlobFetch, download: BlobDownload, writer: DownloadWriter) -> RemoteSpec:
        """The remote that has the blob. Raises the error that most speaks for a try later."""
        problems: list[RegistrySyncError] = []
        for remote in fetch.sources:
            self._count("fetch", 1)
            try:
                received = self._clients.of(remote).fetch_blob(remote.upstream, fetch.descriptor, writer)
            except (DatabaseError, BlobStoreError):
                raise
            except RegistrySyncError as problem:
                _log.warning("blob %s cannot be fetched from %s: %s", download.digest, remote.source, problem)
                problems.append(problem)
                self._count("failure", 1)
                if isinstance(problem, RegistryError) and problem.status in (401, 403):
                    self._clients.forget(remote)
                if isinstance(problem, ContentError) and not problem.is_temporary:
                    writer.restart()  # wrong bytes are kept for nobody
            else:
                self._count("bytes", received)
                return remote
        raise next(
            (problem for problem in problems if problem.is_temporary),
            next((problem for problem in problems if not isinstance(problem, NotFound)), problems[0]),
        )

    def _record(self, digest: Digest, size_bytes: int, remote: RemoteSpec, *, is_foreign: bool) -> None:
        """Notes that the blob is stored; the next sync finds it out as well."""
        _log.info("blob %s, %d bytes, is stored from %s", digest, size_bytes, remote.source)
        try:
            self._database.contents.mark_stored([digest], source=None if is_foreign else remote.source)
            self._database.blob_checks.mark_verified([digest], utc_now())
        except DatabaseError as problem:
            _log.warning("blob %s is stored, and the database cannot be told so now: %s", digest, problem)


class _Following:
    """Another process downloads the blob: what it has in a file of this machine is read as it grows."""

    def __init__(self, store: BlobStore, download: BlobDownload) -> None:
        self._path = store.resumable_path(download.digest)
        self._download = download
        self._has_file = False

    def has_all(self) -> bool:
        """Whether all bytes are read, and right; reads what is new."""
        download = self._download
        if not self._has_file:
            with suppress(OSError):
                download.use_file(self._path)
                self._has_file = True
        if not self._has_file:
            return False
        size = download.file_size
        if size < download.offset:  # it began again
            download.restart()
            self._has_file = False
            return False
        with suppress(TruncatedBody, DigestMismatch):
            download.append_from_file(min(size, download.size_bytes))
            download.verify()
            return True
        return False


def _ignore(_problem: BlobStoreError) -> None:
    """For what is not kept."""


def _refusal(problem: Exception) -> PullError:
    """What clients are answered with; the log says more."""
    if isinstance(problem, PullError):
        return problem
    if isinstance(problem, NotFound):
        return PullError(404, "BLOB_UNKNOWN", "the registry that this blob comes from does not have it any more")
    if isinstance(problem, RegistrySyncError) and problem.is_temporary:
        wanted = problem.retry_after_seconds if isinstance(problem, RegistryError) else None
        return unavailable("the registry that this blob comes from does not respond now; try again", wanted or 10)
    if isinstance(problem, ContentError):
        return unavailable("the registry that this blob comes from sends other bytes", 60, status=502)
    return unavailable("the registry that this blob comes from cannot be read", 60, status=502)
