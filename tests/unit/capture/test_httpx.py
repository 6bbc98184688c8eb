"""otel_shim.capture.httpx: spans, headers and metrics of the official instrumentation, to the last detail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.instrumentation import _semconv as stability
from opentelemetry.instrumentation import httpx as official
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from otel_shim import counters
from otel_shim._sdk_compat import light_spans
from otel_shim.capture import httpx as capture
from otel_shim.memory import CountedIds

KIND = vars(official)["_BaseHTTPXClientInstrumentor"]
STABILITY = vars(stability)["_OpenTelemetrySemanticConventionStability"]
WRAPPERS = ("_handle_request_wrapper", "_handle_async_request_wrapper")


class Downstream(BaseHTTPRequestHandler):
    """Answers with the status that the path names, and remembers the headers."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, str]]

    def answer(self) -> None:
        """Any method."""
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        status = int(self.path.strip("/").split("?")[0] or 200)
        self.send_response(status)
        if status in (301, 302):
            self.send_header("location", "/200")
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = do_DELETE = do_PURGE = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def downstream() -> Iterator[str]:
    """A server on the loopback interface."""
    Downstream.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Downstream)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Case:
    """One call, and whether it is of the kind that is ours."""

    url: str = "http://{server}/200"
    method: str = "GET"
    ours: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    sampler: Sampler = ALWAYS_ON
    baggage: str = ""
    suppressed: bool = False


def hooked(span: Any, *_: Any) -> None:
    """A hook of the application."""
    span.set_attribute("hooked", True)


async def hooked_async(span: Any, *_: Any) -> None:
    """Likewise."""
    span.set_attribute("hooked", True)


HOOKS = {"request_hook": hooked, "async_response_hook": hooked_async}
CAPTURED = {"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE": "content-length"}
CASES = {
    "plain": Case(),
    "post": Case(method="POST"),
    "unusual method": Case(method="purge"),
    "redirected": Case("http://{server}/301"),
    "204": Case("http://{server}/204"),
    "404": Case("http://{server}/404"),
    "500": Case("http://{server}/500"),
    "query": Case("http://{server}/200?a=b%20c&ü=1#part"),
    "signed": Case("http://{server}/200?sig=secret&a=1"),
    "credentials": Case("http://me:secret@{server}/200"),
    "refused": Case("http://127.0.0.1:1/200"),
    "unknown host": Case("http://host.invalid./200"),
    "no scheme": Case("//{server}/200"),
    "unsampled": Case(sampler=ALWAYS_OFF),
    "baggage": Case(baggage="b"),
    "suppressed": Case(suppressed=True, ours=False),
    "excluded": Case(environ={"OTEL_PYTHON_HTTPX_EXCLUDED_URLS": "200"}, ours=False),
    "not excluded": Case(environ={"OTEL_PYTHON_EXCLUDED_URLS": "/health"}, ours=False),
    "hooks": Case(settings=HOOKS, ours=False),
    "captured headers": Case(environ=CAPTURED, ours=False),
    "both conventions": Case(environ={"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"}, ours=False),
    "old conventions": Case(environ={"OTEL_SEMCONV_STABILITY_OPT_IN": ""}, ours=False),
}


async def call(url: str, case: Case, asynchronous: bool) -> object:
    """What the application gets."""
    try:
        if asynchronous:
            async with httpx.AsyncClient(follow_redirects=True, trust_env=False) as client:
                response = await client.request(case.method, url)
        else:
            with httpx.Client(follow_redirects=True, trust_env=False) as sync:
                response = sync.request(case.method, url)
    except Exception as error:
        return repr(error)
    return response.status_code, str(response.url), len(response.history)


async def recorded(url: str, case: Case, asynchronous: bool) -> dict[str, Any]:
    """Everything that a call leaves behind: what is got, sent, traced and measured. Twice, for what is remembered."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(case.sampler, id_generator=CountedIds(), shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    STABILITY._initialized = False
    instrumentor = official.HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=tracers, meter_provider=meters, **case.settings)
    Downstream.seen.clear()
    outer = tracers.get_tracer("app").start_span("outer")
    at = trace.set_span_in_context(outer, Context())
    token = attach(baggage.set_baggage("k", case.baggage, at) if case.baggage else at)
    try:
        if case.suppressed:
            with suppress_http_instrumentation():
                got = [await call(url, case, asynchronous) for _ in range(2)]
        else:
            got = [await call(url, case, asynchronous) for _ in range(2)]
        assert trace.get_current_span() is outer
    finally:
        detach(token)
        instrumentor.uninstrument()
    return {
        "got": got,
        "sent": list(Downstream.seen),
        "spans": [described(span) for span in exporter.get_finished_spans()],
        "metrics": list(points(reader, [span.context for span in exporter.get_finished_spans()])),
    }


def described(span: Any) -> dict[str, Any]:
    """All of a span but for times and lines of a stack."""
    hidden = "exception.stacktrace"
    attributes = dict(span.attributes or {})
    return {
        "name": span.name,
        "kind": span.kind,
        "ids": (span.context, span.parent),
        "attributes": attributes,
        "types": {key: type(value) for key, value in attributes.items()},
        "status": (span.status.status_code, span.status.description),
        "scope": span.instrumentation_scope,
        "events": [
            (event.name, {k: v for k, v in event.attributes.items() if k != hidden})
            for event in span.events
        ],
    }


def points(reader: InMemoryMetricReader, spans: list[Any]) -> Iterator[tuple[Any, ...]]:
    """The series, and whether they have exemplars and all of these are of a call."""
    known = {(context.trace_id, context.span_id) for context in spans}
    data: Any = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    labels = tuple(sorted(point.attributes.items()))
                    bounds = tuple(point.explicit_bounds)
                    ids = {(e.trace_id, e.span_id) for e in point.exemplars}
                    exemplars = bool(ids), ids <= known
                    head = scope.scope, metric.name, metric.unit
                    yield *head, labels, point.count, bounds, exemplars


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Puts ours in the place of the official way until the end of the test."""
    for name in WRAPPERS:
        monkeypatch.setattr(KIND, name, vars(KIND)[name])
    monkeypatch.setattr(STABILITY, "_initialized", False)
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    return lambda: capture._replace(official)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", CASES)
async def test_as_the_official(
    name: str,
    asynchronous: bool,
    downstream: str,
    light: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everything is the same, whoever made it."""
    case = CASES[name]
    for variable, value in case.environ.items():
        monkeypatch.setenv(variable, value)
    url = case.url.format(server=downstream)
    expected = await recorded(url, case, asynchronous)
    calls: list[bool] = []
    begin = capture.Calls.begin

    def watched(*args: Any) -> Any:
        begun = begin(*args)
        calls.append(begun is not None)
        return begun

    monkeypatch.setattr(capture.Calls, "begin", watched)
    light()
    found = await recorded(url, case, asynchronous)
    assert found == expected
    assert set(calls) == {case.ours}
    assert not counters.snapshot()
    none = case.suppressed or name in ("excluded", "unsampled")
    assert len(found["spans"]) == (0 if none else 4 if name == "redirected" else 2)


async def test_cancelled(light: Callable[[], None], downstream: str) -> None:
    """A cancelled call ends its span and is no error, as officially."""
    ends: list[dict[str, Any]] = []
    ways: tuple[Callable[[], None], ...] = (lambda: None, light)
    for replace in ways:
        replace()
        exporter = InMemorySpanExporter()
        tracers = TracerProvider(id_generator=CountedIds(), shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        official.HTTPXClientInstrumentor().instrument(tracer_provider=tracers)
        silent = await asyncio.start_server(lambda *_: asyncio.sleep(30), "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        async with httpx.AsyncClient(trust_env=False) as client:
            task = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/"))
            while not (silent.sockets and tracers_busy(task)):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        silent.close()
        official.HTTPXClientInstrumentor().uninstrument()
        (span,) = exporter.get_finished_spans()
        ends.append({**described(span), "attributes": None})
    assert ends[0] == ends[1]


def tracers_busy(task: asyncio.Task[Any]) -> bool:
    """Whether a call waits for something."""
    waits: Any = task.get_coro()
    depth = 0
    while (waits := getattr(waits, "cr_await", None)) is not None:
        depth += 1
    return depth > 4


def test_spans_are_light(light: Callable[[], None], downstream: str) -> None:
    """The span is made the light way."""
    light()
    made: list[Any] = []

    class Watcher(SimpleSpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            made.append(span)

    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(Watcher(InMemorySpanExporter()))
    official.HTTPXClientInstrumentor().instrument(tracer_provider=tracers)
    httpx.get(f"http://{downstream}/200", trust_env=False)
    official.HTTPXClientInstrumentor().uninstrument()
    assert [type(span) for span in made] == [light_spans.LightSpan]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("url", ["http://{server}/200", "http://127.0.0.1:1/200"])
async def test_a_processor_that_raises_at_the_end(
    url: str, asynchronous: bool, light: Callable[[], None], downstream: str
) -> None:
    """The application gets its answer, or the transport's own error; the fault is counted."""
    light()

    class Raising(SpanProcessor):
        def on_end(self, span: Any) -> None:
            raise RuntimeError("of a processor")

    expected = await call(url.format(server=downstream), Case(), asynchronous)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(Raising())
    official.HTTPXClientInstrumentor().instrument(tracer_provider=tracers)
    try:
        found = await call(url.format(server=downstream), Case(), asynchronous)
    finally:
        official.HTTPXClientInstrumentor().uninstrument()
    assert found == expected and "processor" not in repr(found)
    assert counters.snapshot() == {"internal_errors": 1}


def test_another_instrumentation(
    light: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a part of the official instrumentation is not there, it stays as it is."""
    monkeypatch.delattr(official, "_inject_propagation_headers")
    before = [vars(KIND)[name] for name in WRAPPERS]
    light()
    assert [vars(KIND)[name] for name in WRAPPERS] == before
    assert counters.snapshot()["internal_errors"] == 1


def test_faults_of_ours_harm_nothing(
    light: Callable[[], None], downstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call is made whatever becomes of its telemetry."""
    light()

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr("otel_shim._sdk_compat.HttpxParts.inject", broken)
    monkeypatch.setattr("otel_shim._sdk_compat.HttpxParts.labels", broken)
    tracers = TracerProvider(shutdown_on_exit=False)
    official.HTTPXClientInstrumentor().instrument(tracer_provider=tracers)
    answer = httpx.get(f"http://{downstream}/200", trust_env=False)
    monkeypatch.setattr("otel_shim._sdk_compat.HttpxParts.about_request", broken)
    assert httpx.get(f"http://{downstream}/404", trust_env=False).status_code == 404
    official.HTTPXClientInstrumentor().uninstrument()
    assert answer.status_code == 200
    assert counters.snapshot()["internal_errors"] >= 2
