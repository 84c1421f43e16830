"""A copy of what a sync of one repository reads, in a database of its own that is deleted afterwards.

A dry run works on it with the stages of a sync as they are: what it reports is what they decide, and nothing that they
write is kept. The copy has the repository with its latest version, the remotes, and the runs that a sync consults. It
is one snapshot. Content that other repositories have is copied when it is looked up, with the original's ids; content
that is new gets ids above them.

It is a SQLite file in the folder for temporary files, whatever the original is. Temporary tables of PostgreSQL are for
what depends on the server, and has one thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from threading import get_ident
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, Table, event, insert, or_, select, text, update

from registry_sync.db.content.closures import is_present
from registry_sync.db.content.contents import ContentStore
from registry_sync.db.database import Database
from registry_sync.db.engine import converted_errors, make_engine, read_url
from registry_sync.db.queries import in_batches, insert_or_keep, is_one_of
from registry_sync.db.runs.selections import API_REMEMBERED
from registry_sync.db.serving_tables import distributions
from registry_sync.db.tables import (
    blobs,
    manifest_blobs,
    manifest_children,
    manifests,
    metadata,
    remotes,
    repositories,
    repository_blobs,
    repository_links,
    repository_manifests,
    repository_tags,
    repository_versions,
    seen_tags,
    sync_runs,
    tags,
    version_holds,
)
from registry_sync.domain.content_units import KnownManifest
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Manifest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.runs import RunState
from registry_sync.domain.sync_plans import PlannedNames
from registry_sync.errors import DatabaseUnavailable

#: How old a sync may be that says when all tags were last requested; an older one makes the copy request them all.
CONFIRMED_LATELY = timedelta(days=8)
#: New content of the copy gets ids from here; SQLite continues after the highest one.
_FIRST_NEW_ID = 1 << 62


@contextmanager
def temporary_database(
    make: Callable[[Engine], Database] = Database, *, prefix: str = "registry_sync_"
) -> Iterator[Database]:
    """An empty SQLite database with the tables of this release; it is deleted when the context ends.

    ``make`` makes it of its engine; the name of its folder starts with ``prefix``.
    """
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        engine = _new_engine(Path(folder))
        with make(engine) as database:
            with converted_errors():
                metadata.create_all(engine)
            yield database


@contextmanager
def temporary_tables(url: str) -> Iterator[Database]:
    """The PostgreSQL database at ``url`` with empty tables of this release in place of its own, for this thread.

    All of it is one transaction on one connection, which is rolled back when the context ends; other sessions see
    nothing of it. It takes the right to make temporary tables. Raises :class:`ConfigurationError`, and what
    transactions raise.
    """
    with _OfOneThread.connect(url, _PATIENCE_SECONDS) as database, suppress(_RolledBack), database.together():
        with database.writing() as connection:
            connection.exec_driver_sql("SET LOCAL search_path TO pg_temp")
            metadata.create_all(connection, checkfirst=False)
        yield database
        raise _RolledBack


class _RolledBack(Exception):
    """Ends a transaction without its changes."""


class _OfOneThread(Database):
    """A database in whose transaction one thread is: others would see the tables outside of it."""

    _owner: int | None = None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """As elsewhere. Raises :class:`DatabaseUnavailable` in another thread."""
        self._refuse_others()
        with super().reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """As elsewhere. Raises :class:`DatabaseUnavailable` in another thread."""
        self._refuse_others()
        with super().writing() as connection:
            yield connection

    def _refuse_others(self) -> None:
        if (self._owner or get_ident()) != get_ident():
            raise DatabaseUnavailable("these temporary tables are those of another thread")
        self._owner = get_ident()


#: How long the temporary tables are waited for.
_PATIENCE_SECONDS = 10.0


@contextmanager
def copied_for_sync(original: Database, names: PlannedNames) -> Iterator[Database]:
    """The copy, which is deleted when the context ends; ``original`` is only read."""
    with temporary_database(partial(_CopiedDatabase, original=original), prefix="registry_sync_dry_run_") as copy:
        with original.reading() as source, copy.writing() as target:
            if source.dialect.name == "postgresql":
                source.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            _Copying(source, target).copy(names)
        yield copy


def _new_engine(folder: Path) -> Engine:
    engine = make_engine(read_url(f"sqlite:///{folder / 'copy.db'}"))

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # Rows may refer to some that are not copied, and nothing has to outlive a crash.
        for pragma in ("foreign_keys = OFF", "synchronous = OFF", "journal_mode = WAL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


class _CopiedDatabase(Database):
    """The copy of a part of ``original``."""

    def __init__(self, engine: Engine, original: Database) -> None:
        super().__init__(engine)
        self._original = original

    @cached_property
    def contents(self) -> ContentStore:
        """Manifests and blobs; what the copy lacks is copied when it is looked up."""
        return _CopiedContents(self, self._original)


class _CopiedContents(ContentStore):
    """Reads through to the original database."""

    def __init__(self, copy: Database, original: Database) -> None:
        super().__init__(copy)
        self._copy, self._original = copy, original

    def stored_manifests(self, digests: Iterable[Digest]) -> dict[Digest, KnownManifest]:
        """As in the original database."""
        wanted = sorted(set(digests))
        found = super().stored_manifests(wanted)
        lacking = [digest for digest in wanted if digest not in found]
        self._copy_rows(manifests, lacking)
        return found | super().stored_manifests(lacking)

    def add_manifests(self, manifests_in_order: Sequence[Manifest]) -> None:
        """Adds manifests; blobs that the original has a record of are as they are there."""
        named = {blob.digest for manifest in manifests_in_order for _, blob in manifest.blobs()}
        self._copy_rows(blobs, sorted(named))
        super().add_manifests(manifests_in_order)

    def _copy_rows(self, table: Table, digests: Sequence[Digest]) -> None:
        if not digests:
            return
        with self._original.reading() as source, self._copy.writing() as target:
            copying = _Copying(source, target)
            for batch in in_batches(digests):
                is_wanted = is_one_of(source, table.c.digest, batch)
                if table is blobs:
                    copying.rows(blobs, is_wanted)
                else:
                    copying.manifests(select(manifests.c.id).where(is_wanted))


@dataclass(frozen=True)
class _Copying:
    """Copies rows as they are within a transaction of each database; those that the copy has stay."""

    source: Connection
    target: Connection

    def rows(self, table: Table, *conditions: ColumnElement[bool]) -> None:
        """The rows of ``table`` that match."""
        found = self.source.execute(select(table).where(*conditions))
        statement = insert_or_keep(self.target, table)
        for batch in found.partitions(500):
            self.target.execute(statement, [dict(row._mapping) for row in batch])  # noqa: SLF001  a public name

    def copy(self, names: PlannedNames) -> None:
        """Everything but content that the repository does not have."""
        self._reserve_ids()
        self._distributions(names.base_path)
        self.rows(remotes, remotes.c.name.in_(names.remotes))
        self.rows(repositories, repositories.c.name == names.repository)
        # A version that retention would remove is the one to compare with.
        self.target.execute(update(repositories).values(retain_versions=None))
        wanted = select(repositories).where(repositories.c.name == names.repository)
        repository = self.source.execute(wanted).one_or_none()
        self._runs(names.remotes, None if repository is None else repository.settled_run_id)
        if repository is not None:
            self._repository(repository.id)

    def _reserve_ids(self) -> None:
        unit = {"id": _FIRST_NEW_ID, "digest": "-", "media_type": "-", "size_bytes": 0, "created_at": utc_now()}
        of_manifest = {"kind": "-", "annotations": {}, "data": b""}
        self.target.execute(insert(manifests), unit | of_manifest)
        self.target.execute(insert(blobs), unit | {"is_foreign": False, "stored_at": utc_now()})
        of_tag = {"id": _FIRST_NEW_ID, "name": "-", "manifest_id": _FIRST_NEW_ID, "created_at": utc_now()}
        self.target.execute(insert(tags), of_tag)

    def _distributions(self, base_path: str | None) -> None:
        if base_path is None:
            return
        is_near = or_(distributions.c.base_path == base_path, distributions.c.name == base_path)
        self.rows(distributions, is_near)
        self.rows(repositories, repositories.c.id.in_(select(distributions.c.repository_id).where(is_near)))

    def _runs(self, remote_names: Sequence[str], settled_run_id: str | None) -> None:
        """The last sync of the repository; and of the remotes those that are running or whose findings still count.

        These are of the referrers API, and of when all tags were last requested.
        """
        looked = sync_runs.c.has_referrers_api.is_not(None) & (sync_runs.c.started_at > utc_now() - API_REMEMBERED)
        of_remotes = select(remotes.c.id).where(remotes.c.name.in_(remote_names))
        settled = sync_runs.c.state.in_([state.value for state in RunState if state.is_settled])
        confirmed = settled & (sync_runs.c.started_at > utc_now() - CONFIRMED_LATELY)
        is_near = or_(looked, confirmed, sync_runs.c.state == RunState.RUNNING.value)
        self.rows(sync_runs, sync_runs.c.remote_id.in_(of_remotes), is_near)
        self.rows(sync_runs, sync_runs.c.id == settled_run_id)

    def _repository(self, repository_id: str) -> None:
        """The versions with the syncs that made them, and the content of the latest one."""
        of_versions = repository_versions.c.repository_id == repository_id
        self.rows(repository_versions, of_versions)
        self.rows(sync_runs, sync_runs.c.id.in_(select(repository_versions.c.sync_run_id).where(of_versions)))
        self.rows(version_holds, version_holds.c.repository_id == repository_id)
        self.rows(seen_tags, seen_tags.c.repository_id == repository_id)
        for table in (repository_tags, repository_manifests, repository_blobs, repository_links):
            self.rows(table, is_present(table, repository_id))
        members = select(repository_tags.c.tag_id).where(is_present(repository_tags, repository_id))
        self.rows(tags, tags.c.id.in_(members))
        self.manifests(
            select(repository_manifests.c.manifest_id).where(is_present(repository_manifests, repository_id))
        )

    def manifests(self, ids: Select[Any]) -> None:
        """The manifests of those ids with their relations and the blobs that they name."""
        self.rows(manifests, manifests.c.id.in_(ids))
        self.rows(manifest_children, manifest_children.c.parent_id.in_(ids))
        self.rows(manifest_blobs, manifest_blobs.c.manifest_id.in_(ids))
        self.rows(blobs, blobs.c.id.in_(select(manifest_blobs.c.blob_id).where(manifest_blobs.c.manifest_id.in_(ids))))
