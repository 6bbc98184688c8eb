"""otel_shim.ops: the summary, from backends that answer, fail, hang or talk nonsense."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fastapi
import httpx
import pytest
import yaml
from fastapi import HTTPException

from otel_shim import ops
from otel_shim.ops import Backends, summary
from tests.wheel import ROOT

ROUTE = {"http_request_method": "GET", "http_route": "/plans/{id}"}
ANSWERS: dict[str, list[tuple[dict[str, str], str]]] = {
    "statuses": [
        ({**ROUTE, "http_response_status_code": "200"}, "9"),
        ({**ROUTE, "http_response_status_code": "500"}, "0.5"),
        ({**ROUTE, "http_response_status_code": "404"}, "0.5"),
        ({**ROUTE, "http_route": "/chat", "http_response_status_code": "200"}, "10"),
    ],
    "p50": [({}, "0.02")],
    "p95": [({}, "NaN")],
    "endpoint p95": [(ROUTE, "0.19")],
    "stream p95": [({**ROUTE, "http_route": "/chat"}, "0.4")],
    "quotas": [
        ({"__name__": "saas_quota_used", "saas_quota_feature": "suggest", "saas_plan": "pro"}, "7"),
        (
            {"__name__": "saas_quota_limit", "saas_quota_feature": "suggest", "saas_plan": "pro"},
            "9",
        ),
    ],
    "jobs": [({"saas_operation": "audit.retention.job", "saas_job_outcome": "failure"}, "2.04")],
}
ALERT = {
    "labels": {"alertname": "api.5xx", "severity": "critical", "service": "api", "endpoint": "/x"},
    "annotations": {"trace_id": "abc", "request_id": "r-1", "internal": "not shown"},
    "startsAt": "2026-11-22T10:00:00Z",
}
HEARTBEAT = {"labels": {"alertname": "Watchdog", "severity": "heartbeat"}, "annotations": {}}
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def backend() -> Iterator[Callable[[Answer], str]]:
    """Serves an answer to everything; gives the address."""
    servers: list[ThreadingHTTPServer] = []

    def serve(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: Any) -> None:
                """Keep the output of the tests clean."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, body: Any, status: int = 200) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def well(handler: BaseHTTPRequestHandler) -> None:
    """Answer as Prometheus and Alertmanager do."""
    if handler.path.startswith("/api/v2/alerts"):
        return send(handler, [HEARTBEAT, ALERT])
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)["query"][0]
    name = next(name for name, text in ops.queries('job="a"').items() if text == query)
    result = [{"metric": labels, "value": [0, value]} for labels, value in ANSWERS[name]]
    return send(handler, {"status": "success", "data": {"resultType": "vector", "result": result}})


def test_all_figures(backend: Callable[[Answer], str]) -> None:
    url = backend(well)
    found = summary(Backends(url, url, 'job="a"', {"dashboard": "https://grafana/d/api"}))
    assert found.missing == []
    assert found.requests == ops.Requests(
        rate=20.0,
        client_error_ratio=0.025,
        server_error_ratio=0.025,
        availability=0.975,
        p50_ms=20.0,
        p95_ms=None,
    )
    assert found.endpoints == [
        ops.Endpoint("GET", "/chat", 10.0, 1.0, None, 400.0),
        ops.Endpoint("GET", "/plans/{id}", 10.0, 0.95, 190.0, None),
    ]
    assert found.quotas == [ops.Quota("suggest", "pro", used=7.0, limit=9.0)]
    assert found.jobs == [ops.Job("audit.retention.job", succeeded=0.0, failed=2.0)]
    assert [(a.name, a.severity, a.annotations) for a in found.alerts] == [
        ("api.5xx", "critical", {"trace_id": "abc", "request_id": "r-1"})
    ]
    assert found.links == {"dashboard": "https://grafana/d/api"}


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(ops.SECONDS + 1)


def trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        time.sleep(0.1)


@pytest.mark.parametrize(
    "answer",
    [
        hang,
        trickle,
        lambda handler: send(handler, b"<html>", 200),
        lambda handler: send(handler, {"status": "error"}, 422),
        lambda handler: send(handler, {"data": {"result": [{"metric": {}}]}}),
        lambda handler: send(handler, [1, 2]),
        lambda handler: send(handler, b"[" + b" " * 5_000_000 + b"]"),
    ],
    ids=["hangs", "trickles", "html", "error", "without values", "numbers", "too large"],
)
def test_a_backend_that_is_unwell_is_named(
    backend: Callable[[Answer], str], answer: Answer
) -> None:
    """The answer comes in bounded time, empty, and says what is missing."""
    url = backend(answer)
    began = time.monotonic()
    found = summary(Backends(url, url))
    assert time.monotonic() - began < 4 * ops.WITHIN_SECONDS  # a bound, not a measurement
    assert {text.partition(":")[0] for text in found.missing} == {*ops.queries(), "alerts"}
    assert found.requests == ops.Requests()
    assert found.alerts == []


def test_silent_backends_hold_an_operator_for_two_seconds_at_most() -> None:
    """Sockets that take a connection and say nothing: what is missing is named in time."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        found = summary(Backends(url, url))
        assert time.monotonic() - began < ops.WITHIN_SECONDS
    assert len(found.missing) == len(ops.queries()) + 1
    assert all("no answer within" in text or "imeout" in text for text in found.missing)


def test_one_backend_away_leaves_the_other(backend: Callable[[Answer], str]) -> None:
    found = summary(Backends("http://127.0.0.1:9", backend(well)))
    assert len(found.alerts) == 1
    assert all("refused" in text for text in found.missing) and len(found.missing) == 7


def test_what_is_not_configured_is_named() -> None:
    found = summary(Backends(None, None))
    assert [text.partition(":")[0] for text in found.missing] == ["prometheus", "alertmanager"]
    assert "OTEL_SHIM_PROMETHEUS_URL" in found.missing[0]


async def test_only_those_whom_the_application_lets_pass(backend: Callable[[Answer], str]) -> None:
    """The dependency decides; many questions at once are one to the backends."""
    asked: list[str] = []

    def counting(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        send(handler, [])

    def operator(request: fastapi.Request) -> None:
        if request.headers.get("X-Operator") != "yes":
            raise HTTPException(403)

    url = backend(counting)
    app = fastapi.FastAPI()
    environ = {
        "OTEL_SHIM_PROMETHEUS_URL": url,
        "OTEL_SHIM_ALERTMANAGER_URL": url,
        "OTEL_SHIM_OPS_LINKS": "dashboard=https://g/d?a=b, runbooks=https://r",
    }
    app.include_router(ops.router(dependency=operator, environ=environ))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.get(ops.PATH)).status_code == 403
        assert asked == []
        operators = (client.get(ops.PATH, headers={"X-Operator": "yes"}) for _ in range(5))
        answers = await asyncio.gather(*operators)
    assert {answer.status_code for answer in answers} == {200}
    assert len(asked) == 8
    assert answers[0].json()["links"] == {"dashboard": "https://g/d?a=b", "runbooks": "https://r"}


def test_a_router_without_a_dependency_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        ops.router()  # type: ignore[call-arg]


def test_queries_name_metrics_of_the_contract() -> None:
    contract = yaml.safe_load((ROOT / "semconv/metrics.yaml").read_text())
    known = [m["annotations"]["prometheus"] for m in (*contract["groups"], *contract["upstream"])]
    text = " ".join(ops.queries().values())
    for name in (ops._COUNT, ops._BUCKET, ops._FIRST_BYTE, ops._JOBS, *ops._QUOTAS):
        assert name in text
        assert name.removesuffix("_count").removesuffix("_bucket") in known
