"""What tasks of a sync send as metrics and spans, with the registry and the mirror; nothing where nobody listens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from registry_sync.db.database import Database
from registry_sync.hooks.sync_metrics import METRICS
from registry_sync.operators.fetch_and_commit import FetchAndCommitOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.task_values import SYNC_RUN_KEY
from support.hostile_registry import HostileRegistry
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry
from support.received_metrics import ReceivedMetrics, receiving
from support.recorded_spans import recording
from support.shapes import documented_example
from support.task_contexts import TaskContext

NAME = "library/hello-world"


@pytest.fixture
def upstream() -> Iterator[HostileRegistry]:
    registry = MemoryRegistry()
    registry.serve(NAME, documented_example())
    with over_http(registry) as server:
        yield server


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[ReceivedMetrics]:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    with receiving() as found:
        yield found


def sync(url: str, run_id: str, upstream_name: str = NAME, repository: str = "hello") -> None:
    """The two tasks of a small sync."""
    context = TaskContext(run_id=run_id)
    listing = ListTagsOperator(task_id="list_tags", repository=repository, url=url, upstream_name=upstream_name)
    listing.execute(context.given())  # type: ignore[arg-type]
    rest = FetchAndCommitOperator(task_id="fetch_and_commit", sync_run=context.returned[SYNC_RUN_KEY])
    rest.execute(context.given())  # type: ignore[arg-type]


def test_a_sync_sends_its_stages_requests_content_and_state(
    database: Database, upstream: HostileRegistry, received: ReceivedMetrics
) -> None:
    sync(upstream.base, "first")
    values = {name: value for (name, _), value in received.values.items()}
    assert {stage for name, stage in received.values if name == "registry_sync.stage.duration"} == {
        "list_tags", "fetch", "commit_version",
    }  # fmt: skip
    assert isinstance(values["registry_sync.stage.duration"], timedelta)
    requests = {kind: value for (name, kind), value in received.values.items() if name == "registry_sync.requests"}
    assert (requests["head"], requests["manifest"], requests["blob"]) == (8, 21, 31)
    statuses = {code: value for (name, code), value in received.values.items() if name == "registry_sync.responses"}
    assert sum(statuses.values()) == len(upstream.requests)
    assert (values["registry_sync.manifests.fetched"], values["registry_sync.blobs.fetched"]) == (21, 31)
    assert (values["registry_sync.mirror.version"], values["registry_sync.mirror.held_tags"]) == (1, 0)
    host = upstream.base.removeprefix("http://").replace(":", "_")
    assert received.tags["registry_sync.mirror.version"] == {"registry": host, "mirror": "hello"}
    assert {name.removeprefix("registry_sync.") for name, _ in received.values} <= METRICS.keys()


@pytest.mark.slow
def test_blobs_that_are_stored_count_as_reused_in_the_short_form_too(
    database: Database, upstream: HostileRegistry, received: ReceivedMetrics
) -> None:
    sync(upstream.base, "first")
    assert ("registry_sync.blobs.reused", "") not in received.values
    sync(upstream.base, "second", repository="again")
    assert received.values["registry_sync.blobs.reused", ""] == 31


@pytest.mark.slow
def test_an_unchanged_sync_is_a_success_too_and_a_failed_one_is_not(
    database: Database, upstream: HostileRegistry, received: ReceivedMetrics
) -> None:
    sync(upstream.base, "first")
    first = received.values["registry_sync.mirror.last_success", ""]
    received.values.clear()
    context = TaskContext(run_id="second", map_index=0)  # a mapped one skips nothing
    ListTagsOperator(task_id="list_tags", repository="hello", url=upstream.base, upstream_name=NAME).execute(
        context.given()  # type: ignore[arg-type]
    )
    assert received.values["registry_sync.mirror.last_success", ""] > first
    assert received.values["registry_sync.mirror.version", ""] == 1
    received.values.clear()
    with pytest.raises(AirflowFailException):
        sync(upstream.base, "third", "no/such")
    assert not any(name.startswith("registry_sync.mirror.") for name, _ in received.values)


def test_mirrors_beyond_the_setting_share_a_name(
    database: Database, upstream: HostileRegistry, received: ReceivedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.repositories.ensure("older")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__METRICS_MIRRORS", "1")
    sync(upstream.base, "first")
    assert received.tags["registry_sync.mirror.version"]["mirror"] == "other"


def test_nothing_is_sent_where_airflow_sends_no_metrics(
    database: Database, upstream: HostileRegistry, received: ReceivedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW__METRICS__STATSD_ON")
    assert "AIRFLOW__METRICS__OTEL_ON" not in os.environ
    sync(upstream.base, "first")
    assert received.values == {}


@pytest.mark.slow
def test_the_stages_of_a_sync_have_spans_with_its_counts(database: Database, upstream: HostileRegistry) -> None:
    with recording() as spans:
        sync(upstream.base, "first")
        said = {
            name: {key.removeprefix("registry_sync."): value for key, value in span.attributes.items()}
            for name in ("list_tags", "fetch", "commit_version")
            for span in [spans.only(f"registry_sync.{name}")]
        }
    (sync_id,) = {attributes.pop("sync") for attributes in said.values()}
    assert sync_id
    shared = {"repository": "hello", "registry": upstream.base.removeprefix("http://"), "upstream": NAME}
    assert all(shared.items() <= attributes.items() for attributes in said.values())
    listed, fetched, committed = ({k: v for k, v in one.items() if k not in shared} for one in said.values())
    assert (listed["tags.selected"], listed["tags.changed"], listed["requests.head"]) == (8, 8, 8)
    assert (fetched["manifests.fetched"], fetched["blobs.fetched"], fetched["requests.blob"]) == (21, 31, 31)
    assert fetched["received_bytes"] > 10_000
    assert committed == {"version": 1, "held_tags": 0, "outcome": "success"}
