"""otel_shim.capture.server_span: what FastAPI itself would have recorded, for every kind of request."""

from __future__ import annotations

import tracemalloc
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import fastapi.telemetry
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, StreamingResponse
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import Message, Receive, Scope, Send

from otel_shim import counters
from otel_shim.capture import server_span
from otel_shim.capture.server_span import ServerSpans
from otel_shim.context import Inbound
from otel_shim.peers import Trust
from otel_shim.signals.propagation import EdgePropagator
from tests.unit.telemetry import Record, Telemetry

Install = Callable[..., None]
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True)
class Case:
    """One request; ``app`` names the application that takes it."""

    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    app: str = "plain"


CASES = (
    Case("/items/3"),
    Case("/items/three"),  # 422
    Case("/items/3", "PURGE"),
    Case("/items/3", "HEAD"),  # 405
    Case("/nothing/here"),
    Case("/slash"),  # redirected
    Case("/items/3?a=1&sig=secret&b=%20x&empty="),
    Case("/items/3", headers={"host": "example.org"}),
    Case("/items/3", headers={"host": "[::1]:8000"}),
    Case("/items/3", headers={"host": "user@example.org:99999"}),
    Case("/items/3", headers={"host": "example.org/odd"}),
    Case("/items/3", headers={"traceparent": TRACEPARENT, "tracestate": "a=b"}),
    Case("/items/3", headers={"baggage": "k=v", "x-request-id": "r-1"}),
    Case("/teapot"),
    Case("/broken"),
    Case("/raised-503"),
    Case("/handled"),
    Case("/dependency"),
    Case("/stream"),
    Case("/stream-that-breaks"),
    Case("/file"),
    Case("/background"),
    Case("/background-that-breaks"),
    Case("/no-answer/"),
    Case("/trailers/"),
    Case("/mounted/inner/7"),
    Case("/mounted/broken"),
    Case("/routed/thing"),
    Case("/data"),
    Case("/items/3", app="prefixed"),
    Case("/items/3", app="middleware"),
    Case("/broken", app="middleware"),
    Case("/items/3", app="operations"),
    Case("/background", app="operations"),
    Case("/broken", app="silent"),
    Case("/items/3", app="untraced"),
    Case("/items/3", app="excluded"),
    Case("/items/3", app="theirs"),
    Case("/items/3", app="measured"),
    Case("/items/3", app="contrib"),
)


class Handled(Exception):
    """An error with a handler of its own."""


def routes(app: FastAPI) -> FastAPI:
    """Every kind of endpoint."""

    @app.get("/items/{item}")
    async def item(item: int) -> int:
        return item

    @app.get("/slash/")
    def slash() -> str:
        return "slash"

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418)

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("broken")

    @app.get("/raised-503")
    async def unavailable() -> None:
        raise HTTPException(503)

    @app.get("/handled")
    async def handled() -> None:
        raise Handled

    async def dependency(x_none: Annotated[str, Header()] = "") -> str:
        raise KeyError(x_none)

    @app.get("/dependency")
    async def depends(_found: Annotated[str, Depends(dependency)]) -> str:
        return "never"

    add_streams(app)
    return add_others(app)


def add_streams(app: FastAPI) -> None:
    """Endpoints that answer in more than one part."""

    async def parts(break_after: int = 9) -> AsyncIterator[bytes]:
        for number in range(3):
            if number == break_after:
                raise OSError("the source is gone")
            yield b"part"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(parts())

    @app.get("/stream-that-breaks")
    async def breaking() -> StreamingResponse:
        return StreamingResponse(parts(1))

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(__file__)

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(sorted, [3, 1])
        return "later"

    @app.get("/background-that-breaks")
    async def late(tasks: BackgroundTasks) -> str:
        tasks.add_task(int, "x")
        return "later"


def add_others(app: FastAPI) -> FastAPI:
    """A mounted application, a router, plain ASGI, and an endpoint that reads FastAPI's data."""
    inner = FastAPI()

    @inner.get("/inner/{number}")
    async def number(number: int) -> int:
        return number

    @inner.get("/broken")
    async def broken() -> None:
        raise ValueError("broken inside")

    router = fastapi.APIRouter(prefix="/routed")

    @router.get("/thing")
    async def thing() -> str:
        return "thing"

    @app.get("/data")
    async def data(request: Request) -> list[str]:
        known = fastapi.telemetry.get_telemetry_data()
        assert known is not None
        assert known.request is request
        return sorted(known.values or ())

    app.include_router(router)
    app.mount("/mounted", inner)
    app.mount("/no-answer", silent)
    app.mount("/trailers", trailing)
    app.add_exception_handler(Handled, lambda *_: fastapi.Response(status_code=500))
    return app


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Begins to answer, and leaves it at that."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def trailing(scope: Scope, receive: Receive, send: Send) -> None:
    """An answer with trailers."""
    start: Message = {"type": "http.response.start", "status": 200, "headers": [], "trailers": True}
    await send(start)
    await send({"type": "http.response.body", "body": b"x"})
    await send({"type": "http.response.trailers", "headers": [], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": []})


class Around(BaseHTTPMiddleware):
    """The middleware that runs the application in a task of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


def make(name: str, theirs: TracerProvider) -> FastAPI:
    """An application by its name in ``CASES``."""
    settings: dict[str, Any] = {
        "operations": {"operation_spans": True},
        "silent": {"logs": False},
        "untraced": {"tracing": False},
        "excluded": {"exclude": lambda scope: True},
        "theirs": {"tracer_provider": theirs},
        "measured": {"metrics": True},
    }
    app = FastAPI(telemetry=settings.get(name))
    if name == "prefixed":
        app.root_path = "/prefix"
    if name == "middleware":
        app.add_middleware(Around)
    if name == "contrib":
        app.add_middleware(OpenTelemetryMiddleware, tracer_provider=theirs)
    return routes(app)


async def ask(app: FastAPI, case: Case) -> object:
    """One request, as a server hands it on; the answer, or the error that came out."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=True, client=("10.1.2.3", 4))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://shop.example:8080"
    ) as client:
        try:
            answer = await client.request(case.method, case.path, headers=dict(case.headers))
        except Exception as error:
            return repr(error)
    return answer.status_code, answer.text


def described(span: ReadableSpan) -> dict[str, Any]:
    """All of a span but for ids and times, of which there are only relations."""
    attributes = dict(span.attributes or {})
    if "saas.request.id" in attributes and attributes["saas.request.id"] != "r-1":
        attributes["saas.request.id"] = "made here"
    return {
        "name": span.name,
        "kind": span.kind,
        "attributes": attributes,
        "types": {key: type(value) for key, value in attributes.items()},
        "status": (span.status.status_code, span.status.description),
        "scope": span.instrumentation_scope,
        "parent": span.parent and (span.parent.is_remote, span.parent.trace_state.to_header()),
        "remote": span.parent and span.parent.is_remote and span.parent.span_id,
        "flags": span.context and span.context.trace_flags,
        "state": span.context and span.context.trace_state.to_header(),
        "events": [(event.name, dict(event.attributes or {})) for event in span.events],
        "links": [(link.context.trace_id, dict(link.attributes or {})) for link in span.links],
        "resource": span.resource,
        "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
    }


def plain(record: Record) -> tuple[Any, ...]:
    """A log record without what differs from run to run."""
    hidden = ("saas.request.id", "exception.stacktrace")
    kept = {key: value for key, value in record.attributes.items() if key not in hidden}
    return record.body, kept, record.severity, record.trace_id != 0


async def recorded(telemetry: Telemetry, case: Case) -> dict[str, Any]:
    """Everything that one request left behind; the second one, when all is built and remembered."""
    app = make(case.app, telemetry.tracers)
    await ask(app, case)
    telemetry.clear()
    started = telemetry.started()
    answer = await ask(app, case)
    spans = telemetry.spans()
    assert telemetry.started() - started == len(spans)
    return {
        "answer": answer,
        "spans": [described(span) for span in spans],
        "records": [plain(record) for record in telemetry.records()],
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.app} {case.method} {case.path}")
async def test_as_fastapi_itself(
    case: Case, shim_fastapi: Install, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans and log records are those that FastAPI makes, in every detail."""
    started: list[bool] = []
    start = ServerSpans.start

    def watched(self: ServerSpans, app: Any, scope: Any, inbound: Any) -> Any:
        made = start(self, app, scope, inbound)
        started.append(made is not None)
        return made

    monkeypatch.setattr(ServerSpans, "start", watched)
    shim_fastapi()
    ours = await recorded(telemetry, case)
    chosen = ("untraced", "excluded", "theirs", "measured", "contrib")
    assert started[-1] is (case.app not in chosen)
    monkeypatch.setattr(ServerSpans, "start", lambda *_: None)
    assert ours == await recorded(telemetry, case)
    assert not counters.snapshot().get("internal_errors")


async def test_a_client_that_goes_away(
    shim_fastapi: Install, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody waits for says so."""
    shim_fastapi()
    app = FastAPI()
    app.mount("/silent", silent)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        return None

    scope = {
        "type": "http", "method": "GET", "path": "/silent/", "headers": [], "query_string": b"",
        "scheme": "http", "server": ["127.0.0.1", 80],
    }  # fmt: skip
    for _ in range(2):
        await app(dict(scope), receive, send)
    monkeypatch.setattr(ServerSpans, "start", lambda *_: None)
    await app(dict(scope), receive, send)
    _, ours, theirs = (described(span) for span in telemetry.spans())
    assert ours == theirs
    assert ours["attributes"]["error.type"] == "ConnectionError"


@pytest.mark.parametrize("part", ["_RequestTelemetry", "_REQUEST_TELEMETRY_KEY", "_exception_type"])
async def test_another_fastapi(
    part: str, shim_fastapi: Install, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a part of FastAPI's telemetry is not there, FastAPI makes its span itself."""
    monkeypatch.delattr(f"fastapi.telemetry._api.{part}")
    assert server_span.server_spans() is None
    assert counters.snapshot()["internal_errors"] == 1
    shim_fastapi()
    monkeypatch.undo()


@pytest.mark.parametrize(
    "odd", [{"path": 7}, {"scheme": b"http"}, {"server": [["x"], 1]}, {"http_version": 1.1}]
)
async def test_odd_servers(
    odd: Mapping[str, Any], shim_fastapi: Install, telemetry: Telemetry
) -> None:
    """What is no text is left to FastAPI, which knows what to do, or fails as it would without us."""
    spans = server_span.server_spans()
    assert spans is not None
    app = FastAPI()
    app.middleware_stack = app.build_middleware_stack()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    inbound = Inbound("r-1", Trust(identity=False, trace=True))
    shim_fastapi()
    app._native_telemetry.config["metrics"] = False
    assert spans.start(app, dict(scope), inbound) is not None
    assert spans.start(app, {**scope, **odd}, inbound) is None


def test_long_hosts_are_not_remembered() -> None:
    """A client may send any host: what it can make a server keep is small, and what is recorded the same."""
    spans = server_span.server_spans()
    assert spans is not None
    scope = {"type": "http", "path": "/", "server": ["127.0.0.1", 80]}
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(100):
            host = b"%05d." % number * 10_000
            found = spans._attributes(scope, "GET", host)
            assert found["server.address"] == host.decode()
        vars(urllib.parse)["urlsplit"].cache_clear()  # the library keeps 128 of its own
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000


async def test_another_propagator_or_sampler(
    shim_fastapi: Install, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that sets a propagator of its own is heard, and so is a sampler."""
    shim_fastapi()
    app = make("plain", telemetry.tracers)
    await ask(app, Case("/items/1"))
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", CompositePropagator([]))
    await ask(app, Case("/items/1", headers={"traceparent": TRACEPARENT}))
    assert telemetry.spans()[-1].parent is None
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", TraceContextTextMapPropagator())
    await ask(app, Case("/items/1", headers={"traceparent": TRACEPARENT, "x-request-id": "r-1"}))
    judged = telemetry.spans()[-1]
    assert judged.parent is not None and judged.parent.is_remote
    attributes = dict(judged.attributes or {})
    assert (attributes["saas.identity.edge"], attributes["saas.request.id"]) == (True, "r-1")
    monkeypatch.setattr(telemetry.tracers, "sampler", ALWAYS_OFF)
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", EdgePropagator(CompositePropagator([])))
    count = len(telemetry.spans())
    unsampled = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", unsampled)
    assert await ask(app, Case("/items/1")) == (200, "1")
    assert len(telemetry.spans()) == count
