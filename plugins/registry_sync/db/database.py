"""The metadata database as the rest of the project sees it: one object with its stores.

Its locks by name are for work that no transaction can hold together, because part of it happens elsewhere. They hold
between threads, processes and machines, and are dropped with whoever holds them. Nothing in the database is
locked meanwhile: only those wait who ask for the same lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType

from sqlalchemy import Connection, Engine, text

from registry_sync.db import schema
from registry_sync.db.collection.blob_checks import BlobCheckStore
from registry_sync.db.collection.blob_removal import BlobBytesStore
from registry_sync.db.collection.disk_usage import DiskUsageStore
from registry_sync.db.collection.orphans import OrphanStore
from registry_sync.db.content.contents import ContentStore
from registry_sync.db.content.units import UnitStore
from registry_sync.db.engine import BUSY_TIMEOUT_SECONDS, converted_errors, for_writing, make_engine, read_url
from registry_sync.db.remotes import RemoteStore
from registry_sync.db.repositories import RepositoryStore
from registry_sync.db.runs.listings import KeptHeadStore
from registry_sync.db.runs.run_ends import RunEndStore
from registry_sync.db.runs.selections import SelectionStore
from registry_sync.db.runs.sync_requests import SyncRequestStore
from registry_sync.db.runs.sync_runs import SyncRunStore
from registry_sync.db.versions.version_store import ProvenanceStore, VersionStore
from registry_sync.domain.file_modes import OWNER_ONLY, FileModes
from registry_sync.errors import DatabaseError, DatabaseOutdated, DatabaseUnavailable

#: Tells locks by name from the one under which PostgreSQL is migrated; the number is arbitrary.
POSTGRESQL_SEED = 7_250_131
_POLL_SECONDS = 0.02


@contextmanager
def file_lock(path: str, patience_seconds: float, modes: FileModes) -> Iterator[None]:
    """Holds the lock of the file at ``path``, which is made. Raises :class:`DatabaseUnavailable` when it is not had."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, modes.file)
    except OSError as problem:
        raise DatabaseError(f"the lock {path} of the metadata database cannot be made: {problem.strerror}") from problem
    try:
        modes.apply(descriptor)
        deadline = time.monotonic() + patience_seconds
        while not _is_locked(descriptor):
            if time.monotonic() > deadline:
                raise DatabaseUnavailable("another change of this kind is under way, and takes long; try again later")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Database:
    """A metadata database. Threads may share one; processes make their own. Nothing is opened before first use."""

    def __init__(self, engine: Engine, patience_seconds: float | None = None, modes: FileModes = OWNER_ONLY) -> None:
        self._engine = engine
        self._modes = modes
        self._patience_seconds = patience_seconds or BUSY_TIMEOUT_SECONDS

    @classmethod
    def connect(cls, url: str, patience_seconds: float | None = None, *, modes: FileModes = OWNER_ONLY) -> Database:
        """The database at ``url``, a SQLite file or a PostgreSQL. Raises :class:`ConfigurationError`.

        ``patience_seconds`` is how long a lock or a connection is waited for; None as long as a task waits. ``modes``
        is who may use the files of a SQLite.
        """
        return cls(make_engine(read_url(url), patience_seconds), patience_seconds, modes)

    @property
    def is_embedded(self) -> bool:
        """Whether it is a SQLite file, which migrates itself."""
        return self._engine.dialect.name == "sqlite"

    @property
    def location(self) -> str:
        """Its address without the password, for messages."""
        return self._engine.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads. Database errors come out of it as ours."""
        with converted_errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write: all of it is kept, or nothing when it is left by an error."""
        with converted_errors(), for_writing(self._engine.connect()) as connection, connection.begin():
            yield connection

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """A lock by name, for what cannot be done in one transaction; SQLite has one for all names.

        It is not had twice by one thread. Raises :class:`DatabaseUnavailable` when others keep it for long.
        """
        if self.is_embedded:
            with file_lock(f"{self._engine.url.database}.changes.lock", self._patience_seconds, self._modes):
                yield
            return
        with self.writing() as connection:
            statement = "SELECT pg_advisory_xact_lock(hashtextextended(:name, :seed))"
            connection.execute(text(statement), {"name": name, "seed": POSTGRESQL_SEED})
            yield

    def upgrade(self) -> None:
        """Migrates to the schema of this release; safe when repeated and for several processes at once."""
        schema.upgrade(self._engine, modes=self._modes)

    def downgrade(self, revision: str) -> None:
        """Migrates back to ``revision``; ``base`` removes every table with its records."""
        schema.downgrade(self._engine, revision)

    needed_revision = schema.HEAD_REVISION

    def revision(self) -> str | None:
        """The schema it is at, None when it is empty or does not exist."""
        if self._is_absent():
            return None
        with self.reading() as connection:
            return schema.current_revision(connection)

    def check(self) -> None:
        """Raises :class:`DatabaseOutdated` with the command to run unless the schema is the one of this release."""
        if self._is_absent():
            raise DatabaseOutdated("the embedded metadata database does not exist yet; it is made at its first use")
        schema.refuse_other_than_head(self.revision())

    def ready(self) -> None:
        """Makes sure that the stores can be used: an embedded database is migrated, another one is checked.

        Raises :class:`DatabaseOutdated` when that takes an operator.
        """
        if self.is_embedded:
            for suffix in ("", "-wal", "-shm", ".lock", ".changes.lock"):
                self._modes.tighten(f"{self._engine.url.database}{suffix}")
        if self.is_embedded and schema.is_behind(self.revision()):
            self.upgrade()
        self.check()

    def _is_absent(self) -> bool:
        return self.is_embedded and not Path(str(self._engine.url.database)).exists()

    def close(self) -> None:
        """Closes its connections; a later use opens new ones."""
        self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def repositories(self) -> RepositoryStore:
        """Repositories by id and by name."""
        return RepositoryStore(self)

    @cached_property
    def remotes(self) -> RemoteStore:
        """Remotes by id and by name."""
        return RemoteStore(self)

    @cached_property
    def runs(self) -> SyncRunStore:
        """Sync runs with what they listed and planned."""
        return SyncRunStore(self)

    @cached_property
    def requests(self) -> SyncRequestStore:
        """Syncs as they were asked for over REST."""
        return SyncRequestStore(self)

    @cached_property
    def heads(self) -> KeptHeadStore:
        """Digests of tags that a listing under way has asked for."""
        return KeptHeadStore(self)

    @cached_property
    def run_ends(self) -> RunEndStore:
        """How runs end with their DAG runs, and go on with them."""
        return RunEndStore(self)

    @cached_property
    def selections(self) -> SelectionStore:
        """What runs and versions take along below their tags."""
        return SelectionStore(self)

    @cached_property
    def contents(self) -> ContentStore:
        """Manifests and blobs, whichever repositories hold them."""
        return ContentStore(self)

    @cached_property
    def versions(self) -> VersionStore:
        """Repository versions, and the commit that makes them."""
        return VersionStore(self)

    @cached_property
    def provenance(self) -> ProvenanceStore:
        """Where versions and content came from, and who holds it."""
        return ProvenanceStore(self)

    @cached_property
    def units(self) -> UnitStore:
        """Pages of content units, for people and REST."""
        return UnitStore(self)

    @cached_property
    def orphans(self) -> OrphanStore:
        """Content that nothing needs, to be collected."""
        return OrphanStore(self)

    @cached_property
    def blob_bytes(self) -> BlobBytesStore:
        """Bytes of blobs that go, when they are collected or reclaimed."""
        return BlobBytesStore(self)

    @cached_property
    def blob_checks(self) -> BlobCheckStore:
        """What verifying and repairing blobs need to know."""
        return BlobCheckStore(self)

    @cached_property
    def disk_usage(self) -> DiskUsageStore:
        """What content takes."""
        return DiskUsageStore(self)
