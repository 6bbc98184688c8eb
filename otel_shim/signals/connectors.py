"""Calls to partners that took more than one attempt, as one logical call each.

    attempt 1 ─▶ HTTP span ┐
      wait                 ├─▶ one span beside them, linked to each ─▶ metrics: calls, wait
    attempt 2 ─▶ HTTP span ┘

The span is made when the call is over, because only then is it known that one attempt was not enough: a call
that succeeds at once costs no span. HTTP spans are noticed when they start, whichever library makes them; of a
call without any, which asked no partner, nothing is said.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context, get_current
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_RESEND_COUNT,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL, URL_SCHEME
from opentelemetry.semconv.metrics.http_metrics import HTTP_CLIENT_REQUEST_DURATION
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from otel_shim import _sdk_compat
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim.model import Scalar
from otel_shim.signals.metrics import SCOPE, histogram

_NAME = "HTTP call with retries"
_OFFICIAL_HTTPX = "opentelemetry.instrumentation.httpx"
_LABELS = (HTTP_REQUEST_METHOD, SERVER_ADDRESS, SERVER_PORT, URL_SCHEME, ERROR_TYPE)
# The advice of the HTTP conventions.
_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_MOST_HOSTS = 200
_OTHER_HOST = "_OTHER"
_MOST_SPANS = 100
"""As many HTTP spans of one call are linked; of those after them only the last is kept."""


class Call:
    """One logical call while it is at work; ``attempt`` is the number of the one at work, from 1."""

    def __init__(self, outer: Call | None = None) -> None:
        self.outer = outer
        self.attempt = 1
        self.waited = 0.0
        self.spans: list[Span] = []
        self.over_at: int | None = None
        self.recorded = False
        self._asked: set[str] = set()
        self._asking: set[str] = set()
        self._context = get_current()
        self._began = time.time_ns()

    def begin(self, attempt: int) -> None:
        """Another attempt begins; what the ones before asked for counts as asked again."""
        self.attempt = attempt
        self._asked |= self._asking
        self._asking = set()

    def saw(self, span: Span) -> int:
        """An HTTP span started in it, or in a call inside of it; gives how often that was asked for before.

        Only the first of its kind in an attempt is a repetition: a worker that was started again and asks the
        same partner all day repeats nothing.
        """
        before = self.outer.saw(span) if self.outer is not None else 0
        if len(self.spans) > _MOST_SPANS:
            self.spans.pop()
        self.spans.append(span)
        return before + self._repeats(str(_said(span, URL_FULL)))

    def _repeats(self, url: str) -> int:
        if url in self._asking or len(self._asking) >= _MOST_SPANS:
            return 0
        self._asking.add(url)
        return self.attempt - 1 if url in self._asked else 0

    def repeated(self) -> list[Span]:
        """The spans of the request that was made last: with another address, it was redirected."""
        url = self.spans and _said(self.spans[-1], URL_FULL)
        return [span for span in self.spans if _said(span, URL_FULL) == url]

    def address(self) -> str:
        """The partner that was asked last."""
        return str(_said(self.spans[-1], SERVER_ADDRESS) or "")

    def ends(self) -> None:
        """Take the time, where it is known only later whether this was the end."""
        self.over_at = time.time_ns()

    def span(self, tracer: trace.Tracer, attributes: dict[str, Scalar]) -> trace.Span:
        """The span of the whole call, as it looks back."""
        links = [Link(span.get_span_context()) for span in self.spans]
        return tracer.start_span(
            _NAME, self._context, attributes=attributes, links=links, start_time=self._began
        )


class Sending(Call):
    """A call whose attempts are known by its HTTP spans alone."""

    def _repeats(self, url: str) -> int:
        """All before it, the requests that were redirected or wanted a login included, as conventions say."""
        return len(self.spans) - 1


def _said(span: Span, key: str) -> Any:
    return (span.attributes or {}).get(key)


_current: ContextVar[Call | None] = ContextVar("otel_shim_connector_call", default=None)


def current() -> Call | None:
    """The call at work here, if any."""
    return _current.get()


def use(call: Call | None) -> None:
    """Make a call the one at work here. Not by tokens: a loop over attempts may be left anywhere."""
    _current.set(call)


class _Notices(SpanProcessor):
    """Tells the call at work of each HTTP span, and the span which attempt it is.

    Also records how long requests of httpx took that had no answer: its official instrumentor (0.66b1) makes
    a span of them and leaves them out of the durations, by which a partner's health is judged.
    """

    def __init__(self, duration: metrics.Histogram) -> None:
        self._duration = duration

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Notice it; one call of a ContextVar for all other spans."""
        call = _current.get()
        if call is not None and span.kind is SpanKind.CLIENT:
            _notice(call, span)

    def on_end(self, span: ReadableSpan) -> None:
        """Record a request without an answer."""
        if span.kind is SpanKind.CLIENT and span.status.status_code is StatusCode.ERROR:
            self._unanswered(span)

    @guarded(default=None)
    def _unanswered(self, span: ReadableSpan) -> None:
        scope, said = span.instrumentation_scope, span.attributes or {}
        if scope is None or scope.name != _OFFICIAL_HTTPX or HTTP_RESPONSE_STATUS_CODE in said:
            return
        labels = {key: said[key] for key in _LABELS if key in said}
        seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
        within = span.get_span_context() or trace.INVALID_SPAN_CONTEXT
        context = trace.set_span_in_context(trace.NonRecordingSpan(within))
        self._duration.record(seconds, labels, context)


@guarded(default=None)
def _notice(call: Call, span: Span) -> None:
    if HTTP_REQUEST_METHOD in (span.attributes or {}):
        before = call.saw(span)
        if before:
            span.set_attribute(HTTP_REQUEST_RESEND_COUNT, before)


def http_duration(meters: metrics.MeterProvider, scope: str) -> metrics.Histogram:
    """The duration of requests, as the HTTP conventions have it."""
    return meters.get_meter(scope).create_histogram(
        HTTP_CLIENT_REQUEST_DURATION,
        "s",
        "Duration of HTTP client requests.",
        explicit_bucket_boundaries_advisory=_BOUNDARIES,
    )


class Recorder:
    """Where calls are recorded: a tracer, and the instruments of a meter."""

    def __init__(
        self, tracers: trace.TracerProvider | None, meters: metrics.MeterProvider | None
    ) -> None:
        tracers = tracers or trace.get_tracer_provider()
        meters = meters or metrics.get_meter_provider()
        self._tracer = trace.get_tracer("otel_shim.connectors", tracer_provider=tracers)
        self._hosts: set[str] = set()
        unit, brief = semconv.METRICS[semconv.METRIC_SAAS_CONNECTOR_CALLS]
        meter = meters.get_meter(SCOPE)
        self._calls = meter.create_counter(semconv.METRIC_SAAS_CONNECTOR_CALLS, unit, brief)
        self._wait = histogram(meters, semconv.METRIC_SAAS_CONNECTOR_WAIT_DURATION)
        if isinstance(tracers, TracerProvider) and not _sdk_compat.has_span_processor(
            tracers, _Notices
        ):
            tracers.add_span_processor(_Notices(http_duration(meters, "otel_shim.httpx")))

    def waits(self, address: str, seconds: float, reason: str | None) -> None:
        """Record one wait before another attempt; ``reason`` is what the last one failed with."""
        labels = {SERVER_ADDRESS: self._named(address)}
        if reason is not None:
            labels[ERROR_TYPE] = reason
        self._wait.record(seconds, labels)

    def over(self, address: str, succeeded: bool) -> None:
        """Count a call that took several attempts."""
        labels = {
            SERVER_ADDRESS: self._named(address),
            semconv.SAAS_CONNECTOR_OUTCOME: _outcome(succeeded),
        }
        self._calls.add(1, labels)

    def _named(self, address: str) -> str:
        """Customers may bring any number of servers: beyond some they have one name in metrics."""
        if address not in self._hosts and len(self._hosts) >= _MOST_HOSTS:
            return _OTHER_HOST
        self._hosts.add(address)
        return address

    @guarded(default=None)
    def waited(self, call: Call, seconds: float, after: Span | None = None) -> None:
        """Note a wait of a call after an HTTP span, by default its last; without one it does not count."""
        if call.spans:
            reason = _said(after or call.spans[-1], ERROR_TYPE)
            call.waited += seconds
            self.waits(call.address(), seconds, None if reason is None else str(reason))

    @guarded(default=None)
    def ended(self, call: Call, attempts: int, succeeded: bool) -> None:
        """Record a call that has ended, if it took several attempts and asked a partner."""
        if attempts < 2 or call.recorded or not call.spans:
            return
        call.recorded = True
        attributes = {SERVER_ADDRESS: call.address(), **_told(attempts, call.waited, succeeded)}
        span = call.span(self._tracer, attributes)
        if not succeeded:
            span.set_attribute(ERROR_TYPE, str(_said(call.spans[-1], ERROR_TYPE) or "_OTHER"))
            span.set_status(Status(StatusCode.ERROR))
        span.end(call.over_at)
        self.over(call.address(), succeeded)


def describe(span: trace.Span, attempts: int, seconds: float, succeeded: bool) -> None:
    """Say on an HTTP span that it stands for several attempts."""
    if span.is_recording():
        span.set_attributes(_told(attempts, seconds, succeeded))


def _told(attempts: int, seconds: float, succeeded: bool) -> dict[str, Scalar]:
    return {
        semconv.SAAS_CONNECTOR_ATTEMPTS: attempts,
        semconv.SAAS_CONNECTOR_WAIT: seconds,
        semconv.SAAS_CONNECTOR_OUTCOME: _outcome(succeeded),
    }


def _outcome(succeeded: bool) -> str:
    if succeeded:
        return semconv.SAAS_CONNECTOR_OUTCOME_RECOVERED
    return semconv.SAAS_CONNECTOR_OUTCOME_EXHAUSTED


def gaps(spans: Iterable[Span]) -> Iterator[tuple[Span, float]]:
    """Each span but the last, with the seconds between its end and the start of the next."""
    for span, following in pairwise(spans):
        if span.end_time is not None and following.start_time is not None:
            yield span, max(0.0, (following.start_time - span.end_time) / 1e9)
