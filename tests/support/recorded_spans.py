"""What Airflow's tracing would export, kept in memory: with a provider of OpenTelemetry's in place of Airflow's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RecordedSpans:
    """The spans that have ended, in that order."""

    exporter: Any

    def named(self, name: str) -> list[Any]:
        """Those of that name."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def only(self, name: str) -> Any:
        """The one of that name."""
        (found,) = self.named(name)
        return found


@contextmanager
def recording() -> Iterator[RecordedSpans]:
    """A task's span is open, and what is below it is recorded, as long as the block lasts."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = provider
    try:
        with provider.get_tracer("airflow").start_as_current_span("worker.task"):
            yield RecordedSpans(exporter)
    finally:
        trace._TRACER_PROVIDER = before
        provider.shutdown()
