"""Metrics of a real server: /metrics with four workers and a killed one, exemplars over OTLP, the summary."""

from __future__ import annotations

import contextlib
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
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from examples.saas.demo import parts
from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Part, Stack
from tests.wheel import ROOT

from . import (
    collectors,
    environments,
    exported_metrics,
    matrix,
    server,
    test_matrix,
    test_processes,
)
from .apps.people import PEOPLE
from .collectors import Fake
from .environments import Environment
from .otlp import plain
from .telling import FIGURE

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
SOMEBODY = re.compile("user|org|request.?id|actor.?(id|pseudonym)|trace|span|audit|mail|token")
"""What no label may be called."""
SAMPLE = re.compile(r"^(\w+)\{(.*)\} \S+$", re.MULTILINE)
WITH_FILE = Environment("locked-file", ("opentelemetry-configuration==0.66b1",))
"""With the extra `config-file`."""
OPERATOR = "the operators' token of this test"
PATHS = ("/async", "/sync", "/stream", "/tickets/7", "/quota", "/boom", "/nowhere")
KNOWN = {"/async", "/sync", "/stream", "/tickets/{ticket_id}", "/quota", "/boom"}
"""Routes that know who asks."""
STATUS = re.compile(r"'http.response.status_code', (\d+)")
EXPORT_SECONDS = 0.5
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
                found.append(httpx.get(self.url, timeout=20, verify=False).text)
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

    def counts(self, sent: Mapping[tuple[str, str], int]) -> None:
        """Fails unless the counters come to exactly this: a request is counted when its answer is out."""
        with contextlib.suppress(AssertionError):  # what follows says how they differ
            server.eventually(lambda: self.counted() == sent, 10, "all is counted")
        assert self.counted() == sent


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
    scraped.counts(sent)
    victim = workers(answers).pop()
    os.kill(victim, signal.SIGKILL)
    server.eventually(
        lambda: len(_started(scraped.desk)) > WORKERS,
        30,
        "another worker takes the place of the killed one",
    )
    more, answers = send(scraped.desk, 40)
    assert victim not in workers(answers)
    scraped.counts(sent + more)
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
    scraped.counts({(test_processes.ROUTE, "200"): asked.total()})


def _started(desk: server.Server) -> set[int]:
    return {int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", desk.log)}


def test_a_kill_under_traffic(stack: Stack, locked: Environment, tmp_path: Path) -> None:
    """Every request that was answered is counted; none that was not sent is."""
    scraped = start(stack, locked, tmp_path, {})
    before, answers = send(scraped.desk, 10)
    scraped.counts(before)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, scraped.desk, 60)
        server.eventually(lambda: scraped.counted().total() > before.total() + 50, 30, "traffic")
        os.kill(workers(answers).pop(), signal.SIGKILL)
        answered, _ = sending.result()
    server.eventually(lambda: not answered - (scraped.counted() - before), 10, "all is counted")
    counted = scraped.counted() - before
    assert counted.total() <= 60 * len(PATHS)


def test_the_port_outlives_whoever_served_it(
    stack: Stack, locked: Environment, tmp_path: Path
) -> None:
    """The supervisor is killed and its workers live on: one of them serves the port, with the same counts."""
    scraped = start(stack, locked, tmp_path, {})
    supervisor = scraped.desk.process.process
    server.eventually(lambda: len(_started(scraped.desk)) == WORKERS, 60, "all workers serve")
    sent, _ = send(scraped.desk, 5)
    assert _serving(scraped.desk.log) == [supervisor.pid]
    scraped.counts(sent)
    supervisor.kill()
    supervisor.wait()
    try:
        server.eventually(lambda: len(_serving(scraped.desk.log)) > 1, 30, "another one serves")
        assert _serving(scraped.desk.log)[1] in _started(scraped.desk)
        scraped.counts(sent)
        more, _ = send(scraped.desk, 5)
        assert sum(more.values()) == 5 * len(PATHS)
        scraped.counts(sent + more)
    finally:
        os.killpg(supervisor.pid, signal.SIGKILL)  # its workers are nobody's children


def _serving(log: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"/metrics is served on \S+ by process (\d+)", log)]


def _by_environment(otlp: str, out: Path) -> dict[str, str]:
    """What an operator sets."""
    return {
        **{f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("TRACES", "METRICS")},
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
        "OTEL_METRIC_EXPORT_INTERVAL": str(int(EXPORT_SECONDS * 1000)),
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
    with collectors.healthy() as fake:
        settings = configured(fake.url, tmp_path)
        scraped = start(stack, environments.make(made), tmp_path, settings)
        sent, answers = send(scraped.desk, 20)
        answers += [scraped.desk.get("/partner/sync", PEOPLE[0].token)]  # an outgoing call
        sent["/partner/sync", "500"] += 1
        server.eventually(lambda: _exported(fake) == sent, 30, "all requests were exported")
        text = scraped.text()
        scraped.desk.stop(30)
    returned = {a.headers["x-request-id"]: a.headers["x-trace-id"] for a in answers}
    secrets = {value for p in PEOPLE for value in (p.id, p.org_id, p.name, p.email, p.token)}
    secrets |= returned.keys() | set(returned.values())
    assert not [secret for secret in secrets if secret in text]
    _nobody_in({name.replace("_", ".") for name in _label_names(text)}, set())
    for metric, point in _all_points(fake):
        named = plain(point.attributes)
        _nobody_in(named.keys(), {str(value) for value in named.values()} & secrets)
        for exemplar in getattr(point, "exemplars", ()):
            assert plain(exemplar.filtered_attributes).keys() <= {"request_id"}, metric
    _roles_and_plans(dict(LABEL.findall(labels)) for labels, _ in COUNT.findall(text))
    requests = [plain(point.attributes) for point in _points(fake)]
    _roles_and_plans({k.replace(".", "_"): str(v) for k, v in each.items()} for each in requests)
    assert all(0.2 in point.explicit_bounds for point in _points(fake))
    exemplars = [exemplar for point in _points(fake) for exemplar in point.exemplars]
    ids = [(plain(e.filtered_attributes).get("request_id"), e.trace_id.hex()) for e in exemplars]
    known = [(request, trace) for request, trace in ids if request in returned]
    assert len(known) >= len(PATHS)
    assert all(returned[str(request)] == trace for request, trace in known)


def _nobody_in(names: Iterable[str], values: set[str]) -> None:
    assert not [name for name in names if SOMEBODY.search(name)]
    assert not values


def _label_names(text: str) -> set[str]:
    """Of every metric that is served; there are no exemplars in it."""
    samples = SAMPLE.findall(text)
    assert len({name for name, _ in samples}) > 3
    assert " # {" not in text
    return {label for _, labels in samples for label, _ in LABEL.findall(labels)}


def _roles_and_plans(points: Iterable[Mapping[str, str]]) -> None:
    """Where somebody was known, what he is and on which plan is on each request; nothing else about him."""
    known = [labels for labels in points if labels.get("http_route") in KNOWN]
    assert all(labels.keys() <= REQUEST_LABELS for labels in known)
    there = {(labels["saas_actor_role"], labels["saas_plan"]) for labels in known}
    assert there == {(person.role, person.plan) for person in PEOPLE}


def test_over_otlp_counters_are_the_requests_sent(
    stack: Stack, locked: Environment, tmp_path: Path
) -> None:
    """Of four workers together, before and after one was killed: what it had exported stays, and so does the rest.

    What a worker counted after its last export dies with it over OTLP; here it had none such.
    """
    with collectors.healthy() as fake:
        scraped = start(stack, locked, tmp_path, _by_environment(fake.url, tmp_path))
        sent, answers = send(scraped.desk, 40)
        server.eventually(lambda: _exported(fake) == sent, 30, "all requests were exported")
        victim = workers(answers).pop()
        os.kill(victim, signal.SIGKILL)
        server.eventually(
            lambda: len(_started(scraped.desk)) > WORKERS, 60, "another worker takes its place"
        )
        more, answers = send(scraped.desk, 40)
        assert victim not in workers(answers)
        assert sum(more.values()) == 40 * len(PATHS)
        server.eventually(lambda: _exported(fake) == sent + more, 30, "all that follow as well")
        time.sleep(2 * EXPORT_SECONDS)  # nothing is added by exports that bring nothing new
        assert _exported(fake) == sent + more
        assert len({instance for instance, _, _ in _latest(fake)}) == WORKERS + 1


def test_over_otlp_the_last_counts_come_at_the_end(
    stack: Stack, locked: Environment, tmp_path: Path
) -> None:
    """A server that is ended before its first export has exported all its requests."""
    with collectors.healthy() as fake:
        settings = _by_environment(fake.url, tmp_path) | {"OTEL_METRIC_EXPORT_INTERVAL": "600000"}
        scraped = start(stack, locked, tmp_path, settings)
        sent, _ = send(scraped.desk, 5)
        assert not _exported(fake)
        scraped.desk.stop(60)
        assert _exported(fake) == sent


def _latest(fake: Fake) -> dict[tuple[str, str, str], int]:
    """The latest count of each series of each process, by instance, route and the rest; they are cumulative."""
    latest: dict[tuple[str, str, str], int] = {}
    for point in exported_metrics.of(fake, "http.server.request.duration"):
        labels, instance = dict(point.attributes), str(point.resource["service.instance.id"])
        route = labels.pop("http.route", "/nowhere")
        if route != "/health":
            latest[instance, route, str(sorted(labels.items()))] = int(point.value)
    return latest


def _exported(fake: Fake) -> Seen:
    """The requests that were exported, by route and status."""
    seen: Seen = Counter()
    for (_, route, labels), count in _latest(fake).items():
        seen[route, STATUS.findall(labels)[0]] += count
    return seen


def test_a_scrape_of_many_routes(
    stack: Stack,
    locked: Environment,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
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
    server.eventually(lambda: scraped.counted().total() == 3200, 10, "all is counted")
    times = sorted(_timed(scraped.url) for _ in range(20))
    record_property(
        FIGURE,
        f"scrape of 200 routes, 4 workers: median {times[10]:.1f} ms, most {times[-1]:.1f} ms",
    )


def _timed(url: str) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=5) as answer:
        answer.read()
    return (time.perf_counter() - began) * 1000


def _metrics(fake: Fake) -> Iterator[Metric]:
    for path, body in list(fake.bodies):
        if path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                yield from (metric for scope in resource.scope_metrics for metric in scope.metrics)


def _all_points(fake: Fake) -> Iterator[tuple[str, Any]]:
    """Every point of every metric, of each kind."""
    for metric in _metrics(fake):
        data: Any = getattr(metric, str(metric.WhichOneof("data")))
        for point in data.data_points:
            yield metric.name, point


def _points(fake: Fake) -> list[Any]:
    return [point for name, point in _all_points(fake) if name == "http.server.request.duration"]


def test_the_summary_from_a_real_prometheus(
    stack: Stack, locked: Environment, tmp_path: Path
) -> None:
    """The sample's figures come over OTLP, alerts from an Alertmanager, and are in the summary, for operators only."""
    api, prometheus, alertmanager = free_ports(3)
    stack.start(_prometheus(prometheus, tmp_path))
    stack.start(_alertmanager(alertmanager, tmp_path))
    argv = (
        *(locked.program("opentelemetry-instrument"), locked.program("uvicorn")),
        *("--app-dir", str(ROOT / "examples/saas"), "api.app:app", "--port", str(api)),
    )
    stack.start(
        Part("api", argv, parts.url(api, "/health"), env=_api(prometheus, alertmanager, tmp_path))
    )
    stack.wait_ready(server.READY_SECONDS)
    alerts = [_alert("ApiServerErrors", "critical"), _alert("Watchdog", "heartbeat")]
    httpx.post(parts.url(alertmanager, "/api/v2/alerts"), json=alerts).raise_for_status()
    path = "/v1/ops/monitoring/operational-summary"
    with httpx.Client(base_url=parts.url(api), timeout=10) as client:
        assert client.get(path).status_code == 403

        found: list[Any] = []

        def complete() -> bool:
            client.get("/planning/plans")
            found.append(client.get(path, headers={"X-Operator-Token": OPERATOR}).json())
            figures = found[-1]["quotas"] and found[-1]["endpoints"]
            latency = found[-1]["requests"]["p95_ms"]
            return bool(figures and latency and not found[-1]["missing"])

        server.eventually(complete, 120, "the summary has figures, and all of them")
        summary = found[-1]
    refused = next(e for e in summary["endpoints"] if e["route"] == "/planning/plans")
    assert refused["availability"] == 1.0
    assert summary["requests"]["client_error_ratio"] > 0
    assert {quota["plan"] for quota in summary["quotas"]} <= {"free", "pro", "team", "enterprise"}
    assert all(quota["limit"] > 0 for quota in summary["quotas"])
    (alert,) = summary["alerts"]
    assert (alert["name"], alert["severity"]) == ("ApiServerErrors", "critical")
    assert (alert["service"], alert["endpoint"]) == ("api", "GET /a")
    assert alert["annotations"] == {"trace_id": "abc", "request_id": "r-1"}
    assert alert["since"]


def _alert(name: str, severity: str) -> dict[str, Any]:
    """As the relay passes it on."""
    given = {"trace_id": "abc", "request_id": "r-1", "internal": "not shown"}
    labels = {"alertname": name, "severity": severity, "service": "api", "endpoint": "GET /a"}
    return {"labels": labels, "annotations": given}


def _alertmanager(port: int, out: Path) -> Part:
    config = out / "alertmanager.yaml"
    config.write_text("{route: {receiver: nobody}, receivers: [{name: nobody}]}\n")
    argv = (
        str(ROOT / ".build/bin/alertmanager"),
        f"--config.file={config}",
        f"--storage.path={out / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    )
    return Part("alertmanager", argv, parts.url(port, "/-/ready"))


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


def _api(prometheus: int, alertmanager: int, out: Path) -> dict[str, str]:
    receiver = parts.url(prometheus, "/api/v1/otlp/v1/metrics")
    return {
        "OTEL_SERVICE_NAME": "api",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": receiver,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_SHIM_SECRET": server.SECRET,
        "OTEL_SHIM_PROMETHEUS_URL": parts.url(prometheus),
        "OTEL_SHIM_ALERTMANAGER_URL": parts.url(alertmanager),
        "SAAS_DATABASE_URL": f"sqlite:///{out / 'saas.db'}",
        "SAAS_OPERATOR_TOKEN": OPERATOR,
    }
