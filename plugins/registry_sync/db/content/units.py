"""Pages of content units: those that a version holds, added or removed, with their relations.

A page costs a fixed number of queries: the units, their total, and their relations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, false, select

from registry_sync.db.content.closures import MEMBERSHIP, is_in_version
from registry_sync.db.content.contents import blob_unit
from registry_sync.db.engine import Transactions
from registry_sync.db.filtering import condition
from registry_sync.db.queries import fetch_page, in_batches
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    manifest_children,
    manifests,
    tags,
)
from registry_sync.db.versions.version_rows import resolve_number
from registry_sync.domain.content_units import (
    ALL_UNITS,
    BlobReference,
    BlobUnit,
    ChildReference,
    ManifestUnit,
    Relation,
    TagUnit,
    UnitQuery,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.filters import AllOf, Match, Operator
from registry_sync.domain.manifest_documents import BlobRole, ManifestKind
from registry_sync.domain.records import FIRST_PAGE, Page, PageRequest
from registry_sync.domain.references import TagName
from registry_sync.errors import RecordNotFound

#: All columns but the documents.
_MANIFEST_COLUMNS = tuple(column for column in manifests.c if column.name != "data")
_DIGEST_ORDERINGS = ("digest", "media_type", "size_bytes", "created_at")


class UnitStore:
    """Reads only. Unknown repositories and versions raise :class:`RecordNotFound`."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def blobs(self, query: UnitQuery = ALL_UNITS, request: PageRequest = FIRST_PAGE) -> Page[BlobUnit]:
        """Blobs ordered by ``digest`` (default), ``media_type``, ``size_bytes`` or ``created_at``."""
        with self._transactions.reading() as connection:
            statement = _narrowed(_of_version(connection, select(blobs), "blobs", query), blobs, query)
            orderings = {name: blobs.c[name] for name in _DIGEST_ORDERINGS}
            rows, total = fetch_page(connection, statement, request, orderings, blobs.c.id)
        return Page(tuple(map(blob_unit, rows)), total)

    def manifests(self, query: UnitQuery = ALL_UNITS, request: PageRequest = FIRST_PAGE) -> Page[ManifestUnit]:
        """Manifests with their relations, ordered as blobs are."""
        with self._transactions.reading() as connection:
            statement = _of_version(connection, select(*_MANIFEST_COLUMNS), "manifests", query)
            orderings = {name: manifests.c[name] for name in _DIGEST_ORDERINGS}
            rows, total = fetch_page(
                connection, _narrowed(statement, manifests, query), request, orderings, manifests.c.id
            )
            return Page(tuple(_manifest_units(connection, rows)), total)

    def tags(self, query: UnitQuery = ALL_UNITS, request: PageRequest = FIRST_PAGE) -> Page[TagUnit]:
        """Tags ordered by ``name`` (default), ``digest`` or ``created_at``; ``digest`` is the manifest's."""
        with self._transactions.reading() as connection:
            statement = _narrowed(_of_version(connection, _select_tags(), "tags", query), tags, query)
            orderings = {"name": tags.c.name, "digest": manifests.c.digest, "created_at": tags.c.created_at}
            rows, total = fetch_page(connection, statement, request, orderings, tags.c.id)
        return Page(tuple(map(_tag_unit, rows)), total)

    def digests_starting_with(self, prefix: str, *, limit: int) -> list[Digest]:
        """The first digests of manifests and blobs that start with ``prefix``, in order, at most ``limit``."""
        # Digests are ASCII and compared byte by byte on both databases, so that an index gives the range.
        found: set[str] = set()
        with self._transactions.reading() as connection:
            for table in (manifests, blobs):
                starts = (table.c.digest >= prefix) & (table.c.digest < f"{prefix}~")
                statement = select(table.c.digest).where(starts).order_by(table.c.digest).limit(limit)
                found.update(connection.execute(statement).scalars())
        return [Digest(digest) for digest in sorted(found)[:limit]]

    def blob(self, unit_id: int) -> BlobUnit:
        """The blob with that id."""
        with self._transactions.reading() as connection:
            return blob_unit(_one(connection, select(blobs).where(blobs.c.id == unit_id), "blob", unit_id))

    def manifest(self, unit_id: int) -> ManifestUnit:
        """The manifest with that id, with its relations."""
        with self._transactions.reading() as connection:
            statement = select(*_MANIFEST_COLUMNS).where(manifests.c.id == unit_id)
            return _manifest_units(connection, [_one(connection, statement, "manifest", unit_id)])[0]

    def tag(self, unit_id: int) -> TagUnit:
        """The tag with that id."""
        with self._transactions.reading() as connection:
            return _tag_unit(_one(connection, _select_tags().where(tags.c.id == unit_id), "tag", unit_id))


def _select_tags() -> Select[Any]:
    return select(
        tags.c.id, tags.c.name, tags.c.manifest_id, tags.c.created_at, manifests.c.digest, manifests.c.media_type
    ).join(manifests, manifests.c.id == tags.c.manifest_id)


def _of_version(connection: Connection, statement: Select[Any], kind: str, query: UnitQuery) -> Select[Any]:
    if query.repository_id is None:
        return statement
    number = resolve_number(connection, query.repository_id, query.number)
    if number is None:
        return statement.where(false())
    table, unit = MEMBERSHIP[kind]
    own_id = {"tags": tags, "manifests": manifests, "blobs": blobs}[kind].c.id
    conditions: dict[Relation, ColumnElement[bool]] = {
        Relation.PRESENT: is_in_version(table, query.repository_id, number),
        Relation.ADDED: and_(table.c.repository_id == query.repository_id, table.c.version_added == number),
        Relation.REMOVED: and_(table.c.repository_id == query.repository_id, table.c.version_removed == number),
    }
    return statement.join(table, unit == own_id).where(conditions[query.relation])


def _narrowed(statement: Select[Any], kind: Any, query: UnitQuery) -> Select[Any]:
    """The units of a query; ``kind`` is their table. ``digest`` and ``media_type`` of a tag are its manifest's."""
    content = manifests if kind is tags else kind
    searched = {
        "id": kind.c.id,
        "created_at": kind.c.created_at,
        "digest": content.c.digest,
        "media_type": content.c.media_type,
        **({"name": tags.c.name} if kind is tags else {}),
        **({"stored_at": blobs.c.stored_at} if kind is blobs else {}),
    }
    given = (
        ("digest", query.digests, Operator.IN),
        ("media_type", query.media_types, Operator.IN),
        ("name", None if query.name is None else (query.name,), Operator.EQUAL),
        ("name", query.names, Operator.IN),
        ("name", None if query.name_contains is None else (query.name_contains,), Operator.CONTAINS_ANY_CASE),
    )
    parts = [Match(field, tuple(values), how) for field, values, how in given if values is not None]
    return statement.where(condition(AllOf((query.where, *parts)), searched))


def _one(connection: Connection, statement: Select[Any], kind: str, unit_id: int) -> Row[Any]:
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise RecordNotFound(f"there is no {kind} {unit_id}")
    return row


def _tag_unit(row: Row[Any]) -> TagUnit:
    return TagUnit(row.id, TagName(row.name), Digest(row.digest), row.manifest_id, row.media_type, row.created_at)


def _manifest_units(connection: Connection, rows: Sequence[Row[Any]]) -> list[ManifestUnit]:
    ids = [row.id for row in rows]
    named, listed = _blob_references(connection, ids), _child_references(connection, ids)
    return [
        ManifestUnit(
            id=row.id,
            digest=Digest(row.digest),
            media_type=row.media_type,
            kind=ManifestKind(row.kind),
            size_bytes=row.size_bytes,
            created_at=row.created_at,
            artifact_type=row.artifact_type,
            subject=None if row.subject_digest is None else Digest(row.subject_digest),
            annotations=row.annotations,
            config=next((blob for blob in named[row.id] if blob.role is BlobRole.CONFIG), None),
            layers=tuple(blob for blob in named[row.id] if blob.role is BlobRole.LAYER),
            children=tuple(listed[row.id]),
        )
        for row in rows
    ]


def _blob_references(connection: Connection, manifest_ids: Sequence[int]) -> dict[int, list[BlobReference]]:
    named: dict[int, list[BlobReference]] = defaultdict(list)
    for batch in in_batches(manifest_ids):
        statement = (
            select(manifest_blobs, blobs.c.digest)
            .join(blobs, blobs.c.id == manifest_blobs.c.blob_id)
            .where(manifest_blobs.c.manifest_id.in_(batch))
            .order_by(manifest_blobs.c.manifest_id, manifest_blobs.c.position)
        )
        for row in connection.execute(statement):
            named[row.manifest_id].append(
                BlobReference(
                    row.blob_id, Digest(row.digest), BlobRole(row.role), row.media_type, row.size_bytes, row.is_foreign
                )
            )
    return named


def _child_references(connection: Connection, manifest_ids: Sequence[int]) -> dict[int, list[ChildReference]]:
    listed: dict[int, list[ChildReference]] = defaultdict(list)
    for batch in in_batches(manifest_ids):
        statement = (
            select(manifest_children)
            .where(manifest_children.c.parent_id.in_(batch))
            .order_by(manifest_children.c.parent_id, manifest_children.c.position)
        )
        for row in connection.execute(statement):
            listed[row.parent_id].append(
                ChildReference(row.child_id, Digest(row.child_digest), row.media_type, row.size_bytes, row.platform)
            )
    return listed
