"""The commands ``tag list``, ``inspect`` and ``content show``: what a repository holds, and what a digest is.

Digests are accepted as tables show them: the first characters of one suffice where no other starts with them.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from registry_sync.cli.command_context import every, named, print_document, print_fields, print_rows, usable_database
from registry_sync.cli.version_commands import find
from registry_sync.db.database import Database
from registry_sync.domain.content_units import BlobReference, ChildReference, ManifestUnit, UnitQuery
from registry_sync.domain.digests import Digest
from registry_sync.domain.platforms import platform_text
from registry_sync.domain.records import PageRequest
from registry_sync.domain.version_history import BlobProvenance, ManifestProvenance
from registry_sync.errors import InvalidReference, RecordNotFound, RegistrySyncError
from registry_sync.hooks.stores import open_blobs

#: The fewest characters after the colon that may stand for a digest.
FEWEST_CHARACTERS = 6
_SHOWN = 4
_MAX_CONFIG_BYTES = 4 * 1024 * 1024


def list_tags(args: Namespace) -> None:
    """Lists the tags of a version, the latest by default, with the manifests that they refer to."""
    with usable_database() as database:
        repository, version = find(database, args.name, args.number)
        query = UnitQuery(repository.id, version.number, name_contains=args.name_part)
        rows = [
            {
                "tag": tag.name,
                "digest": tag.digest,
                "media_type": tag.media_type,
                "created_at": tag.created_at,
            }
            for tag in every(partial(database.units.tags, query))
        ]
    print_rows(rows, args.output)


def inspect(args: Namespace) -> None:
    """Shows a manifest: of an index its platforms, of an image its layers, with sizes."""
    with usable_database() as database:
        digest = _digest_of(database, args.reference, args.number)
        (manifest,) = _manifests(database, [digest])
        entries = _entries(database, manifest.children)
        fields = {
            "digest": str(manifest.digest),
            "kind": manifest.kind,
            "media_type": manifest.media_type,
            "artifact_type": manifest.artifact_type,
            "platform": None if manifest.config is None else _platform_of(manifest.config),
            "created_at": manifest.created_at,
            "manifest_bytes": manifest.size_bytes,
            "total_bytes": sum(blob.size_bytes for blob in _blobs(manifest))
            + sum(entry["total_bytes"] or 0 for entry in entries),
            "subject": manifest.subject,
            "annotations": dict(manifest.annotations),
        }
        layers = _layers(database, manifest)
    if args.output in ("json", "yaml"):
        print_document({**fields, "platforms": entries, "blobs": layers}, args.output)
        return
    print_fields({name: value for name, value in fields.items() if value not in (None, {})}, args.output)
    for rows in (entries, layers):
        if rows:
            print_rows(rows, args.output)


def _digest_of(database: Database, reference: str, number: int | None) -> Digest:
    """The manifest of ``NAME``, ``NAME:TAG``, ``NAME@DIGEST`` or ``DIGEST``. Raises :class:`RecordNotFound`."""
    name, at, digest = reference.partition("@")
    if at:
        named(database.repositories, name)
        return resolve_digest(database, digest)
    if _is_digest(reference):
        return resolve_digest(database, reference)
    name, colon, tag = reference.rpartition(":")
    if not colon:
        name, tag = reference, "latest"
    repository, version = find(database, name, number)
    query = UnitQuery(repository.id, version.number, name=tag)
    page = database.units.tags(query, PageRequest(limit=1))
    if not page.items:
        raise RecordNotFound(
            f"version {version.number} of {name!r} has no tag {tag!r}; airflow registry-sync tag list {name} names them"
        )
    return page.items[0].digest


def _is_digest(text: str) -> bool:
    algorithm, colon, encoded = text.partition(":")
    return bool(colon) and algorithm in ("sha256", "sha512") and "/" not in encoded


def resolve_digest(database: Database, text: str) -> Digest:
    """The one digest of stored content that starts with ``text``.

    Raises :class:`RecordNotFound`, :class:`InvalidReference` for too few characters, or when several start so.
    """
    with suppress(InvalidReference):
        return Digest(text)
    algorithm, colon, encoded = text.partition(":")
    if not colon or len(encoded) < FEWEST_CHARACTERS:
        raise InvalidReference(
            f"{text[:80]!r} is not a digest: use sha256: and at least {FEWEST_CHARACTERS} of its characters"
        )
    found = database.units.digests_starting_with(f"{algorithm}:{encoded}", limit=_SHOWN)
    if not found:
        raise RecordNotFound(f"no manifest or blob has a digest that starts with {text[:80]}")
    if len(found) > 1:
        raise InvalidReference(f"several digests start with {text[:80]}: {', '.join(found)}")
    return found[0]


def _manifests(database: Database, digests: Iterable[Digest]) -> list[ManifestUnit]:
    """The stored ones of ``digests``. Raises :class:`RecordNotFound` when it is none."""
    wanted = tuple(digests)
    page = database.units.manifests(UnitQuery(digests=wanted), PageRequest(limit=len(wanted)))
    if not page.items:
        raise RecordNotFound(f"{wanted[0]} is no manifest that is stored here")
    return list(page.items)


def _blobs(manifest: ManifestUnit) -> list[BlobReference]:
    return [*([manifest.config] if manifest.config else []), *manifest.layers]


def _entries(database: Database, children: tuple[ChildReference, ...]) -> list[dict[str, Any]]:
    """The entries of an index with the sizes of what they consist of; None for one that is not stored."""
    stored = {}
    if children:
        with suppress(RecordNotFound):
            stored = {unit.digest: unit for unit in _manifests(database, {child.digest for child in children})}
    rows = []
    for child in children:
        unit = stored.get(child.digest)
        rows.append(
            {
                "platform": platform_text(child.platform) if child.platform else None,
                "digest": child.digest,
                "media_type": child.media_type,
                "layers": None if unit is None else len(unit.layers),
                "total_bytes": None if unit is None else sum(blob.size_bytes for blob in _blobs(unit)),
                "is_stored": unit is not None,
            }
        )
    return rows


def _layers(database: Database, manifest: ManifestUnit) -> list[dict[str, Any]]:
    named_blobs = _blobs(manifest)
    query = UnitQuery(digests=tuple({blob.digest for blob in named_blobs}))
    stored = (
        {unit.digest: unit.is_stored for unit in every(partial(database.units.blobs, query))} if named_blobs else {}
    )
    return [
        {
            "role": blob.role,
            "digest": blob.digest,
            "media_type": blob.media_type,
            "size_bytes": blob.size_bytes,
            "is_stored": stored.get(blob.digest, False),
        }
        for blob in named_blobs
    ]


def _platform_of(config: BlobReference) -> str | None:
    """What the config of an image says it runs on; None where that is not stored, or says nothing."""
    if config.size_bytes > _MAX_CONFIG_BYTES:
        return None
    try:
        with open_blobs().open(config.digest) as stored:
            document = json.loads(stored.read(_MAX_CONFIG_BYTES))
    except (RegistrySyncError, OSError, ValueError):
        return None
    return platform_text(document) if isinstance(document, dict) else None


def show_content(args: Namespace) -> None:
    """Shows the blob or manifest of a digest."""
    with usable_database() as database:
        found = _find(database, resolve_digest(database, args.digest))
    fields: dict[str, Any] = {
        "kind": "blob" if isinstance(found, BlobProvenance) else "manifest",
        "digest": str(found.digest),
        "size_bytes": found.size_bytes,
        "created_at": found.created_at,
    }
    if isinstance(found, BlobProvenance):
        fields |= {"source": found.source, "stored_at": found.stored_at, "verified_at": found.verified_at}
        fields |= {"fault": found.fault, "fault_at": found.fault_at}
    holders = [
        {
            "repository": holder.repository_name,
            "first_version": holder.first_number,
            "is_in_latest": holder.is_in_latest,
        }
        for holder in found.holders
    ]
    if args.output in ("json", "yaml"):
        print_document({**fields, "holders": holders}, args.output)
        return
    print_fields(fields, args.output)
    if holders:
        print_rows(holders, args.output)


def _find(database: Database, digest: Digest) -> BlobProvenance | ManifestProvenance:
    try:
        return database.provenance.manifest(digest)
    except RecordNotFound:
        pass
    try:
        return database.provenance.blob(digest)
    except RecordNotFound:
        raise RecordNotFound(f"no manifest or blob {digest} exists") from None
