"""FastAPI's own server span, made in the wrapper that stands around the application anyway.

FastAPI (0.142 and later) keeps its telemetry of a request in the ASGI scope, and makes none where it finds
one. It is put there by us: the same span, name, attributes, log records and ``get_telemetry_data()``, but
with one context and one pair of wrappers for all that is to be done, and what repeats worked out once.
What an application chose for itself is left to FastAPI, and so is every WebSocket.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from opentelemetry import _logs, propagate, trace
from opentelemetry.context import Context, set_value
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_QUERY, URL_SCHEME
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from otel_shim import _sdk_compat, context
from otel_shim._guard import guarded
from otel_shim._sdk_compat import light_spans
from otel_shim.model import Scalar
from otel_shim.signals.propagation import EdgePropagator, edge_of

ASGIScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
TELEMETRY = "fastapi.telemetry"
"""Where FastAPI keeps its telemetry of a request in the ASGI scope."""
_DECIDED = "_otel_shim_server_span"
_REMEMBERED = 1024
_LONGEST = 256
"""Longest host that is remembered, in bytes; clients send what they like, before anybody knows them."""
_CHOSEN = ("tracer_provider", "meter_provider", "logger_provider", "exclude")
_OTHER = "_OTHER"
_LAST_PARTS = {"http.response.body": "more_body", "http.response.trailers": "more_trailers"}


class Native(NamedTuple):
    """The parts of FastAPI's telemetry; none of them is public."""

    telemetry: Callable[..., Any]
    telemetry_key: str
    handler: type
    is_replaced: Callable[[Any], bool]
    unconfigured: Callable[[Any], bool]
    server_attributes: Callable[[ASGIScope], dict[str, Any]]
    exception: Callable[..., None]
    exception_type: Callable[[BaseException], str]
    sensitive: Collection[str]
    headers: Callable[..., Any]
    getter: Any
    version: str
    schema_url: str


@guarded(default=None)
def server_spans() -> ServerSpans | None:
    """What makes the server spans; None where FastAPI's telemetry has other parts."""
    api: Any = import_module("fastapi.telemetry._api")
    asgi: Any = import_module("fastapi.telemetry._asgi")
    native = Native(
        telemetry=api._RequestTelemetry,
        telemetry_key=api._REQUEST_TELEMETRY_KEY,
        handler=asgi.NativeTelemetry,
        is_replaced=asgi._legacy_otel,
        unconfigured=api._unconfigured,
        server_attributes=asgi._server_attributes,
        exception=asgi._exception,
        exception_type=api._exception_type,
        sensitive=asgi._SENSITIVE_QUERY_PARAMETERS,
        headers=asgi.Headers,
        getter=asgi._HEADERS_GETTER,
        version=asgi.__version__,
        schema_url=asgi._SCHEMA_URL,
    )
    native.telemetry(span=None, span_method="GET", tracer=None, logger=None, _mount_prefix="")
    return ServerSpans(native)


class ServerSpans:
    """Makes the server spans of all applications of a process."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._tracer: tuple[Any, Any] = None, None
        self._logger: tuple[Any, Any] = None, None
        self._edge: tuple[Any, EdgePropagator | None] = None, None
        self._same = functools.lru_cache(_REMEMBERED, typed=True)(self._same_for)

    @guarded(default=None)
    def start(self, app: Any, scope: ASGIScope, inbound: context.Inbound) -> ServerSpan | None:
        """Start the span of a request; None where FastAPI is to make it."""
        provider = trace.get_tracer_provider()
        if not isinstance(provider, TracerProvider):
            return None
        if scope["type"] != "http" or TELEMETRY in scope or not self._may_trace(app):
            return None
        known: Collection[str] = app._native_telemetry._known_methods
        method = scope["method"] if scope["method"] in known else _OTHER
        attributes = self._attributes(scope, method, inbound.headers.get(b"host"))
        parent = context.with_inbound(inbound, Context())
        propagator = self._edge_of(propagate.get_global_textmap())
        if propagator.reads(inbound.headers):
            carrier = self._native.headers(scope=scope)
            parent = propagator.extract(carrier, context=parent, getter=self._native.getter)
        name = "HTTP" if method == _OTHER else method
        tracer = self._tracer_of(provider)
        span = light_spans.start_span(tracer, name, SpanKind.SERVER, attributes, parent)
        telemetry = self._telemetry(app, scope, span_method=name, span=span, tracer=tracer)
        at = set_span_in_context(span, set_value(self._native.telemetry_key, telemetry, parent))
        scope[TELEMETRY] = telemetry
        return ServerSpan(self._native, scope, span, at, telemetry)

    def _may_trace(self, app: Any) -> bool:
        """Whether an application left its telemetry as it is by default; decided once for each of its stacks."""
        stack, decided = app.middleware_stack, getattr(app, _DECIDED, None)
        if decided is not None and decided[0] is stack:
            return bool(decided[1])
        if stack is None:  # FastAPI builds it before it looks who else traces
            return False
        config = app._native_telemetry.config
        plain = type(app._native_telemetry) is self._native.handler and config["tracing"]
        chosen = config["metrics"] or any(config[name] is not None for name in _CHOSEN)
        ours = bool(plain and not chosen and not self._native.is_replaced(stack))
        setattr(app, _DECIDED, (stack, ours))
        return ours

    def _attributes(self, scope: ASGIScope, method: str, host: bytes | None) -> dict[str, Scalar]:
        server, path = scope.get("server"), scope["path"]
        version, scheme = scope.get("http_version"), scope.get("scheme", "http")
        remembered = host is None or len(host) <= _LONGEST
        same_for = self._same if remembered else self._same_for
        same = same_for(method, scheme, version, host, server and tuple(server))
        attributes = {**same, URL_PATH: path}
        if not isinstance(path, str):
            raise TypeError("a path that is no text")
        if query := scope.get("query_string"):
            pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
            hidden = self._native.sensitive
            shown = [(key, "REDACTED" if key in hidden else value) for key, value in pairs]
            attributes[URL_QUERY] = urlencode(shown)
        if method == _OTHER:
            attributes[HTTP_REQUEST_METHOD_ORIGINAL] = str(scope["method"])
        return attributes

    def _same_for(
        self, method: str, scheme: str, version: str | None, host: bytes | None, server: Any
    ) -> dict[str, Scalar]:
        """The attributes that are the same for all requests of a host."""
        found: dict[str, Scalar] = {URL_SCHEME: scheme, HTTP_REQUEST_METHOD: method}
        if version:
            found[NETWORK_PROTOCOL_VERSION] = version
        named = [(b"host", host)] if host is not None else []
        found |= self._native.server_attributes(
            {"type": "http", "headers": named, "scheme": scheme, "server": server}
        )
        if not all(type(value) in (str, int) for value in found.values()):
            raise TypeError("a server that describes itself by something else than text")
        return found

    def _telemetry(self, app: Any, scope: ASGIScope, *, tracer: Any, **known: Any) -> Any:
        """What FastAPI looks for in the scope and in the context, while it handles a request."""
        config = app._native_telemetry.config
        root = app.root_path or scope.get("app_root_path", scope.get("root_path", ""))
        return self._native.telemetry(
            tracer=tracer if config["operation_spans"] else None,
            logger=self._logger_of(_logs.get_logger_provider()) if config["logs"] else None,
            _mount_prefix=root.rstrip("/"),
            **known,
        )

    def _edge_of(self, propagator: TextMapPropagator) -> EdgePropagator:
        """Judge callers, though somebody set a propagator past our eyes, by a name imported earlier."""
        known, edge = self._edge
        if edge is None or known is not propagator:
            edge = edge_of(propagator)
            self._edge = propagator, edge
        return edge

    def _tracer_of(self, provider: Any) -> Any:
        if self._tracer[0] is not provider:
            native = self._native
            tracer = provider.get_tracer("fastapi", native.version, schema_url=native.schema_url)
            self._tracer = provider, tracer
        return self._tracer[1]

    def _logger_of(self, provider: Any) -> Any:
        if self._logger[0] is not provider:
            native = self._native
            silent = isinstance(provider, _logs.NoOpLoggerProvider) or native.unconfigured(provider)
            logger = _logs.get_logger("fastapi", native.version, schema_url=native.schema_url)
            self._logger = provider, None if silent else logger
        return self._logger[1]


class ServerSpan:
    """The server span of one request, and what FastAPI's telemetry knows of it."""

    __slots__ = ("_disconnected", "_done", "_native", "_scope", "_span", "_trailers", "at", "known")

    def __init__(
        self, native: Native, scope: ASGIScope, span: trace.Span, at: Context, known: Any
    ) -> None:
        self.at = at
        """The context in which the application is to run."""
        self.known = known
        self._native = native
        self._scope = scope
        self._span = span
        self._done = self._trailers = self._disconnected = False

    def receiving(self, receive: Callable[[], Awaitable[Message]]) -> Any:
        """What an application receives, with an eye on whether the client goes away."""

        async def received() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._disconnected = True
            return message

        return received

    @guarded(default=None)
    def sends(self, message: Message) -> None:
        """A response is about to start."""
        self.known.status_code = message["status"]
        self._trailers = message.get("trailers", False)

    @guarded(default=None)
    def sent(self, message: Message) -> None:
        """A message went to the server; the last one ends the span."""
        if self._done:
            return
        kind = message["type"]
        more = _LAST_PARTS.get(kind)
        if more is not None:
            waits = kind == "http.response.body" and self._trailers
            if message.get(more, False) or waits:
                return
        elif kind != "http.response.pathsend":
            return
        self._finish(None)

    @guarded(default=None)
    def failed(self, error: BaseException) -> None:
        """The application raised."""
        self._native.exception(scope=self._scope, exc=error)
        self._finish(error)

    @guarded(default=None)
    def over(self) -> None:
        """The application is done, with or without a complete response."""
        if not self._done:
            gone = self._disconnected
            text = "Client disconnected" if gone else "Incomplete ASGI response"
            self._finish(ConnectionError(text) if gone else RuntimeError(text))
        self.known.data = None
        self.known._exceptions.clear()
        self._scope.pop(TELEMETRY, None)

    def _finish(self, error: BaseException | None) -> None:
        if self._done:
            return
        self._done = True
        status = self.known.status_code
        found: dict[str, Scalar] = {} if status is None else {HTTP_RESPONSE_STATUS_CODE: status}
        failed = error is not None or status is None or status >= 500
        if failed:
            raised = error or next(reversed(self.known._exceptions), None)
            kind = raised and self._native.exception_type(raised)
            found[ERROR_TYPE] = kind or str(status or "incomplete_response")
        if isinstance(self._span, Span):
            _sdk_compat.stamp(self._span, found)
        if failed:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
