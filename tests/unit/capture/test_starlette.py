"""otel_shim.capture.starlette: an application without FastAPI is traced once, named by its route."""

from __future__ import annotations

from typing import Any

import fastapi
import httpx
import pytest
from opentelemetry import propagate
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

import otel_shim
from otel_shim import config, counters
from otel_shim.capture import fastapi as fastapi_capture
from otel_shim.capture import starlette as capture
from otel_shim.capture.asgi import Capture
from otel_shim.capture.resolver import Resolver
from otel_shim.signals import propagation
from tests.unit.telemetry import Telemetry


@pytest.fixture
def shim_starlette(
    telemetry: Telemetry, edge_propagation: None, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Puts the shim into Starlette, and FastAPI where told; taken out afterwards."""
    for kind in (Starlette, fastapi.FastAPI):
        monkeypatch.setattr(kind, "__call__", kind.__call__)
        monkeypatch.setattr(kind, "__init__", kind.__init__)
    for route in (Route, WebSocketRoute, Mount, fastapi.routing.APIRoute):
        monkeypatch.setattr(route, "handle", route.handle)

    def install(with_fastapi: bool) -> None:
        settings = config.from_environ({})
        resolver = Resolver(settings.sources)
        made = Capture(settings, resolver)
        fastapi_capture.install(made if with_fastapi else None, resolver)
        capture.install(made)

    return install


async def _order(request: Request) -> PlainTextResponse:
    otel_shim.bind(org_id="acme")
    return PlainTextResponse("x")


def _app() -> Starlette:
    inner = fastapi.FastAPI()
    inner.get("/inner")(lambda: 1)
    return Starlette(routes=[Route("/orders/{id}", _order), Mount("/api", inner)])


async def _get(app: Any, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        return await client.get(path)


@pytest.mark.parametrize("with_fastapi", [True, False])
async def test_request_of_a_plain_application(
    shim_starlette: Any, telemetry: Telemetry, with_fastapi: bool
) -> None:
    """One server span, named by its route, with identity and both headers."""
    shim_starlette(with_fastapi)
    response = await _get(_app(), "/orders/7")
    (span,) = telemetry.spans()
    assert (span.name, span.kind) == ("GET /orders/{id}", SpanKind.SERVER)
    attributes = dict(span.attributes or {})
    assert attributes["saas.org.id"] == "acme" and attributes["http.route"] == "/orders/{id}"
    assert response.headers["x-request-id"] == attributes["saas.request.id"]
    assert counters.snapshot() == {}


async def test_fastapi_below_is_the_same_request(shim_starlette: Any, telemetry: Telemetry) -> None:
    """A mounted FastAPI adds no second server span and no second id."""
    shim_starlette(True)
    response = await _get(_app(), "/api/inner")
    assert [span.kind for span in telemetry.spans()] == [SpanKind.SERVER]
    assert len(response.headers.get_list("x-request-id")) == 1


def _deep() -> Starlette:
    """A FastAPI below plain Starlette, with routers in routers and an application below it."""
    lines, orders, api = fastapi.APIRouter(), fastapi.APIRouter(prefix="/orders"), fastapi.FastAPI()
    lines.get("/lines/{line}")(lambda line: line)
    orders.get("/{order}")(lambda order: order)
    orders.include_router(lines, prefix="/{order}")
    deepest = fastapi.FastAPI()
    deepest.include_router(orders)
    api.include_router(orders, prefix="/v1")
    api.mount("/legacy", deepest)
    return Starlette(routes=[Mount("/api/{region}", api)])


@pytest.mark.parametrize("with_fastapi", [True, False])
@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/eu/v1/orders/7", "/api/{region}/v1/orders/{order}"),
        ("/api/eu/v1/orders/7/lines/3", "/api/{region}/v1/orders/{order}/lines/{line}"),
        ("/api/eu/legacy/orders/7", "/api/{region}/legacy/orders/{order}"),
        ("/api/eu/legacy/orders/7/lines/3", "/api/{region}/legacy/orders/{order}/lines/{line}"),
    ],
)
async def test_included_routes_have_a_name(
    shim_starlette: Any, telemetry: Telemetry, path: str, route: str, with_fastapi: bool
) -> None:
    """The whole template of the route, with those of the mounts above it and never their values."""
    shim_starlette(with_fastapi)
    assert (await _get(_deep(), path)).status_code == 200
    (span,) = telemetry.spans()
    assert (span.name, dict(span.attributes or {})["http.route"]) == (f"GET {route}", route)


@pytest.mark.parametrize("with_fastapi", [True, False])
async def test_fastapi_is_not_traced_as_starlette(
    shim_starlette: Any, telemetry: Telemetry, with_fastapi: bool
) -> None:
    """FastAPI is a Starlette too: traced once, and not at all where it is switched off."""
    shim_starlette(with_fastapi)
    app = fastapi.FastAPI()
    app.get("/inner")(lambda: 1)
    assert (await _get(app, "/inner")).status_code == 200
    assert len(telemetry.spans()) == (1 if with_fastapi else 0)


async def test_nobody_found(shim_starlette: Any, telemetry: Telemetry) -> None:
    """A path that no route has is no name."""
    shim_starlette(True)
    assert (await _get(_app(), "/nowhere/personal")).status_code == 404
    (span,) = telemetry.spans()
    assert span.name == "GET"
    assert dict(span.attributes or {})["saas.actor.type"] == "anonymous"


async def test_a_propagator_set_after_the_start(shim_starlette: Any, telemetry: Telemetry) -> None:
    """An application that sets its own keeps request id, identity and the judgement of callers."""
    undo = propagation.install()
    try:
        shim_starlette(True)
        propagate.set_global_textmap(TraceContextTextMapPropagator())
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        transport = httpx.ASGITransport(_app(), client=("10.1.2.3", 4))
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            response = await client.get("/orders/7", headers=headers)
    finally:
        undo()
    (span,) = telemetry.spans()
    attributes = dict(span.attributes or {})
    assert attributes["saas.request.id"] == response.headers["x-request-id"]
    assert (attributes["saas.org.id"], attributes["saas.identity.edge"]) == ("acme", True)


@pytest.mark.parametrize("kind", [Starlette, fastapi.FastAPI])
async def test_one_application_after_another(
    shim_starlette: Any, telemetry: Telemetry, kind: type[Starlette]
) -> None:
    """What does not know the path leaves nothing in the scope that takes the next one's telemetry away."""
    shim_starlette(True)
    last = kind()
    last.mount("/api/{region}", _app())
    first = Starlette(routes=[Mount("/api/{region}", routes=[])])

    async def dropped(message: Any) -> None:
        pass

    async def either(scope: Any, receive: Any, send: Any) -> None:
        for app in (first, first, last):
            scope["root_path"] = ""
            await app(scope, receive, send if app is last else dropped)

    response = await _get(either, "/api/eu/orders/7")
    assert response.status_code == 200
    spans = [(span.name, dict(span.attributes or {})) for span in telemetry.spans()]
    assert [span.kind for span in telemetry.spans()] == [SpanKind.SERVER] * 3
    assert [name for name, _ in spans][:2] == ["GET", "GET"]
    below = "orders/{id}" if kind is Starlette else "{path}"
    assert spans[2][1]["http.route"] == f"/api/{{region}}/{below}"
    assert spans[2][1]["saas.org.id"] == "acme"
    assert spans[2][1]["saas.request.id"] == response.headers["x-request-id"]
