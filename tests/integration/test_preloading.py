"""What is prepared for tasks in the process that they are forked from, each time in an interpreter of its own."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from registry_sync.operators.preloading import MODULES
from support.fresh_interpreters import run_program
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry
from support.shapes import documented_example

#: Syncs a repository as the tasks of a small one do, again, and once a tag has moved; prints what was compiled for it.
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


_, pushed = execute("first", listing)
committed, _ = execute("first", lambda: CommitVersionOperator(task_id="c", sync_run=pushed["sync_run"]))
execute("unchanged", listing)
own = sorted(name for name in set(sys.modules) - loaded if name.startswith("registry_sync"))
print(json.dumps({**left, "compiled": compiled, "loaded": own, "version": committed["version"]["number"]}))
"""
#: Statements that depend on how many rows there are, and may be compiled by a task all the same.
MOST_COMPILED = 6


def synced(folder: Path, *, is_rehearsed: bool) -> Any:
    (folder / "temporary").mkdir(parents=True)
    registry = MemoryRegistry()
    registry.serve("hello", documented_example())
    with over_http(registry) as server:
        output, errors = run_program(
            PROGRAM,
            server.base,
            "yes" if is_rehearsed else "no",
            home=folder,
            settings={
                "sql_alchemy_conn": f"sqlite:///{folder / 'registry_sync.db'}",
                "blob_store": (folder / "blobs").as_uri(),
            },
            TMPDIR=str(folder / "temporary"),
        )
    assert "could not be rehearsed" not in output + errors
    return json.loads(output.splitlines()[-1])


def test_a_task_compiles_next_to_nothing_after_a_rehearsal(tmp_path: Path) -> None:
    rehearsed, cold = (
        synced(tmp_path / str(is_rehearsed), is_rehearsed=is_rehearsed) for is_rehearsed in (True, False)
    )
    assert rehearsed["version"] == cold["version"] == 1
    assert len(rehearsed["compiled"]) <= MOST_COMPILED, rehearsed["compiled"]
    assert len(cold["compiled"]) > 10 * MOST_COMPILED


def test_a_task_loads_nothing_of_ours_after_a_rehearsal_which_leaves_neither_thread_nor_file(tmp_path: Path) -> None:
    rehearsed = synced(tmp_path, is_rehearsed=True)
    assert rehearsed["loaded"] == []
    assert (rehearsed["threads"], rehearsed["files"]) == (1, [])


@pytest.mark.parametrize("name", MODULES)
def test_what_is_loaded_for_tasks_exists(name: str) -> None:
    """A name that is none would be skipped, and each task would import its module again."""
    assert importlib.util.find_spec(name) is not None
