"""Looks at mirrors of a task of many: what they write and cost, and that a look is never taken for more than it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from registry_sync.db.tables import repositories, sync_runs
from registry_sync.domain.media_types import OCI_MANIFEST
from registry_sync.domain.mirror_results import MirrorOutcome
from registry_sync.domain.records import PageRequest
from registry_sync.domain.runs import UNKNOWN_TRIGGER, RunKey, RunState
from registry_sync.domain.settled_mirrors import SettledMirror
from registry_sync.sync.mirror_tasks import MirrorTask
from registry_sync.sync.open_run import SyncRequest
from registry_sync.sync.sync_mirrors import RECORDED_AT_ONCE
from registry_sync.sync.unchanged_mirrors import expected_run
from support.dying import die, status_of_fork, was_killed
from support.images import ContentBuilder
from support.memory_registry import ANY, HELD, MemoryRegistry, referrers_page, refusal
from support.mirrors import Fleet, RenewedFleets, names, small_repository
from support.statements import executed_statements

APP = "team/app-000"


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RenewedFleets]:
    made = RenewedFleets(tmp_path_factory.mktemp("looks"))
    yield made
    made.close()


@pytest.fixture
def registry() -> Iterator[MemoryRegistry]:
    with MemoryRegistry(netloc=RenewedFleets.NETLOC) as found:
        yield found


@pytest.fixture
def fleet(fleets: RenewedFleets, registry: MemoryRegistry, tmp_path: Path) -> Fleet:
    """Three mirrors that were synced once."""
    return synced_once(fleets, registry, tmp_path, 3)


def synced_once(fleets: RenewedFleets, registry: MemoryRegistry, folder: Path, count: int) -> Fleet:
    found = fleets.begin(registry, folder, names(count)).fill()
    fleets.once(found, folder, (count, registry.has_referrers_api), lambda: found.sync("run-1"))
    registry.reset_counts()
    return found


def requests(fleet: Fleet, name: str) -> list[str]:
    """The requests for one repository, such as ``HEAD manifest``."""
    return [f"{one.method} {one.kind}" for one in fleet.registry.log().requests if one.repository == name]


def row(fleet: Fleet, table: Any, column: Any, value: str) -> dict[str, Any]:
    with fleet.here.database.reading() as connection:
        return dict(connection.execute(select(table).where(column == value)).mappings().one())


def recorded(fleet: Fleet, run_id: str) -> dict[str, Any]:
    """The row of the sync of the first mirror in that run, and what its repository's row has of it."""
    key = MirrorTask("fleet", run_id, "sync_mirrors").key(APP)
    run = row(fleet, sync_runs, sync_runs.c.id, fleet.here.database.runs.by_key(key).id)
    repository = row(fleet, repositories, repositories.c.id, run["repository_id"])
    settled = {name: repository[name] for name in ("settled_version", "last_listing", "latest_number")}
    return {**run, **settled, "is_last": repository["settled_run_id"] == run["id"]}


def test_a_look_records_what_a_single_sync_records(fleet: Fleet) -> None:
    fleet.repositories = [APP]
    with_look = fleet.mirrors
    fleet.mirrors = partial(_without_look, with_look)  # type: ignore[method-assign]
    fleet.sync("run-2")
    single = recorded(fleet, "run-2")
    fleet.mirrors = with_look  # type: ignore[method-assign]
    fleet.sync("run-3")
    look = recorded(fleet, "run-3")
    differ = {"id", "run_id", "started_at", "listed_at", "finished_at"}
    numbers = {"listing_began", "listing_number", "last_listing"}
    same = single.keys() - differ - numbers
    assert {name: look[name] for name in same} == {name: single[name] for name in same}
    assert {look[name] - single[name] for name in numbers} == {1}, "each listing has the next number"
    assert look["started_at"] <= look["listed_at"] <= look["finished_at"]
    assert (look["state"], look["head_count"], look["tag_page_count"], look["is_last"]) == ("unchanged", 3, 1, True)


@pytest.mark.slow
def test_unchanged_mirrors_are_read_and_written_together(fleet: Fleet) -> None:
    fleet.repositories = names(40)
    fleet.fill()
    fleet.sync("run-2")
    fleet.sync("run-3")
    with executed_statements() as statements:
        synced = fleet.sync("run-4")
    assert str(synced) == "40 unchanged"
    assert len(statements) <= 2 * 40, "a mirror alone takes more than forty"
    assert len(fleet.here.database.mirror_results.of_task("fleet", "run-4", "sync_mirrors")) == 40


@pytest.mark.slow
def test_what_is_known_of_lists_of_digests_is_read_together(fleet: Fleet) -> None:
    fleet.registry.lists_digests = True
    fleet.repositories = names(40)
    fleet.fill(tags=6)
    fleet.sync("run-2")
    fleet.registry.reset_counts()
    with executed_statements() as statements:
        synced = fleet.sync("run-3")
    assert str(synced) == "40 unchanged"
    asked = [requests(fleet, name) for name in fleet.repositories]
    assert [one[:1] for one in asked] == 40 * [["GET tags"]]
    assert [one for of_each in asked for one in of_each[1:]] == 3 * ["HEAD manifest"]
    assert len(statements) <= 2 * 40, "to read it of each alone takes five"


def moved(fleet: Fleet) -> None:
    fleet.registry.serve(APP, small_repository(0, tags=3, moved=1))


def new_tag(fleet: Fleet) -> None:
    fleet.registry.serve(APP, small_repository(0, tags=4))


def gone_tag(fleet: Fleet) -> None:
    fleet.registry.serve(APP, small_repository(0, tags=2))


def gone(fleet: Fleet) -> None:
    fleet.registry.on("GET", "tags", "", refusal(404, "NAME_UNKNOWN"), repository=APP)


def one_tag_refused(fleet: Fleet) -> None:
    fleet.registry.on("HEAD", "manifest", "1.1", refusal(403, "DENIED"), repository=APP)


def unavailable_once(fleet: Fleet) -> None:
    fleet.registry.on("HEAD", "manifest", "1.1", refusal(503, "UNAVAILABLE"), HELD, repository=APP)


def without_digest(fleet: Fleet) -> None:
    fleet.registry.tells_digests = False


def other_options(fleet: Fleet) -> None:
    remote = fleet.here.database.remotes.by_name(APP)
    fleet.here.database.remotes.change(remote.id, lambda spec: replace(spec, include_tags=("1.0",)))


def additive(fleet: Fleet) -> None:
    fleet.options[APP] = {"mode": "additive"}
    gone_tag(fleet)


def other_filter(fleet: Fleet) -> None:
    fleet.options[APP] = {"include_tags": ["1.*", "2.0"]}


def unknown_option(fleet: Fleet) -> None:
    fleet.options[APP] = {"platforms": "no platform"}


def other_upstream(fleet: Fleet) -> None:
    fleet.urls[APP] = "https://elsewhere.test"


def with_referrers_api(fleet: Fleet) -> None:
    fleet.registry.has_referrers_api = True


def signed(fleet: Fleet) -> None:
    """A tag by the name of a signature, which the filter of all tags selects."""
    content = small_repository(0, tags=3)
    digest = content.tags["1.0"]
    build = ContentBuilder(seed=90)
    build.tag(digest.replace(":", "-") + ".sig", build.image([build.blob(30)]))
    signature = build.content()
    fleet.registry.serve(APP, replace(content, tags={**content.tags, **signature.tags}, **_merged(content, signature)))


def _merged(one: Any, other: Any) -> dict[str, Any]:
    return {name: {**getattr(one, name), **getattr(other, name)} for name in ("manifests", "blobs")}


def lost_bytes(fleet: Fleet) -> None:
    database = fleet.here.database
    digest = next(iter(small_repository(0, tags=3).blobs))
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE blobs SET stored_at = NULL WHERE digest = ?", (digest,))


def rolled_back(fleet: Fleet) -> None:
    moved(fleet)
    fleet.sync("run-1b")
    repository = fleet.here.database.repositories.by_name(APP)
    fleet.here.database.versions.roll_back(repository.id, 1)


def new_referrer(fleet: Fleet) -> None:
    subject = small_repository(0, tags=3).tags["1.1"]
    build = ContentBuilder(seed=91)
    document = {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 1}
    build.image([build.blob(30)], extra={"subject": document, "artifactType": "application/vnd.test"})
    fleet.registry.add(APP, build.content())


def gone_referrer(fleet: Fleet) -> None:
    new_referrer(fleet)
    fleet.sync("run-1b")
    fleet.registry.on("GET", "referrers", small_repository(0, tags=3).tags["1.1"], referrers_page([]), repository=APP)


def hidden_api(fleet: Fleet) -> None:
    fleet.registry.on("GET", "referrers", ANY, refusal(404, "NOT_FOUND"), repository=APP)


def api_is_denied(fleet: Fleet) -> None:
    fleet.registry.on("GET", "referrers", ANY, refusal(403, "DENIED"), repository=APP)


def api_is_unavailable_once(fleet: Fleet) -> None:
    fleet.registry.on("GET", "referrers", ANY, refusal(503, "UNAVAILABLE"), HELD, repository=APP)


def one_list_of_referrers_is_odd(fleet: Fleet) -> None:
    subject = small_repository(0, tags=3).tags["1.2"]
    fleet.registry.on("GET", "referrers", subject, referrers_page([{"digest": "odd"}]), repository=APP)


def referrers_are_not_synced(fleet: Fleet) -> None:
    fleet.options[APP] = {"include_referrers": False}


def nothing(_fleet: Fleet) -> None:
    pass


CHANGES: tuple[Callable[[Fleet], None], ...] = (
    nothing,
    moved,
    new_tag,
    gone_tag,
    gone,
    one_tag_refused,
    unavailable_once,
    without_digest,
    other_options,
    additive,
    other_filter,
    unknown_option,
    other_upstream,
    with_referrers_api,
    signed,
    lost_bytes,
    rolled_back,
)
WITH_API: tuple[Callable[[Fleet], None], ...] = (
    nothing,
    moved,
    new_tag,
    gone_tag,
    unavailable_once,
    new_referrer,
    gone_referrer,
    hidden_api,
    api_is_denied,
    api_is_unavailable_once,
    one_list_of_referrers_is_odd,
    referrers_are_not_synced,
    lost_bytes,
    rolled_back,
)


def seen(fleet: Fleet, run_id: str) -> dict[str, Any]:
    """What a user sees of a sync of all mirrors, without times and ids."""
    synced, database = fleet.sync(run_id), fleet.here.database
    found: dict[str, Any] = {"waits": synced.wait_seconds, "pauses": fleet.pauses}
    for one in synced.results:
        repository = database.repositories.by_name(one.repository)
        run = None if one.sync_run_id is None else database.runs.get(one.sync_run_id)
        found[one.repository] = (
            one.outcome,
            one.version_number,
            one.held_count,
            one.error,
            one.is_temporary,
            database.versions.tags(repository.id),
            None if run is None else (run.state, run.error, run.version_number, run.mode, run.remote, run.usage),
        )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_with_a_look_a_sync_ends_as_it_does_without(
    change: Callable[[Fleet], None], fleets: RenewedFleets, tmp_path: Path
) -> None:
    compare_with_and_without(change, fleets, tmp_path, has_api=False)


@pytest.mark.slow
@pytest.mark.parametrize("change", WITH_API, ids=lambda change: change.__name__)
def test_with_a_look_a_sync_ends_as_it_does_without_where_referrers_are_listed(
    change: Callable[[Fleet], None], fleets: RenewedFleets, tmp_path: Path
) -> None:
    compare_with_and_without(change, fleets, tmp_path, has_api=True)


def compare_with_and_without(
    change: Callable[[Fleet], None], fleets: RenewedFleets, tmp_path: Path, *, has_api: bool
) -> None:
    """Syncs once, changes something, and syncs twice: with looks and without, results and requests are the same."""
    ends = []
    for has_look in (False, True):
        with MemoryRegistry(has_referrers_api=has_api, netloc=RenewedFleets.NETLOC) as registry:
            fleet = synced_once(fleets, registry, tmp_path / str(has_look), 2)
            change(fleet)
            if not has_look:
                given = fleet.mirrors
                fleet.mirrors = partial(_without_look, given)  # type: ignore[method-assign]
            registry.reset_counts()
            synced = seen(fleet, "run-2")
            asked = sorted(requests(fleet, APP))
            host = registry.url.partition("://")[2]
            found = [*synced.items(), *asked, *seen(fleet, "run-3").items()]
            ends.append([str(one).replace(host, "registry") for one in found])
    assert ends[1] == ends[0]


def _without_look(mirrors: Callable[[], Any]) -> list[Any]:
    return [replace(one, expect=lambda _known: None) for one in mirrors()]


@pytest.mark.parametrize("has_api", [True, False])
def test_a_look_lists_referrers_where_a_sync_would_and_records_what_it_finds(fleet: Fleet, has_api: bool) -> None:
    fleet.registry.has_referrers_api = has_api
    for name in fleet.repositories:
        fleet.here.database.repositories.delete(fleet.here.database.repositories.by_name(name).id)
    fleet.sync("run-2")
    fleet.registry.reset_counts()
    with executed_statements() as statements:
        synced = fleet.sync("run-3")
    assert str(synced) == "3 unchanged"
    assert len(statements) < 3 * 20, "a sync of one alone takes more than forty"
    assert requests(fleet, APP).count("GET referrers") == (3 if has_api else 0)
    assert recorded(fleet, "run-3")["has_referrers_api"] is (True if has_api else None)


def test_what_a_look_requested_is_not_requested_again(fleet: Fleet) -> None:
    moved(fleet)
    synced = fleet.sync("run-2")
    assert str(synced) == "2 unchanged, 1 changed"
    assert requests(fleet, APP).count("GET tags") == 1
    assert requests(fleet, APP).count("HEAD manifest") == 3
    result = fleet.result(synced, APP)
    usage = fleet.here.database.runs.get(str(result.sync_run_id)).usage
    assert (usage.head_count, usage.tag_page_count) == (3, 1)


def test_the_requests_of_a_failed_look_count_with_those_of_its_repeat(fleet: Fleet) -> None:
    fleet.registry.on("HEAD", "manifest", "1.2", refusal(503, "UNAVAILABLE"), HELD, repository=APP)
    assert str(fleet.sync("run-2")) == "3 unchanged"
    runs = fleet.here.database.runs.page(PageRequest(), states=[RunState.UNCHANGED]).items
    run = next(one for one in runs if one.repository_name == APP)
    assert (run.key.run_id, run.usage.tag_page_count, run.usage.head_count) == ("run-2", 2, 6)


def test_a_defect_in_a_look_is_recorded_with_the_sync(fleet: Fleet) -> None:
    def broken() -> object:
        raise ZeroDivisionError("by zero")

    fleet.registry.on("GET", "tags", "", broken, repository=APP)  # type: ignore[arg-type]
    failed = fleet.result(fleet.sync("run-2"), APP)
    run = fleet.here.database.runs.get(str(failed.sync_run_id))
    assert (failed.outcome, run.state) == (MirrorOutcome.FAILED, RunState.FAILED)
    assert "ZeroDivisionError" in str(run.error)


def test_a_mirror_that_changes_before_its_look_is_recorded_is_synced_as_any_other(fleet: Fleet) -> None:
    database, repository = fleet.here.database, fleet.here.database.repositories.by_name(APP)

    def sync_the_first() -> object:
        fleet.registry.on("HEAD", "manifest", "1.0", HELD, repository="team/app-002")
        other = Fleet(fleet.here, fleet.registry, [APP])
        moved(other)
        assert str(other.sync("other", dag_id="other")) == "1 changed"
        return HELD

    fleet.registry.on("HEAD", "manifest", "1.0", sync_the_first, HELD, repository="team/app-002")  # type: ignore[arg-type]
    synced = fleet.sync("run-2")
    assert str(synced) == "3 unchanged"
    assert fleet.result(synced, APP).version_number == 2, "it was looked at when version 1 was the latest"
    assert len(database.versions.page(repository.id, PageRequest()).items) == 2
    assert requests(fleet, APP).count("GET tags") == 3


def test_a_repository_that_is_deleted_during_its_look_stays_deleted(fleet: Fleet) -> None:
    def delete() -> object:
        fleet.here.database.repositories.delete(fleet.here.database.repositories.by_name(APP).id)
        return HELD

    fleet.registry.on("HEAD", "manifest", "1.0", delete, HELD, repository="team/app-002")  # type: ignore[arg-type]
    synced = fleet.sync("run-2")
    assert str(synced) == "2 unchanged, 1 failed: team/app-000"
    assert "was deleted after this run had started" in str(fleet.result(synced, APP).error)
    assert fleet.here.database.repositories.page(name=APP).total_count == 0


@pytest.mark.slow
def test_a_process_that_dies_loses_what_it_has_not_reported(fleets: RenewedFleets, tmp_path: Path) -> None:
    count = RECORDED_AT_ONCE + 5
    with MemoryRegistry() as registry:
        fleet = fleets.begin(registry, tmp_path, names(count)).fill(tags=1)
        fleet.sync("run-1")
        registry.on("GET", "tags", "", die, repository=names(count)[-1])  # type: ignore[arg-type]
        fleet.here.database.close()
        assert was_killed(status_of_fork(lambda: fleet.sync("run-2")))
        known = fleet.here.database.mirror_results.of_task("fleet", "run-2", "sync_mirrors")
        assert set(names(RECORDED_AT_ONCE)) <= known.keys() < set(names(count))
        with fleet.here.database.reading() as connection:
            of_run = select(sync_runs.c.scope).where(sync_runs.c.run_id == "run-2")
            assert len(connection.execute(of_run).all()) == len(known), "a run has its result, and a result its run"
        registry.on("GET", "tags", "", HELD, repository=names(count)[-1])
        assert str(fleet.sync("run-2")) == f"{count} unchanged"


def test_what_stops_the_task_loses_no_look_before_it(fleet: Fleet) -> None:
    def stop() -> object:
        raise KeyboardInterrupt

    fleet.registry.on("GET", "tags", "", stop, repository="team/app-002")  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        fleet.sync("run-2")
    known = fleet.here.database.mirror_results.of_task("fleet", "run-2", "sync_mirrors")
    assert set(known) == {APP, "team/app-001"}


def known_of(fleet: Fleet) -> SettledMirror:
    return fleet.here.database.unchanged_syncs.settled({APP: RunKey("fleet", "run-9", "scope")})[APP]


def test_a_run_is_expected_only_where_nothing_but_it_would_be_recorded(fleet: Fleet) -> None:
    known, url = known_of(fleet), fleet.registry.url

    def is_expected(**request: Any) -> bool:
        given = {"url": url, "upstream_name": APP, **request}
        return expected_run(SyncRequest(APP, **given), known, UNKNOWN_TRIGGER) is not None

    assert is_expected()
    assert is_expected(remote=APP, url=None, upstream_name=None)
    assert is_expected(policy="immediate"), "as it is stored"
    assert not is_expected(upstream_name=None)
    assert not is_expected(upstream_name="team/app-001")
    assert not is_expected(remote="other", url=None, upstream_name=None)
    assert not is_expected(include_tags=["1.0"])
    assert not is_expected(remote=APP, url=None, upstream_name=None, include_tags=["1.0"])
    assert not is_expected(mode="additive")
    assert not is_expected(mode="no mode"), "what is wrong with it is for the sync to say"
    assert not is_expected(publish_as="somewhere")
    assert not is_expected(conn_id="registry_sync_own")
