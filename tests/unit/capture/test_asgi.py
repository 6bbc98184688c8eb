"""otel_shim.capture.asgi: any ASGI application passes through it unchanged, with two headers more."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim import context, counters
from otel_shim.capture.asgi import RESOLUTION, Capture
from otel_shim.capture.resolver import Resolver
from otel_shim.config import from_environ
from otel_shim.signals import export
from tests.unit.telemetry import Telemetry

Application = Callable[[Any, Any, Any], Awaitable[None]]


def _scope(kind: str = "http", **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "method": "GET",
        "path": "/",
        "headers": [],
        "client": ("127.0.0.1", 1),
        **more,
    }


async def _handle(app: Application, scope: dict[str, Any]) -> list[Any]:
    """What a server is sent."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    config = from_environ({})
    await Capture(config, Resolver(config.sources)).handle(app, scope, receive, send)
    return sent


def _answer(*headers: tuple[bytes, bytes], status: int = 200) -> Application:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with trace.get_tracer("x").start_as_current_span("GET", kind=SpanKind.SERVER):
            await send({"type": "http.response.start", "status": status, "headers": list(headers)})
            await send({"type": "http.response.body", "body": b"x"})

    return app


def _headers(sent: list[Any]) -> list[tuple[bytes, bytes]]:
    return list(sent[0]["headers"])


async def test_two_headers_are_added(telemetry: Telemetry) -> None:
    """The application's own stay in front, in their order; the body is not touched."""
    sent = await _handle(_answer((b"a", b"1"), (b"b", b"2")), _scope())
    headers = _headers(sent)
    assert headers[:2] == [(b"a", b"1"), (b"b", b"2")]
    assert [name for name, _ in headers[2:]] == [b"x-request-id", b"x-trace-id"]
    assert sent[1] == {"type": "http.response.body", "body": b"x"}
    span = telemetry.spans()[0]
    assert span.context is not None
    assert headers[3][1] == f"{span.context.trace_id:032x}".encode()
    assert headers[2][1].decode() == telemetry.span("GET")["saas.request.id"]


async def test_first_incoming_id_counts(telemetry: Telemetry) -> None:
    """Header names are compared without case; of several the first is judged."""
    scope = _scope(headers=[(b"X-Request-ID", b"first"), (b"x-request-id", b"second")])
    assert (b"x-request-id", b"first") in _headers(await _handle(_answer(), scope))
    scope = _scope(headers=[(b"x-request-id", b"bad id"), (b"x-request-id", b"second")])
    ids = [v for k, v in _headers(await _handle(_answer(), scope)) if k == b"x-request-id"]
    assert len(ids) == 1 and ids[0] not in {b"bad id", b"second"}


async def test_applications_trace_header_stays(telemetry: Telemetry) -> None:
    """A header that the application sets itself is not set twice."""
    headers = _headers(
        await _handle(_answer((b"X-Trace-Id", b"own"), (b"X-Request-Id", b"own")), _scope())
    )
    assert headers == [(b"X-Trace-Id", b"own"), (b"X-Request-Id", b"own")]
    assert telemetry.span("GET")["saas.request.id"] == "own"


async def test_malformed_own_id_is_not_adopted(telemetry: Telemetry) -> None:
    """The response is the application's; telemetry keeps an id that it can carry."""
    headers = _headers(await _handle(_answer((b"x-request-id", b"not one id")), _scope()))
    assert [v for k, v in headers if k == b"x-request-id"] == [b"not one id"]
    assert len(telemetry.span("GET")["saas.request.id"]) == 36


async def test_other_scopes_pass(telemetry: Telemetry) -> None:
    """Neither lifespan nor kinds to come are requests."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], RESOLUTION in scope))
        await send({"type": "lifespan.startup.complete"})

    for kind in ("lifespan", "kind.to.come"):
        assert await _handle(app, {"type": kind}) == [{"type": "lifespan.startup.complete"}]
    assert seen == [("lifespan", False), ("kind.to.come", False)]


async def test_inner_applications_are_not_requests_of_their_own(telemetry: Telemetry) -> None:
    """A mounted application belongs to the request around it: one id."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        for message in await _handle(_answer(), scope):
            await send(message)

    headers = _headers(await _handle(outer, _scope()))
    assert [k for k, _ in headers].count(b"x-request-id") == 1


async def test_a_second_application_on_a_scope_is_a_request(telemetry: Telemetry) -> None:
    """One after the other, not inside: each is captured, and sees its own resolution while it runs."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope[RESOLUTION])
        await _handle(inner, scope)
        with trace.get_tracer("x").start_as_current_span("GET", kind=SpanKind.SERVER):
            otel_shim.bind(org_id=f"org-{len(seen)}")
            await send({"type": "http.response.start", "status": 404, "headers": []})

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope[RESOLUTION])

    scope = _scope(headers=[(b"x-request-id", b"r-1")])
    for _ in range(2):
        assert (b"x-request-id", b"r-1") in _headers(await _handle(app, scope))
        assert RESOLUTION not in scope
    assert seen[0] is seen[1] and seen[2] is seen[3] and seen[0] is not seen[2]
    found = [dict(span.attributes or {}) for span in telemetry.spans()]
    assert [(each["saas.org.id"], each["saas.request.id"]) for each in found] == [
        ("org-2", "r-1"),
        ("org-4", "r-1"),
    ]
    assert counters.snapshot() == {}


async def test_errors_pass_unchanged_and_remember_their_request(telemetry: Telemetry) -> None:
    """The same object, with its request kept on it; cancellation passes too."""
    error = ArithmeticError("x")

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        with trace.get_tracer("x").start_as_current_span("GET", kind=SpanKind.SERVER):
            raise error

    with pytest.raises(ArithmeticError) as caught:
        await _handle(broken, _scope(headers=[(b"x-request-id", b"r-1")]))
    assert caught.value is error
    kept = context.remembered(error)
    assert kept is not None and context.correlation(kept)["saas.request.id"] == "r-1"

    async def cancelled(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await _handle(cancelled, _scope())


async def test_error_of_the_server_passes(telemetry: Telemetry) -> None:
    """Where sending fails the application learns it."""

    async def send(_: Any) -> None:
        raise ConnectionError("gone")

    config = from_environ({})
    capture = Capture(config, Resolver(config.sources))
    with pytest.raises(ConnectionError, match="gone"):
        await capture.handle(_answer(), _scope(), send, send)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken",
    [
        {"headers": None},
        {"client": 7},
        {"client": ("host",)},
        {"client": []},
        {"state": 7},
        {"state": {"error_code": object()}},
        {"path_params": 7},
        {"user": object()},
    ],
    ids=lambda broken: next(iter(broken)),
)
async def test_odd_scopes_are_served(broken: dict[str, Any], telemetry: Telemetry) -> None:
    """A server or middleware that puts something odd into the scope still gets the application's answer."""
    sent = await _handle(_answer(status=400), _scope(**broken))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    if set(broken) != {"headers"} and broken != {"client": 7}:  # these are no ASGI
        assert {b"x-request-id", b"x-trace-id"} <= {k for k, _ in _headers(sent)}
    assert telemetry.started() == len(telemetry.spans())


@pytest.mark.parametrize("headers", [None, [("text", "text")], [(b"a",)], 7], ids=str)
async def test_odd_responses_pass(headers: Any, telemetry: Telemetry) -> None:
    """What the application sends is the server's to judge: it arrives as it is."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    sent = await _handle(app, _scope())
    assert sent == [{"type": "http.response.start", "status": 200, "headers": headers}]


async def test_response_without_headers(telemetry: Telemetry) -> None:
    """Headers are optional in the message."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})

    assert [k for k, _ in _headers(await _handle(app, _scope()))] == [b"x-request-id"]
    assert counters.snapshot() == {}


async def test_unsampled_request_has_its_trace_id(telemetry: Telemetry) -> None:
    """A request that is not recorded can be found by its trace in other services."""
    unsampled = trace.NonRecordingSpan(trace.SpanContext(0xAB, 1, is_remote=False))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with trace.use_span(unsampled):
            await send({"type": "http.response.start", "status": 200, "headers": []})

    headers = dict(_headers(await _handle(app, _scope())))
    assert headers[b"x-trace-id"] == f"{0xAB:032x}".encode()


async def test_telemetry_is_flushed_when_the_application_shuts_down(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the server hears of it, because it may end by a signal right after."""
    order: list[str] = []
    monkeypatch.setattr(export, "flush", lambda: order.append("flushed"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        order.append("serving")
        await send({"type": "lifespan.shutdown.complete"})

    assert len(await _handle(app, {"type": "lifespan"})) == 2
    assert order == ["serving", "flushed"]


async def test_a_context_that_outlives_its_request_keeps_little(telemetry: Telemetry) -> None:
    """A server's timers hold contexts of requests that ended: what was known of them is gone, their ids stay."""
    kept: list[contextvars.Context] = []
    roots: list[weakref.ref[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with trace.get_tracer("x").start_as_current_span("GET", kind=SpanKind.SERVER):
            otel_shim.bind(org_id="acme", user_id="ada")
            root = context.current_root()
            assert root is not None
            roots.append(weakref.ref(root))
            kept.append(contextvars.copy_context())
            await send({"type": "http.response.start", "status": 200, "headers": []})

    await _handle(app, _scope())
    assert roots[0]() is None
    later = telemetry.tracer()
    kept[0].run(lambda: later.start_span("later", kind=SpanKind.SERVER).end())
    assert kept[0].run(otel_shim.current_identity) == otel_shim.Identity()
    kept[0].run(lambda: otel_shim.bind(org_id="globex"))
    assert counters.snapshot() == {"bind_without_root": 1}
    request, after = telemetry.spans()
    assert after.parent == request.context
    assert "saas.org.id" not in telemetry.span("later")
    assert "saas.request.id" not in telemetry.span("later")
    assert context.opened_outside(None) is None
