"""The state of the service for its operators: one endpoint with figures, alerts and links.

    from otel_shim import ops
    app.include_router(ops.router(dependency=require_operator))

Asks Prometheus and Alertmanager over HTTP; its answer comes within two seconds, and is kept for a few.
What could not be had is named in it. Needs FastAPI.
"""

from __future__ import annotations

import json
import math
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter, Depends
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_shim import environment_variables as env
from otel_shim import wiring
from otel_shim.locks import Locked

PATH = "/v1/ops/monitoring/operational-summary"
WITHIN_SECONDS = 2.0
"""Longest time until there is an answer."""
SECONDS = 1.5
"""Longest time in which both are asked, all at once; the rest is for what comes before and after."""
KEPT_SECONDS = 5.0
"""How long an answer is given again."""
MOST = 50
"""Most endpoints, quotas, jobs and alerts of an answer, of each."""
HEARTBEAT = "heartbeat"
"""The severity of an alert that always fires, so that its absence is noticed: nothing to show."""
_MOST_BYTES = 4_000_000
_WINDOW = "5m"
_JOB_WINDOW = "24h"
_COUNT = "http_server_request_duration_seconds_count"
_BUCKET = "http_server_request_duration_seconds_bucket"
_FIRST_BYTE = "saas_stream_time_to_first_byte_seconds_bucket"
_JOBS = "saas_job_duration_seconds_count"
_QUOTAS = {
    "saas_quota_used": "used",
    "saas_quota_limit": "limit",
    "saas_quota_exhausted": "exhausted",
}
_ANNOTATIONS = ("summary", "request_id", "trace_id", "trace_url", "runbook_url")


@dataclass(frozen=True)
class Requests:
    """All requests of the window; rates are per second, ratios of all requests, times in milliseconds."""

    rate: float | None = None
    client_error_ratio: float | None = None
    server_error_ratio: float | None = None
    availability: float | None = None
    """The share that did not end with a 5xx status."""
    p50_ms: float | None = None
    p95_ms: float | None = None


@dataclass(frozen=True)
class Endpoint:
    """One endpoint in the window, as ``Requests``; a stream by the time to its first byte."""

    method: str
    route: str
    rate: float
    availability: float | None
    p95_ms: float | None
    first_byte_p95_ms: float | None


@dataclass(frozen=True)
class Quota:
    """A metered feature, for all organisations on a plan together."""

    feature: str
    plan: str
    used: float | None = None
    limit: float | None = None
    exhausted: float | None = None
    """Organisations with nothing left."""


@dataclass(frozen=True)
class Job:
    """The executions of a job in the last 24 hours."""

    operation: str
    succeeded: float
    failed: float


@dataclass(frozen=True)
class Alert:
    """A firing alert."""

    name: str
    severity: str | None
    service: str | None
    endpoint: str | None
    since: str | None
    annotations: dict[str, str]


@dataclass(frozen=True)
class Summary:
    """The answer; ``missing`` says what could not be had and why, the rest holds nevertheless."""

    generated_at: str
    window: str = _WINDOW
    requests: Requests = field(default_factory=Requests)
    endpoints: list[Endpoint] = field(default_factory=list)
    quotas: list[Quota] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


Sample = tuple[Mapping[str, str], float]
Samples = Mapping[str, list[Sample]]
"""What each query found."""


@dataclass(frozen=True)
class Backends:
    """Whom to ask, and which series are this service's."""

    prometheus: str | None
    alertmanager: str | None
    selector: str = ""
    links: Mapping[str, str] = field(default_factory=dict)


def router(
    *, dependency: Callable[..., Any], selector: str = "", environ: Mapping[str, str] | None = None
) -> APIRouter:
    """A router with the summary, which only those see whom the application's own dependency lets pass.

    ``dependency`` raises for everybody else, as usual. ``selector`` narrows the series down where one
    Prometheus has several services: ``job="shop/api"``. Whom to ask is told by the environment or the
    configuration file, unless by ``environ``.
    """
    environ = wiring.environ() if environ is None else environ
    backends = Backends(
        prometheus=environ.get(env.OTEL_SHIM_PROMETHEUS_URL) or None,
        alertmanager=environ.get(env.OTEL_SHIM_ALERTMANAGER_URL) or None,
        selector=selector,
        links=_links(environ.get(env.OTEL_SHIM_OPS_LINKS, "")),
    )
    latest = _Latest(lambda: summary(backends))
    routes = APIRouter(tags=["operations"])

    @routes.get(PATH, dependencies=[Depends(dependency)])
    def operational_summary() -> Summary:
        return latest.get()

    return routes


class _Latest(Locked):
    """The latest answer; asked for by many at once, it is made once."""

    def __init__(self, make: Callable[[], Summary]) -> None:
        super().__init__()
        self._make = make
        self._until = 0.0
        self._summary: Summary | None = None

    def get(self) -> Summary:
        """The answer, at most so old."""
        with self._lock:
            if self._summary is None or time.monotonic() >= self._until:
                self._summary = self._make()
                self._until = time.monotonic() + KEPT_SECONDS
            return self._summary


def summary(backends: Backends) -> Summary:
    """Ask, and put together what came; never raises for a backend that is away."""
    missing: list[str] = []
    asked = {
        **_asked_of_prometheus(backends, missing),
        **_asked_of_alertmanager(backends, missing),
    }
    answers = _ask(asked, missing)
    found = {name: answer for name, answer in answers.items() if name != "alerts"}
    return Summary(
        generated_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        requests=_requests(found),
        endpoints=_endpoints(found)[:MOST],
        quotas=_quotas(found.get("quotas", []))[:MOST],
        jobs=_jobs(found.get("jobs", []))[:MOST],
        alerts=answers.get("alerts", [])[:MOST],
        links=dict(backends.links),
        missing=missing,
    )


def queries(selector: str = "") -> dict[str, str]:
    """The PromQL of each part."""
    ours = f"{{{selector}}}"
    by = "http_request_method, http_route"
    quotas = ",".join(filter(None, (f'__name__=~"{"|".join(_QUOTAS)}"', selector)))
    return {
        "statuses": f"sum by ({by}, http_response_status_code) (rate({_COUNT}{ours}[{_WINDOW}]))",
        "p50": f"histogram_quantile(0.5, sum by (le) (rate({_BUCKET}{ours}[{_WINDOW}])))",
        "p95": f"histogram_quantile(0.95, sum by (le) (rate({_BUCKET}{ours}[{_WINDOW}])))",
        "endpoint p95": f"histogram_quantile(0.95, sum by (le, {by}) (rate({_BUCKET}{ours}[{_WINDOW}])))",
        "stream p95": f"histogram_quantile(0.95, sum by (le, {by}) (rate({_FIRST_BYTE}{ours}[{_WINDOW}])))",
        "quotas": f"max by (__name__, saas_quota_feature, saas_plan) ({{{quotas}}})",
        "jobs": f"sum by (saas_operation, saas_job_outcome) (increase({_JOBS}{ours}[{_JOB_WINDOW}]))",
    }


def _asked_of_prometheus(backends: Backends, missing: list[str]) -> dict[str, str]:
    if backends.prometheus is None:
        missing.append(f"prometheus: {env.OTEL_SHIM_PROMETHEUS_URL} is not set")
        return {}
    base = f"{backends.prometheus.rstrip('/')}/api/v1/query?"
    return {
        name: base + urllib.parse.urlencode({"query": query, "timeout": f"{SECONDS:g}"})
        for name, query in queries(backends.selector).items()
    }


def _asked_of_alertmanager(backends: Backends, missing: list[str]) -> dict[str, str]:
    if backends.alertmanager is None:
        missing.append(f"alertmanager: {env.OTEL_SHIM_ALERTMANAGER_URL} is not set")
        return {}
    base = backends.alertmanager.rstrip("/")
    return {"alerts": f"{base}/api/v2/alerts?active=true&silenced=false&inhibited=false"}


def _ask(asked: Mapping[str, str], missing: list[str]) -> dict[str, Any]:
    """Fetch all at once; who does not answer in time is not waited for."""
    pool = ThreadPoolExecutor(max_workers=max(1, len(asked)), thread_name_prefix="otel-shim-ops")
    decoders = {name: _alerts if name == "alerts" else _samples for name in asked}
    futures = {name: pool.submit(_fetch, url, decoders[name]) for name, url in asked.items()}
    wait(futures.values(), timeout=SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    answers: dict[str, Any] = {}
    for name, future in futures.items():
        reason = _reason(future)
        if reason is None:
            answers[name] = future.result()
        else:
            missing.append(f"{name}: {reason}")
    return answers


def _reason(future: Future[Any]) -> str | None:
    """Why there is no answer; None where there is one."""
    if not future.done() or future.cancelled():
        return f"no answer within {SECONDS:g} s"
    error = future.exception()
    return None if error is None else f"{type(error).__name__}: {error}"[:200]


def _fetch(url: str, decode: Callable[[Any], Any]) -> Any:
    """The decoded answer. Untraced: whoever watches the service is not part of what it does."""
    with suppress_instrumentation(), urllib.request.urlopen(url, timeout=SECONDS) as response:  # noqa: S310 - the operator's
        return decode(json.loads(_body(response, time.monotonic() + SECONDS)))


def _body(response: Any, deadline: float) -> bytes:
    """The body; TimeoutError where it trickles in, ValueError where it is too large."""
    body = bytearray()
    while part := response.read1(65_536):
        body += part
        if time.monotonic() > deadline:
            raise TimeoutError("the answer comes too slowly")
        if len(body) > _MOST_BYTES:
            raise ValueError("the answer is too large")
    return bytes(body)


def _samples(answer: Mapping[str, Any]) -> list[Sample]:
    """Labels and values of a query's result, without those that are no number."""
    result = answer["data"]["result"]
    found = [(series["metric"], float(series["value"][1])) for series in result]
    return [(labels, value) for labels, value in found if math.isfinite(value)]


def _requests(found: Samples) -> Requests:
    rates = [
        (labels.get("http_response_status_code", ""), v) for labels, v in found.get("statuses", [])
    ]
    p50, p95 = (_only(found.get(name, [])) for name in ("p50", "p95"))
    if "statuses" not in found:
        return Requests(p50_ms=p50, p95_ms=p95)
    rate = sum(value for _, value in rates)
    client, server = (_ratio(rates, first, rate) for first in "45")
    available = None if server is None else 1 - server
    return Requests(rate, client, server, available, p50, p95)


def _ratio(rates: Iterable[tuple[str, float]], first: str, rate: float) -> float | None:
    if rate == 0:
        return None
    return sum(value for status, value in rates if status.startswith(first)) / rate


def _only(samples: list[Sample]) -> float | None:
    return round(samples[0][1] * 1000, 3) if samples else None


def _endpoint_of(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get("http_request_method", ""), labels.get("http_route", "")


def _endpoints(found: Samples) -> list[Endpoint]:
    """The endpoints, the busiest first."""
    rates: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for labels, value in found.get("statuses", []):
        status = labels.get("http_response_status_code", "")
        rates.setdefault(_endpoint_of(labels), []).append((status, value))
    times = {
        name: {_endpoint_of(labels): round(v * 1000, 3) for labels, v in found.get(name, [])}
        for name in ("endpoint p95", "stream p95")
    }
    endpoints = []
    for place, by_status in rates.items():
        rate = sum(value for _, value in by_status)
        failed = _ratio(by_status, "5", rate)
        available = None if failed is None else 1 - failed
        latencies = (times["endpoint p95"].get(place), times["stream p95"].get(place))
        endpoints.append(Endpoint(*place, rate, available, *latencies))
    return sorted(endpoints, key=lambda endpoint: (-endpoint.rate, endpoint.route))


def _quotas(samples: Iterable[Sample]) -> list[Quota]:
    quotas: dict[tuple[str, str], Quota] = {}
    for labels, value in samples:
        key = labels.get("saas_quota_feature", ""), labels.get("saas_plan", "")
        values: dict[str, Any] = {_QUOTAS[labels["__name__"]]: value}
        quotas[key] = replace(quotas.get(key, Quota(*key)), **values)
    return [quota for _, quota in sorted(quotas.items())]


def _jobs(samples: Iterable[Sample]) -> list[Job]:
    counts: dict[str, dict[str, float]] = {}
    for labels, value in samples:
        outcomes = counts.setdefault(labels.get("saas_operation", ""), {})
        outcomes[labels.get("saas_job_outcome", "")] = round(value, 1)
    return [
        Job(operation, outcomes.get("success", 0.0), outcomes.get("failure", 0.0))
        for operation, outcomes in sorted(counts.items())
    ]


def _alerts(found: Iterable[Mapping[str, Any]]) -> list[Alert]:
    heard = (raw for raw in found if raw["labels"].get("severity") != HEARTBEAT)
    return [_alert(raw["labels"], raw) for raw in heard]


def _alert(labels: Mapping[str, str], raw: Mapping[str, Any]) -> Alert:
    annotations = raw.get("annotations", {})
    return Alert(
        name=labels.get("alertname", ""),
        severity=labels.get("severity"),
        service=labels.get("service"),
        endpoint=labels.get("endpoint"),
        since=raw.get("startsAt"),
        annotations={name: annotations[name] for name in _ANNOTATIONS if name in annotations},
    )


def _links(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip(): url.strip() for name, _, url in pairs}
