"""Manifests and blobs: content that is stored once and shared by all repositories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Update, delete, func, select, true, update

from registry_sync.db.engine import Transactions
from registry_sync.db.queries import (
    built_once,
    ids_by_digest,
    in_batches,
    insert_absent,
    is_one_of,
    is_one_of_given,
    storable,
)
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    manifest_children,
    manifests,
    orphaned_manifests,
)
from registry_sync.domain.content_units import BlobUnit, KnownManifest, StoredManifest
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest, ManifestKind, ManifestLimits, read_manifest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.storage_reports import FindingKind
from registry_sync.errors import RecordNotFound

#: Documents sent in one statement, in bytes; a driver may hold all of a statement's parameters at once.
_BATCH_BYTES = 2 * 1024 * 1024
_MEDIA_TYPE_LENGTH = 255
#: Stored documents met the limits when they were fetched.
_NO_NEW_LIMITS = ManifestLimits(manifest_bytes=1 << 30, entries=1_000_000)


class ContentStore:
    """Each method is a short transaction of its own, and may be repeated or run concurrently."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def stored_manifests(self, digests: Iterable[Digest]) -> dict[Digest, KnownManifest]:
        """Those of ``digests`` that are stored; indexes are parsed again from their bytes.

        None of them is an orphan afterwards, so that garbage collection starts a new grace period for each.
        """
        found: dict[Digest, KnownManifest] = {}
        with self._transactions.reading() as connection:
            for batch in in_batches(sorted(set(digests))):
                found.update(_known(connection, batch, has_orphans=False))
        waiting = [digest for digest in sorted(set(digests)) if digest not in found]
        return found | self._adopt(waiting)

    def _adopt(self, digests: Sequence[Digest]) -> dict[Digest, KnownManifest]:
        """Those of ``digests`` that are stored as orphans; waits for a running garbage collection."""
        found: dict[Digest, KnownManifest] = {}
        for batch in in_batches(digests):
            with self._transactions.reading() as connection:
                if connection.execute(*_first_orphan(batch, dialect=connection.dialect.name)).first() is None:
                    continue
            with self._transactions.writing() as connection:
                connection.execute(delete(orphaned_manifests).where(_is_orphan_of(connection.dialect.name, batch)))
                found.update(_known(connection, batch, has_orphans=True))
        return found

    def add_manifests(self, manifests_in_order: Sequence[Manifest]) -> None:
        """Stores manifests with their relations and a record of each blob they name; children precede parents.

        Manifests that are stored already do not change. An index's entry whose manifest is not stored is kept by
        digest, and connected when that manifest is added.
        """
        given = {manifest.digest: manifest for manifest in manifests_in_order}
        if not given:
            return
        with self._transactions.writing() as connection:
            stored = ids_by_digest(connection, manifests, sorted(given))
            new = [given[digest] for digest in sorted(given.keys() - stored.keys())]
            blob_ids = _add_blobs(connection, [blob for manifest in new for _, blob in manifest.blobs()])
            _add_documents(connection, new)
            ids = ids_by_digest(connection, manifests, [manifest.digest for manifest in new])
            _add_relations(connection, new, ids, blob_ids)
            _connect_to_parents(connection, ids)

    def mark_stored(self, digests: Iterable[Digest], *, source: str | None = None) -> None:
        """Records that the blob store has the bytes of these blobs, and where they came from if ``source`` is given.

        This clears a fault that was recorded before.
        """
        said = {} if source is None else {"source": storable(source)}
        mended = {"stored_at": utc_now(), "fault": None, "fault_at": None}
        self._mark(digests, blobs.c.stored_at.is_(None), mended | said)

    def mark_missing(self, digests: Iterable[Digest]) -> None:
        """Records that the blob store lacks the bytes of these blobs, and that this is no fault."""
        self._mark(digests, blobs.c.stored_at.is_not(None), {"stored_at": None})

    def mark_lost(self, digests: Iterable[Digest], fault: FindingKind, at: datetime) -> None:
        """Records that the bytes of these blobs are lost; an earlier fault keeps its timestamp."""
        since = func.coalesce(blobs.c.fault_at, at)
        self._mark(digests, true(), {"stored_at": None, "fault": fault.value, "fault_at": since})

    def _mark(self, digests: Iterable[Digest], is_other: ColumnElement[bool], said: Mapping[str, Any]) -> None:
        ordered = sorted(set(digests))
        if not ordered:
            return
        with self._transactions.writing() as connection:
            for batch in in_batches(ordered):
                # Rows are locked in one order, lest two tasks that share blobs deadlock.
                is_listed = is_one_of(connection, blobs.c.digest, batch)
                wanted = select(blobs.c.id).where(is_listed, is_other).order_by(blobs.c.digest)
                ids = connection.execute(wanted.with_for_update(of=blobs)).scalars().all()
                if ids:
                    connection.execute(update(blobs).where(blobs.c.id.in_(ids)).values(**said))

    def descriptors(self, digests: Iterable[Digest]) -> dict[Digest, Descriptor]:
        """The descriptors of blobs, with URLs and embedded data, which only the manifests' documents contain.

        Of several descriptors of one blob, one with data precedes one with URLs. Unknown blobs are omitted.
        """
        found: dict[Digest, Descriptor] = {}
        wanted = sorted(set(digests))
        with self._transactions.reading() as connection:
            for batch in in_batches(wanted):
                for manifest in _naming(connection, batch):
                    for _, blob in manifest.blobs():
                        if blob.digest in batch and _says_more(blob, found.get(blob.digest)):
                            found[blob.digest] = blob
        return found

    def manifest(self, digest: Digest) -> StoredManifest:
        """The manifest's exact bytes and media type. Raises :class:`RecordNotFound`."""
        statement = select(manifests.c.media_type, manifests.c.data).where(manifests.c.digest == digest)
        with self._transactions.reading() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise RecordNotFound(f"there is no manifest {digest}")
        return StoredManifest(digest, row.media_type, row.data)

    def blob(self, digest: Digest) -> BlobUnit:
        """The record of a blob. Raises :class:`RecordNotFound`."""
        with self._transactions.reading() as connection:
            row = connection.execute(select(blobs).where(blobs.c.digest == digest)).one_or_none()
        if row is None:
            raise RecordNotFound(f"there is no blob {digest}")
        return blob_unit(row)


def blob_unit(row: Any) -> BlobUnit:
    """A row of ``blobs`` as a value."""
    return BlobUnit(
        id=row.id,
        digest=Digest(row.digest),
        size_bytes=row.size_bytes,
        media_type=row.media_type,
        is_foreign=row.is_foreign,
        created_at=row.created_at,
        stored_at=row.stored_at,
    )


def _is_orphan_of(dialect: str, digests: Any) -> ColumnElement[bool]:
    """Whether an orphan is a manifest of one of these digests, a list or the placeholder of one."""
    ids = select(manifests.c.id).where(is_one_of_given(dialect, manifests.c.digest, digests))
    return orphaned_manifests.c.manifest_id.in_(ids)


@built_once
def _first_orphan(digests: Sequence[Digest], *, dialect: str) -> Select[Any]:
    return select(orphaned_manifests.c.manifest_id).where(_is_orphan_of(dialect, digests)).limit(1)


@built_once
def _stored(digests: Sequence[Digest], *, is_index: bool, has_orphans: bool, dialect: str) -> Select[Any]:
    """Digest and subject of the images of those digests, or digest, media type and document of the indexes."""
    of_kind = manifests.c.kind == ManifestKind.INDEX.value
    columns = (manifests.c.media_type, manifests.c.data) if is_index else (manifests.c.subject_digest,)
    found = select(manifests.c.digest, *columns).where(is_one_of_given(dialect, manifests.c.digest, digests))
    if not has_orphans:
        orphans = select(orphaned_manifests.c.manifest_id).where(orphaned_manifests.c.manifest_id == manifests.c.id)
        found = found.where(~orphans.exists())
    return found.where(of_kind if is_index else ~of_kind)


def _known(
    connection: Connection, digests: Sequence[Digest], *, has_orphans: bool
) -> Iterator[tuple[Digest, KnownManifest]]:
    """The stored manifests of ``digests``, at most one batch; without orphans unless it ``has_orphans``."""
    dialect = connection.dialect.name
    for name, subject in connection.execute(
        *_stored(digests, is_index=False, has_orphans=has_orphans, dialect=dialect)
    ):
        yield Digest(name), KnownManifest(Digest(name), Digest(subject) if subject else None)
    for name, media_type, data in connection.execute(
        *_stored(digests, is_index=True, has_orphans=has_orphans, dialect=dialect)
    ):
        index = read_manifest(data, content_type=media_type, digest=Digest(name), limits=_NO_NEW_LIMITS)
        yield index.digest, KnownManifest(index.digest, index.subject.digest if index.subject else None, index)


def _naming(connection: Connection, batch: Sequence[Digest]) -> Iterator[Manifest]:
    """Manifests that name one of these blobs as foreign, or embed its data, parsed from their documents."""
    last = None
    for name, media_type, data in connection.execute(*_named_by(batch, dialect=connection.dialect.name)):
        if name != last:
            last = name
            yield read_manifest(data, content_type=media_type, digest=Digest(name), limits=_NO_NEW_LIMITS)


@built_once
def _named_by(digests: Sequence[Digest], *, dialect: str) -> Select[Any]:
    is_listed = is_one_of_given(dialect, blobs.c.digest, digests)
    return (
        select(manifests.c.digest, manifests.c.media_type, manifests.c.data)
        .join(manifest_blobs, manifest_blobs.c.manifest_id == manifests.c.id)
        .join(blobs, blobs.c.id == manifest_blobs.c.blob_id)
        .where(is_listed, manifest_blobs.c.is_foreign | manifest_blobs.c.is_inline)
        .order_by(manifests.c.digest)
    )


def _says_more(blob: Descriptor, known: Descriptor | None) -> bool:
    if known is None:
        return True
    return (blob.inline is not None, bool(blob.urls)) > (known.inline is not None, bool(known.urls))


def _add_blobs(connection: Connection, named: Iterable[Descriptor]) -> dict[Digest, int]:
    """Records new blobs; a blob that any manifest names as distributable is not foreign."""
    wanted: dict[Digest, Descriptor] = {}
    for descriptor in named:
        if descriptor.digest not in wanted or not descriptor.is_foreign:
            wanted[descriptor.digest] = descriptor
    now = utc_now()
    rows = [
        {
            "digest": digest,
            "size_bytes": descriptor.size_bytes,
            "media_type": storable(descriptor.media_type, _MEDIA_TYPE_LENGTH),
            "is_foreign": descriptor.is_foreign,
            "created_at": now,
        }
        for digest, descriptor in sorted(wanted.items())
    ]
    insert_absent(connection, blobs, rows)
    for batch in in_batches(digest for digest, descriptor in sorted(wanted.items()) if not descriptor.is_foreign):
        ids = connection.execute(*_misnamed(batch, dialect=connection.dialect.name)).scalars().all()
        if ids:
            connection.execute(update(blobs).where(blobs.c.id.in_(ids)).values(is_foreign=False))
    return _held_ids(connection, rows)


@built_once
def _misnamed(digests: Sequence[Digest], *, dialect: str) -> Select[Any]:
    """Ids of those that count as foreign."""
    is_listed = is_one_of_given(dialect, blobs.c.digest, digests)
    found = select(blobs.c.id).where(is_listed, blobs.c.is_foreign).order_by(blobs.c.digest)
    return found.with_for_update(of=blobs)


def _held_ids(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[Digest, int]:
    """Ids of blobs by digest, locked against garbage collection until the end of the transaction.

    A blob that was collected between the insert, which found it present, and this query is inserted again.
    """
    ids: dict[Digest, int] = {}
    for batch in in_batches(rows):
        waiting = batch
        while waiting:
            digests = [row["digest"] for row in waiting]
            found = connection.execute(*_held(digests, dialect=connection.dialect.name)).all()
            ids.update((Digest(row.digest), row.id) for row in found)
            waiting = [row for row in waiting if row["digest"] not in ids]
            insert_absent(connection, blobs, waiting)
    return ids


@built_once
def _held(digests: Sequence[Digest], *, dialect: str) -> Select[Any]:
    is_listed = is_one_of_given(dialect, blobs.c.digest, digests)
    found = select(blobs.c.digest, blobs.c.id).where(is_listed).order_by(blobs.c.digest)
    return found.with_for_update(read=True, key_share=True, of=blobs)


def _add_documents(connection: Connection, new: Iterable[Manifest]) -> None:
    now = utc_now()
    rows: list[dict[str, Any]] = []
    waiting_bytes = 0
    for manifest in new:
        rows.append(
            {
                "digest": manifest.digest,
                "media_type": storable(manifest.media_type, _MEDIA_TYPE_LENGTH),
                "kind": manifest.kind.value,
                "size_bytes": manifest.size_bytes,
                "artifact_type": storable(manifest.artifact_type, 255) if manifest.artifact_type else None,
                "subject_digest": manifest.subject.digest if manifest.subject else None,
                "annotations": {storable(key): storable(value) for key, value in manifest.annotations.items()},
                "created_at": now,
                "data": manifest.data,
            }
        )
        waiting_bytes += manifest.size_bytes
        if waiting_bytes >= _BATCH_BYTES:
            insert_absent(connection, manifests, rows)
            rows, waiting_bytes = [], 0
    insert_absent(connection, manifests, rows)


def _add_relations(
    connection: Connection, new: Iterable[Manifest], ids: dict[Digest, int], blob_ids: dict[Digest, int]
) -> None:
    to_blobs: list[dict[str, Any]] = []
    to_children: list[dict[str, Any]] = []
    for manifest in new:
        for position, (role, blob) in enumerate(manifest.blobs()):
            to_blobs.append(
                {
                    "manifest_id": ids[manifest.digest],
                    "position": position,
                    "blob_id": blob_ids[blob.digest],
                    "role": role.value,
                    "media_type": storable(blob.media_type, _MEDIA_TYPE_LENGTH),
                    "size_bytes": blob.size_bytes,
                    "is_foreign": blob.is_foreign,
                    "is_inline": blob.inline is not None,
                }
            )
        for position, child in enumerate(manifest.children):
            to_children.append(
                {
                    "parent_id": ids[manifest.digest],
                    "position": position,
                    "child_digest": child.digest,
                    "media_type": storable(child.media_type, _MEDIA_TYPE_LENGTH),
                    "size_bytes": child.size_bytes,
                    "platform": None if child.platform is None else _plain_platform(child.platform),
                }
            )
    insert_absent(connection, manifest_blobs, to_blobs)
    insert_absent(connection, manifest_children, to_children)


def _plain_platform(platform: Mapping[str, Any]) -> dict[str, Any]:
    """The strings and lists of strings of a platform object; other values have no meaning there (image-index.md)."""
    plain: dict[str, Any] = {}
    for key, value in platform.items():
        if isinstance(value, str):
            plain[storable(key)] = storable(value)
        elif isinstance(value, list):
            plain[storable(key)] = [storable(entry) for entry in value if isinstance(entry, str)]
    return plain


def _connect_to_parents(connection: Connection, ids: dict[Digest, int]) -> None:
    """Sets the child ids of new entries, and of older entries whose manifests were missing until now."""
    for batch in in_batches(ids.items()):
        connection.execute(*_connect_below([manifest_id for _, manifest_id in batch]))
        connection.execute(*_connect_above([digest for digest, _ in batch], dialect=connection.dialect.name))


def _connect(is_wanted: ColumnElement[bool]) -> Update:
    child = select(manifests.c.id).where(manifests.c.digest == manifest_children.c.child_digest).scalar_subquery()
    return update(manifest_children).where(is_wanted, manifest_children.c.child_id.is_(None)).values(child_id=child)


@built_once
def _connect_below(manifest_ids: Sequence[int]) -> Update:
    return _connect(manifest_children.c.parent_id.in_(manifest_ids))


@built_once
def _connect_above(digests: Sequence[Digest], *, dialect: str) -> Update:
    return _connect(is_one_of_given(dialect, manifest_children.c.child_digest, digests))
