"""Spans of syncs through Airflow's own tracing: one for each stage, below the span that Airflow makes of its task.

Airflow configures OpenTelemetry (``[traces] otel_on`` and the variables of OpenTelemetry), and sends what was recorded
before the task's process ends. Where tracing is off, or the run is not sampled, nothing is recorded and nothing is read
for it. Attributes are declared in :data:`ATTRIBUTES`; another one is an error. Texts of errors are no attributes: they
are in the task's log, and have words of registries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from registry_sync.domain.mirror_results import MirrorOutcome, MirrorResult

if TYPE_CHECKING:
    from registry_sync.domain.runs import SyncRun
    from registry_sync.oci.http.rate_limits import Usage

_PREFIX = "registry_sync."
#: What a span may say, without the prefix that all share.
ATTRIBUTES = (
    "repository",
    "registry",
    "upstream",
    "sync",
    "outcome",
    "tags.selected",
    "tags.changed",
    "manifests.fetched",
    "blobs.fetched",
    "blobs.reused",
    "blobs.failed",
    "version",
    "held_tags",
    "requests.head",
    "requests.manifest",
    "requests.blob",
    "requests.tags",
    "requests.digests",
    "received_bytes",
    "retries",
    "waited_seconds",
    "request_count",
    "mirror_count",
)
#: Mirrors of one task with a span of their own.
MOST_MIRROR_SPANS = 200
SUCCESS, FAILED, DEFERRED = "success", "failed", "deferred"


@dataclass(frozen=True)
class StageSpan:
    """The span of a stage, or nothing where none is recorded."""

    _span: Any = None

    def record(self, **values: str | float | None) -> None:
        """Adds attributes, with ``__`` for the point in their names; None is left out."""
        if self._span is None:
            return
        named = {name.replace("__", "."): value for name, value in values.items() if value is not None}
        if unknown := named.keys() - set(ATTRIBUTES):
            raise ValueError(f"spans have no attribute {', '.join(sorted(unknown))}")
        self._span.set_attributes({f"{_PREFIX}{name}": value for name, value in named.items()})

    def record_run(self, run: SyncRun) -> None:
        """Which sync the stage is of."""
        if self._span is None:
            return
        upstream = {} if run.remote is None else _upstream(run.remote)
        self.record(repository=run.repository_name, sync=run.id, **upstream)

    def record_usage(self, usage: Usage) -> None:
        """What the stage's client has sent and received."""
        if self._span is None:
            return
        counts = usage.counts()
        self.record(
            requests__head=counts.head_count,
            requests__manifest=counts.manifest_get_count,
            requests__blob=counts.blob_get_count,
            requests__tags=counts.tag_page_count,
            requests__digests=counts.digest_page_count,
            received_bytes=counts.received_bytes,
            retries=counts.retry_count,
            waited_seconds=round(usage.waited_seconds, 3),
        )


def _upstream(remote: Any) -> Mapping[str, str]:
    return {"registry": remote.url.netloc, "upstream": str(remote.upstream)}


@contextmanager
def stage_span(name: str) -> Iterator[StageSpan]:
    """The span ``registry_sync.<name>``, below the current one, until the block ends; an error is named by its type."""
    from opentelemetry import trace
    from opentelemetry.trace import Status, StatusCode

    tracer = trace.get_tracer("registry_sync")
    with tracer.start_as_current_span(
        f"{_PREFIX}{name}", record_exception=False, set_status_on_exception=False
    ) as recorded:
        span = StageSpan(recorded if recorded.is_recording() else None)
        try:
            yield span
        except BaseException as raised:
            outcome = _outcome(raised)
            span.record(outcome=outcome)
            if outcome == FAILED:
                recorded.set_attribute("error.type", type(raised).__name__)
                recorded.set_status(Status(StatusCode.ERROR, type(raised).__name__))
            raise
        span.record(outcome=SUCCESS)


def _outcome(raised: BaseException) -> str:
    """``deferred`` where Airflow continues the task later, else ``failed``."""
    from airflow.sdk.exceptions import AirflowRescheduleException, TaskDeferred

    return DEFERRED if isinstance(raised, AirflowRescheduleException | TaskDeferred) else FAILED


def record_mirrors(results: Iterable[MirrorResult]) -> None:
    """A span ``registry_sync.mirror`` for each mirror of a task that was not unchanged, at most 200, the longest.

    They lie within the current span, at the times at which each was synced. Nothing where none is recorded.
    """
    from opentelemetry import trace
    from opentelemetry.trace import Status, StatusCode

    if not trace.get_current_span().is_recording():
        return
    tracer = trace.get_tracer("registry_sync")
    reported = [result for result in results if result.outcome is not MirrorOutcome.UNCHANGED]
    for result in sorted(reported, key=lambda one: one.seconds, reverse=True)[:MOST_MIRROR_SPANS]:
        span = tracer.start_span(f"{_PREFIX}mirror", start_time=_nanoseconds(result.started_at))
        StageSpan(span).record(
            repository=result.repository,
            sync=result.sync_run_id,
            outcome=result.outcome.value,
            version=result.version_number,
            held_tags=result.held_count,
            request_count=result.request_count,
            received_bytes=result.received_bytes,
        )
        if not result.outcome.is_success:
            span.set_status(Status(StatusCode.ERROR, result.outcome.value))
        span.end(_nanoseconds(result.finished_at))


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
