"""otel_shim.signals.metrics: what is recorded of requests and jobs, and what never is a label."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

import fastapi
import httpx
import pytest
from fastapi import BackgroundTasks, HTTPException, Request, Response, routing
from fastapi.responses import StreamingResponse
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount, Route, WebSocketRoute

import otel_shim
from otel_shim import _semconv as semconv
from otel_shim import config, jobs
from otel_shim.capture import fastapi as capture
from otel_shim.capture import starlette as starlette_capture
from otel_shim.capture.asgi import Capture
from otel_shim.capture.resolver import Resolver
from otel_shim.signals import metrics
from otel_shim.signals.jobs import JobMetrics
from otel_shim.signals.metrics import RequestMetrics
from tests.unit.telemetry import Telemetry

REQUESTS = "http.server.request.duration"
STREAMS = semconv.METRIC_SAAS_STREAM_TIME_TO_FIRST_BYTE
JOBS = semconv.METRIC_SAAS_JOB_DURATION
USER = SimpleNamespace(id="u-anna", org_id="o-acme", role="admin", plan="pro")


@dataclass
class Meter:
    """A provider with one reader."""

    provider: MeterProvider
    reader: InMemoryMetricReader

    def points(self, name: str) -> list[HistogramDataPoint]:
        """The points of a histogram; reading takes the exemplars away."""
        data = self.reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [point for metric in found for point in metric.data.data_points]  # type: ignore[misc]


def meter(*views: View) -> Meter:
    reader = InMemoryMetricReader()
    return Meter(MeterProvider([reader], views=views, shutdown_on_exit=False), reader)


@pytest.fixture
def shim(
    telemetry: Telemetry, edge_propagation: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Meter]]:
    """Puts the shim with metrics into FastAPI, and gives what they are recorded with."""
    monkeypatch.setattr(fastapi.FastAPI, "__call__", fastapi.FastAPI.__call__)
    monkeypatch.setattr(fastapi.FastAPI, "__init__", fastapi.FastAPI.__init__)
    monkeypatch.setattr(routing, "solve_dependencies", vars(routing)["solve_dependencies"])
    before = jobs.use_recorder(None)

    def install(*views: View) -> Meter:
        made = meter(*views)
        settings = config.from_environ({})
        resolver = Resolver(settings.sources)
        jobs.use_recorder(JobMetrics(made.provider))
        capture.install(Capture(settings, resolver, RequestMetrics(made.provider)), resolver)
        return made

    yield install
    jobs.use_recorder(before)


def current_user() -> SimpleNamespace:
    return USER


async def chunks() -> AsyncIterator[bytes]:
    yield b""
    yield b"one"
    yield b"two"


@otel_shim.operation("mail.send")
def send_mail() -> None:
    pass


def app() -> fastapi.FastAPI:
    made = fastapi.FastAPI()

    @made.get("/plans/{plan_id}")
    def plan(plan_id: int, user: Annotated[Any, fastapi.Depends(current_user)]) -> int:
        return plan_id

    @made.get("/publish")
    @otel_shim.operation("planning.publish")
    def publish() -> int:
        return 1

    @made.get("/refused")
    def refused() -> None:
        raise HTTPException(429)

    @made.get("/broken")
    def broken() -> None:
        raise RuntimeError("secret")

    @made.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(chunks())

    @made.get("/after")
    def after(tasks: BackgroundTasks) -> int:
        tasks.add_task(send_mail)
        return 1

    return made


async def call(asgi: Any, *paths: str, method: str = "GET", **headers: str) -> None:
    transport = httpx.ASGITransport(asgi, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        for path in paths:
            await client.request(method, path, headers=headers)


def labels(points: list[HistogramDataPoint]) -> list[dict[str, Any]]:
    return [dict(point.attributes or {}) for point in points]


async def test_a_request_is_told_apart_by_what_is_few(shim: Callable[..., Meter]) -> None:
    """Route, method, status, operation, role and plan; and nobody."""
    recorded = shim()
    await call(app(), "/plans/1", "/plans/2", "/plans/3")
    (point,) = recorded.points(REQUESTS)
    assert point.count == 3
    assert point.attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.route": "/plans/{plan_id}",
        "http.response.status_code": 200,
        "saas.operation": "http.request",
        "saas.actor.role": "admin",
        "saas.plan": "pro",
    }
    assert 0.2 in point.explicit_bounds


async def test_request_and_trace_are_on_the_exemplar_only(
    shim: Callable[..., Meter], telemetry: Telemetry
) -> None:
    recorded = shim()
    await call(app(), "/plans/1", **{"X-Request-Id": "r-" + "7" * 53})
    (point,) = recorded.points(REQUESTS)
    (span,) = telemetry.spans()
    (exemplar,) = point.exemplars
    assert exemplar.filtered_attributes == {"request_id": "r-" + "7" * 53}
    assert (exemplar.trace_id, exemplar.span_id) == (span.context.trace_id, span.context.span_id)
    names = (("request_id", "r-" + "7" * 53), ("trace_id", "0" * 32), ("span_id", "0" * 16))
    assert sum(len(name) + len(value) for name, value in names) <= 128  # what Prometheus allows
    assert not {"u-anna", "o-acme", "r-" + "7" * 53} & set(
        map(str, (point.attributes or {}).values())
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/refused", {"http.response.status_code": 429, "http.route": "/refused"}),
        ("/broken", {"http.response.status_code": 500, "error.type": "500"}),
        ("/nowhere/at/all", {"http.response.status_code": 404}),
        ("/publish", {"saas.operation": "planning.publish"}),
    ],
)
async def test_errors_and_operations(
    shim: Callable[..., Meter], path: str, expected: dict[str, Any]
) -> None:
    recorded = shim()
    await call(app(), path)
    (found,) = labels(recorded.points(REQUESTS))
    assert expected.items() <= found.items()
    assert ("error.type" in found) == (found["http.response.status_code"] >= 500)
    assert "secret" not in str(found)


async def test_a_path_without_a_route_is_no_label(shim: Callable[..., Meter]) -> None:
    """Whoever guesses paths and methods makes no new series."""
    recorded = shim()
    for method in ("GET", "INVENTED", "OTHER"):
        await call(app(), "/guess/1", "/guess/2", method=method)
    found = labels(recorded.points(REQUESTS))
    assert sorted(each["http.request.method"] for each in found) == ["GET", "_OTHER"]
    assert not any("http.route" in each for each in found)


@pytest.mark.parametrize("middleware", [False, True])
async def test_only_streams_have_a_first_byte(shim: Callable[..., Meter], middleware: bool) -> None:
    """A middleware that passes every body on in parts makes no stream of it."""
    recorded = shim()
    made = app()
    if middleware:

        async def unchanged(
            request: Request, call_next: Callable[[Request], Awaitable[Response]]
        ) -> Response:
            return await call_next(request)

        made.add_middleware(BaseHTTPMiddleware, dispatch=unchanged)
    await call(made, "/stream", "/plans/1")
    (found,) = labels(recorded.points(STREAMS))
    assert found["http.route"] == "/stream"
    assert len(recorded.points(REQUESTS)) == 2


async def test_a_response_that_breaks_off_is_counted_once(shim: Callable[..., Meter]) -> None:
    recorded = shim()
    made = app()

    async def broken_off() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError

    made.get("/off")(lambda: StreamingResponse(broken_off()))
    await call(made, "/off")
    (point,) = recorded.points(REQUESTS)
    assert point.count == 1
    assert (point.attributes or {})["http.response.status_code"] == 200


async def test_no_answer_at_all_is_what_the_server_makes_of_it(shim: Callable[..., Meter]) -> None:
    """A middleware that raises before anything was sent: the server answers with 500."""
    recorded = shim()
    made = app()

    class Raises:
        def __init__(self, app: Any) -> None:
            pass

        async def __call__(self, *_: Any) -> None:
            raise RuntimeError

    asgi = fastapi.FastAPI()
    asgi.build_middleware_stack = lambda: Raises(made)  # type: ignore[method-assign]
    await call(asgi, "/x")
    (found,) = labels(recorded.points(REQUESTS))
    assert found["http.response.status_code"] == 500


async def test_series_have_a_limit(
    shim: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans named after customers cannot fill the memory; all requests are counted nevertheless."""
    monkeypatch.setattr(metrics, "LIMIT", 5)
    recorded = shim()
    made = app()
    made.get("/p/{name}")(lambda name: otel_shim.bind(org_id="o", plan=f"plan-{name}"))
    await call(made, *(f"/p/{number}" for number in range(20)))
    points = recorded.points(REQUESTS)
    assert sum(point.count for point in points) == 20
    assert len(points) == 6
    assert {"otel.metric.overflow": True} in labels(points)


async def test_an_operators_view_leaks_no_request(shim: Callable[..., Meter]) -> None:
    """Their stream keeps every attribute, so the request is not recorded at all then."""
    recorded = shim(View(instrument_name="http.server.request.duration", name="theirs"))
    await call(app(), "/plans/1")
    (point,) = recorded.points("theirs")
    assert "request_id" not in (point.attributes or {})
    assert not point.exemplars[0].filtered_attributes


async def test_what_is_not_sampled_is_counted_by_its_route(
    shim: Callable[..., Meter], telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = shim()
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", TracerProvider(sampler=ALWAYS_OFF))
    await call(app(), "/plans/1")
    (point,) = recorded.points(REQUESTS)
    assert (point.attributes or {})["http.route"] == "/plans/{plan_id}"
    assert not point.exemplars


@pytest.fixture
def mounts(shim: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Meter]:
    """Puts the shim into plain Starlette too; taken out afterwards."""
    monkeypatch.setattr(Starlette, "__call__", Starlette.__call__)
    for route in (Route, WebSocketRoute, Mount, routing.APIRoute):
        monkeypatch.setattr(route, "handle", route.handle)

    def install() -> Meter:
        made = meter()
        settings = config.from_environ({})
        resolver = Resolver(settings.sources)
        wired = Capture(settings, resolver, RequestMetrics(made.provider))
        capture.install(wired, resolver)
        starlette_capture.install(wired)
        return made

    return install


def below_mounts(kind: str) -> Any:
    """Routes below a mount that names a tenant, in an application of each kind."""
    if kind == "starlette":
        routes = [Mount("/tenants/{tenant}", app()), Mount("/silent/{tenant}", routes=[])]
        return Starlette(routes=routes)
    telemetry = {"tracing": False} if kind == "untraced" else {}
    made = fastapi.FastAPI(telemetry=telemetry)  # type: ignore[arg-type]
    made.mount("/tenants/{tenant}", app())
    made.mount("/silent/{tenant}", Starlette())
    return made


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("kind", ["starlette", "fastapi", "untraced"])
async def test_what_a_mount_was_asked_for_is_no_label(
    mounts: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch, kind: str, sampled: bool
) -> None:
    """Its template is; the root path of a mounted application has the values."""
    recorded = mounts()
    if not sampled:
        never = TracerProvider(sampler=ALWAYS_OFF)
        monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", never)
    await call(below_mounts(kind), "/tenants/acme/plans/1", "/silent/acme/nowhere")
    found = {point.get("http.route") for point in labels(recorded.points(REQUESTS))}
    assert found == {"/tenants/{tenant}/plans/{plan_id}", "/silent/{tenant}/{path}"}


def test_nothing_is_recorded_without_an_sdk() -> None:
    """The API alone takes what is recorded and forgets it."""
    assert RequestMetrics(NoOpMeterProvider())
    assert JobMetrics(NoOpMeterProvider())


def test_a_job_is_an_operation_under_nothing(shim: Callable[..., Meter]) -> None:
    """The outermost counts, with how it ended; what it does inside is its own business."""
    recorded = shim()
    with otel_shim.operation("billing.rollup"), otel_shim.operation("billing.sum"):
        pass
    with pytest.raises(KeyError), otel_shim.operation("audit.retention.job"):
        raise KeyError("anna@example.com")
    found = {point["saas.operation"]: point for point in labels(recorded.points(JOBS))}
    assert found == {
        "billing.rollup": {"saas.operation": "billing.rollup", "saas.job.outcome": "success"},
        "audit.retention.job": {
            "saas.operation": "audit.retention.job",
            "saas.job.outcome": "failure",
            "error.type": "KeyError",
        },
    }


def test_a_failed_job_names_its_trace(shim: Callable[..., Meter], telemetry: Telemetry) -> None:
    recorded = shim()
    with pytest.raises(ValueError), otel_shim.operation("audit.check"):  # noqa: PT011
        raise ValueError
    (point,) = recorded.points(JOBS)
    (span,) = telemetry.spans()
    assert point.exemplars[0].trace_id == span.context.trace_id


async def test_a_background_task_is_a_job_and_part_of_a_request_is_none(
    shim: Callable[..., Meter],
) -> None:
    recorded = shim()
    await call(app(), "/after", "/publish")
    assert [each["saas.operation"] for each in labels(recorded.points(JOBS))] == ["mail.send"]
