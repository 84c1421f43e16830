"""The commands of the page on backups, taken in the middle of a sync and restored to another place."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from registry_sync.db.database import Database
from registry_sync.domain.runs import RunState, SyncRun
from registry_sync.hooks.stores import open_blob_store
from support.commands import run_command
from support.documents import code_blocks
from support.filling import push
from support.held import Held
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry
from support.postgres import Postgres, running_postgres
from support.syncing import Installation

PAGE = "how-to/backup-and-restore.md"
BLOCKS = [block.text for block in code_blocks(PAGE) if block.language == "bash"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@dataclass
class Place:
    """An installation's home. ``server`` is where its database is; None for the embedded SQLite."""

    home: Path
    server: Postgres | None
    backup: Path
    libpq_url: str = field(init=False, default="")

    def __post_init__(self) -> None:
        (self.home / "registry_sync").mkdir(parents=True, mode=0o700)
        if self.server is not None:
            self.libpq_url = self.server.make_database(self.home.name)

    @property
    def url(self) -> str:
        if self.server is None:
            return f"sqlite:///{self.home}/registry_sync/registry_sync.db"
        return self.libpq_url.replace("postgresql://", "postgresql+psycopg://")

    def open(self) -> Installation:
        database = Database.connect(self.url)
        database.ready() if self.server is None else database.upgrade()
        return Installation(database, open_blob_store((self.home / "registry_sync" / "blobs").as_uri()))

    def type(self, *parts: str) -> None:
        """Runs the blocks of the page that have one of ``parts``, in their order."""
        chosen = [block for block in BLOCKS if any(part in block for part in parts)]
        assert len(chosen) == len(parts)
        programs = [] if self.server is None else [str(self.server.programs)]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(chosen)],
            env={
                "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
                "AIRFLOW_HOME": str(self.home),
                "BACKUP": str(self.backup),
                "DATABASE_URL": self.libpq_url,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    def check(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Runs the block of the page that has commands of ours."""
        monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", self.url)
        monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (self.home / "registry_sync" / "blobs").as_uri())
        (block,) = (block for block in BLOCKS if "airflow registry-sync" in block)
        for line in block.splitlines():
            program, command, *words = line.split()
            assert (program, command) == ("airflow", "registry-sync")
            run_command(*words)


def fill(registry: MemoryRegistry, *tags: str, seed: int) -> None:
    build = ContentBuilder(seed=seed)
    for tag in tags:
        build.tag(tag, build.image([build.blob(30_000)]))
    push(registry, "team/app", build.content())


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_backup_that_is_taken_during_a_sync_is_whole_where_it_is_restored(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dialect: str,
) -> None:
    server = request.getfixturevalue("postgres") if dialect == "postgresql" else None
    old, new = (Place(tmp_path / name, server, tmp_path / "backup") for name in ("old", "new"))
    old.backup.mkdir()
    dump, restore = (
        ("pg_dump", "pg_restore") if server is not None else ("sqlite3", 'cp "$BACKUP')  # the blocks of each database
    )
    registry = MemoryRegistry()
    fill(registry, "1.0", "1.1", seed=1)
    here = old.open()
    with here.database:
        here.sync("app", registry.url, "team/app")
        first = Held.read(here.database, here.store, "app")
        fill(registry, "2.0", seed=2)

        def back_up(stage: str, _run: SyncRun) -> None:
            if stage == "commit_version":
                old.type(dump, "--exclude=./.partials -cf")

        here.sync("app", registry.url, "team/app", before=back_up)
        second = Held.read(here.database, here.store, "app")
    assert (first.number, second.number) == (1, 2)

    new.type(restore, 'tar -C "$BACKUP/blobs" -cf')
    new.check(monkeypatch)
    said = capsys.readouterr().out
    for finding in ("broken", "missing"):
        assert re.search(rf"^{finding} +\| 0", said, re.MULTILINE), said
    there = new.open()
    with there.database:
        assert Held.read(there.database, there.store, "app") == first
        running = there.database.runs.page().items[0]
        assert running.state is RunState.RUNNING
        before = registry.log().blob_get_count
        there.sync("app", registry.url, "team/app")
        assert registry.log().blob_get_count == before, "what the interrupted sync had downloaded is in the backup"
        assert Held.read(there.database, there.store, "app") == second
