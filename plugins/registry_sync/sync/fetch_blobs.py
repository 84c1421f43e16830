"""The fourth stage: the bytes of one shard's blobs, each verified while it is written, then recorded as stored.

A blob that exists is not fetched; an incomplete download is resumed. A blob that cannot be fetched is recorded with the
reason, and the commit holds the tags that reference it; the others continue.

A task costs about half a second from trigger to end whatever it does, so that separate tasks for planning and fetching
pay off only for more than a small run (see docs/adr).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from itertools import chain, takewhile
from operator import add
from typing import TYPE_CHECKING, Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.quantities import format_bytes, format_count
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import RequiredBlob, SyncRun
from registry_sync.errors import RegistrySyncError
from registry_sync.sync.parallel import Progress, for_each, requests_at_once, warn
from registry_sync.sync.plan_blobs import BlobsPlanned, missing_blobs
from registry_sync.sync.verdicts import Refusals, Verdict, reason, verdict

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore, BlobWriter
    from registry_sync.db.database import Database
    from registry_sync.db.held_claims import HeldClaims
    from registry_sync.domain.packed_blobs import PackedBlobs
    from registry_sync.oci.client import RegistryReader
    from registry_sync.sync.blob_prefetch import BlobPrefetch


#: Finished blobs are recorded in the database in groups of this many, or after this many seconds.
RECORD_COUNT = 500
RECORD_SECONDS = 2.0
#: Claims on downloads are taken for so many blobs at once, or of so many bytes.
CLAIMED_COUNT, CLAIMED_BYTES = 200, 64 * 1024 * 1024


@dataclass
class BlobsFetched:
    """Counts of one shard: blobs that were fetched, their bytes over the network, blobs found, blobs failed."""

    fetched_count: int = 0
    received_bytes: int = 0
    found_count: int = 0
    failed_count: int = 0

    def __add__(self, other: BlobsFetched) -> BlobsFetched:
        return BlobsFetched(*map(add, astuple(self), astuple(other)))

    def __str__(self) -> str:
        text = f"{format_count(self.fetched_count, 'blob')}, {format_bytes(self.received_bytes)}"
        return f"{text}, {self.failed_count:,} failed" if self.failed_count else text


@dataclass
class _StoredRecords:
    """Digests that are stored and not yet recorded in the database, by the source of their bytes."""

    database: Database
    claims: HeldClaims
    pending: dict[str | None, list[Digest]] = field(default_factory=dict)
    recorded_at: float = field(default_factory=time.monotonic)

    def add(self, digest: Digest, source: str | None) -> None:
        waiting = self.pending.setdefault(source, [])
        waiting.append(digest)
        if len(waiting) >= RECORD_COUNT or time.monotonic() - self.recorded_at >= RECORD_SECONDS:
            self.flush()

    def flush(self) -> None:
        while self.pending:
            source, digests = next(iter(self.pending.items()))
            self.database.contents.mark_stored(digests, source=source)
            self.claims.release(digests)
            del self.pending[source]
        self.recorded_at = time.monotonic()


def fetch_blobs(
    client: RegistryReader,
    store: BlobStore,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    shard: int,
    is_last_try: bool,
    report: Callable[[str], None],
    came_from: str | None = None,
) -> BlobsFetched:
    """Fetches the pending blobs of ``shard``, largest first, then those of other shards that no task has started.

    So the last task is not waited for while others could help. In its last try a task takes over none: what fails for
    now is left to the tries of the others.

    ``came_from`` is recorded as the source of their bytes, None for the remote's.

    Temporary failures are raised after everything else was done; on the last try they are recorded instead. Errors that
    affect every blob are raised at once: a full store, a lost database, refused credentials.
    """
    database.runs.give_back_blobs(run.id, shard)
    counts, retry, is_left = BlobsFetched(), list[RegistrySyncError](), True
    while is_left:
        while taken := database.runs.take_blobs(run.id, shard, may_take_over=not is_last_try):
            if taken.shard != shard:
                report(f"taking over {format_count(len(taken.blobs), 'blob')} of another task")
            counts += _fetch_all(
                client,
                store,
                database,
                run,
                remote,
                blobs=taken.blobs,
                is_last_try=is_last_try,
                report=report,
                came_from=came_from,
                retry=retry,
            )
        # An earlier try that ends only now may have started some meanwhile, and nobody else would fetch them.
        is_left = not retry and database.runs.give_back_blobs(run.id, shard)
    if retry:
        raise retry[-1]
    return counts


def _fetch_all(
    client: RegistryReader,
    store: BlobStore,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    blobs: PackedBlobs,
    is_last_try: bool,
    report: Callable[[str], None],
    came_from: str | None = None,
    is_over: Callable[[], bool] = lambda: False,
    retry: list[RegistrySyncError],
    prefetch: BlobPrefetch | None = None,
) -> BlobsFetched:
    """As :func:`fetch_blobs`, for these; none is begun once ``is_over``. Adds temporary failures to ``retry``."""
    with database.held_claims() as claims:
        return _fetch_claimed(
            client,
            store,
            database,
            run,
            remote,
            claims=claims,
            blobs=blobs.largest_first(),
            is_last_try=is_last_try,
            report=report,
            came_from=came_from,
            is_over=is_over,
            retry=retry,
            prefetch=prefetch,
        )


def _fetch_claimed(
    client: RegistryReader,
    store: BlobStore,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    claims: HeldClaims,
    blobs: PackedBlobs,
    is_last_try: bool,
    report: Callable[[str], None],
    came_from: str | None,
    is_over: Callable[[], bool],
    retry: list[RegistrySyncError],
    prefetch: BlobPrefetch | None,
) -> BlobsFetched:
    started = set() if prefetch is None else {blob.digest for blob in blobs if prefetch.has_result(blob)}
    counts, records = BlobsFetched(), _StoredRecords(database, claims)
    progress = Progress(report, "blob", len(blobs), sum(blobs.sizes_bytes))
    described = database.contents.descriptors(blob.digest for blob in blobs)
    failures: dict[Digest, str] = {}

    def done(blob: RequiredBlob, received_bytes: int | None) -> None:
        counts.fetched_count += received_bytes is not None
        counts.found_count += received_bytes is None
        counts.received_bytes += received_bytes or 0
        # Foreign layers come from another host; blobs that were found came at another time.
        records.add(blob.digest, None if received_bytes is None or blob.is_foreign else came_from or remote.source)
        progress.add(1, blob.size_bytes, 0 if blob.digest in started else received_bytes or 0)

    refusals = Refusals(client, remote, lambda: database.runs.listed_digests(run.id))

    def failed(blob: RequiredBlob, error: RegistrySyncError) -> None:
        error = refusals.settled(error, blob.digest)
        decision = verdict(error, is_last_try=is_last_try)
        if decision is Verdict.FATAL:
            raise error
        claims.release([blob.digest])
        warn(report, f"blob {blob.digest}: {reason(error)}")
        if decision is Verdict.RETRY:
            retry.append(error)
            return
        failures[blob.digest] = reason(error)
        counts.failed_count += 1
        progress.add(1)

    def fetch_all(some: Iterable[RequiredBlob]) -> None:
        try:
            for_each(
                lambda blob: _fetch(
                    client,
                    store,
                    remote,
                    blob,
                    described.get(blob.digest),
                    receive=progress.receive,
                    prefetch=prefetch if blob.digest in started else None,
                ),
                takewhile(lambda _blob: not is_over(), some),
                threads=requests_at_once(client, remote),
                done=done,
                failed=failed,
                idle=progress.report,
            )
        finally:
            records.flush()

    others: list[RequiredBlob] = []
    left = [blob for blob in blobs if blob.digest not in started] if started else blobs
    fetch_all(chain(_claimed(claims, left, others), (blob for blob in blobs if blob.digest in started)))
    # Nothing is held while others are waited for, lest they wait for this one.
    for ready in claims.awaited(others, lambda blob: blob.digest, is_over):
        fetch_all(ready)
        claims.release(blob.digest for blob in ready)
    database.runs.fail_blobs(run.id, failures)
    progress.finish()
    return counts


def _claimed(claims: HeldClaims, blobs: Sequence[RequiredBlob], others: list[RequiredBlob]) -> Iterator[RequiredBlob]:
    """Those of ``blobs`` that no other process fetches, with their claims; the rest is added to ``others``.

    Claims are taken for a group at a time: one by one they would cost more than a small blob, and all at once would
    keep others from what is not begun.
    """
    group: list[RequiredBlob] = []
    size_bytes = 0
    for number, blob in enumerate(blobs, 1):
        group.append(blob)
        size_bytes += blob.size_bytes
        if number == len(blobs) or len(group) >= CLAIMED_COUNT or size_bytes >= CLAIMED_BYTES:
            taken = claims.take_all(one.digest for one in group)
            others += [one for one in group if one.digest in taken]
            yield from (one for one in group if one.digest not in taken)
            group, size_bytes = [], 0


class _Counted:
    """A writer that reports the count of bytes written through it."""

    def __init__(self, writer: BlobWriter, receive: Callable[[int], None]) -> None:
        self._writer, self._receive = writer, receive

    def write(self, chunk: bytes | memoryview) -> None:
        self._writer.write(chunk)
        self._receive(len(chunk))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


def _fetch(
    client: RegistryReader,
    store: BlobStore,
    remote: RemoteSpec,
    blob: RequiredBlob,
    described: Descriptor | None,
    *,
    receive: Callable[[int], None],
    prefetch: BlobPrefetch | None = None,
) -> int | None:
    """Bytes received for ``blob``, None when the store has it; ``described`` is the document's descriptor.

    With ``prefetch`` those that were received there, unless a garbage collection, which it is planned for only now, has
    removed them.
    """
    received = None if prefetch is None else prefetch.result(blob)
    if not blob.is_broken and store.has(blob.digest, blob.size_bytes):
        return received
    if described is None or not (blob.is_foreign or described.inline is not None):
        # Another manifest's URLs are not for a blob that the registry itself distributes.
        described = Descriptor(blob.media_type, blob.digest, blob.size_bytes)
    descriptor = described
    with store.writer(blob.digest, blob.size_bytes, replaces=blob.is_broken) as writer:
        return client.fetch_blob(remote.upstream, descriptor, _Counted(writer, receive))


def fetch_small_run(
    client: RegistryReader,
    store: BlobStore,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    min_shard_bytes: int | None,
    is_last_try: bool,
    report: Callable[[str], None],
    on_plan: Callable[[BlobsPlanned], None] = lambda _planned: None,
    is_over: Callable[[], bool] = lambda: False,
    prefetch: BlobPrefetch | None = None,
) -> BlobsFetched | None:
    """Fetches all missing blobs of ``run`` if they would not make two shards; else returns None and does nothing.

    ``on_plan`` gets what is to be fetched and what is stored, before the first download. With ``min_shard_bytes`` None
    it fetches them whatever their size. Only when the manifests of all tags were fetched, because it must know all
    blobs of the run. None is begun once ``is_over``. Those that ``prefetch`` has started are its results, and count as
    fetched here.
    """
    if prefetch is not None:
        prefetch.stop()
    started = frozenset[Digest]() if prefetch is None else prefetch.started()
    missing, planned = missing_blobs(store, database, run, started=started)
    if min_shard_bytes is not None and missing.work_bytes >= 2 * min_shard_bytes:
        return None
    report(str(planned))
    on_plan(planned)
    # The plan protects the content from garbage collection, and is the basis of the run's counts and the commit.
    database.runs.record_plan(run.id, ((0, blob) for blob in missing))
    retry: list[RegistrySyncError] = []
    fetched = _fetch_all(
        client,
        store,
        database,
        run,
        remote,
        blobs=missing,
        is_last_try=is_last_try,
        report=report,
        is_over=is_over,
        retry=retry,
        prefetch=prefetch,
    )
    if retry:
        raise retry[-1]
    return fetched
