"""Operators that look after space and integrity: what they take as text, hand on, try again and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.db.database import Database
from registry_sync.errors import RegistrySyncError, ServerUnavailable
from registry_sync.operators.collect_orphans import CollectOrphansOperator
from registry_sync.operators.reclaim_blobs import ReclaimBlobsOperator
from registry_sync.operators.verify_blobs import VerifyBlobsOperator
from support.metadata import Upstream, image, sync
from support.stored_texts import keep_texts
from support.task_contexts import TaskContext


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalBlobStore:
    """The configured blob store."""
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    return LocalBlobStore(tmp_path / "blobs")


@pytest.fixture
def stored(database: Database, store: LocalBlobStore) -> LocalBlobStore:
    """The store with what the repository ``app`` holds: ``layer`` and ``config``."""
    upstream = Upstream()
    upstream.tag("latest", image("layer", config="config"))
    keep_texts(store, "layer", "config")
    sync(database, database.repositories.ensure("app"), upstream)
    return store


def run(operator: type[Any], context: TaskContext | None = None, **parameters: Any) -> dict[str, Any]:
    done: dict[str, Any] = operator(task_id="task", **parameters).execute((context or TaskContext()).given())
    return done


@pytest.mark.parametrize("given", [{}, {"grace_hours": ""}, {"grace_hours": "0.5"}, {"grace_hours": 72}])
def test_a_collection_takes_its_grace_as_text_or_from_the_setting(
    database: Database, stored: LocalBlobStore, given: dict[str, Any]
) -> None:
    assert database.disk_usage.report().stored.count == 2
    done = run(CollectOrphansOperator, preview="False", **given)
    assert (done["dry_run"], done["manifest_count"], done["freed_bytes"]) == (False, 0, 0)


@pytest.mark.parametrize("grace", ["-1", "inf", "nan", "a day", "87601"])
def test_a_grace_that_is_none_is_refused(database: Database, store: LocalBlobStore, grace: str) -> None:
    with pytest.raises(AirflowFailException, match="grace_hours"):
        run(CollectOrphansOperator, grace_hours=grace)


@pytest.mark.parametrize(
    "given", [{"share": ""}, {"share": "most"}, {"share": "1.5"}, {"mib_per_second": "0"}, {"repair": "perhaps"}]
)
def test_a_verification_refuses_numbers_that_make_no_sense(
    database: Database, store: LocalBlobStore, given: dict[str, Any]
) -> None:
    with pytest.raises(AirflowFailException, match="ConfigurationError"):
        run(VerifyBlobsOperator, **given)


def test_a_verification_without_repair_fails_on_what_is_lost_and_says_what(
    database: Database, stored: LocalBlobStore
) -> None:
    assert run(VerifyBlobsOperator, share="1.0", repair="false")["verified_count"] == 2
    lost = min(stored.digests())
    stored.delete(lost)
    with pytest.raises(AirflowFailException, match=f"lost 1 blob: {lost}: not repaired"):
        run(VerifyBlobsOperator, repair=False)


def test_a_verification_without_repair_fails_until_what_is_lost_is_mended(
    database: Database, stored: LocalBlobStore
) -> None:
    lost = min(stored.digests())
    stored.path(lost).write_bytes(b"x")
    for share in (1, 0):
        with pytest.raises(AirflowFailException, match=f"lost 1 blob: {lost}: not repaired"):
            run(VerifyBlobsOperator, repair=False, share=share)
    keep_texts(stored, "layer", "config")
    assert run(VerifyBlobsOperator, repair=False)["found"] == {"unrecorded": 1}
    assert run(VerifyBlobsOperator, repair=False)["found"] == {}


@pytest.mark.parametrize(
    ("operator", "parameters"),
    [(CollectOrphansOperator, {"grace_hours": 0}), (ReclaimBlobsOperator, {"repositories": "app"})],
)
def test_what_cannot_be_removed_fails_the_task_after_everything_else_went(
    database: Database, stored: LocalBlobStore, operator: type[Any], parameters: dict[str, Any]
) -> None:
    stuck = min(stored.digests())
    if operator is CollectOrphansOperator:
        database.repositories.delete(database.repositories.by_name("app").id)
        for _ in range(2):
            run(CollectOrphansOperator, grace_hours=0)
    stored.delete(stuck)
    stored.path(stuck).mkdir()
    with pytest.raises(AirflowFailException, match=f"1 could not be removed, .*{stuck}"):
        run(operator, **parameters)
    assert list(stored.digests()) == []


@pytest.mark.parametrize("try_number", [1, 3])
def test_a_registry_with_a_temporary_error_is_retried_until_the_last_try(
    database: Database, stored: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, try_number: int
) -> None:
    stored.delete(min(stored.digests()))

    def away(_remote: object) -> Any:
        raise ServerUnavailable("nobody there", host="registry.example")

    monkeypatch.setattr("registry_sync.hooks.clients.open_client", away)
    expected: tuple[type[Exception], str] = (
        (ServerUnavailable, "nobody there") if try_number == 1 else (AirflowFailException, "nobody there")
    )
    with pytest.raises(expected[0], match=expected[1]):
        run(VerifyBlobsOperator, TaskContext(try_number=try_number, max_tries=2))


def test_a_blob_that_an_earlier_try_noted_as_missing_is_fetched_by_the_next(
    database: Database, stored: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = min(stored.digests())
    stored.delete(lost)
    with pytest.raises(AirflowFailException):
        run(VerifyBlobsOperator, repair=False)
    asked: list[str] = []

    def away(remote: Any) -> Any:
        asked.append(str(remote.url))
        raise ServerUnavailable("nobody there", host="registry.example")

    monkeypatch.setattr("registry_sync.hooks.clients.open_client", away)
    with pytest.raises((RegistrySyncError, AirflowFailException)):
        run(VerifyBlobsOperator, share=0)
    assert asked == ["https://registry.example"]


def test_room_is_reclaimed_of_repositories_by_name(database: Database, stored: LocalBlobStore) -> None:
    seen = run(ReclaimBlobsOperator, repositories="app", preview="true")
    assert seen == {"dry_run": True, "blob_count": 2, "size_bytes": len("layerconfig")}
    assert run(ReclaimBlobsOperator, repositories=["app"], keep_latest="true")["blob_count"] == 0
    assert run(ReclaimBlobsOperator, repositories="app, app") == {**seen, "dry_run": False}
    assert list(stored.digests()) == []


@pytest.mark.parametrize(("repositories", "why"), [("", "whose bytes"), ("app, nowhere", "no repository 'nowhere'")])
def test_reclaiming_from_nobody_is_refused(
    database: Database, stored: LocalBlobStore, repositories: str, why: str
) -> None:
    with pytest.raises(AirflowFailException, match=why):
        run(ReclaimBlobsOperator, repositories=repositories)
    assert len(list(stored.digests())) == 2
