"""Sync runs by their Airflow runs, and units and records by several names."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, event

from registry_sync.db.database import Database
from registry_sync.db.runs.dag_run_stores import TaskReads
from registry_sync.domain.content_units import UnitQuery
from registry_sync.domain.records import SyncMode
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import RunKey, RunState
from support.metadata import LISTED_AT, Upstream, image, new_key, open_run, play_stages, sync


def upstream_of(*names: str) -> Upstream:
    upstream = Upstream()
    for name in names:
        upstream.tag(name, image(f"task reads {name}"))
    return upstream


def test_runs_are_found_with_the_counts_of_now(database: Database) -> None:
    repository = database.repositories.ensure("task-reads")
    to_remove, waiting, done = (new_key() for _ in range(3))
    run = open_run(database, repository, key=done)
    play_stages(database, run, upstream_of("one"))
    database.versions.commit(run.id)
    play_stages(database, open_run(database, repository, key=to_remove), upstream_of("one", "two"))
    found = TaskReads(database).by_run_ids(to_remove.dag_id, [key.run_id for key in (to_remove, waiting, done)])
    assert found.keys() == {to_remove.run_id, done.run_id}
    assert (found[to_remove.run_id].counts.tag_count, found[to_remove.run_id].counts.stored_blob_count) == (2, 2)
    assert (found[done.run_id].state, found[done.run_id].version_number) == (RunState.COMPLETED, 1)
    assert TaskReads(database).by_run_ids("another_dag", [to_remove.run_id]) == {}
    assert TaskReads(database).by_run_ids(to_remove.dag_id, []) == {}


def test_of_several_syncs_of_a_dag_run_the_one_of_list_tags_is_shown_and_the_versions_of_all(
    database: Database,
) -> None:
    repository, key = database.repositories.ensure("task-reads-scoped"), new_key()
    for scope in ("group.list_tags", "", "zebra"):
        run = open_run(database, repository, mode=SyncMode.ADDITIVE, key=RunKey(key.dag_id, key.run_id, scope))
        play_stages(database, run, upstream_of(f"of-{scope}"))
        database.versions.commit(run.id)
    found = TaskReads(database).by_run_ids(key.dag_id, [key.run_id])[key.run_id]
    assert (found.key.scope, found.version_number) == ("", 2)
    assert sorted(found.made_before) == [(repository.id, 1), (repository.id, 3)]


def test_a_run_that_was_started_again_keeps_the_versions_that_it_had_made(database: Database) -> None:
    repository, key = database.repositories.ensure("task-reads-again"), new_key()
    for name in ("one", "two"):
        run = open_run(database, repository, mode=SyncMode.ADDITIVE, key=key)
        play_stages(database, run, upstream_of(name))
        database.versions.commit(run.id)
    again = open_run(database, repository, mode=SyncMode.ADDITIVE, key=key)
    assert database.runs.settle_unchanged(again.id, LISTED_AT, latest_number=2)
    found = TaskReads(database).by_run_ids(key.dag_id, [key.run_id])[key.run_id]
    assert (found.id, found.state, found.attempt) == (again.id, RunState.UNCHANGED, 3)
    assert found.made_before == ((repository.id, 1), (repository.id, 2))


def test_many_runs_take_as_many_queries_as_one(database: Database) -> None:
    repository = database.repositories.ensure("task-reads-many")
    keys = [new_key() for _ in range(20)]
    for key in keys:
        open_run(database, repository, key=key)
    assert [queries(database, wanted) for wanted in (keys[:1], keys)] == [3, 3]


def queries(database: Database, keys: list[RunKey]) -> int:
    """How many it takes to find the runs of these keys."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert len(TaskReads(database).by_run_ids(keys[0].dag_id, [key.run_id for key in keys])) == len(keys)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return sum(statement.lstrip().startswith("SELECT") for statement in statements)


@pytest.mark.parametrize(("names", "found"), [((), []), (("b", "nobody"), ["b"]), (("c", "a"), ["a", "c"])])
def test_records_and_tags_are_found_by_several_names(
    database: Database, names: tuple[str, ...], found: list[str]
) -> None:
    repository = database.repositories.ensure("several-names")
    sync(database, repository, upstream_of("a", "b", "c"))
    for name in ("a", "b", "c"):
        database.repositories.ensure(name)
        database.remotes.ensure(RemoteSpec.parse(name, "https://registry.example", "app"))
    assert [entry.name for entry in database.repositories.page(names=names).items] == found
    assert [entry.spec.name for entry in database.remotes.page(names=names).items] == found
    tags = database.units.tags(UnitQuery(repository.id, names=names))
    assert [tag.name for tag in tags.items] == found
