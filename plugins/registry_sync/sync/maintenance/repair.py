"""Repair: fetches lost blobs again from the remotes of the repositories that hold them.

The remote that the bytes came from is tried first, then the others, until one of them has the blob. Bytes are verified
while they are written, so that a repair cannot make things worse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.quantities import format_bytes, format_count, utc_now
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.storage_reports import Amount, BlobRecord, Repair
from registry_sync.errors import BlobStoreError, BlobStoreFull, DatabaseError, RegistrySyncError
from registry_sync.sync.parallel import Progress, for_each, requests_at_once
from registry_sync.sync.verdicts import reason

if TYPE_CHECKING:
    from registry_sync.blobs.store import BlobStore
    from registry_sync.db.database import Database
    from registry_sync.oci.client import RegistryReader

#: Blobs that are fetched before they are recorded as stored.
_GROUP = 500


def repair_blobs(
    database: Database,
    store: BlobStore,
    open_client: Callable[[RemoteSpec], AbstractContextManager[RegistryReader]],
    digests: Iterable[Digest],
    *,
    report: Callable[[str], None],
    clock: Callable[[], datetime] = utc_now,
) -> Repair:
    """Fetches those of ``digests`` that are not stored; a repeat continues with the rest.

    Blobs that no remote has are failures in the result. Errors of the database and the store are raised; what was
    fetched until then is kept.
    """
    records = database.blob_checks.records(digests)
    waiting = {digest: record for digest, record in records.items() if not record.is_stored}
    work = _Repair(database, store, clock, waiting)
    if not work.waiting:
        return Repair()
    sources = {digest: list(found) for digest, found in database.blob_checks.sources(work.waiting).items()}
    while (remote := _next_remote(work.waiting, sources)) is not None:
        batch = [work.waiting[digest] for digest in work.waiting if sources.get(digest, [])[:1] == [remote]]
        for record in batch:
            del sources[record.digest][0]
        try:
            with open_client(remote) as client:
                work.fetch(client, remote, batch, report)
        except (BlobStoreError, DatabaseError):
            raise
        except RegistrySyncError as error:  # the client could not be opened
            work.fail(batch, error)
    for digest in work.waiting:
        work.failures.setdefault(digest, "no repository that holds it was synced from a known remote")
    transient = next((work.transient[digest] for digest in work.failures if digest in work.transient), None)
    result = Repair(work.fetched, work.found_count, work.failures, transient)
    report(summary(result))
    return result


def summary(result: Repair) -> str:
    """A repair in one line."""
    fetched = f"{format_count(result.fetched.count, 'blob')}, {format_bytes(result.fetched.size_bytes)}"
    failed = f"; {len(result.failures):,} could not be fetched" if result.failures else ""
    return f"repaired {fetched}{failed}"


def _next_remote(waiting: Iterable[Digest], sources: Mapping[Digest, Sequence[RemoteSpec]]) -> RemoteSpec | None:
    """The next remote for the first of the blobs that has one left; None when none has."""
    return next((sources[digest][0] for digest in waiting if sources.get(digest)), None)


@dataclass
class _Repair:
    """The blobs that are ``waiting``, and the outcome of the others."""

    database: Database
    store: BlobStore
    clock: Callable[[], datetime]
    waiting: dict[Digest, BlobRecord]
    fetched: Amount = field(default_factory=Amount)
    found_count: int = 0
    failures: dict[Digest, str] = field(default_factory=dict)
    transient: dict[Digest, RegistrySyncError] = field(default_factory=dict)

    def fetch(
        self, client: RegistryReader, remote: RemoteSpec, batch: Sequence[BlobRecord], report: Callable[[str], None]
    ) -> None:
        """Fetches the blobs of ``batch`` that ``remote`` has."""
        report(f"fetching {format_count(len(batch), 'blob')} again from {remote.url}/{remote.upstream}")
        progress = Progress(report, "blob", len(batch), sum(record.size_bytes for record in batch))
        arrived: dict[Digest, bool] = {}
        described = self.database.contents.descriptors(record.digest for record in batch)

        def done(record: BlobRecord, is_fetched: bool) -> None:
            progress.add(1, record.size_bytes)
            self.fetched += Amount(int(is_fetched), record.size_bytes if is_fetched else 0)
            self.found_count += not is_fetched
            arrived[record.digest] = is_fetched
            if len(arrived) >= _GROUP:
                self._record_stored(arrived, remote)

        def failed(record: BlobRecord, error: RegistrySyncError) -> None:
            # An error of one blob, such as a folder in its place, does not stop the others.
            if isinstance(error, BlobStoreError) and (error.is_temporary or isinstance(error, BlobStoreFull)):
                raise error
            self.fail([record], error)
            report(f"blob {record.digest}: {reason(error)}")

        try:
            for_each(
                lambda record: self._fetch(client, remote, record, described.get(record.digest)),
                batch,
                threads=requests_at_once(client, remote),
                done=done,
                failed=failed,
            )
        finally:
            self._record_stored(arrived, remote)
        progress.finish()

    def fail(self, batch: Iterable[BlobRecord], error: RegistrySyncError) -> None:
        """Records why these blobs could not be fetched; another remote may have them."""
        for record in batch:
            if record.digest in self.waiting:
                self.failures[record.digest] = reason(error)
                if error.is_temporary:
                    self.transient[record.digest] = error

    def _fetch(
        self, client: RegistryReader, remote: RemoteSpec, record: BlobRecord, described: Descriptor | None
    ) -> bool:
        """Whether the blob was fetched; False when the store has it."""
        if not record.is_broken and self.store.has(record.digest, record.size_bytes):
            return False
        descriptor = Descriptor(record.media_type, record.digest, record.size_bytes)
        if described is not None and (record.is_foreign or described.inline is not None):
            descriptor = described  # with the URLs, or the bytes, that only its manifest contains
        with self.store.writer(record.digest, record.size_bytes, replaces=record.is_broken) as writer:
            client.fetch_blob(remote.upstream, descriptor, writer)
        return True

    def _record_stored(self, arrived: dict[Digest, bool], remote: RemoteSpec) -> None:
        """Records blobs as stored and verified; True marks those that were fetched rather than found."""
        own = [digest for digest, is_fetched in arrived.items() if is_fetched and not self.waiting[digest].is_foreign]
        self.database.contents.mark_stored(own, source=remote.source)
        self.database.contents.mark_stored(arrived)
        self.database.blob_checks.mark_verified(arrived, self.clock())
        for digest in arrived:
            del self.waiting[digest]
            self.failures.pop(digest, None)
        arrived.clear()
