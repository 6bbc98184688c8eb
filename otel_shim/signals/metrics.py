"""Metrics of requests, recorded where they end. Nobody's id is ever a label.

    first byte of a stream ─▶ saas.stream.time_to_first_byte
    last byte of a response ─▶ http.server.request.duration   exemplar: trace, span, request_id

The request id is an attribute of the measurement that a View takes off, so it stays on the exemplar.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from opentelemetry.context import Context, create_key, get_value, set_value
from opentelemetry.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics import MeterProvider as SDKMeterProvider
from opentelemetry.sdk.metrics.view import View
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME
from opentelemetry.semconv.metrics.http_metrics import HTTP_SERVER_REQUEST_DURATION
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from otel_shim import _sdk_compat, context
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded, logger

SCOPE = "otel_shim"
EXEMPLAR_REQUEST_ID = "request_id"
"""Short, because Prometheus gives all labels of an exemplar 128 characters: with trace and span id, and
this name, 55 are left for the value."""
OVERFLOW = "otel.metric.overflow"
"""OpenTelemetry's mark for the series that takes what is beyond the limit."""
LIMIT = 2000
"""Series of one histogram in one process; OpenTelemetry's default limit."""
_OVERFLOWN = {OVERFLOW: True}
_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY")
)
_OTHER_METHOD = "_OTHER"
_CONTENT_LENGTH = b"content-length"
_NATIVE = "fastapi.telemetry"
MOUNTED = "otel_shim.mounted"
"""The key of the ASGI scope under which the templates of the mounts above stand."""
_BELOW = "/{path}"
"""How Starlette's and FastAPI's mounts write what is below them."""
_LONGEST_LABEL = 64
_Key = tuple[str, str, Any, int, str, str | None, str | None]
_KEYS = (
    HTTP_REQUEST_METHOD,
    URL_SCHEME,
    HTTP_ROUTE,
    HTTP_RESPONSE_STATUS_CODE,
    semconv.SAAS_OPERATION,
    semconv.SAAS_ACTOR_ROLE,
    semconv.SAAS_PLAN,
)


_AS_OF = create_key("otel-shim-as-of")


def as_of(seconds: float) -> Context:
    """The context of an observation that was true at a time: of several processes' the newest counts."""
    return set_value(_AS_OF, seconds, Context())


def observed_at(context: Context | None, otherwise: float) -> float:
    """When an observation was true, in seconds."""
    found = get_value(_AS_OF, context)
    return found if isinstance(found, float) else otherwise


def histogram(meters: MeterProvider, name: str) -> Histogram:
    """One of the contract's histograms, with its unit and boundaries."""
    unit, brief = semconv.METRICS[name]
    boundaries = semconv.METRIC_BOUNDARIES[name]
    return meters.get_meter(SCOPE).create_histogram(
        name, unit, brief, explicit_bucket_boundaries_advisory=boundaries
    )


class RequestMetrics:
    """The histograms of requests; one for the process."""

    def __init__(self, meters: MeterProvider) -> None:
        self._duration = histogram(meters, HTTP_SERVER_REQUEST_DURATION)
        self._first_byte = histogram(meters, semconv.METRIC_SAAS_STREAM_TIME_TO_FIRST_BYTE)
        self._names_requests = _restrict(meters, self._duration, self._first_byte)
        self._labels: dict[_Key, dict[str, Any]] = {}
        self._series: dict[tuple[int, int], _sdk_compat.Series] = {}

    @guarded(default=None)
    def begin(self, scope: MutableMapping[str, Any], inbound: context.Inbound) -> Exchange:
        """Take the time at which a request starts."""
        return Exchange(self, scope, inbound)

    def ended(self, exchange: Exchange, seconds: float) -> None:
        """Record a request whose response is complete, or will not be."""
        self._record(self._duration, exchange, seconds)

    def began_to_answer(self, exchange: Exchange, seconds: float) -> None:
        """Record a stream whose first byte was sent."""
        self._record(self._first_byte, exchange, seconds)

    def _record(self, instrument: Histogram, exchange: Exchange, seconds: float) -> None:
        inbound = exchange.inbound
        more = {EXEMPLAR_REQUEST_ID: inbound.request_id} if self._names_requests else {}
        series = self._series_of(instrument, self._labels_of(exchange))
        series.record(seconds, more, _at(inbound.root))

    def _series_of(self, instrument: Histogram, labels: Mapping[str, Any]) -> _sdk_compat.Series:
        """The series of these labels, which live as long as this."""
        key = (id(instrument), id(labels))
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = _sdk_compat.Series(instrument, labels)
        return found

    def _labels_of(self, exchange: Exchange) -> Mapping[str, Any]:
        """The labels, made once for each combination; beyond the limit all have one."""
        key = _key(exchange)
        found = self._labels.get(key)
        if found is None:
            if len(self._labels) >= LIMIT:
                return _OVERFLOWN
            found = {name: value for name, value in zip(_KEYS, key, strict=True) if value}
            if exchange.status >= 500:
                found[ERROR_TYPE] = str(exchange.status)
            self._labels[key] = found
        return found


class Exchange:
    """One HTTP request and its response, as far as it has come."""

    __slots__ = (
        "_headers",
        "_metrics",
        "_started",
        "_streams",
        "done",
        "inbound",
        "scope",
        "status",
    )

    def __init__(
        self, metrics: RequestMetrics, scope: MutableMapping[str, Any], inbound: context.Inbound
    ) -> None:
        self.scope = scope
        self.inbound = inbound
        self.status = 0
        self._metrics = metrics
        self._headers: Any = ()
        self._streams = False
        self.done = False
        self._started = time.perf_counter()

    @guarded(default=None)
    def sends(self, message: MutableMapping[str, Any]) -> None:
        """Look at a message on its way to the server; before it goes, so that no answered request is missed."""
        kind = message["type"]
        if kind == "http.response.body":
            if not message.get("more_body"):
                self._end()
            elif not self._streams and message.get("body"):
                self._stream()
        elif kind == "http.response.start":
            self.status = message["status"]
            self._headers = message.get("headers", ())
        elif kind == "http.response.pathsend":
            self._end()

    @guarded(default=None)
    def over(self) -> None:
        """The application is done; a request without a response is one that the server answers with 500."""
        self.status = self.status or 500
        self._end()

    def _end(self) -> None:
        if not self.done:
            self.done = True
            self._metrics.ended(self, time.perf_counter() - self._started)

    def _stream(self) -> None:
        """A first part with more to come; where the length is known, that is a middleware's way only."""
        self._streams = True
        if not any(name.lower() == _CONTENT_LENGTH for name, _ in self._headers):
            self._metrics.began_to_answer(self, time.perf_counter() - self._started)


def _restrict(meters: MeterProvider, *histograms: Histogram) -> bool:
    """Take the request id off the labels; False where it must not be recorded at all.

    An operator's own View of these histograms makes another stream, which would keep it.
    """
    if not isinstance(meters, SDKMeterProvider):
        return False
    views = [
        View(
            instrument_name=instrument.name,  # type: ignore[attr-defined]
            meter_name=SCOPE,
            attribute_keys={*semconv.METRIC_ATTRIBUTES[instrument.name], OVERFLOW},  # type: ignore[attr-defined]
        )
        for instrument in histograms
    ]
    restricted = _sdk_compat.add_views(meters, histograms, views)
    if not restricted:
        logger.info("a View of this application's own takes requests in: exemplars name no request")
    return restricted


def _key(exchange: Exchange) -> _Key:
    scope, root = exchange.scope, exchange.inbound.root
    method = scope["method"]
    identity = root.scope.identity if root is not None else None
    return (
        method if method in _METHODS else _OTHER_METHOD,
        scope.get("scheme", "http"),
        _route(scope, root),
        exchange.status,
        (root.operation if root is not None else None) or semconv.OPERATION_HTTP_REQUEST,
        _label(identity.actor_role) if identity is not None else None,
        _label(identity.plan) if identity is not None else None,
    )


def _label(value: str | None) -> str | None:
    return value[:_LONGEST_LABEL] if value is not None else None


def _route(scope: MutableMapping[str, Any], root: context.LocalRoot | None) -> Any:
    """The template of the route; None where the request was not routed. Never the path."""
    route = root.current_endpoint().get(HTTP_ROUTE) if root is not None else None
    route = route or getattr(scope.get(_NATIVE), "route", None)
    return route or _template(scope)


def _template(scope: MutableMapping[str, Any]) -> str | None:
    """Of mounts and route together. The root path would do but for the values of the mounts' parameters."""
    found, mounted = scope.get("route"), scope.get(MOUNTED, "")
    path, whole = getattr(found, "path", None), getattr(found, "path_format", None)
    if not isinstance(path, str):
        return None
    if isinstance(whole, str) and whole == path + _BELOW:  # a mount, and no route below it
        return (mounted or path) + _BELOW
    return str(mounted + path)


def _at(root: context.LocalRoot | None) -> Context:
    """A context in which the request's own span is the current one; its exemplar refers to that."""
    if root is None:
        return Context()
    return set_span_in_context(root.span() or NonRecordingSpan(root.span_context), Context())
