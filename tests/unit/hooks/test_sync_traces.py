"""Spans of stages and of mirrors: what they say, how many there are, and that nothing is done where tracing is off."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.sdk.exceptions import AirflowRescheduleException

from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult
from registry_sync.hooks.sync_traces import MOST_MIRROR_SPANS, record_mirrors, stage_span
from support.recorded_spans import recording

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def result(name: str, outcome: MirrorOutcome, seconds: float = 1.0) -> MirrorResult:
    ended = AT + timedelta(seconds=seconds)
    return MirrorResult("dag", "run", "task", name, 0, outcome, AT, ended, seconds=seconds, request_count=3)


def test_a_failed_stage_is_named_by_its_error_and_not_with_its_text() -> None:
    with recording() as spans:
        with pytest.raises(ValueError, match="secret"), stage_span("list_tags"):
            raise ValueError("secret")
        span = spans.only("registry_sync.list_tags")
    assert dict(span.attributes) == {"registry_sync.outcome": "failed", "error.type": "ValueError"}
    assert (span.status.status_code.name, span.status.description, span.events) == ("ERROR", "ValueError", ())


def test_a_task_that_waits_has_not_failed() -> None:
    with recording() as spans:
        with pytest.raises(AirflowRescheduleException), stage_span("sync_mirrors"):
            raise AirflowRescheduleException(AT)  # type: ignore[no-untyped-call]
        span = spans.only("registry_sync.sync_mirrors")
    assert (dict(span.attributes), span.status.is_ok) == ({"registry_sync.outcome": "deferred"}, True)


def test_an_attribute_that_is_not_declared_is_an_error_and_one_that_is_unknown_left_out() -> None:
    with recording() as spans:
        with stage_span("list_tags") as stage:
            stage.record(tags__selected=4, version=None)
            with pytest.raises(ValueError, match="no attribute tag"):
                stage.record(tag=1)
        attributes = dict(spans.only("registry_sync.list_tags").attributes)
    assert attributes == {"registry_sync.tags.selected": 4, "registry_sync.outcome": "success"}


def test_mirrors_have_spans_at_their_own_times_without_those_that_did_not_change() -> None:
    results = [result("a", MirrorOutcome.CHANGED), result("b", MirrorOutcome.UNCHANGED)]
    with recording() as spans:
        record_mirrors([*results, result("c", MirrorOutcome.FAILED, seconds=2.5)])
        failed, changed = spans.named("registry_sync.mirror")
    named = [span.attributes["registry_sync.repository"] for span in (failed, changed)]
    assert (named, failed.status.description) == (["c", "a"], "failed")
    assert (failed.end_time - failed.start_time) / 1e9 == 2.5
    assert changed.start_time == int(AT.timestamp()) * 10**9
    assert changed.parent is not None


def test_the_longest_of_many_mirrors_have_spans() -> None:
    results = [result(str(number), MirrorOutcome.CHANGED, seconds=number) for number in range(MOST_MIRROR_SPANS + 5)]
    with recording() as spans:
        record_mirrors(results)
        named = {span.attributes["registry_sync.repository"] for span in spans.named("registry_sync.mirror")}
    assert named == {str(number) for number in range(5, MOST_MIRROR_SPANS + 5)}


def test_nothing_is_recorded_where_tracing_is_off() -> None:
    with stage_span("list_tags") as stage:
        stage.record(any_name=1)  # not even looked at
        stage.record_run(None)  # type: ignore[arg-type]
        stage.record_usage(None)  # type: ignore[arg-type]
    record_mirrors([result("a", MirrorOutcome.CHANGED)])
