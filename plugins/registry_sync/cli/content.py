"""``content``: where a blob or manifest came from, and which repositories hold it."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from registry_sync.cli.printing import print_document, print_fields, print_rows
from registry_sync.cli.running import usable_database
from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from registry_sync.domain.provenance import BlobProvenance, ManifestProvenance
from registry_sync.errors import RecordNotFound


def show(args: Namespace) -> None:
    """What is known of the content of a digest."""
    with usable_database() as database:
        found = _find(database, Digest(args.digest))
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
        raise RecordNotFound(f"there is neither a manifest nor a blob {digest}") from None
