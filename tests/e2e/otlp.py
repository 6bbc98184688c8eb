"""What reached a listener of ``collectors``, decoded from OTLP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from .collectors import Fake

_KINDS = {OtlpSpan.SPAN_KIND_SERVER: "server", OtlpSpan.SPAN_KIND_CLIENT: "client"}


@dataclass(frozen=True)
class Span:
    """A span as it was exported."""

    name: str
    kind: str
    trace_id: str
    parent_id: str
    span_id: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    links: tuple[str, ...] = ()
    """The ids of the spans that it is linked to."""

    @property
    def what(self) -> str:
        """``server``, ``query``, ``call`` or ``inner``."""
        if self.kind == "client":
            return "query" if "db.system.name" in self.attributes else "call"
        return self.kind


@dataclass(frozen=True)
class Point:
    """A point of a histogram or counter as it was exported: how often, and the sum."""

    name: str
    attributes: Mapping[str, Any]
    count: int
    total: float


@dataclass(frozen=True)
class Record:
    """A log record as it was exported."""

    text: str
    severity: str
    trace_id: str
    logger: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


def spans(fake: Fake) -> Iterator[Span]:
    """Every span so far."""
    for body in _bodies(fake, "/v1/traces"):
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = plain(part.resource.attributes)
            for span in (s for scope in part.scope_spans for s in scope.spans):
                yield _span(span, resource)


def records(fake: Fake) -> Iterator[Record]:
    """Every log record so far."""
    for body in _bodies(fake, "/v1/logs"):
        for part in ExportLogsServiceRequest.FromString(body).resource_logs:
            resource = plain(part.resource.attributes)
            for scope in part.scope_logs:
                for record in scope.log_records:
                    yield Record(
                        record.body.string_value,
                        record.severity_text,
                        record.trace_id.hex(),
                        scope.scope.name,
                        plain(record.attributes),
                        resource,
                    )


def points(fake: Fake) -> Iterator[Point]:
    """Every point of a histogram or counter in the last export of metrics."""
    for body in _bodies(fake, "/v1/metrics")[-1:]:
        for part in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in (m for scope in part.scope_metrics for m in scope.metrics):
                for each in metric.histogram.data_points:
                    yield Point(metric.name, plain(each.attributes), each.count, each.sum)
                for number in metric.sum.data_points:
                    total = number.as_int or number.as_double
                    yield Point(metric.name, plain(number.attributes), int(total), total)


def plain(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as Python values."""
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def _bodies(fake: Fake, signal: str) -> list[bytes]:
    return [body for path, body in list(fake.bodies) if path == signal]


def _span(span: OtlpSpan, resource: Mapping[str, Any]) -> Span:
    return Span(
        span.name,
        _KINDS.get(span.kind, "inner"),
        span.trace_id.hex(),
        span.parent_span_id.hex(),
        span.span_id.hex(),
        plain(span.attributes),
        resource,
        tuple(link.span_id.hex() for link in span.links),
    )
