"""The only module that touches private names of OpenTelemetry; each use says why there is no other way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from opentelemetry import trace as trace_api
from opentelemetry._logs import _internal as logs_api
from opentelemetry.sdk._configuration import _OTelSDKConfigurator as SDKConfigurator
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter

__all__ = [
    "SDKConfigurator",
    "first_log_processor",
    "has_log_processor",
    "has_span_processor",
    "remove_attributes",
    "swap_providers",
]


def remove_attributes(span: Span, keys: Iterable[str]) -> None:
    """Take attributes off an open span. The API can only add; a value that proved wrong must go."""
    with span._lock:
        if span._end_time is not None:
            return
        for key in keys:
            if span._attributes is not None and key in span._attributes:
                del span._attributes[key]  # type: ignore[attr-defined]


def attribute(span: ReadableSpan, key: str) -> Any:
    """One attribute of a span, without the copy that the public property makes."""
    attributes = span._attributes
    return None if attributes is None else attributes.get(key)


def has_span_processor(provider: TracerProvider, kind: type[SpanProcessor]) -> bool:
    """Whether a provider already has a processor of this type."""
    return any(isinstance(p, kind) for p in provider._active_span_processor._span_processors)


def has_log_processor(provider: LoggerProvider, kind: type[LogRecordProcessor]) -> bool:
    """Whether a provider already has a processor of this type."""
    processors = provider._multi_log_record_processor._log_record_processors
    return any(isinstance(p, kind) for p in processors)


def wrap_span_exporters(
    provider: TracerProvider, wrap: Callable[[SpanExporter], SpanExporter]
) -> None:
    """Put a wrapper around each span exporter; those of a configuration file are made by the SDK."""
    for processor in provider._active_span_processor._span_processors:
        if isinstance(processor, BatchSpanProcessor):
            batch = processor._batch_processor
            batch._exporter = wrap(cast(SpanExporter, batch._exporter))
        elif isinstance(processor, SimpleSpanProcessor):
            processor.span_exporter = wrap(processor.span_exporter)


def wrap_log_exporters(
    provider: LoggerProvider, wrap: Callable[[LogRecordExporter], LogRecordExporter]
) -> None:
    """Put a wrapper around each log exporter, likewise."""
    for processor in provider._multi_log_record_processor._log_record_processors:
        if isinstance(processor, BatchLogRecordProcessor):
            batch = processor._batch_processor
            batch._exporter = wrap(cast(LogRecordExporter, batch._exporter))
        elif isinstance(processor, SimpleLogRecordProcessor):
            processor._exporter = wrap(processor._exporter)


def first_log_processor(provider: LoggerProvider, processor: LogRecordProcessor) -> None:
    """Put a processor before all others: one that exports in ``on_emit`` must see its work."""
    multi = provider._multi_log_record_processor
    with multi._lock:
        multi._log_record_processors = (processor, *multi._log_record_processors)


def swap_providers(tracers: Any, loggers: Any) -> tuple[Any, Any]:
    """Set the global providers and return those before, None where none was set.

    For tests only: the API sets them once and for all.
    """
    before = trace_api._TRACER_PROVIDER, logs_api._LOGGER_PROVIDER
    trace_api._TRACER_PROVIDER, logs_api._LOGGER_PROVIDER = tracers, loggers
    return before
