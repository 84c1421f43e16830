"""A collector that dies at any of its writes: nothing that is needed is lost, nothing is said to be stored that is not,
and the next collection ends where an undisturbed one does.

The collection under test does everything at once: it lets go of a sync that failed long ago, removes manifests of one
repository and blobs of another, notes those of a third, and removes stray bytes; beside a repository that shares blobs
with all of them, and a sync that is under way.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from registry_sync.blobs.store import BlobStore
from registry_sync.db.database import Database
from registry_sync.db.tables import (
    blobs,
    manifests,
    metadata,
    orphaned_blobs,
    orphaned_manifests,
    repository_blobs,
    run_tags,
    tags,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.runs import RunState
from registry_sync.domain.storage_reports import ContentKind
from registry_sync.hooks.stores import open_blob_store
from registry_sync.sync.maintenance.collect import collect_orphans
from support.dying import die, status_of_fork, was_killed
from support.metadata import Upstream, image, index, open_run, play_stages, sync
from support.stored_texts import keep_texts

GRACE = timedelta(hours=24)
#: More writes than a collection makes; reached only when the matrix does not end by itself.
MOST_WRITES = 200
TABLES = tuple(table.name for table in metadata.sorted_tables)


@dataclass(frozen=True)
class World:
    """One installation: the URL of its database, the folder of its blobs, and the moment of the collection."""

    url: str
    folder: Path
    now: datetime
    run_id: str

    def collect(self, database: Database, store: Any) -> None:
        collect_orphans(database, store, grace=GRACE, clock=lambda: self.now, report=lambda _line: None, batch_size=2)


def upstream_of(store: BlobStore, name: str) -> Upstream:
    """An index of an image with a layer of its own and one that all share, and another image."""
    keep_texts(store, "shared", f"layer of {name}", f"config of {name}", f"more of {name}", f"more config of {name}")
    found, child = Upstream(), image("shared", f"layer of {name}", config=f"config of {name}")
    found.tag("latest", index(child, note=name), child)
    found.tag("more", image("shared", f"more of {name}", config=f"more config of {name}"))
    return found


def make_world(database: Database, folder: Path, url: str) -> World:
    store = open_blob_store(folder.as_uri())
    now = datetime.now(timezone.utc)
    for name in ("stays", "blobs-go", "manifests-go", "noted"):
        sync(database, database.repositories.ensure(name), upstream_of(store, name))
    failed = open_run(database, database.repositories.ensure("failed"))
    play_stages(database, failed, upstream_of(store, "failed"))
    database.runs.finish(failed.id, RunState.FAILED)
    run = open_run(database, database.repositories.ensure("under-way"))
    play_stages(database, run, upstream_of(store, "under-way"))
    keep_texts(store, "stray one", "stray two", "stray three")

    def delete(name: str) -> None:
        database.repositories.delete(database.repositories.by_name(name).id)
        database.orphans.record(ContentKind.MANIFEST, now)

    # Its manifests are gone and its blobs are noted; those of the next one are noted; of the last one nothing is.
    delete("blobs-go")
    later = now + timedelta(minutes=1)
    due = [record.id for record in database.orphans.due(ContentKind.MANIFEST, later)]
    database.orphans.delete_manifests(due, later)
    database.orphans.record(ContentKind.BLOB, now)
    delete("manifests-go")
    database.repositories.delete(database.repositories.by_name("noted").id)
    return World(url, folder, now + timedelta(hours=25), run.id)


class Killed(BaseException):
    """What a killed process raises nowhere else."""


_WRITE = re.compile(r"\s*(?:INSERT INTO|UPDATE|DELETE FROM) \w+")


class Writes:
    """Notes the writes of one process, in the database and in the store, and dies before the one of a number.

    ``kinds`` are what they do, such as ``DELETE FROM blobs``, and of a commit which write is the last that it is of.
    The end of a transaction that wrote nothing is no write.
    """

    def __init__(self, database: Database, store: BlobStore, dies_at: int | None, die: Callable[[], None]) -> None:
        self.kinds: list[str] = []
        self._uncommitted: str | None = None
        self._store, self._dies_at, self._die = store, dies_at, die
        self._heard = (
            (database._engine, "before_cursor_execute", self._before_statement),
            (database._engine, "commit", self._before_commit),
        )

    def __enter__(self) -> Writes:
        for heard in self._heard:
            event.listen(*heard)
        return self

    def __exit__(self, *_error: object) -> None:
        for heard in self._heard:
            event.remove(*heard)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, digest: Digest, *, stored_before: datetime | None = None) -> bool:
        self._note("before the removal of bytes")
        gone = self._store.delete(digest, stored_before=stored_before)
        self._note("after the removal of bytes")
        return gone

    def _before_statement(self, _connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if written := _WRITE.match(statement):
            self._uncommitted = written[0]
            self._note(written[0])

    def _before_commit(self, _connection: Any) -> None:
        if self._uncommitted is not None:
            kind, self._uncommitted = f"commit of {self._uncommitted}", None
            self._note(kind)

    def _note(self, kind: str) -> None:
        self.kinds.append(kind)
        if len(self.kinds) == self._dies_at:
            self._die()


def state(database: Database, store: BlobStore) -> dict[str, set[Any]]:
    """Everything that a collection may change."""
    with database.reading() as connection:

        def all_of(*columns: Any) -> set[Any]:
            return {tuple(row) for row in connection.execute(select(*columns))}

        return {
            "manifests": all_of(manifests.c.digest),
            "blobs": all_of(blobs.c.digest, blobs.c.stored_at.is_not(None)),
            "tags": all_of(tags.c.name, tags.c.manifest_id),
            "run_tags": all_of(run_tags.c.sync_run_id, run_tags.c.name, run_tags.c.state),
            "orphaned manifests": all_of(orphaned_manifests.c.manifest_id),
            "orphaned blobs": all_of(orphaned_blobs.c.blob_id),
            "bytes": set(store.digests()),
        }


def hold_invariants(database: Database, store: BlobStore) -> None:
    with database.reading() as connection:
        held = connection.execute(
            select(blobs.c.digest, blobs.c.stored_at).join(repository_blobs, repository_blobs.c.blob_id == blobs.c.id)
        ).all()
        stored = set(connection.execute(select(blobs.c.digest).where(blobs.c.stored_at.is_not(None))).scalars())
    assert len(held) == 5, "the repository that stays holds its blobs"
    assert all(row.stored_at is not None for row in held)
    assert stored <= set(store.digests()), "what is said to be stored is there"


def commits_whole(database: Database, store: BlobStore, run_id: str) -> None:
    version = database.versions.commit(run_id).version
    assert version is not None
    assert version.is_complete
    assert version.summary.present == {"docker.tag": 2, "docker.manifest": 3, "docker.blob": 5}
    assert database.versions.missing_blob_count(version.repository_id) == 0
    hold_bytes = {Digest.of(text.encode()) for text in ("shared", "layer of under-way", "more of under-way")}
    assert hold_bytes <= set(store.digests())


class Scene:
    """A world that is put back as it was at the beginning, again and again, for one database and one store.

    The database is not made anew each time: most of what that costs is what an engine learns about its statements.
    """

    def __init__(self, database: Database, world: World, saved: Path) -> None:
        self.database, self.world, self.store = database, world, open_blob_store(world.folder.as_uri())
        self._saved = saved
        shutil.copytree(world.folder, saved / "blobs")
        if database.is_embedded:
            database.close()
            shutil.copy(self._path, saved / "registry_sync.db")
        else:
            self._execute("CREATE SCHEMA saved", *(f"CREATE TABLE saved.{t} AS TABLE {t}" for t in TABLES))

    def begin_anew(self) -> None:
        """Puts everything back, and breaks every connection as the end of a process does."""
        self.database.close()
        shutil.rmtree(self.world.folder)
        shutil.copytree(self._saved / "blobs", self.world.folder)
        if self.database.is_embedded:
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            shutil.copy(self._saved / "registry_sync.db", self._path)
        else:
            emptied = [f"DELETE FROM {table}" for table in TABLES]
            filled = [f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE saved.{table}" for table in TABLES]
            self._execute("SET LOCAL session_replication_role = replica", *emptied, *filled)

    def collect(self, store: Any = None) -> None:
        self.world.collect(self.database, store or self.store)

    def collect_and_die(self, number: int) -> None:
        """A collection that kills its process before its write of that number."""
        with Writes(self.database, self.store, number, die) as writes:
            self.collect(writes)

    def hold_invariants(self) -> None:
        hold_invariants(self.database, self.store)

    def state(self) -> dict[str, set[Any]]:
        return state(self.database, self.store)

    def commits_whole(self) -> None:
        commits_whole(self.database, self.store, self.world.run_id)

    @property
    def _path(self) -> Path:
        return Path(self.world.url.removeprefix("sqlite:///"))

    def _execute(self, *statements: str) -> None:
        with self.database.writing() as connection:
            connection.exec_driver_sql("; ".join(statements))


@pytest.fixture
def scene(database: Database, url: str, tmp_path: Path) -> Scene:
    return Scene(database, make_world(database, tmp_path / "blobs", url), tmp_path / "saved")


def undisturbed(scene: Scene) -> tuple[list[str], dict[str, set[Any]]]:
    """The kinds of the writes that a collection makes, one after the other, and what it ends with."""
    scene.hold_invariants()
    before = scene.state()
    with Writes(scene.database, scene.store, None, lambda: None) as writes:
        scene.collect(writes)
    after = scene.state()
    scene.hold_invariants()
    scene.commits_whole()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == set(before), "the collection under test changes everything that one can change"
    return writes.kinds, after


def numbers_of(kinds: list[str], *, of_each_kind: bool) -> list[int]:
    """The numbers of all writes, from 1 on, or of the first and the last of each kind."""
    firsts = {kinds.index(kind) + 1 for kind in kinds}
    lasts = {len(kinds) - kinds[::-1].index(kind) for kind in kinds}
    return sorted(firsts | lasts) if of_each_kind else list(range(1, len(kinds) + 1))


@pytest.mark.slow
def test_a_collector_may_die_at_every_write(scene: Scene) -> None:
    """On PostgreSQL at the first and the last of each kind: a collection writes the same there, in the same order."""
    kinds, expected = undisturbed(scene)
    assert 30 < len(kinds) < MOST_WRITES
    numbers = numbers_of(kinds, of_each_kind=not scene.database.is_embedded)

    def stop() -> None:
        raise Killed

    for number in numbers:
        scene.begin_anew()
        with Writes(scene.database, scene.store, number, stop) as writes, pytest.raises(Killed):
            scene.collect(writes)
        scene.hold_invariants()
        scene.database.close()
        scene.collect()
        scene.hold_invariants()
        assert scene.state() == expected, f"after dying at write {number}"
        if number % 5 == 0 or number == numbers[-1]:
            scene.commits_whole()


@pytest.mark.slow
def test_a_collector_may_be_killed(scene: Scene) -> None:
    """The same by ``kill -9`` at a few of the writes: a process that dies runs nothing that an exception would."""
    kinds, expected = undisturbed(scene)
    for number in range(3, len(kinds), len(kinds) // 6):
        scene.begin_anew()
        scene.database.close()
        assert was_killed(status_of_fork(lambda number=number: scene.collect_and_die(number)))
        scene.hold_invariants()
        scene.collect()
        assert scene.state() == expected, f"after being killed at write {number}"
