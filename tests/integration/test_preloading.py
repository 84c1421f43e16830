"""What is prepared for tasks in the process that they are forked from, each time in an interpreter of its own.

On SQLite and on PostgreSQL.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from registry_sync.db.database import Database
from registry_sync.db.repository_copy import temporary_tables
from registry_sync.domain.records import RepositorySpec
from registry_sync.errors import DatabaseUnavailable
from registry_sync.operators.preloading import MODULES
from support.fresh_interpreters import run_program
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry
from support.postgres import Postgres, running_postgres
from support.shapes import documented_example

#: Syncs a repository as the tasks of a small one do, again, and once a tag has moved, and as one of the mirrors of a
#: task of many, and again; prints what was compiled for it.
PROGRAM = """
import json, os, sys, threading
from sqlalchemy.sql.elements import ClauseElement
from registry_sync.operators import preloading

url, is_rehearsed = sys.argv[1:]
if is_rehearsed == "yes":
    preloading.rehearse()
left = {"threads": threading.active_count(), "files": sorted(os.listdir(os.environ["TMPDIR"]))}

from airflow.sdk import DAG
from registry_sync.db.database import Database
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.sync_mirrors import SyncMirrorsOperator
from registry_sync.operators.sync_repository import FETCH_TASKS, add_stages
from registry_sync.operators.list_tags import ListTagsOperator
from support.task_contexts import TaskContext

with Database.connect(os.environ["AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN"]) as database:
    database.ready()
compiled, compile_one = [], ClauseElement._compiler


def compile_and_note(*arguments, **named):
    compiled.append(str(result := compile_one(*arguments, **named)))
    return result


ClauseElement._compiler = compile_and_note
loaded = set(sys.modules)


def execute(run, make):
    context = TaskContext(dag_id="registry_sync", run_id=run)
    with DAG("registry_sync", schedule=None):
        task = make()
    try:
        return task.execute(context.given()), context.returned
    except Exception as skipped:
        assert type(skipped).__name__ == "DownstreamTasksSkipped", skipped
        return None, context.returned


def listing():
    options = {"repository": "hello", "url": url, "upstream_name": "hello", "fetch_tasks": FETCH_TASKS}
    add_stages(task := ListTagsOperator(task_id="list_tags", trust_triggers=True, **options), {})
    return task


def fleet():
    mirror = {"repository": "small", "url": url, "upstream_name": "hello", "include_referrers": False}
    return SyncMirrorsOperator(task_id="sync_mirrors", mirrors=[mirror])


_, pushed = execute("first", listing)
committed, _ = execute("first", lambda: CommitVersionOperator(task_id="c", sync_run=pushed["sync_run"]))
execute("unchanged", listing)
synced, _ = execute("first", fleet)
before = len(compiled)
again, _ = execute("again", fleet)
assert [list(one["counts"]) for one in (synced, again)] == [["changed"], ["unchanged"]], (synced, again)
own = sorted(name for name in set(sys.modules) - loaded if name.startswith("registry_sync"))
found = {"compiled_by_mirrors": compiled[before:], "compiled": compiled[:before], "loaded": own}
print(json.dumps({**left, **found, "version": committed["version"]["number"]}))
"""
#: Statements that depend on how many rows there are, and may be compiled by a task all the same.
MOST_COMPILED = 6


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


def postgresql(server: Postgres, name: str) -> str:
    """The URL of a new migrated database."""
    url = server.make_database(name)
    with Database.connect(url) as database:
        database.upgrade()
    return url


@dataclass(frozen=True)
class Rehearsed:
    """What the program printed after a rehearsal, and the names of the repositories that its database has then."""

    found: dict[str, Any]
    repositories: list[str]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def rehearsed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    folder = tmp_path_factory.mktemp("rehearsed")
    if request.param == "sqlite":
        url = f"sqlite:///{folder / 'registry_sync.db'}"
    else:
        url = postgresql(request.getfixturevalue("postgres"), "rehearsed")
    found = synced(folder, url, is_rehearsed=True)
    with Database.connect(url) as database:
        return Rehearsed(found, [one.name for one in database.repositories.page().items])


def synced(folder: Path, url: str, *, is_rehearsed: bool) -> Any:
    (folder / "temporary").mkdir(parents=True)
    registry = MemoryRegistry()
    registry.serve("hello", documented_example())
    with over_http(registry) as server:
        output, errors = run_program(
            PROGRAM,
            server.base,
            "yes" if is_rehearsed else "no",
            home=folder,
            settings={"sql_alchemy_conn": url, "blob_store": (folder / "blobs").as_uri()},
            TMPDIR=str(folder / "temporary"),
        )
    assert "could not be rehearsed" not in output + errors
    return json.loads(output.splitlines()[-1])


def test_a_task_compiles_next_to_nothing_after_a_rehearsal(rehearsed: Rehearsed) -> None:
    found = rehearsed.found
    assert found["version"] == 1
    assert len(found["compiled"]) <= MOST_COMPILED, found["compiled"]
    assert len(found["compiled_by_mirrors"]) <= MOST_COMPILED, found["compiled_by_mirrors"]


def test_a_task_compiles_much_without_a_rehearsal(tmp_path: Path) -> None:
    cold = synced(tmp_path, f"sqlite:///{tmp_path / 'registry_sync.db'}", is_rehearsed=False)
    assert cold["version"] == 1
    assert len(cold["compiled"]) > 10 * MOST_COMPILED


def test_a_task_loads_nothing_of_ours_after_a_rehearsal_which_leaves_neither_thread_nor_file_nor_row(
    rehearsed: Rehearsed,
) -> None:
    assert rehearsed.found["loaded"] == []
    assert (rehearsed.found["threads"], rehearsed.found["files"]) == (1, [])
    assert rehearsed.repositories == ["hello", "small"]


def test_temporary_tables_are_empty_and_seen_by_nobody_else(postgres: Postgres) -> None:
    url = postgresql(postgres, "temporary")
    with Database.connect(url) as database:
        database.repositories.create(RepositorySpec("mine"))
        with temporary_tables(url) as rehearsed:
            rehearsed.repositories.create(RepositorySpec("theirs"))
            assert [one.name for one in rehearsed.repositories.page().items] == ["theirs"]
            assert [one.name for one in database.repositories.page().items] == ["mine"]
            refused = list[Exception]()

            def read() -> None:
                try:
                    rehearsed.repositories.page()
                except DatabaseUnavailable as error:
                    refused.append(error)

            other = threading.Thread(target=read)
            other.start()
            other.join()
            assert len(refused) == 1, "in another thread they would be the tables outside"
        assert [one.name for one in database.repositories.page().items] == ["mine"]
        with database.reading() as connection:
            left = "SELECT count(*) FROM pg_class WHERE relpersistence = 't'"
            assert connection.execute(text(left)).scalar_one() == 0


@pytest.mark.parametrize("name", MODULES)
def test_what_is_loaded_for_tasks_exists(name: str) -> None:
    """A name that is none would be skipped, and each task would import its module again."""
    assert importlib.util.find_spec(name) is not None
