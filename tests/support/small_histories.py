"""Small histories of one repository, for tests of what is done with its versions."""

from __future__ import annotations

from sqlalchemy import select

from registry_sync.db.database import Database
from registry_sync.db.tables import repository_links
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Manifest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.records import (
    PageRequest,
    Repository,
)
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import ListedTag, ManifestLink
from support.metadata import Upstream, image, open_run

OLDEST_FIRST = PageRequest(ordering="number")


def upstream(**tags: str) -> Upstream:
    """Tags that stand for images of one layer each, by the layer's text."""
    made = Upstream()
    for name, text in tags.items():
        made.tag(name, image(text))
    return made


def numbers(database: Database, repository: Repository) -> list[int]:
    return [version.number for version in database.versions.page(repository.id, OLDEST_FIRST).items]


def sync_links(
    database: Database, repository: Repository, root: Manifest, below: list[Manifest], *links: ManifestLink
) -> None:
    """A sync of the tag ``latest`` with exactly these links; what no link leads to is stored and not read."""
    run = open_run(database, repository)
    reached = {root.digest, *(link.child for link in links if not link.is_missing)}
    database.contents.add_manifests([*below, root])
    database.runs.record_listing(run.id, utc_now(), [ListedTag(TagName("latest"), root.digest, 0)])
    database.selections.record(run.id, sorted(reached), links)
    database.runs.resolve_tags(run.id, {TagName("latest"): root.digest})
    database.contents.mark_stored([blob.digest for blob in database.runs.required_blobs(run.id)])
    assert database.versions.commit(run.id).version is not None


def gaps_of_latest(database: Database, repository: Repository) -> dict[Digest, bool]:
    """What the latest version takes along, and whether it is missing."""
    statement = select(repository_links.c.child_digest, repository_links.c.child_id).where(
        repository_links.c.repository_id == repository.id, repository_links.c.version_removed.is_(None)
    )
    with database.reading() as connection:
        return {Digest(row.child_digest): row.child_id is None for row in connection.execute(statement)}
