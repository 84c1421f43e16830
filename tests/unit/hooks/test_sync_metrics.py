"""The metrics of syncs: declared once, bounded in number, and never a reason to fail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from registry_sync.domain.runs import RunUsage
from registry_sync.hooks import sync_metrics
from registry_sync.hooks.sync_metrics import (
    COUNTER,
    GAUGE,
    METRICS,
    MOST_TAG_CHARACTERS,
    TIMER,
    SyncMetrics,
    send,
    tag_value,
)
from registry_sync.oci.http.rate_limits import RateLimit, Usage
from support.received_metrics import ReceivedMetrics, receiving


@pytest.fixture
def received() -> Iterator[ReceivedMetrics]:
    with receiving() as found:
        yield found


APP = SyncMetrics("quay.io", "app")
TAGS = {"registry": "quay.io", "mirror": "app"}


def test_a_client_reports_its_requests_by_kind_and_status_and_what_it_waited(received: ReceivedMetrics) -> None:
    usage = Usage()
    for counter, amount in (("head_count", 7), ("blob_get_count", 2), ("retry_count", 1), ("received_bytes", 5000)):
        usage.add(counter, amount)
    for status in (200, 200, 429):
        usage.record_status(status)
    usage.record_wait(1.5)
    usage.rate_limit = RateLimit(remaining=42)
    APP.record_usage(usage)
    assert received.values == {
        ("registry_sync.requests", "head"): 7,
        ("registry_sync.requests", "blob"): 2,
        ("registry_sync.responses", "200"): 2,
        ("registry_sync.responses", "429"): 1,
        ("registry_sync.retries", ""): 1,
        ("registry_sync.received_bytes", ""): 5000,
        ("registry_sync.waits", ""): timedelta(seconds=1.5),
        ("registry_sync.remaining_pulls", ""): 42,
    }
    assert received.tags["registry_sync.retries"] == TAGS


def test_a_success_is_a_time_a_version_and_the_held_tags(received: ReceivedMetrics) -> None:
    at = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
    APP.record_success(3, 1, at)
    APP.record_success(None, None, at)
    assert received.values == {
        ("registry_sync.mirror.last_success", ""): at.timestamp(),
        ("registry_sync.mirror.version", ""): 3,
        ("registry_sync.mirror.held_tags", ""): 1,
    }


def test_only_what_is_declared_is_sent_with_exactly_its_tags(received: ReceivedMetrics) -> None:
    with pytest.raises(KeyError):
        send("unknown", 1, **TAGS)
    with pytest.raises(ValueError, match="retries has the tags registry, mirror, not registry"):
        send("retries", 1, registry="quay.io")
    assert received.values == {}
    assert {metric.kind for metric in METRICS.values()} == {COUNTER, GAUGE, TIMER}


def test_every_counter_of_requests_has_its_kind() -> None:
    counted = set(sync_metrics._REQUEST_KINDS.values()) | {"received_bytes", "retry_count"}
    assert counted == set(RunUsage.__dataclass_fields__)


def test_a_receiver_that_fails_is_no_reason_to_fail(
    received: ReceivedMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    received.is_down = True
    APP.record_counts(blobs__fetched=1)
    assert "the metric registry_sync.blobs.fetched could not be sent: nobody listens" in caplog.text


def test_tags_are_what_airflow_takes_into_a_name_of_statsd() -> None:
    """Airflow refuses a name of StatsD with other characters, or longer than 250, and the metric is lost."""
    from airflow.sdk._shared.observability.metrics.validators import get_current_handler_stat_name_func

    accepted = get_current_handler_stat_name_func(None, statsd_influxdb_enabled=True)
    assert [tag_value(text) for text in ("quay.io", "[::1]:5000", "team/my app")] == [
        "quay.io",
        "___1__5000",
        "team/my_app",
    ]
    longest = tag_value("m" * 255)
    assert (len(longest), longest != tag_value("m" * 254)) == (MOST_TAG_CHARACTERS, True)
    values = {"stage": "fetch_manifests", "outcome": "deferred", "kind": "manifest", "status": "404"}
    for metric in METRICS.values():
        tags = "".join(f",{tag}={values.get(tag, longest)}" for tag in metric.tags)
        assert accepted(f"{metric.name}{tags}")


def test_a_port_is_sent_as_airflow_takes_it(received: ReceivedMetrics) -> None:
    SyncMetrics("127.0.0.1:5000", "app").record_counts(blobs__fetched=1)
    assert received.tags["registry_sync.blobs.fetched"] == {"registry": "127.0.0.1_5000", "mirror": "app"}
