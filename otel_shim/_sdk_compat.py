"""The only module that touches private names of OpenTelemetry; each use says why there is no other way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.sdk._configuration import _OTelSDKConfigurator as SDKConfigurator
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

__all__ = [
    "SDKConfigurator",
    "first_log_processor",
    "has_log_processor",
    "has_span_processor",
    "remove_attributes",
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


def first_log_processor(provider: LoggerProvider, processor: LogRecordProcessor) -> None:
    """Put a processor before all others: one that exports in ``on_emit`` must see its work."""
    multi = provider._multi_log_record_processor
    with multi._lock:
        multi._log_record_processors = (processor, *multi._log_record_processors)
