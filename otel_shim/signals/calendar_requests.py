"""HTTP requests to calendars: a client span each, with the real method and without the path.

Paths hold logins and secrets, so the span is made here, and instrumentors of the HTTP libraries are
told to make none. Of a synchronisation the first requests have spans, and all that fail; the others,
alike as they are, are only counted and measured.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from contextvars import Token
from typing import NamedTuple, cast

from opentelemetry import propagate
from opentelemetry.context import Context, attach, create_key, get_current, set_value
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from otel_shim import _sdk_compat, calendars, context
from otel_shim._guard import guarded
from otel_shim.addresses import OTHER, method_of, target
from otel_shim.model import Scalar
from otel_shim.signals.calendars import Answered, Exchanged, Recorder, Running, clock, running_now

MOST_SPANS = 20
"""Requests of one synchronisation that have spans although they succeed."""
_REQUEST = create_key("otel-shim-calendar-request")


class Asked(NamedTuple):
    """What is asked of a server."""

    method: str
    url: str


class Request:
    """One HTTP request; ``client`` is what sends it, so that a repetition with a login is seen as one."""

    __slots__ = (
        *("_began", "_method", "_open", "_recorder", "_running", "_span", "_target", "_token"),
        "client",
    )

    def __init__(
        self,
        recorder: Recorder,
        asked: Asked,
        client: object,
        running: Running | None,
        began: float | None = None,
    ) -> None:
        self._began = time.perf_counter() if began is None else began
        self._recorder = recorder
        self._running = running
        self._method = method_of(asked.method)
        self._target = target(asked.url)
        self._open = True
        self._token: Token[Context] | None = None
        self._span: Span | None = None
        self.client = client
        if began is None:
            self._span = self._start()

    def _start(self) -> Span:
        attributes: dict[str, Scalar] = {
            HTTP_REQUEST_METHOD: self._method,
            SERVER_ADDRESS: self._target.host,
            URL_FULL: self._target.shown,
        }
        if self._target.port is not None:
            attributes[SERVER_PORT] = self._target.port
        return self._recorder.tracer.start_span(
            self._method if self._method != OTHER else "HTTP",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=clock(self._began),
        )

    def __enter__(self) -> Request:
        self._suppress()
        return self

    @guarded(default=None)
    def _suppress(self) -> None:
        self._token = attach(_sdk_compat.without_http_spans(set_value(_REQUEST, self)))

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._token is not None:
            context.leave(self._token)
        if error is not None:
            self.failed(error)

    @guarded(default=None)
    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Name this request to the server, as the instrumentor would that is quiet meanwhile."""
        if self._span is not None:
            propagate.inject(headers, set_span_in_context(self._span))

    @guarded(default=None)
    def answered(self, status: int, received: int) -> None:
        """The server answered, with so many bytes of a body."""
        self._end(status, received, str(status) if status >= 400 else None)

    @guarded(default=None)
    def failed(self, error: BaseException) -> None:
        """There was no answer, or one that its library makes an error."""
        status = calendars.status_of(error)
        if status is not None:
            return self._end(status, 0, str(status))
        return self._end(None, 0, type(error).__qualname__)

    def _end(self, status: int | None, received: int, error: str | None) -> None:
        if not self._open:
            return
        self._open = False
        seconds = time.perf_counter() - self._began
        running = self._running
        if running is not None and running.open:
            running.requests += 1
            running.received += received
        span = self._span if self._span is not None or error is None else self._start()
        if span is not None:
            _conclude(span, status, error)
        scheme, host, port, _ = self._target
        exchanged = Exchanged(self._method, scheme, host, port, status, error)
        at = span if span is not None or running is None else running.span
        self._recorder.requested(exchanged, (seconds,), at)


class Counted:
    """A request of a crowded synchronisation: it has a span only if it fails."""

    __slots__ = ("_asked", "_began", "_recorder", "_running")

    def __init__(
        self, recorder: Recorder, asked: Asked, running: Running, began: float | None = None
    ) -> None:
        self._recorder, self._asked, self._running = recorder, asked, running
        self._began = time.perf_counter() if began is None else began

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.failed(error)

    def answered(self, status: int, received: int) -> None:
        """The server answered, with so many bytes of a body; stands under the guard of who says so."""
        if status >= 400:
            return self._request().answered(status, received)
        seconds = time.perf_counter() - self._began
        answered: Answered = (self._asked.method, self._asked.url, None, status, seconds)
        return self._running.count(answered, received)

    @guarded(default=None)
    def failed(self, error: BaseException) -> None:
        """There was no answer, or one that its library makes an error."""
        self._request().failed(error)

    def _request(self) -> Request:
        return Request(self._recorder, self._asked, None, self._running, self._began)


AnyRequest = Request | Counted
"""With a span or without."""


def _conclude(span: Span, status: int | None, error: str | None) -> None:
    if status is not None:
        span.set_attribute(HTTP_RESPONSE_STATUS_CODE, status)
    if error is not None:
        span.set_attribute(ERROR_TYPE, error)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def in_request(at: Context | None = None) -> bool:
    """Whether a point of the program is in the middle of a synchronisation, or of a request to a calendar."""
    at = get_current() if at is None else at
    return running_now(at) is not None or at.get(_REQUEST) is not None


def crowded(running: Running) -> bool:
    """Whether a synchronisation has so many requests that further ones have spans only where they fail."""
    return running.requests >= MOST_SPANS


def crowd_now() -> Running | None:
    """The synchronisation at work here, if it is such a one."""
    running = running_now()
    return running if running is not None and crowded(running) else None


def start(recorder: Recorder, method: str, url: str, client: object) -> AnyRequest | None:
    """Start a request, under the guard of the caller; None where nothing is to be recorded.

    A request inside of one by the same client repeats it, after the server asked for a login (401).
    """
    asked = Asked(method, url)
    here = get_current()
    running = running_now(here)
    if running is not None and crowded(running):
        return Counted(recorder, asked, running)
    outer = cast("Request | None", here.get(_REQUEST))
    if outer is not None and outer.client is client:
        outer.answered(401, 0)
    elif running is None and not is_http_instrumentation_enabled():
        return None
    return Request(recorder, asked, client, running)


begin = guarded(default=None)(start)
"""The same, for callers who have more to do where it fails."""
