"""otel_shim.capture.official: the official middleware makes one server span a request, with the whole route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.trace import SpanKind
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount, Route, WebSocketRoute

from otel_shim import context
from otel_shim.capture import official, starlette
from tests.unit.telemetry import Telemetry


@pytest.fixture
def shim_official(shim_fastapi: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim in FastAPI, with an eye on the official middleware and on routes; taken out afterwards."""
    for route in (Route, WebSocketRoute, Mount, APIRoute):
        monkeypatch.setattr(route, "handle", route.handle)
    call = OpenTelemetryMiddleware.__call__
    monkeypatch.setattr(OpenTelemetryMiddleware, "__call__", call)
    shim_fastapi()
    official.once_a_request()
    official.once_a_request()
    starlette.watch_routes()


def _app() -> FastAPI:
    inner, router = FastAPI(), APIRouter(prefix="/r")
    for owner in (inner, router):
        owner.get("/me/{number}")(lambda number: number)
    inner.include_router(router)
    outer = FastAPI()
    outer.add_middleware(BaseHTTPMiddleware, dispatch=_logging)
    outer.mount("/v2", inner)
    outer.get("/open")(lambda: 1)
    return outer


async def _logging(request: Request, call_next: Any) -> Any:
    trace.get_current_span().set_attribute("http.request.method", "GET")  # as under the launcher
    context.correlation()  # as a log does, before the route is known
    response = await call_next(request)
    log.append(context.correlation().get("http.route"))
    return response


log: list[Any] = []


async def _get(app: Any, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/open", "/open"),
        ("/v2/me/7", "/v2/me/{number}"),
        ("/v2/r/me/7", "/v2/r/me/{number}"),
        ("/v2/none", "/v2"),
    ],
)
async def test_mounted_applications(
    path: str, route: str, shim_official: None, telemetry: Telemetry
) -> None:
    """Both are instrumented, as the official instrumentor does with every application that is made."""
    app = _app()
    inner = next(each.app for each in app.routes if isinstance(each, Mount))
    undo = [official.instrument(app), official.instrument(inner)]
    await _get(app, path)
    (span,) = telemetry.spans()
    assert (span.name, span.kind) == (f"GET {route}", SpanKind.SERVER)
    assert (span.attributes or {})["http.route"] == log.pop() == route
    for each in undo:
        each()
    await _get(app, "/open")
    assert telemetry.spans()[1].instrumentation_scope.name == "fastapi"  # type: ignore[union-attr]


async def test_an_application_of_its_own_is_a_request_of_its_own(
    shim_official: None, telemetry: Telemetry
) -> None:
    """Without a server span above, the middleware of an application makes one."""
    app = _app()
    inner: Any = next(each.app for each in app.routes if isinstance(each, Mount))
    undo = official.instrument(inner)
    await _get(inner, "/me/7")
    undo()  # for the instrumentor also patches Starlette's background tasks
    assert [span.name for span in telemetry.spans()] == ["GET /me/{number}"]
