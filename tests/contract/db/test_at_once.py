"""Processes that commit at the same moment, and processes that die in the middle of a commit."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from registry_sync.db.database import Database
from registry_sync.db.tables import remotes
from registry_sync.domain.content_units import UnitQuery
from registry_sync.domain.records import PageRequest, RepositorySpec
from registry_sync.domain.remote import RemoteSpec
from registry_sync.errors import DatabaseError, DatabaseUnavailable, InvalidReference, RecordNotFound
from support.dying import Copy
from support.metadata import Upstream, image, index, open_run, play_stages, sync
from support.statements import await_lock, listening


def commit_in_copy(url: str, run_id: str, found: Path, wait: Callable[[], object] = lambda: None) -> Copy:
    """A copy of this process that commits the run after ``wait`` and writes the version's number to ``found``."""

    def commit() -> None:
        with Database.connect(url) as database:
            wait()
            version = database.versions.commit(run_id).version
            found.write_text(str(version and version.number))

    return Copy(commit, found.with_suffix(".errors"))


@pytest.mark.slow
def test_processes_that_commit_at_once_follow_each_other_without_gaps(
    database: Database, url: str, tmp_path: Path
) -> None:
    repository = database.repositories.ensure("app")
    runs = []
    for number in range(3):
        upstream = Upstream()
        upstream.tag("latest", image(f"layer {number}"))
        upstream.tag(f"tag-{number}", image("shared"))
        run = open_run(database, repository, name=f"remote-{number}", upstream_name=f"app-{number}")
        play_stages(database, run, upstream)
        runs.append(run)
    database.close()
    barrier = multiprocessing.get_context("fork").Barrier(3)
    found = [tmp_path / run.id for run in runs]
    copies = [
        commit_in_copy(url, run.id, path, lambda: barrier.wait(60)) for run, path in zip(runs, found, strict=True)
    ]
    assert [copy.wait() for copy in copies] == [0] * 3, [copy.errors for copy in copies]

    assert sorted(path.read_text() for path in found) == ["1", "2", "3"]
    versions = database.versions.page(repository.id, PageRequest(ordering="number")).items
    assert [(version.number, version.base_number) for version in versions] == [(1, None), (2, 1), (3, 2)]
    for version in versions:
        query = UnitQuery(repository.id, version.number)
        assert database.units.tags(query).total_count == version.summary.present["docker.tag"] == 2
        assert database.units.manifests(query).total_count == version.summary.present["docker.manifest"] == 2


def test_threads_that_add_and_commit_the_same_content_do_not_disturb_each_other(database: Database) -> None:
    shared = [image(f"layer {number}", "base") for number in range(40)]
    barrier = threading.Barrier(4)

    def work(number: int) -> int | None:
        repository = database.repositories.ensure(f"repository-{number}")
        upstream = Upstream()
        for position, manifest in enumerate(shared if number % 2 else reversed(shared)):
            upstream.tag(f"tag-{position}", index(manifest), manifest)
        barrier.wait(timeout=60)
        result = sync(database, repository, upstream)
        return result.version.summary.present["docker.manifest"] if result.version else None

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [80] * 4
    assert database.units.manifests().total_count == 80


def test_changes_of_different_fields_at_once_are_all_kept(database: Database) -> None:
    repository, upstream = database.repositories.ensure("app"), Upstream()
    upstream.tag("latest", image("a"))
    sync(database, repository, upstream)
    remote = database.remotes.create(RemoteSpec.parse("hub", "https://registry.example", "app"))
    barrier, count = threading.Barrier(12), 6

    def labelled(labels: Mapping[str, str], number: int) -> dict[str, str]:
        return {**labels, f"label-{number}": "x"}

    def work(part: int) -> None:
        number = part // 3
        barrier.wait(timeout=60)
        for step in range(number * count, number * count + count):
            if part % 3 == 0:
                database.remotes.change(remote.id, lambda spec: spec.changed(labels=labelled(spec.labels, step)))  # noqa: B023
            elif part % 3 == 1:
                database.repositories.change(
                    repository.id,
                    lambda spec: replace(spec, labels=labelled(spec.labels, step)),  # noqa: B023
                )
            else:
                database.versions.annotate(
                    repository.id,
                    1,
                    lambda said: replace(said, labels=labelled(said.labels, step)),  # noqa: B023
                )

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))
    wanted = {f"label-{number}" for number in range(4 * count)}
    assert set(database.remotes.get(remote.id).spec.labels) == wanted
    assert set(database.repositories.get(repository.id).labels) == wanted
    assert set(database.versions.get(repository.id, 1).labels) == wanted


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_remote_is_deleted_while_a_sync_from_it_is_committed(database: Database) -> None:
    """Both lock the repository first, so that neither waits for what the other holds."""
    repository, upstream = database.repositories.ensure("app"), Upstream()
    upstream.tag("latest", image("a"))
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    assert run.remote_id is not None
    with database.writing() as connection:  # which the commit confirms
        connection.execute(update(remotes).values(is_provisional=True))

    with _meanwhile("FROM sync_runs", partial(database.remotes.delete, run.remote_id)) as deletion:
        assert database.versions.commit(run.id).version is not None
        deletion().result(timeout=60)
    assert database.runs.get(run.id).remote_id is None


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_remote_is_deleted_while_a_repository_is_that_was_synced_from_it(database: Database) -> None:
    repository, upstream = database.repositories.ensure("app"), Upstream()
    upstream.tag("latest", image("a"))
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    database.versions.commit(run.id)
    assert run.remote_id is not None
    database.repositories.change(repository.id, lambda spec: replace(spec, remote_id=run.remote_id))

    with _meanwhile("FROM repositories", partial(database.remotes.delete, run.remote_id)) as deletion:
        database.repositories.delete(repository.id)
        deletion().result(timeout=60)
    for gone in (partial(database.repositories.get, repository.id), partial(database.remotes.get, run.remote_id)):
        with pytest.raises(RecordNotFound):
            gone()


@contextmanager
def _meanwhile(locked: str, act: Callable[[], None]) -> Iterator[Callable[[], Future[None]]]:
    """Begins ``act`` in a thread once this one has locked a row ``locked``, and goes on when it waits; its future."""
    begun: list[Future[None]] = []
    thread = ThreadPoolExecutor(1)

    def begin(connection: Connection, _cursor: Any, statement: str, *_more: Any) -> None:
        if not begun and locked in statement and "FOR NO KEY UPDATE" in statement:
            begun.append(thread.submit(act))
            await_lock(connection, begun[0])

    with thread, listening("after_cursor_execute", begin):
        yield lambda: begun[0]


def test_a_lock_by_name_is_held_by_one_at_a_time(database: Database) -> None:
    held, most = 0, 0

    def work(_: int) -> None:
        nonlocal held, most
        for _step in range(5):
            with database.lock("remote 1"):
                held += 1
                most = max(most, held)
                database.repositories.ensure("app")
                held -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert most == 1


def test_who_is_in_a_hurry_waits_shortly_for_locks(database: Database, url: str) -> None:
    repository = database.repositories.ensure("app")
    with Database.connect(url, patience_seconds=0.05) as hurried:
        hurried.repositories.get(repository.id)
        with database.lock("remote 1"), pytest.raises(DatabaseUnavailable), hurried.lock("remote 1"):
            pass
        with hurried.lock("remote 1"), database.writing() as connection:
            connection.exec_driver_sql("UPDATE repositories SET description = 'unseen'")
            with pytest.raises(DatabaseUnavailable, match="busy"):
                hurried.repositories.update(repository.id, RepositorySpec("other"))
        assert hurried.repositories.update(repository.id, RepositorySpec("other")).name == "other"


def test_a_change_that_cannot_be_made_leaves_what_was(database: Database) -> None:
    remote = database.remotes.create(RemoteSpec.parse("hub", "https://registry.example", "app"))

    def refuse(_spec: RemoteSpec) -> RemoteSpec:
        raise InvalidReference("not so")

    with pytest.raises(InvalidReference):
        database.remotes.change(remote.id, refuse)
    with pytest.raises(RecordNotFound):
        database.remotes.change("nowhere", refuse)
    assert database.remotes.get(remote.id) == remote


@pytest.mark.slow
def test_a_process_killed_after_the_commit_was_written_is_not_repeated_twice(
    database: Database, url: str, tmp_path: Path
) -> None:
    repository = database.repositories.ensure("app")
    upstream = Upstream()
    upstream.tag("latest", image("a"))
    run = open_run(database, repository)
    play_stages(database, run, upstream)
    for _ in range(2):
        database.close()
        copy = commit_in_copy(url, run.id, tmp_path / "found")
        assert copy.wait() == 0, copy.errors
        assert (tmp_path / "found").read_text() == "1"
    assert database.versions.page(repository.id).total_count == 1


def test_a_writer_that_waits_does_not_stop_readers(database: Database) -> None:
    repository = database.repositories.ensure("app")
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE repositories SET description = 'unseen'")
        assert database.repositories.get(repository.id).description is None


def test_a_lost_database_is_an_error_of_ours(tmp_path: object) -> None:
    with Database.connect(f"sqlite:////dev/null/registry_sync-{id(tmp_path)}.db") as database:
        with pytest.raises(DatabaseError, match="cannot be made"):
            database.upgrade()
        with pytest.raises(DatabaseError):
            database.ready()
