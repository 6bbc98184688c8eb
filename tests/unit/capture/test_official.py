"""otel_shim.capture.official: the official middleware makes one server span a request, with the whole route."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, Request
from fastapi.routing import APIRoute
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount, Route, WebSocketRoute

import otel_shim
from otel_shim import config, context, jobs
from otel_shim.capture import official, starlette
from otel_shim.capture.asgi import Capture
from otel_shim.capture.resolver import Resolver
from tests.unit.telemetry import Telemetry


@pytest.fixture
def shim_official(shim_fastapi: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim in FastAPI, with an eye on the official middleware and on routes; taken out afterwards."""
    for route in (Route, WebSocketRoute, Mount, APIRoute):
        monkeypatch.setattr(route, "handle", route.handle)
    call = OpenTelemetryMiddleware.__call__
    monkeypatch.setattr(OpenTelemetryMiddleware, "__call__", call)
    monkeypatch.setattr(Starlette, "__call__", Starlette.__call__)
    shim_fastapi()
    official.once_a_request()
    official.once_a_request()
    starlette.watch_routes()


def _inner() -> FastAPI:
    inner, router = FastAPI(), APIRouter(prefix="/r")
    for owner in (inner, router):
        owner.get("/me/{number}")(lambda number: number)
    inner.include_router(router)
    return inner


def _app() -> FastAPI:
    outer = FastAPI()
    outer.add_middleware(BaseHTTPMiddleware, dispatch=_logging)
    outer.mount("/v2", _inner())
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
    undo()
    assert [span.name for span in telemetry.spans()] == ["GET /me/{number}"]


@pytest.mark.parametrize("instrumented", [True, False])
async def test_an_excluded_url_excludes_what_is_mounted(
    instrumented: bool, shim_official: None, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a plain Starlette that leaves it out, FastAPI makes no server span, whoever makes it otherwise."""
    monkeypatch.setenv("OTEL_PYTHON_STARLETTE_EXCLUDED_URLS", "/v2/r/")
    settings = config.from_environ({})
    starlette._wrap(Starlette, Capture(settings, Resolver(settings.sources)))
    inner = _inner()
    undo = official.instrument(inner) if instrumented else lambda: None
    app = Starlette(routes=[Mount("/v2", inner)])
    excluded, traced = await _get(app, "/v2/r/me/7"), await _get(app, "/v2/me/7")
    undo()
    assert [span.name for span in telemetry.spans()] == ["GET /v2/me/{number}"]
    assert excluded.status_code == traced.status_code == 200
    assert excluded.headers["x-request-id"] != traced.headers["x-request-id"]


class Runs:
    """The runs of jobs that began and ended."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, work: jobs.Work) -> None:
        self.told.append(f"{work.run.name} started")

    def ended(self, ended: jobs.Ended) -> None:
        self.told.append(f"{ended.work.run.name} {ended.outcome}")

    def unstarted(self, name: str, outcome: str, count: int) -> None:
        raise AssertionError(name)


@pytest.fixture
def runs() -> Iterator[Runs]:
    """What is told of runs in this test."""
    told = Runs()
    before = jobs.use_recorder(told)
    yield told
    jobs.use_recorder(before)


@pytest.mark.parametrize("instrumented", [True, False])
async def test_background_tasks(
    instrumented: bool, shim_official: None, telemetry: Telemetry, runs: Runs
) -> None:
    """Alike whoever traces FastAPI: no span of their own; an operation in one is a job, with who asked."""
    app = FastAPI()

    @app.get("/after")
    def after(tasks: BackgroundTasks) -> None:
        otel_shim.bind(org_id="acme")
        tasks.add_task(otel_shim.operation("mail.send")(lambda: None))

    undo = official.instrument(app) if instrumented else lambda: None
    await _get(app, "/after")
    undo()
    request, mail = telemetry.spans()
    assert (request.name, mail.name) == ("GET /after", "mail.send")
    assert runs.told == ["mail.send started", "mail.send success"]
    assert (mail.attributes or {})["saas.org.id"] == "acme"
    assert mail.parent is not None and mail.parent.span_id == request.context.span_id
