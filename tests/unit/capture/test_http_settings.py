"""OpenTelemetry's settings of HTTP servers: URLs that leave nothing, headers that spans carry."""

from __future__ import annotations

from typing import Any

import fastapi
import httpx
import pytest
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from otel_shim import config, counters
from otel_shim.capture import fastapi as fastapi_capture
from otel_shim.capture import http_settings
from otel_shim.capture import starlette as starlette_capture
from otel_shim.capture.asgi import Capture
from otel_shim.capture.resolver import Resolver
from tests.unit.telemetry import Telemetry

OWN = "OTEL_PYTHON_{}_EXCLUDED_URLS"
GENERAL = "OTEL_PYTHON_EXCLUDED_URLS"
REQUEST = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"
RESPONSE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE"
HIDDEN = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"


class Metrics:
    """Counts the requests that metrics would be recorded of."""

    def __init__(self) -> None:
        self.begun = 0

    def begin(self, *_: Any) -> None:
        """A request begins."""
        self.begun += 1


@pytest.fixture
def metrics() -> Metrics:
    """Instead of the process's own."""
    return Metrics()


@pytest.fixture
def install(
    telemetry: Telemetry, edge_propagation: None, metrics: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The shim in FastAPI and Starlette, by what the environment says; taken out afterwards."""
    for kind in (Starlette, fastapi.FastAPI):
        monkeypatch.setattr(kind, "__call__", kind.__call__)
        monkeypatch.setattr(kind, "__init__", kind.__init__)
    for route in (Route, WebSocketRoute, Mount, fastapi.routing.APIRoute):
        monkeypatch.setattr(route, "handle", route.handle)
    solver = vars(fastapi.routing)["solve_dependencies"]
    monkeypatch.setattr(fastapi.routing, "solve_dependencies", solver)

    def take(**environ: str) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        settings = config.from_environ({})
        resolver = Resolver(settings.sources)
        capture = Capture(settings, resolver, metrics, http_settings.captured_headers())
        fastapi_capture.install(capture, resolver)
        starlette_capture.install(capture)

    return take


def _work() -> None:
    trace.get_tracer("app").start_span("work").end()


async def _answer(request: Request) -> PlainTextResponse:
    _work()
    return PlainTextResponse("x", headers={"X-Shop": "open", "Set-Cookie": "secret"})


def _app(framework: str) -> Any:
    if framework == "STARLETTE":
        below = fastapi.FastAPI()
        below.get("/health")(_work)
        return Starlette(routes=[Route("/health", _answer), Mount("/sub", below)])
    app, below = fastapi.FastAPI(), fastapi.FastAPI()
    for each in (app, below):
        each.add_route("/health", _answer)
    app.get("/sub-health")(_work)
    app.mount("/sub", below)
    return app


async def _get(app: Any, path: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        return await client.get(path, headers=headers)


@pytest.mark.parametrize("framework", ["FASTAPI", "STARLETTE"])
@pytest.mark.parametrize("variable", [OWN, GENERAL])
@pytest.mark.parametrize("path", ["/health", "/sub/health"])
async def test_excluded_urls_leave_no_server_span(
    path: str, variable: str, framework: str, install: Any, metrics: Metrics, telemetry: Telemetry
) -> None:
    """Nor a metric, also where another application is mounted; the response has a request id, and what it calls a trace."""
    install(**{variable.format(framework): "nothing,app/(sub/)?health$"})
    app = _app(framework)
    response = await _get(app, path, **{"X-Request-Id": "mine"})
    assert response.status_code == 200
    assert response.headers.get_list("X-Request-Id") == ["mine"]
    assert "X-Trace-Id" not in response.headers
    assert [(span.name, span.parent) for span in telemetry.spans()] == [("work", None)]
    assert not any(key.startswith("saas.") for key in telemetry.spans()[0].attributes or {})
    assert metrics.begun == 0
    assert counters.snapshot().get("internal_errors", 0) == 0
    await _get(app, "/sub/other")
    assert len(telemetry.spans()) == 2 and metrics.begun == 1


async def test_the_frameworks_own_variable_wins(install: Any, telemetry: Telemetry) -> None:
    """As for the official instrumentors: also an empty one."""
    install(**{GENERAL: "health", OWN.format("FASTAPI"): ""})
    await _get(_app("FASTAPI"), "/health")
    assert len(telemetry.spans()) == 2


async def test_what_is_no_expression_is_one_error(
    install: Any, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """The application serves, and is traced."""
    install(**{OWN.format("FASTAPI"): "(("})
    await _get(_app("FASTAPI"), "/health")
    assert len(telemetry.spans()) == 2
    (error,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert OWN.format("FASTAPI") in error.getMessage()


def test_it_costs_nothing_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of a request then."""
    for name in (GENERAL, OWN.format("FASTAPI"), REQUEST, RESPONSE):
        monkeypatch.delenv(name, raising=False)
    assert http_settings.excluded("FASTAPI") is None
    assert http_settings.captured_headers() is None


@pytest.mark.parametrize("framework", ["FASTAPI", "STARLETTE"])
async def test_captured_headers(framework: str, install: Any, telemetry: Telemetry) -> None:
    """By the names that the official middleware gives them; those to be hidden are."""
    install(**{REQUEST: "x-[a-z]+,accept", RESPONSE: "x-shop, set-cookie", HIDDEN: ".*cookie"})
    await _get(_app(framework), "/health", **{"X-Key": "1", "X-Other-Key": "2"})
    server = next(span for span in telemetry.spans() if span.name != "work")
    found = {k: v for k, v in (server.attributes or {}).items() if ".header." in k}
    assert found == {
        "http.request.header.accept": ("*/*",),
        "http.request.header.x_key": ("1",),
        "http.response.header.x_shop": ("open",),
        "http.response.header.set_cookie": ("[REDACTED]",),
    }
