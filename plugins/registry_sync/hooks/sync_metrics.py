"""Metrics of syncs through Airflow's own Stats: to StatsD or OpenTelemetry, whichever Airflow is configured for.

Each is declared once, in :data:`METRICS`, with its tags; another one, and other tags, are an error. Without a
configured receiver nothing is sent, and nothing is read from the database for it.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry_sync.domain.runs import RunUsage
    from registry_sync.oci.http.rate_limits import Usage

log = logging.getLogger(__name__)

COUNTER, GAUGE, TIMER = "counter", "gauge", "timer"
#: The tag of mirrors beyond the number that the setting ``metrics_mirrors`` allows.
OTHER_MIRRORS = "other"
_PREFIX = "registry_sync."
#: Airflow writes tags into the names of StatsD and refuses names with other characters, or longer than 250.
_REFUSED = re.compile(r"[^A-Za-z0-9_./-]")
MOST_TAG_CHARACTERS = 80


@dataclass(frozen=True)
class Metric:
    """A metric of registry-sync; Airflow puts its own prefix in front of ``name``."""

    name: str
    kind: str
    tags: tuple[str, ...]


_MIRROR = ("registry", "mirror")
#: Every metric, by its name without the prefix that all share.
METRICS: Mapping[str, Metric] = {
    name: Metric(f"{_PREFIX}{name}", kind, tags)
    for name, kind, tags in (
        ("stage.duration", TIMER, (*_MIRROR, "stage", "outcome")),
        ("requests", COUNTER, (*_MIRROR, "kind")),
        ("responses", COUNTER, (*_MIRROR, "status")),
        ("retries", COUNTER, _MIRROR),
        ("waits", TIMER, _MIRROR),
        ("received_bytes", COUNTER, _MIRROR),
        ("remaining_pulls", GAUGE, ("registry",)),
        ("manifests.fetched", COUNTER, _MIRROR),
        ("blobs.fetched", COUNTER, _MIRROR),
        ("blobs.reused", COUNTER, _MIRROR),
        ("blobs.failed", COUNTER, _MIRROR),
        ("mirror.version", GAUGE, _MIRROR),
        ("mirror.held_tags", GAUGE, _MIRROR),
        ("mirror.last_success", GAUGE, _MIRROR),
    )
}
#: Counters of a run's usage, by the kind of request.
_REQUEST_KINDS = {
    "head": "head_count",
    "manifest": "manifest_get_count",
    "blob": "blob_get_count",
    "tags": "tag_page_count",
    "digests": "digest_page_count",
}


def are_sent() -> bool:
    """Whether Airflow sends metrics anywhere."""
    from airflow.configuration import conf

    return any(conf.getboolean("metrics", name, fallback=False) for name in ("statsd_on", "otel_on"))


def tag_value(text: str) -> str:
    """``text`` as every receiver of Airflow's takes it: ``127.0.0.1_5000`` for a port; long ones end in a hash."""
    safe = _REFUSED.sub("_", text)
    if len(safe) <= MOST_TAG_CHARACTERS:
        return safe
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{safe[: MOST_TAG_CHARACTERS - len(digest) - 1]}.{digest}"


def send(name: str, value: float | timedelta, **tags: str) -> None:
    """Sends one value: the increase of a counter, a gauge, or the duration of a timer.

    Raises :class:`KeyError` for a metric that is not declared, :class:`ValueError` for other tags than declared. A
    failure of Airflow's is logged: no sync fails because of it.
    """
    metric = METRICS[name]
    if set(tags) != set(metric.tags):
        raise ValueError(f"{name} has the tags {', '.join(metric.tags)}, not {', '.join(tags)}")
    from airflow.sdk.observability import stats

    tags = {key: tag_value(value) for key, value in tags.items()}
    try:
        if metric.kind == COUNTER and not isinstance(value, timedelta):
            stats.incr(metric.name, round(value), tags=tags)
        elif metric.kind == GAUGE and not isinstance(value, timedelta):
            stats.gauge(metric.name, value, tags=tags)
        elif isinstance(value, timedelta):
            stats.timing(metric.name, value, tags=tags)
    except Exception as problem:  # noqa: BLE001  whatever Airflow's backend raises, the sync goes on
        log.warning("the metric %s could not be sent: %s", metric.name, problem)


@dataclass(frozen=True)
class SyncMetrics:
    """The metrics of one sync, with the registry's ``host[:port]`` and the mirror's name as their tags."""

    registry: str
    mirror: str

    def record_stage(self, stage: str, duration: timedelta, outcome: str) -> None:
        """A stage has ended: ``success``, ``failed``, or ``deferred`` when it waits without a slot."""
        self._send("stage.duration", duration, stage=stage, outcome=outcome)

    def record_usage(self, usage: Usage) -> None:
        """What a client has sent and received, once, when it is closed."""
        counts: RunUsage = usage.counts()
        for kind, counter in _REQUEST_KINDS.items():
            self._count("requests", getattr(counts, counter), kind=kind)
        for status, count in usage.statuses.items():
            self._count("responses", count, status=str(status))
        self._count("retries", counts.retry_count)
        self._count("received_bytes", counts.received_bytes)
        if usage.waited_seconds:
            self._send("waits", timedelta(seconds=usage.waited_seconds))
        if usage.rate_limit is not None:
            send("remaining_pulls", usage.rate_limit.remaining, registry=self.registry)

    def record_counts(self, **counts: int) -> None:
        """Counters of content, with ``__`` for the point in their names."""
        for name, count in counts.items():
            self._count(name.replace("__", "."), count)

    def record_success(self, version_number: int | None, hold_count: int | None, at: datetime) -> None:
        """A sync has succeeded, with a version or because nothing differs; None for what is not known."""
        self._send("mirror.last_success", at.timestamp())
        if version_number is not None:
            self._send("mirror.version", version_number)
        if hold_count is not None:
            self._send("mirror.held_tags", hold_count)

    def _count(self, name: str, count: int, **tags: str) -> None:
        if count:
            self._send(name, count, **tags)

    def _send(self, name: str, value: Any, **tags: str) -> None:
        send(name, value, registry=self.registry, mirror=self.mirror, **tags)
