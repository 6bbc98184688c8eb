"""HTTP requests to calendars: a client span each, with the real method and without the path.

Paths hold logins and secrets, so the span is made here, and instrumentors of the HTTP libraries are
told to make none. Nothing is propagated: a calendar is somebody else's.
"""

from __future__ import annotations

import functools
import time
from collections.abc import MutableMapping
from contextlib import ExitStack
from typing import cast
from urllib.parse import urlsplit

from opentelemetry import propagate
from opentelemetry.context import Context, attach, create_key, get_value, set_value
from opentelemetry.instrumentation.utils import (
    is_http_instrumentation_enabled,
    suppress_http_instrumentation,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL, URL_SCHEME
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from otel_shim import calendars, context
from otel_shim._guard import guarded
from otel_shim.model import Scalar
from otel_shim.signals.calendars import Recorder, running_now

_REQUEST = create_key("otel-shim-calendar-request")
_PORTS = {"http": 80, "https": 443}
_REDACTED = "/REDACTED"
# RFC 9110 and 5789; RFC 4918 (WebDAV), 3253 (REPORT), 4791 (MKCALENDAR), 3744 (ACL), 5323 (SEARCH).
_METHODS = frozenset(
    {
        *("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"),
        *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK"),
        *("REPORT", "MKCALENDAR", "ACL", "SEARCH"),
    }
)
_OTHER = "_OTHER"


@functools.lru_cache(256)
def _target(scheme: str, host: str, port: int | None, has_path: bool) -> dict[str, Scalar]:
    """What is said of an address: the server, and that there was a path."""
    named = f"[{host}]" if ":" in host else host
    shown = f":{port}" if port is not None else ""
    found: dict[str, Scalar] = {
        SERVER_ADDRESS: host,
        URL_FULL: f"{scheme}://{named}{shown}{_REDACTED if has_path else '/'}",
    }
    port = port or _PORTS.get(scheme)
    return {**found, SERVER_PORT: port} if port is not None else found


def target(url: str) -> dict[str, Scalar]:
    """The attributes of an address, without login, path, query and fragment."""
    parts = urlsplit(url)
    has_path = parts.path not in ("", "/") or bool(parts.query)
    return _target(parts.scheme or "http", parts.hostname or "", parts.port, has_path)


class Request:
    """One HTTP request; ``client`` is what sends it, so that a repetition with a login is seen as one."""

    __slots__ = ("_began", "_labels", "_open", "_recorder", "_span", "_stack", "client", "status")

    def __init__(self, recorder: Recorder, method: str, url: str, client: object) -> None:
        known = method if method in _METHODS else _OTHER
        where = target(url)
        self._labels: dict[str, Scalar] = {HTTP_REQUEST_METHOD: known, **where}
        self._span = recorder.tracer.start_span(
            known if known != _OTHER else "HTTP", kind=SpanKind.CLIENT, attributes=self._labels
        )
        del self._labels[URL_FULL]
        self._labels[URL_SCHEME] = urlsplit(url).scheme or "http"
        self._recorder = recorder
        self._open = True
        self.client = client
        self.status: int | None = None
        self._began = time.perf_counter()
        self._stack = ExitStack()

    def __enter__(self) -> Request:
        self._suppress()
        return self

    @guarded(default=None)
    def _suppress(self) -> None:
        self._stack.callback(context.leave, attach(set_value(_REQUEST, self)))
        self._stack.enter_context(suppress_http_instrumentation())

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._stack.close()
        if error is not None:
            self.failed(error)

    @guarded(default=None)
    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Name this request to the server, as the instrumentor would that is quiet meanwhile."""
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
        self.status = status
        if status is not None:
            self._label(HTTP_RESPONSE_STATUS_CODE, status)
        if error is not None:
            self._label(ERROR_TYPE, error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
        self._recorder.requested(time.perf_counter() - self._began, self._labels, self._span)
        if (running := running_now()) is not None:
            running.requests += 1
            running.received += received

    def _label(self, key: str, value: Scalar) -> None:
        self._labels[key] = value
        self._span.set_attribute(key, value)


def in_request(at: Context | None) -> bool:
    """Whether a point of the program is in the middle of a request to a calendar."""
    return get_value(_REQUEST, at) is not None


@guarded(default=None)
def begin(recorder: Recorder, method: str, url: str, client: object) -> Request | None:
    """Start a request; None where nothing is to be recorded.

    A request inside of one by the same client repeats it, after the server asked for a login (401).
    """
    outer = cast("Request | None", get_value(_REQUEST))
    if outer is not None and outer.client is client:
        outer.answered(401, 0)
    elif not is_http_instrumentation_enabled():
        return None
    return Request(recorder, method, url, client)
