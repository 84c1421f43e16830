"""What an installation holds of a repository, read back out of its database and blob store to be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from registry_sync.blobs.store import BlobStore
from registry_sync.db.database import Database
from registry_sync.domain.content_units import UnitQuery
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import Page, PageRequest
from registry_sync.domain.references import TagName


@dataclass(frozen=True)
class Held:
    """The latest version: its number, its counts, its tags, and the bytes of its manifests and blobs by digest."""

    number: int
    counts: dict[str, dict[str, int]]
    tags: dict[TagName, Digest]
    manifests: dict[Digest, tuple[str, bytes]]
    blobs: dict[Digest, bytes]

    @classmethod
    def read(cls, database: Database, store: BlobStore, repository: str) -> Held:
        """Of the repository of that name, which has a version. Every blob is read from the store."""
        record = database.repositories.by_name(repository)
        version = database.versions.latest(record.id)
        assert version is not None, f"{repository} has no version"
        query = UnitQuery(repository_id=record.id)
        manifests = [database.contents.manifest(unit.digest) for unit in _all(database.units.manifests, query)]
        blobs = {}
        for unit in _all(database.units.blobs, query):
            with store.open(unit.digest) as stored:
                blobs[unit.digest] = stored.read()
        return cls(
            number=version.number,
            counts=version.summary.counts(),
            tags=database.versions.tags(record.id),
            manifests={manifest.digest: (manifest.media_type, manifest.data) for manifest in manifests},
            blobs=blobs,
        )


def _all(page_of: Callable[[UnitQuery, PageRequest], Page[Any]], query: UnitQuery) -> list[Any]:
    units: list[Any] = []
    while True:
        page = page_of(query, PageRequest(offset=len(units), limit=500))
        units += page.items
        if not page.items or len(units) >= page.total_count:
            return units
