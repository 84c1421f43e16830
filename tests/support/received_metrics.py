"""What Airflow's Stats would send to StatsD or OpenTelemetry, in place of a backend of Airflow's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

#: Tags that say which of several values of a metric this is.
_DIVIDING = ("kind", "status", "stage")


@dataclass
class ReceivedMetrics:
    """``values`` by name and by the tag that divides the metric, counters summed; ``tags`` are the last ones.

    ``is_down`` lets each attempt to send fail.
    """

    values: dict[tuple[str, str], Any] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    is_down: bool = False

    def incr(self, stat: str, count: int = 1, rate: float = 1, *, tags: dict[str, str] | None = None) -> None:
        key = self._received(stat, tags)
        self.values[key] = self.values.get(key, 0) + count

    def gauge(
        self, stat: str, value: float, rate: float = 1, delta: bool = False, *, tags: dict[str, str] | None = None
    ) -> None:
        self.values[self._received(stat, tags)] = value

    def timing(self, stat: str, dt: Any, *, tags: dict[str, str] | None = None) -> None:
        self.values[self._received(stat, tags)] = dt

    def _received(self, stat: str, tags: dict[str, str] | None) -> tuple[str, str]:
        if self.is_down:
            raise OSError("nobody listens")
        self.tags[stat] = tags or {}
        return stat, next((str(value) for name, value in (tags or {}).items() if name in _DIVIDING), "")


@contextmanager
def receiving() -> Iterator[ReceivedMetrics]:
    """Airflow's Stats send to what this gives, as long as the block lasts."""
    from airflow.sdk._shared.observability.metrics import stats

    received = ReceivedMetrics()
    before = stats._factory, stats._backend
    stats._factory, stats._backend = (lambda: received), received  # type: ignore[assignment]
    try:
        yield received
    finally:
        stats._factory, stats._backend = before
