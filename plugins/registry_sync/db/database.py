"""The metadata database: one object that connects, migrates, locks, and gives the stores.

The stores that syncs need are imported with it, and others at their first use: a task imports anew.

Named locks are for work that one transaction cannot cover, because part of it happens outside the database. They hold
between threads, processes and machines, and are released when their holder exits. They lock no rows: only callers that
take the same lock wait.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

from registry_sync.db import schema
from registry_sync.db.content.contents import ContentStore
from registry_sync.db.engine import (
    BUSY_TIMEOUT_SECONDS,
    OURS,
    CommitCounter,
    converted_errors,
    for_writing,
    make_engine,
    read_url,
)
from registry_sync.db.remotes import RemoteStore
from registry_sync.db.repositories import RepositoryStore
from registry_sync.db.runs.confirmations import ConfirmationStore
from registry_sync.db.runs.dag_run_stores import RunEndStore, SyncRequestStore
from registry_sync.db.runs.listings import CachedHeadStore
from registry_sync.db.runs.selections import SelectionStore
from registry_sync.db.runs.sync_runs import SyncRunStore
from registry_sync.db.versions.version_store import ProvenanceStore, VersionStore
from registry_sync.domain.file_modes import OWNER_ONLY, FileModes
from registry_sync.domain.sync_plans import PlannedNames
from registry_sync.errors import DatabaseError, DatabaseOutdated, DatabaseUnavailable

if TYPE_CHECKING:
    from registry_sync.db.budget_leases import AccountBudgetStore
    from registry_sync.db.collection.blob_checks import BlobCheckStore
    from registry_sync.db.collection.blob_removal import BlobBytesStore
    from registry_sync.db.collection.disk_usage import DiskUsageStore
    from registry_sync.db.collection.orphans import OrphanStore
    from registry_sync.db.content.units import UnitStore
    from registry_sync.db.distributions import DistributionStore, RobotStore
    from registry_sync.db.download_claims import DownloadClaimStore
    from registry_sync.db.held_claims import HeldClaims
    from registry_sync.db.last_pulls import LastPullStore
    from registry_sync.db.login_failures import LoginFailureStore
    from registry_sync.db.overview_store import OverviewStore
    from registry_sync.db.pulls import PullStore
    from registry_sync.db.runs.finished_tasks import FinishedTaskStore
    from registry_sync.db.runs.fleet_results import MirrorResultStore
    from registry_sync.db.runs.notified_states import NotifiedStateStore
    from registry_sync.db.runs.seen_tags import SeenTagStore
    from registry_sync.db.runs.unchanged_syncs import UnchangedSyncStore

#: Keeps named locks apart from the lock under which PostgreSQL is migrated; the number is arbitrary.
POSTGRESQL_SEED = 7_250_131
_POLL_SECONDS = 0.02


@contextmanager
def file_lock(path: str, patience_seconds: float, modes: FileModes) -> Iterator[None]:
    """Locks the file at ``path``, creating it. Raises :class:`DatabaseUnavailable` after ``patience_seconds``."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, modes.file)
    except OSError as problem:
        raise DatabaseError(f"the lock {path} of the metadata database cannot be made: {problem.strerror}") from problem
    try:
        modes.apply(descriptor)
        deadline = time.monotonic() + patience_seconds
        while not _is_locked(descriptor):
            if time.monotonic() > deadline:
                raise DatabaseUnavailable("another change of this kind has been in progress for long; try again later")
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
    """A metadata database. Threads may share one; each process makes its own. It connects at first use."""

    def __init__(self, engine: Engine, patience_seconds: float | None = None, modes: FileModes = OWNER_ONLY) -> None:
        self._engine = engine
        self._modes = modes
        self._patience_seconds = patience_seconds or BUSY_TIMEOUT_SECONDS
        self._writer, self._of_thread = threading.Lock(), threading.local()

    @classmethod
    def connect(cls, url: str, patience_seconds: float | None = None, *, modes: FileModes = OWNER_ONLY) -> Database:
        """The database at ``url``, a SQLite file or PostgreSQL. Raises :class:`ConfigurationError`.

        ``patience_seconds`` limits the wait for a lock or a connection; None waits as long as a task does. ``modes``
        sets who may access the files of a SQLite database.
        """
        return cls(make_engine(read_url(url), patience_seconds), patience_seconds, modes)

    @property
    def is_embedded(self) -> bool:
        """Whether it is a SQLite file, which is migrated at its first use."""
        return self._engine.dialect.name == "sqlite"

    @property
    def location(self) -> str:
        """Its address without the password, for messages."""
        return self._engine.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only transaction. Errors of the driver are raised as :class:`DatabaseError`."""
        if (joined := self._joined) is not None:
            with converted_errors():
                yield joined
            return
        with converted_errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write: committed as a whole, or rolled back when an error leaves it."""
        if (joined := self._joined) is not None:
            with converted_errors():
                yield joined
            return
        with self._turn(), converted_errors(), for_writing(self._engine.connect()) as connection, connection.begin():
            yield connection

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction for all that this thread reads and writes within: each of its own would wait for the disk.

        Errors have to leave it: it is rolled back as a whole, and what was written before an error is not there.
        """
        if self._joined is not None:
            yield
            return
        with self.writing() as connection:
            self._of_thread.joined = connection
            try:
                yield
            finally:
                del self._of_thread.joined

    @property
    def _joined(self) -> Connection | None:
        """The transaction of :meth:`together` that this thread is in; None for none."""
        return getattr(self._of_thread, "joined", None)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The turn of this thread to write, where the database has one writer at a time: SQLite.

        Threads of one process that waited for each other in SQLite would look again and again, up to a tenth of a
        second after the lock was released. Raises :class:`DatabaseUnavailable`.
        """
        if not self.is_embedded:
            yield
            return
        if not self._writer.acquire(timeout=self._patience_seconds):
            raise DatabaseUnavailable(
                f"{OURS} is busy: another thread of this process writes for long; try again later"
            )
        try:
            yield
        finally:
            self._writer.release()

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """A named lock, for changes that do not fit into one transaction; SQLite has one lock for all names.

        Not reentrant. Raises :class:`DatabaseUnavailable` when others hold it for too long.
        """
        if self.is_embedded:
            with file_lock(f"{self._engine.url.database}.changes.lock", self._patience_seconds, self._modes):
                yield
            return
        with self.writing() as connection:
            statement = "SELECT pg_advisory_xact_lock(hashtextextended(:name, :seed))"
            connection.execute(text(statement), {"name": name, "seed": POSTGRESQL_SEED})
            yield

    def copied_for_sync(self, names: PlannedNames) -> AbstractContextManager[Database]:
        """A copy of what a sync reads, in a database that is deleted when the context ends; this one is only read."""
        from registry_sync.db.repository_copy import copied_for_sync

        return copied_for_sync(self, names)

    def upgrade(self) -> None:
        """Migrates to the schema of this release; safe to repeat and to run concurrently."""
        schema.upgrade(self._engine, modes=self._modes)

    def downgrade(self, revision: str) -> None:
        """Migrates down to ``revision``; ``base`` drops every table."""
        schema.downgrade(self._engine, revision)

    needed_revision = schema.HEAD_REVISION

    def revision(self) -> str | None:
        """The schema revision of the database, None when it is empty or does not exist."""
        if self._is_absent():
            return None
        with self.reading() as connection:
            return schema.current_revision(connection)

    def check(self) -> None:
        """Raises :class:`DatabaseOutdated` with the command to run unless the schema is that of this release."""
        if self._is_absent():
            raise DatabaseOutdated("the embedded metadata database does not exist yet; it is created at its first use")
        schema.refuse_other_than_head(self.revision())

    def ready(self) -> None:
        """Prepares the database for use: migrates an embedded one that nobody else has open, checks any other.

        Raises :class:`DatabaseOutdated` when an operator has to migrate it, :class:`DatabaseUnavailable` for an
        embedded one of an earlier release that is in use.
        """
        if self.is_embedded:
            for suffix in ("", "-wal", "-shm", ".lock", ".changes.lock"):
                self._modes.tighten(f"{self._engine.url.database}{suffix}")
        if self.is_embedded and schema.is_behind(self.revision()):
            self._engine.dispose()  # whoever migrates it at the same time looks whether it is open elsewhere
            schema.upgrade(self._engine, modes=self._modes, only_unused=True)
        self.check()

    def _is_absent(self) -> bool:
        return self.is_embedded and not Path(str(self._engine.url.database)).exists()

    def close(self) -> None:
        """Closes the connections; a later use opens new ones."""
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
        """Sync runs with the tags they listed and the blobs they planned."""
        return SyncRunStore(self)

    @cached_property
    def requests(self) -> SyncRequestStore:
        """Syncs requested over REST."""
        return SyncRequestStore(self)

    @cached_property
    def finished_tasks(self) -> FinishedTaskStore:
        """Tasks of requests that were done at once."""
        from registry_sync.db.runs.finished_tasks import FinishedTaskStore

        return FinishedTaskStore(self)

    @cached_property
    def mirror_results(self) -> MirrorResultStore:
        """What became of the mirrors of fleets."""
        from registry_sync.db.runs.fleet_results import MirrorResultStore

        return MirrorResultStore(self)

    @cached_property
    def unchanged_syncs(self) -> UnchangedSyncStore:
        """Syncs of many mirrors that find nothing to change; loaded by their tasks alone."""
        from registry_sync.db.runs.unchanged_syncs import UnchangedSyncStore

        return UnchangedSyncStore(self)

    @cached_property
    def overviews(self) -> OverviewStore:
        """Repositories and syncs at a glance, for pages; commands do without."""
        from registry_sync.db.overview_store import OverviewStore

        return OverviewStore(self)

    @cached_property
    def notified_states(self) -> NotifiedStateStore:
        """Of which states of mirrors people were notified."""
        from registry_sync.db.runs.notified_states import NotifiedStateStore

        return NotifiedStateStore(self)

    @cached_property
    def account_budgets(self) -> AccountBudgetStore:
        """What accounts at registries allow, and the processes that use them."""
        from registry_sync.db.budget_leases import AccountBudgetStore

        return AccountBudgetStore(self)

    @cached_property
    def heads(self) -> CachedHeadStore:
        """Digests of tags that the HEADs of a running listing returned."""
        return CachedHeadStore(self)

    @cached_property
    def seen_tags(self) -> SeenTagStore:
        """Since when the tags of upstreams are known."""
        from registry_sync.db.runs.seen_tags import SeenTagStore

        return SeenTagStore(self)

    @cached_property
    def confirmations(self) -> ConfirmationStore:
        """When tags were last confirmed one by one, and what syncs found of their registry's digest list."""
        return ConfirmationStore(self)

    @cached_property
    def run_ends(self) -> RunEndStore:
        """Runs that end with their DAG runs, or resume with them."""
        return RunEndStore(self)

    @cached_property
    def selections(self) -> SelectionStore:
        """The manifests that runs and versions include below their tags."""
        return SelectionStore(self)

    @cached_property
    def contents(self) -> ContentStore:
        """Manifests and blobs, independent of repositories."""
        return ContentStore(self)

    @cached_property
    def versions(self) -> VersionStore:
        """Repository versions, and the commit that creates them."""
        return VersionStore(self)

    @cached_property
    def provenance(self) -> ProvenanceStore:
        """Where versions and content came from, and which repositories hold it."""
        return ProvenanceStore(self)

    @cached_property
    def units(self) -> UnitStore:
        """Pages of content units, for REST and the UI."""
        from registry_sync.db.content.units import UnitStore

        return UnitStore(self)

    @cached_property
    def orphans(self) -> OrphanStore:
        """Unreachable content, for garbage collection."""
        from registry_sync.db.collection.orphans import OrphanStore

        return OrphanStore(self)

    @cached_property
    def blob_bytes(self) -> BlobBytesStore:
        """Removal of blobs' bytes, by garbage collection or to reclaim space."""
        from registry_sync.db.collection.blob_removal import BlobBytesStore

        return BlobBytesStore(self)

    @cached_property
    def blob_checks(self) -> BlobCheckStore:
        """The state of blobs for verification and repair."""
        from registry_sync.db.collection.blob_checks import BlobCheckStore

        return BlobCheckStore(self)

    @cached_property
    def disk_usage(self) -> DiskUsageStore:
        """The disk usage of content."""
        from registry_sync.db.collection.disk_usage import DiskUsageStore

        return DiskUsageStore(self)

    @cached_property
    def last_pulls(self) -> LastPullStore:
        """When tags and manifests were last pulled."""
        from registry_sync.db.last_pulls import LastPullStore

        return LastPullStore(self)

    @cached_property
    def login_failures(self) -> LoginFailureStore:
        """How many logins of whom have failed."""
        from registry_sync.db.login_failures import LoginFailureStore

        return LoginFailureStore(self)

    @cached_property
    def distributions(self) -> DistributionStore:
        """Under which names repositories are served."""
        from registry_sync.db.distributions import DistributionStore

        return DistributionStore(self)

    @cached_property
    def robots(self) -> RobotStore:
        """Logins of programs that pull."""
        from registry_sync.db.distributions import RobotStore

        return RobotStore(self)

    @cached_property
    def pulls(self) -> PullStore:
        """What pulls look up."""
        from registry_sync.db.pulls import PullStore

        return PullStore(self)

    def commit_counter(self) -> CommitCounter:
        """Says whether anything was committed since it was last read; to be closed."""
        return CommitCounter(self._engine)

    def held_claims(self) -> HeldClaims:
        """New claims on downloads, of whoever asks; to be closed."""
        from registry_sync.db.held_claims import HeldClaims

        return HeldClaims(self)

    @cached_property
    def download_claims(self) -> DownloadClaimStore:
        """Which process fetches what a pull asked for."""
        from registry_sync.db.download_claims import DownloadClaimStore

        return DownloadClaimStore(self)
