"""What native telemetry lacks, in one ASGI wrapper.

Request id, response headers, trust of the caller, identity from the scope, and the end of a request
whose background tasks still run.

    server ─▶ handle() ─▶ framework's own telemetry ─▶ application
                 │ Inbound in the context ─▶ the server span takes it when it starts
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any

from opentelemetry.context import attach, detach
from opentelemetry.trace import get_current_span

from otel_shim import _semconv as semconv
from otel_shim import context, request_ids
from otel_shim._guard import guarded
from otel_shim.capture.http_settings import CapturedHeaders, Excluded
from otel_shim.capture.resolver import Resolution, Resolver
from otel_shim.capture.server_span import TELEMETRY, ServerSpan
from otel_shim.config import Config
from otel_shim.model import ANONYMOUS, Identity
from otel_shim.peers import Peers
from otel_shim.signals import export
from otel_shim.signals.metrics import MOUNTED, Exchange, RequestMetrics

ASGIScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[ASGIScope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
Start = Callable[[ASGIScope, context.Inbound], ServerSpan | None]

RESOLUTION = "otel_shim.resolution"
"""The key of the ASGI scope under which a request's resolution stands, as long as the request lasts.

None where the request is to leave no telemetry."""
_REQUESTS = ("http", "websocket")
_ANONYMOUS = Identity(actor_type=ANONYMOUS)
_REQUEST_ID = b"x-request-id"
_TRACE_ID = b"x-trace-id"
_EXPOSE = b"access-control-expose-headers"
_ALLOW_ORIGIN = b"access-control-allow-origin"
WANTED = frozenset((_REQUEST_ID, b"host", b"traceparent", b"tracestate", b"baggage"))
"""The headers of a request that are looked at."""
STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
"""The messages that carry response headers."""


class Capture:
    """Handles the requests of an application; one for the process."""

    def __init__(
        self,
        config: Config,
        resolver: Resolver,
        metrics: RequestMetrics | None = None,
        headers: CapturedHeaders | None = None,
    ) -> None:
        self._peers = Peers(config)
        self._resolver = resolver
        self._metrics = metrics
        self._headers = headers

    async def handle(
        self, app: App, scope: ASGIScope, receive: Receive, send: Send, start: Start | None = None
    ) -> None:
        """Run the application for one request; errors of the application pass unchanged.

        ``start`` makes the server span where that is not left to the framework.
        """
        resolution = None if RESOLUTION in scope else self._begin(scope)
        if resolution is None:  # no request, a mounted application, or a fault of ours
            lifespan = scope["type"] == "lifespan"
            return await app(scope, receive, _flushing(send) if lifespan else send)
        inbound = resolution.inbound
        exchange = self._metrics and scope["type"] == "http" and self._metrics.begin(scope, inbound)
        span = start(scope, inbound) if start is not None else None
        token = attach(span.at if span is not None else context.with_inbound(inbound))
        try:
            respond = _responder(
                send, resolution, scope, exchange or None, span=span, headers=self._headers
            )
            await app(scope, receive if span is None else span.receiving(receive), respond)
        except BaseException as error:
            if span is not None:
                span.failed(error)
            _remember(error, inbound)
            raise
        finally:
            if span is not None:
                span.over()
            if exchange and not exchange.done:
                exchange.over()
            inbound.close()
            _end(scope, resolution)
            detach(token)
        return None

    def passes_by(self, scope: ASGIScope, excluded: Excluded) -> bool:
        """Whether a request is to leave no telemetry; what is mounted is a part of the request above."""
        return scope["type"] in _REQUESTS and RESOLUTION not in scope and excluded(scope)

    async def pass_by(self, app: App, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Run the application for a request that is to leave no telemetry; it has an id all the same."""
        inbound = self._inbound(scope)
        scope[RESOLUTION] = scope[TELEMETRY] = None  # nor does what is mounted below make any
        try:
            await app(scope, receive, send if inbound is None else _naming(send, inbound))
        finally:
            for key in (RESOLUTION, TELEMETRY, MOUNTED):
                scope.pop(key, None)

    @guarded(default=None)
    def _begin(self, scope: ASGIScope) -> Resolution | None:
        if scope["type"] not in _REQUESTS:
            return None
        inbound = self._inbound(scope)
        if inbound is None:
            return None
        resolution = scope[RESOLUTION] = Resolution(self._resolver, inbound, scope)
        return resolution

    @guarded(default=None)
    def _inbound(self, scope: ASGIScope) -> context.Inbound:
        headers = _wanted(scope["headers"])
        own = headers.get(_REQUEST_ID)
        request_id = (own and request_ids.well_formed(own)) or request_ids.new()
        inbound = context.Inbound(request_id, self._peers.trust(scope.get("client")))
        inbound.headers = headers
        return inbound


def _responder(
    send: Send,
    resolution: Resolution,
    scope: ASGIScope,
    exchange: Exchange | None,
    *,
    span: ServerSpan | None,
    headers: CapturedHeaders | None,
) -> Send:
    async def respond(message: Message) -> None:
        starts = message["type"] in STARTS
        if starts:
            if span is not None:
                span.sends(message)
            if headers is not None:
                headers.put(resolution.span(), scope, message)
            message = _start_response(message, resolution, scope) or message
        if exchange is not None:
            exchange.sends(message)
        await send(message)
        if span is not None and not starts:
            span.sent(message)

    return respond


def _naming(send: Send, inbound: context.Inbound) -> Send:
    """Put the id of a request on its response, and nothing else anywhere."""

    async def respond(message: Message) -> None:
        if message["type"] in STARTS:
            message = _with_ids(message, inbound) or message
        await send(message)

    return respond


def _flushing(send: Send) -> Send:
    """Export what is queued before the server hears that the application has shut down."""

    async def respond(message: Message) -> None:
        if message["type"].startswith("lifespan.shutdown."):
            export.flush()  # may block the loop: nothing else is left for it to do
        await send(message)

    return respond


@guarded(default=None)
def _end(scope: ASGIScope, resolution: Resolution) -> None:
    """Leave the scope as it was: who runs another application on it makes a request of its own."""
    scope.pop(RESOLUTION, None)
    scope.pop(MOUNTED, None)
    resolution.follow({})


@guarded(default=None)
def _remember(error: BaseException, inbound: context.Inbound) -> None:
    if inbound.root is not None and isinstance(error, Exception):
        context.remember(error, inbound.root)


def _wanted(headers: Iterable[Header]) -> dict[bytes, bytes]:
    """The headers that are looked at; of several with a name the first."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        key = name.lower()
        if key in WANTED:
            found.setdefault(key, value)
    return found


@guarded(default=None)
def _start_response(message: Message, resolution: Resolution, scope: ASGIScope) -> Message:
    """Settle what is known by now, and put the ids on the response."""
    inbound = resolution.inbound
    headers: list[Header] = [(bytes(k), bytes(v)) for k, v in message.get("headers", ())]
    present = {name.lower(): value for name, value in reversed(headers)}  # the first of a name
    if (own := present.get(_REQUEST_ID)) is not None:
        _adopt(own, inbound)
    resolution.from_scope()
    root = inbound.root
    if root is not None:
        _settle(root, int(message.get("status", 101)), scope)
    return {**message, "headers": headers + _ids(present, inbound)}


@guarded(default=None)
def _with_ids(message: Message, inbound: context.Inbound) -> Message:
    headers: list[Header] = [(bytes(k), bytes(v)) for k, v in message.get("headers", ())]
    return {**message, "headers": headers + _ids({name.lower() for name, _ in headers}, inbound)}


def _adopt(own: bytes, inbound: context.Inbound) -> None:
    """Take the request id that the application itself put on its response."""
    adopted = request_ids.well_formed(own)
    if adopted is None or adopted == inbound.request_id:
        return
    inbound.request_id = adopted
    if (root := inbound.root) is not None:
        with root.binding:
            root.put(root.scope, root.scope.identity.updated(Identity(request_id=adopted)))


@guarded(default=None)
def _settle(root: context.LocalRoot, status: int, scope: ASGIScope) -> None:
    """Whoever was not identified by now is anonymous; an error has a code."""
    with root.binding:
        now = root.scope.identity
        if not (now.known() or now.actor_type or root.scope.mixed):
            root.put(root.scope, now.updated(_ANONYMOUS))
    root.current_endpoint()  # kept for background tasks, which outlive the span
    span = root.span()
    if status >= 400 and span is not None and span.is_recording():
        code = (scope.get("state") or {}).get("error_code", status)
        span.set_attribute(semconv.SAAS_ERROR_CODE, str(code)[:64])


def _ids(present: Collection[bytes], inbound: context.Inbound) -> list[Header]:
    """The headers to add: ids that are not there yet, and their names for browsers of other origins."""
    added: list[Header] = []
    if _REQUEST_ID not in present:
        added.append((_REQUEST_ID, inbound.request_id.encode("ascii")))
    trace_id = _trace_id(inbound)
    if trace_id and _TRACE_ID not in present:
        added.append((_TRACE_ID, trace_id))
    if _ALLOW_ORIGIN in present:
        added.append((_EXPOSE, b"X-Request-Id, X-Trace-Id"))
    return added


def _trace_id(inbound: context.Inbound) -> bytes | None:
    root = inbound.root
    span_context = root.span_context if root is not None else get_current_span().get_span_context()
    return f"{span_context.trace_id:032x}".encode("ascii") if span_context.is_valid else None
