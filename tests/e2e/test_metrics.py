"""Metrics of a real server: /metrics with four workers and a killed one, exemplars over OTLP, the summary."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric

from examples.saas.demo import parts
from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Part, Stack
from tests.wheel import ROOT

from . import collectors, environments, matrix, server, test_matrix, test_processes
from .apps.people import PEOPLE
from .collectors import Fake
from .environments import Environment
from .otlp import plain

WORKERS = 4
COUNT = re.compile(r"^http_server_request_duration_seconds_count\{(.*)\} (\d+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
REQUEST_LABELS = {
    "http_request_method",
    "http_response_status_code",
    "http_route",
    "saas_operation",
    "saas_actor_role",
    "saas_plan",
    "url_scheme",
    "error_type",
}
WITH_FILE = Environment("locked-file", ("opentelemetry-configuration==0.66b1",))
"""With the extra `config-file`."""
OPERATOR = "the operators' token of this test"
PATHS = ("/async", "/sync", "/stream", "/tickets/7", "/quota", "/boom", "/nowhere")
Seen = Counter[tuple[str, str]]
"""Requests by route and status."""


@dataclass(frozen=True)
class Scraped:
    """An application that serves /metrics."""

    desk: server.Server
    url: str

    def text(self) -> str:
        """One scrape; asked again while another process takes over."""
        found: list[str] = []

        def answers() -> bool:
            try:
                found.append(httpx.get(self.url, timeout=5).text)
            except httpx.TransportError:
                return False
            return True

        server.eventually(answers, 20, "/metrics is served")
        return found[-1]

    def counted(self) -> Seen:
        """The requests that the counters know."""
        seen: Seen = Counter()
        for labels, count in COUNT.findall(self.text()):
            named = dict(LABEL.findall(labels))
            route = named.get("http_route", "/nowhere")
            seen[route, named["http_response_status_code"]] += int(count)
        del seen["/health", "200"]  # asked until the server was up
        return seen


def start(stack: Stack, locked: Environment, out: Path, env: Mapping[str, str]) -> Scraped:
    server.fill_database(locked, out)
    (port,) = free_ports(1)
    desk = server.start(stack, locked, {**_settings(port, out), **env}, WORKERS)
    return Scraped(desk, parts.url(port, "/metrics"))


def _settings(port: int, out: Path) -> dict[str, str]:
    """Nothing is sent; /metrics is served on a port."""
    return {
        **{f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")},
        "OTEL_SERVICE_NAME": "counted",
        "OTEL_SHIM_SECRET": server.SECRET,
        "OTEL_SHIM_METRICS_PORT": str(port),
        "OTEL_SHIM_METRICS_DIRECTORY": str(out / "metrics"),
        "DESK_DATABASE": str(out / "desk.db"),
    }


def send(desk: server.Server, rounds: int) -> tuple[Seen, list[httpx.Response]]:
    """Requests of many people, at once; gives those that were answered."""
    wanted = [(path, PEOPLE[n % len(PEOPLE)].token) for n in range(rounds) for path in PATHS]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: _try(desk, *each), wanted))
    seen: Seen = Counter()
    for (path, _), answer in zip(wanted, answers, strict=True):
        if answer is not None:
            seen[path.replace("/7", "/{ticket_id}"), str(answer.status_code)] += 1
    return seen, [answer for answer in answers if answer is not None]


def _try(desk: server.Server, path: str, token: str) -> httpx.Response | None:
    try:
        return desk.get(path, token)
    except httpx.TransportError:  # its worker was killed
        return None


def workers(answers: Iterable[httpx.Response]) -> set[int]:
    """The processes that answered."""
    return {a.json()["pid"] for a in answers if a.request.url.path == "/async"}


def test_counters_are_the_requests_sent(stack: Stack, locked: Environment, tmp_path: Path) -> None:
    """By route and status, of four workers, with one killed and replaced: not one more or less."""
    scraped = start(stack, locked, tmp_path, {})
    sent, answers = send(scraped.desk, 40)
    assert scraped.counted() == sent
    victim = workers(answers).pop()
    os.kill(victim, signal.SIGKILL)
    server.eventually(
        lambda: len(_started(scraped.desk)) > WORKERS,
        30,
        "another worker takes the place of the killed one",
    )
    more, answers = send(scraped.desk, 40)
    assert victim not in workers(answers)
    assert scraped.counted() == sent + more
    assert sum(more.values()) == 40 * len(PATHS)


@pytest.mark.parametrize(
    "by", [matrix.GUNICORN, matrix.GUNICORN_PRELOAD, matrix.HYPERCORN], ids=lambda by: by.name
)
def test_counters_are_the_requests_sent_on_other_servers(
    by: matrix.Server, stack: Stack, locked: Environment, tmp_path: Path
) -> None:
    """Of every worker, also of those that were forked after the counters were made."""
    server.fill_database(locked, tmp_path)
    (port,) = free_ports(1)
    env = _settings(port, tmp_path) | {"PYTHONPATH": str(environments.APPS.parent)}
    shop = test_matrix.start(stack, matrix.Cell(matrix.ALONE, by, matrix.FASTAPI), env)
    asked = test_processes.ask(shop, by.workers)
    assert len(asked) == by.workers
    scraped = Scraped(shop, parts.url(port, "/metrics"))
    assert scraped.counted() == {(test_processes.ROUTE, "200"): asked.total()}


def _started(desk: server.Server) -> set[str]:
    return set(re.findall(r"Started server process \[(\d+)\]", desk.log))


def test_a_kill_under_traffic(stack: Stack, locked: Environment, tmp_path: Path) -> None:
    """Every request that was answered is counted; none that was not sent is."""
    scraped = start(stack, locked, tmp_path, {})
    _, answers = send(scraped.desk, 10)
    before = scraped.counted()
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, scraped.desk, 60)
        server.eventually(lambda: scraped.counted().total() > before.total() + 50, 30, "traffic")
        os.kill(workers(answers).pop(), signal.SIGKILL)
        answered, _ = sending.result()
    counted = scraped.counted() - before
    assert not answered - counted
    assert counted.total() <= 60 * len(PATHS)


def test_the_port_outlives_whoever_served_it(
    stack: Stack, locked: Environment, tmp_path: Path
) -> None:
    """When the process that serves the port dies, another one does, with the same counts."""
    scraped = start(stack, locked, tmp_path, {})
    sent, _ = send(scraped.desk, 5)
    serving = _serving(scraped.desk.log)
    assert len(serving) == 1
    assert scraped.counted() == sent
    if serving[0] != scraped.desk.process.process.pid:
        os.kill(serving[0], signal.SIGKILL)
        server.eventually(lambda: len(_serving(scraped.desk.log)) > 1, 30, "another one serves")
        assert scraped.counted() == sent


def _serving(log: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"/metrics is served on \S+ by process (\d+)", log)]


def _by_environment(otlp: str, out: Path) -> dict[str, str]:
    """What an operator sets."""
    return {
        **{f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS")},
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }


def _by_file(otlp: str, out: Path) -> dict[str, str]:
    """The same in a file, which leaves the environment without a say."""
    file = out / "otel.yaml"
    file.write_text(
        'file_format: "1.0"\n'
        "tracer_provider:\n"
        f'  processors: [{{batch: {{exporter: {{otlp_http: {{endpoint: "{otlp}/v1/traces"}}}}}}}}]\n'
        "meter_provider:\n"
        "  readers:\n"
        "    - periodic:\n"
        "        interval: 500\n"
        f'        exporter: {{otlp_http: {{endpoint: "{otlp}/v1/metrics"}}}}\n'
    )
    return {"OTEL_CONFIG_FILE": str(file)}


@pytest.mark.parametrize(
    ("configured", "made"), [(_by_environment, environments.LOCKED), (_by_file, WITH_FILE)]
)
def test_nobody_is_a_label(
    stack: Stack,
    tmp_path: Path,
    configured: Callable[[str, Path], dict[str, str]],
    made: Environment,
) -> None:
    """Neither on /metrics nor over OTLP; exemplars carry the request and the trace that were returned."""
    with collectors.listening(collectors.answering("200 OK", b"")) as fake:
        settings = configured(fake.url, tmp_path)
        scraped = start(stack, environments.make(made), tmp_path, settings)
        _, answers = send(scraped.desk, 20)
        text = scraped.text()
        total = len(answers)
        server.eventually(lambda: _total(fake) >= total, 30, "all requests were exported")
        scraped.desk.stop(30)
    returned = {a.headers["x-request-id"]: a.headers["x-trace-id"] for a in answers}
    personal = {value for p in PEOPLE for value in (p.id, p.org_id, p.name, p.email, p.token)}
    secrets = personal | returned.keys() | set(returned.values())
    for labels, _ in COUNT.findall(text):
        assert {name for name, _ in LABEL.findall(labels)} <= REQUEST_LABELS
    assert not [secret for secret in secrets if secret in text]
    points = list(_points(fake))
    for point in points:
        values = {str(value) for value in plain(point.attributes).values()}
        assert {key.replace(".", "_") for key in plain(point.attributes)} <= REQUEST_LABELS
        assert not values & secrets
        assert 0.2 in point.explicit_bounds
    exemplars = [exemplar for point in points for exemplar in point.exemplars]
    named = [(plain(e.filtered_attributes), e.trace_id.hex()) for e in exemplars]
    known = [(ids, trace) for ids, trace in named if ids.get("request_id") in returned]
    assert len(known) >= len(PATHS)
    assert all(returned[ids["request_id"]] == trace for ids, trace in known)
    assert all(ids.keys() == {"request_id"} for ids, _ in named)


def test_a_scrape_of_many_routes(
    stack: Stack, locked: Environment, tmp_path: Path, capsys: Any
) -> None:
    """Two hundred routes on four workers; the time is said, not asserted."""
    (port, metrics_port) = free_ports(2)
    env = {
        **{f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")},
        "OTEL_SHIM_SECRET": server.SECRET,
        "OTEL_SHIM_METRICS_PORT": str(metrics_port),
        "OTEL_SHIM_METRICS_DIRECTORY": str(tmp_path / "metrics"),
    }
    part = server.uvicorn(locked, "apps.wide:app", port, WORKERS, env)
    desk = server.ready(port, stack.start(part))
    scraped = Scraped(desk, parts.url(metrics_port, "/metrics"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(desk.get, [f"/things/{n % 200}/1" for n in range(3200)]))
    assert scraped.counted().total() == 3200
    times = sorted(_timed(scraped.url) for _ in range(20))
    with capsys.disabled():
        print(
            f"\nscrape of 200 routes, 4 workers: median {times[10]:.1f} ms, most {times[-1]:.1f} ms"
        )


def _timed(url: str) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=5) as answer:
        answer.read()
    return (time.perf_counter() - began) * 1000


def _metrics(fake: Fake) -> Iterator[Metric]:
    for path, body in fake.bodies:
        if path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                yield from (metric for scope in resource.scope_metrics for metric in scope.metrics)


def _points(fake: Fake) -> Iterator[HistogramDataPoint]:
    for metric in _metrics(fake):
        if metric.name == "http.server.request.duration":
            yield from metric.histogram.data_points


def _total(fake: Fake) -> int:
    """The requests in the latest export of each process; they are cumulative."""
    latest: dict[tuple[int, str], int] = {}
    for point in _points(fake):
        if plain(point.attributes).get("http.route") != "/health":
            latest[point.start_time_unix_nano, str(plain(point.attributes))] = point.count
    return sum(latest.values())


def test_the_summary_from_a_real_prometheus(
    stack: Stack, locked: Environment, tmp_path: Path
) -> None:
    """The sample's figures come over OTLP and are in the summary, for operators only."""
    api, prometheus = free_ports(2)
    stack.start(_prometheus(prometheus, tmp_path))
    argv = (
        *(locked.program("opentelemetry-instrument"), locked.program("uvicorn")),
        *("--app-dir", str(ROOT / "examples/saas"), "api.app:app", "--port", str(api)),
    )
    stack.start(Part("api", argv, parts.url(api, "/health"), env=_api(prometheus, tmp_path)))
    stack.wait_ready(server.READY_SECONDS)
    path = "/v1/ops/monitoring/operational-summary"
    with httpx.Client(base_url=parts.url(api), timeout=10) as client:
        assert client.get(path).status_code == 403

        def complete() -> bool:
            client.get("/planning/plans")
            summary = client.get(path, headers={"X-Operator-Token": OPERATOR}).json()
            return bool(
                summary["quotas"] and summary["endpoints"] and summary["requests"]["p95_ms"]
            )

        server.eventually(complete, 60, "the summary has figures")
        summary = client.get(path, headers={"X-Operator-Token": OPERATOR}).json()
    refused = next(e for e in summary["endpoints"] if e["route"] == "/planning/plans")
    assert refused["availability"] == 1.0
    assert summary["requests"]["client_error_ratio"] > 0
    assert {quota["plan"] for quota in summary["quotas"]} <= {"free", "pro", "team", "enterprise"}
    assert all(quota["limit"] > 0 for quota in summary["quotas"])
    assert summary["missing"] == ["alertmanager: OTEL_SHIM_ALERTMANAGER_URL is not set"]


def _prometheus(port: int, out: Path) -> Part:
    config = out / "prometheus.yaml"
    config.write_text("global: {scrape_interval: 1s}\n")
    argv = (
        str(ROOT / ".build/bin/prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={out / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-otlp-receiver",
    )
    return Part("prometheus", argv, parts.url(port, "/-/ready"))


def _api(prometheus: int, out: Path) -> dict[str, str]:
    receiver = parts.url(prometheus, "/api/v1/otlp/v1/metrics")
    return {
        "OTEL_SERVICE_NAME": "api",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": receiver,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_SHIM_SECRET": server.SECRET,
        "OTEL_SHIM_PROMETHEUS_URL": parts.url(prometheus),
        "SAAS_DATABASE_URL": f"sqlite:///{out / 'saas.db'}",
        "SAAS_OPERATOR_TOKEN": OPERATOR,
    }
