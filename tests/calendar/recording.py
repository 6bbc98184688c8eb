"""What the instrumentors recorded in a test: synchronisations, their requests, and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

OPERATION = "calendar.synchronize"
CALENDAR = "saas.calendar."


@dataclass(frozen=True)
class Sync:
    """A synchronisation that was recorded: what it says of the calendar, and its error."""

    span: ReadableSpan
    facts: Mapping[str, Any]
    error: str | None
    requests: Sequence[tuple[str, int | str]]
    """Method and status, or error, of each request below it."""

    def said(self, *names: str) -> tuple[Any, ...]:
        """Some of the facts."""
        return tuple(self.facts.get(name) for name in names)

    @property
    def items(self) -> tuple[int, int, int, int]:
        """Created, changed, deleted, failed."""
        created, changed, deleted, failed = self.said(
            "items.created", "items.changed", "items.deleted", "items.failed"
        )
        return created, changed, deleted, failed

    @property
    def ended(self) -> tuple[str, str, str | None]:
        """Mode, outcome, type of error."""
        return self.facts["sync.mode"], self.facts["sync.outcome"], self.error


@dataclass(frozen=True)
class Recording:
    """The providers of one test."""

    tracers: TracerProvider
    meters: MeterProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def spans(self) -> tuple[ReadableSpan, ...]:
        """Every span that ended."""
        return self.exporter.get_finished_spans()

    def syncs(self) -> list[Sync]:
        """Every synchronisation, in the order in which they began."""
        spans = sorted(self.spans(), key=lambda span: span.start_time or 0)
        return [self._sync(span) for span in spans if span.name == OPERATION]

    def sync(self) -> Sync:
        """The one synchronisation."""
        (found,) = self.syncs()
        return found

    def _sync(self, span: ReadableSpan) -> Sync:
        attributes = dict(span.attributes or {})
        facts = {
            key.removeprefix(CALENDAR): value
            for key, value in attributes.items()
            if key.startswith(CALENDAR)
        }
        error = attributes.get("error.type")
        assert span.status.status_code.name == ("UNSET" if error is None else "ERROR")
        assert attributes["saas.operation"] == OPERATION
        assert int(str(facts["requests"])) >= len(self.below(span))
        requests = [request(each) for each in self.below(span)]
        return Sync(span, facts, error if error is None else str(error), requests)

    def below(self, span: ReadableSpan) -> list[ReadableSpan]:
        """The children of a span."""
        context = span.get_span_context()
        return [
            each
            for each in self.spans()
            if each.parent is not None and context and each.parent.span_id == context.span_id
        ]

    def clear(self) -> None:
        """Forget the spans."""
        self.exporter.clear()

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Labels and value, or count, of every series of a metric."""
        found = []
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        found += [_point(point) for point in metric.data.data_points]
        return found


def _point(point: Any) -> tuple[dict[str, Any], Any]:
    value = point.count if hasattr(point, "count") else point.value
    return dict(point.attributes), value


def request(span: ReadableSpan) -> tuple[str, int | str]:
    """Method and status of a request; where there was no answer, its error."""
    attributes = dict(span.attributes or {})
    assert span.name == attributes["http.request.method"]
    assert span.kind.name == "CLIENT"
    status = attributes.get("http.response.status_code")
    if status is None:
        return span.name, str(attributes["error.type"])
    assert isinstance(status, int)
    assert attributes.get("error.type") == (str(status) if status >= 400 else None)
    return span.name, status
