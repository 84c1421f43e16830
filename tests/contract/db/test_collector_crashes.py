"""A collector that dies at any of its writes: nothing that is needed is lost, nothing is said to be stored that is not,
and the next collection ends where an undisturbed one does.

The collection under test does everything at once: it lets go of a sync that failed long ago, removes manifests of one
repository and blobs of another, notes those of a third, and removes stray bytes; beside a repository that shares blobs
with all of them, and a sync that is under way.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from registry_sync.blobs import BlobStore, open_blob_store
from registry_sync.db.database import Database
from registry_sync.db.tables import (
    blobs,
    manifests,
    orphaned_blobs,
    orphaned_manifests,
    repository_blobs,
    run_tags,
    tags,
)
from registry_sync.domain.digests import Digest
from registry_sync.domain.runs import RunState
from registry_sync.domain.space import ContentKind
from registry_sync.sync.collect import collect_orphans
from support.metadata import Upstream, image, index, open_run, play_stages, sync
from support.postgres import Postgres
from support.stored_texts import keep_texts

GRACE = timedelta(hours=24)
#: More writes than a collection makes; reached only when the matrix does not end by itself.
MOST_WRITES = 200


@dataclass(frozen=True)
class World:
    """One installation: the URL of its database, the folder of its blobs, and the moment of the collection."""

    url: str
    folder: Path
    now: datetime
    run_id: str

    def collect(self, database: Database, store: Any) -> None:
        collect_orphans(database, store, grace=GRACE, clock=lambda: self.now, tell=lambda _line: None, batch_size=2)


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
        database.orphans.note(ContentKind.MANIFEST, now)

    # Its manifests are gone and its blobs are noted; those of the next one are noted; of the last one nothing is.
    delete("blobs-go")
    later = now + timedelta(minutes=1)
    due = [record.id for record in database.orphans.due(ContentKind.MANIFEST, later)]
    database.orphans.delete_manifests(due, later)
    database.orphans.note(ContentKind.BLOB, now)
    delete("manifests-go")
    database.repositories.delete(database.repositories.by_name("noted").id)
    return World(url, folder, now + timedelta(hours=25), run.id)


class Killed(BaseException):
    """What a killed process raises nowhere else."""


class Writes:
    """Counts the writes of one process, in the database and in the store, and dies before the one of a number."""

    def __init__(self, database: Database, store: BlobStore, dies_at: int | None, die: Callable[[], None]) -> None:
        self.count = 0
        self._store, self._dies_at, self._die = store, dies_at, die
        event.listen(database._engine, "before_cursor_execute", self._before_statement)
        event.listen(database._engine, "commit", lambda _connection: self._note())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, digest: Digest, *, stored_before: datetime | None = None) -> bool:
        self._note()
        gone = self._store.delete(digest, stored_before=stored_before)
        self._note()
        return gone

    def _before_statement(self, _connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().split(maxsplit=1)[0] in ("INSERT", "UPDATE", "DELETE"):
            self._note()

    def _note(self) -> None:
        self.count += 1
        if self.count == self._dies_at:
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


@pytest.fixture
def world(database: Database, url: str, tmp_path: Path) -> World:
    made = make_world(database, tmp_path / "blobs", url)
    database.close()
    return made


@pytest.fixture
def copies(request: pytest.FixtureRequest, dialect: str, world: World, tmp_path: Path) -> Callable[[], Any]:
    """Makes copies of the world, each for the time of a block."""
    made = iter(range(MOST_WRITES + 2))

    @contextmanager
    def copy() -> Iterator[World]:
        number = next(made)
        folder = tmp_path / f"blobs-{number}"
        shutil.copytree(world.folder, folder)
        if dialect == "sqlite":
            path = tmp_path / f"copy-{number}.db"
            shutil.copy(world.url.removeprefix("sqlite:///"), path)
            yield World(f"sqlite:///{path}", folder, world.now, world.run_id)
            path.unlink()
        else:
            server: Postgres = request.getfixturevalue("postgres")
            template = world.url.partition("@/")[2].partition("?")[0]
            yield World(server.make_database(f"{template}_{number}", template), folder, world.now, world.run_id)
            server.drop_database(f"{template}_{number}")
        shutil.rmtree(folder)

    return copy


def undisturbed(copies: Callable[[], Any]) -> tuple[int, dict[str, set[Any]]]:
    """How many writes a collection makes, and what it ends with."""
    with copies() as here, Database.connect(here.url) as database:
        store = open_blob_store(here.folder.as_uri())
        hold_invariants(database, store)
        before = state(database, store)
        writes = Writes(database, store, None, lambda: None)
        here.collect(database, writes)
        count, after = writes.count, state(database, store)
        hold_invariants(database, store)
        commits_whole(database, store, here.run_id)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == set(before), "the collection under test changes everything that one can change"
    return count, after


@pytest.mark.slow
def test_a_collector_may_die_at_every_write(copies: Callable[[], Any]) -> None:
    count, expected = undisturbed(copies)
    assert 30 < count < MOST_WRITES

    def die() -> None:
        raise Killed

    for number in range(1, count + 1):
        with copies() as here:
            store = open_blob_store(here.folder.as_uri())
            with Database.connect(here.url) as database:
                with pytest.raises(Killed):
                    here.collect(database, Writes(database, store, number, die))
                hold_invariants(database, store)
            with Database.connect(here.url) as database:
                here.collect(database, store)
                hold_invariants(database, store)
                assert state(database, store) == expected, f"after dying at write {number}"
                if number % 5 == 0:
                    commits_whole(database, store, here.run_id)


DYING = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from registry_sync.blobs import open_blob_store
from registry_sync.db.database import Database
sys.path.insert(0, sys.argv[5])
from test_collector_crashes import World, Writes

world = World(sys.argv[1], Path(sys.argv[2]), datetime.fromisoformat(sys.argv[3]), "")
with Database.connect(world.url) as database:
    store = open_blob_store(world.folder.as_uri())
    world.collect(database, Writes(database, store, int(sys.argv[4]), lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""


@pytest.mark.slow
def test_a_collector_may_be_killed(copies: Callable[[], Any]) -> None:
    """The same by ``kill -9`` at a few of the writes: a process that dies runs nothing that an exception would."""
    count, expected = undisturbed(copies)
    root = Path(__file__).parents[3]
    path = os.pathsep.join(str(root / name) for name in ("plugins", "tests"))
    for number in range(3, count, count // 6):
        with copies() as here:
            arguments = [here.url, str(here.folder), here.now.isoformat(), str(number), str(Path(__file__).parent)]
            died = subprocess.run(
                [sys.executable, "-c", DYING, *arguments],
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert died.returncode == -signal.SIGKILL, died.stderr
            with Database.connect(here.url) as database:
                store = open_blob_store(here.folder.as_uri())
                hold_invariants(database, store)
                here.collect(database, store)
                assert state(database, store) == expected, f"after being killed at write {number}"
