"""Where registry-sync keeps what an Airflow of the benchmark syncs, emptied before each first sync."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.syncs.contender import empty_folder
from benchmarks.syncs.outcome import check_blobs
from registry_sync.db.database import Database
from registry_sync.domain.digests import Digest
from support.images import RepositoryContent
from support.postgres import Postgres
from support.ready_databases import ready_database

_READY = "registry_sync_ready"
_NAME = "registry_sync"


@dataclass
class OwnStorage:
    """Blobs below ``folder``, the database there too, or in ``server``. An empty database is migrated already."""

    folder: Path
    server: Postgres | None = None

    def __post_init__(self) -> None:
        if self.server is not None:
            with Database.connect(self._driver(self.server.make_database(_READY))) as database:
                database.upgrade()
            self.url = self._driver(self.server.make_database(_NAME, _READY))
        else:
            self.url = f"sqlite:///{self.folder / 'registry_sync.db'}"
        self.empty()

    @staticmethod
    def _driver(url: str) -> str:
        return url.replace("postgresql://", "postgresql+psycopg://")

    @property
    def settings(self) -> dict[str, str]:
        """Those of the section ``registry_sync``."""
        return {"sql_alchemy_conn": self.url, "blob_store": self.blobs.as_uri()}

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    def empty(self) -> None:
        """Removes everything; nothing may use it meanwhile, and each task opens it anew."""
        empty_folder(self.folder)
        if self.server is not None:
            self.server.drop_database(_NAME)
            self.server.make_database(_NAME, _READY)
        else:
            ready_database(self.folder / "registry_sync.db").close()

    def check(self, repository: str, content: RepositoryContent) -> None:
        """Raises :class:`RuntimeError` unless the latest version of ``repository`` is ``content``."""
        with Database.connect(self.url) as database:
            check_installation(database, self.blobs, repository, content)


def check_installation(database: Database, blobs: Path, repository: str, content: RepositoryContent) -> None:
    """The tags of the latest version, the bytes of its manifests and blobs. Raises :class:`RuntimeError`."""
    found = database.versions.tags(database.repositories.by_name(repository).id)
    for tag, digest in content.tags.items():
        if found.get(tag) != digest:  # type: ignore[call-overload]  # a name of a tag is text
            raise RuntimeError(f"the version has {tag} not as {digest}")
    reached = content.closure(content.tags)
    for digest, manifest in reached.manifests.items():
        if database.contents.manifest(Digest(digest)).data != manifest.data:
            raise RuntimeError(f"{digest} has arrived with other bytes")
    check_blobs(blobs, reached.blobs)
