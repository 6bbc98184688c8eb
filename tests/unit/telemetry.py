"""What the unit tests record with: providers in memory, and readers of what arrived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import Logger
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SECRET = b"a fixed secret of the tests, 32 bytes and more"


class StartCounter(SpanProcessor):
    """Counts the spans that started, so that those never ended are seen."""

    def __init__(self) -> None:
        self.started = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Count one."""
        self.started += 1


@dataclass(frozen=True)
class Record:
    """A log record that was exported."""

    body: Any
    attributes: Mapping[str, Any]
    trace_id: int
    severity: str | None
    logger: str = ""


@dataclass(frozen=True)
class Telemetry:
    """The providers of one test and what they exported."""

    tracers: TracerProvider
    loggers: LoggerProvider
    _spans: InMemorySpanExporter
    _logs: InMemoryLogRecordExporter
    _starts: StartCounter

    def tracer(self) -> trace.Tracer:
        """A tracer of an application."""
        return self.tracers.get_tracer("app")

    def logger(self) -> Logger:
        """A logger of OpenTelemetry's own kind."""
        return self.loggers.get_logger("app")

    def spans(self) -> tuple[ReadableSpan, ...]:
        """Every span that ended."""
        return self._spans.get_finished_spans()

    def span(self, name: str) -> dict[str, Any]:
        """The attributes of the one span of a name."""
        found = [s for s in self.spans() if s.name == name]
        assert len(found) == 1, f"{name}: {[s.name for s in self.spans()]}"
        return dict(found[0].attributes or {})

    def started(self) -> int:
        """How many spans started, ended or not."""
        return self._starts.started

    def records(self) -> list[Record]:
        """Every log record."""
        return [
            Record(
                data.log_record.body,
                dict(data.log_record.attributes or {}),
                data.log_record.trace_id or 0,
                data.log_record.severity_text,
                getattr(data.instrumentation_scope, "name", ""),
            )
            for data in self._logs.get_finished_logs()
        ]

    def clear(self) -> None:
        """Forget what was exported."""
        self._spans.clear()
        self._logs.clear()


def record_with(spans: SpanProcessor, logs: LogRecordProcessor | None) -> Telemetry:
    """Providers with these processors before exporters in memory."""
    span_exporter, log_exporter = InMemorySpanExporter(), InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    starts = StartCounter()
    tracers = TracerProvider()
    for processor in (spans, starts, SimpleSpanProcessor(span_exporter)):
        tracers.add_span_processor(processor)
    loggers = LoggerProvider()
    if logs is not None:
        loggers.add_log_record_processor(logs)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(log_exporter))
    return Telemetry(tracers, loggers, span_exporter, log_exporter, starts)
