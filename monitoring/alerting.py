"""Recording and alert rules from the specification: pure functions, Prometheus's rule files as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opentelemetry.semconv.attributes import http_attributes as http
from opentelemetry.semconv.metrics import http_metrics

from monitoring.specification import Alert, Journey, Specification
from otel_shim import _semconv as semconv

Rule = dict[str, Any]

SERVICE = ("service_namespace", "service_name", "deployment_environment_name")


def series(name: str, suffix: str = "") -> str:
    """A metric or attribute as Prometheus names it (UnderscoreEscapingWithSuffixes)."""
    return name.replace(".", "_") + suffix


REQUESTS = series(http_metrics.HTTP_SERVER_REQUEST_DURATION, "_seconds")
STREAMS = series(semconv.METRIC_SAAS_STREAM_TIME_TO_FIRST_BYTE, "_seconds")
JOBS = series(semconv.METRIC_SAAS_JOB_DURATION, "_seconds")
METHOD, ROUTE = series(http.HTTP_REQUEST_METHOD), series(http.HTTP_ROUTE)
STATUS = series(http.HTTP_RESPONSE_STATUS_CODE)
OPERATION = series(semconv.SAAS_OPERATION)
FAILED = f'{series(semconv.SAAS_JOB_OUTCOME)}="{semconv.SAAS_JOB_OUTCOME_FAILURE}"'
ENDPOINT = (*SERVICE, METHOD, ROUTE)
ROUTED = f'{ROUTE}!=""'
SERVER_ERROR = f'{STATUS}=~"5.."'

REQUESTS_RECORD = "saas:http_requests:increase"
ERRORS_RECORD = "saas:http_errors:increase"
ERROR_RATIO_RECORD = "saas:http_errors:ratio"
P95_RECORD = "saas:http_duration_seconds:p95"
FIRST_BYTE_RECORD = "saas:stream_first_byte_seconds:p95"
STREAMED_RECORD = "saas:streams:increase"
JOB_FAILURES_RECORD = "saas:job_failures:increase"
RECORDS = (
    REQUESTS_RECORD,
    ERRORS_RECORD,
    ERROR_RATIO_RECORD,
    P95_RECORD,
    FIRST_BYTE_RECORD,
    STREAMED_RECORD,
    JOB_FAILURES_RECORD,
)


def duration(value: float) -> str:
    """Seconds as Prometheus writes a duration."""
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        if value >= size and value % size == 0:
            return f"{value / size:g}{unit}"
    return f"{value * 1000:.0f}ms"


def rule_files(spec: Specification) -> dict[str, dict[str, Any]]:
    """The rule files by name."""
    groups = {"api": api_group(spec), "jobs": job_group(spec)}
    return {
        f"{name}.yaml": {
            "groups": [{"name": f"saas-{name}", "interval": duration(spec.interval), "rules": each}]
        }
        for name, each in groups.items()
    }


def api_group(spec: Specification) -> list[Rule]:
    """What is read of requests, and the alerts on it."""
    errors, latency = spec.alerts["api.5xx"], spec.alerts["api.latency"]
    return [
        record(REQUESTS_RECORD, increase(f"{REQUESTS}_count", ROUTED, errors.window)),
        record(
            ERRORS_RECORD, increase(f"{REQUESTS}_count", f"{ROUTED}, {SERVER_ERROR}", errors.window)
        ),
        record(ERROR_RATIO_RECORD, f"{ERRORS_RECORD} / {REQUESTS_RECORD}"),
        record(STREAMED_RECORD, increase(f"{STREAMS}_count", ROUTED, latency.window)),
        *(p95_of_journey(spec, place, latency) for place in range(len(spec.journeys))),
        record(FIRST_BYTE_RECORD, p95(STREAMS, ROUTED, latency.window), journey="stream"),
        errors_alert(spec, errors),
        *(latency_alert(spec, journey, latency) for journey in spec.journeys),
        stream_alert(spec, latency),
    ]


def job_group(spec: Specification) -> list[Rule]:
    """What is read of jobs, and the alert on it."""
    alert = spec.alerts["audit.job.failure"]
    return [record(JOB_FAILURES_RECORD, new_failures(alert)), job_alert(spec, alert)]


def record(name: str, expr: str, **labels: str) -> Rule:
    """A recording rule."""
    return {"record": name, "expr": expr} | ({"labels": labels} if labels else {})


def increase(metric: str, selector: str, window: float) -> str:
    """Requests in the window, by endpoint, over all workers."""
    return f"sum by ({', '.join(ENDPOINT)}) (increase({metric}{{{selector}}}[{duration(window)}]))"


def p95(metric: str, selector: str, window: float) -> str:
    """The 95th percentile by endpoint, in seconds."""
    labels = ", ".join((*ENDPOINT, "le"))
    inner = f"increase({metric}_bucket{{{selector}}}[{duration(window)}])"
    return f"histogram_quantile(0.95, sum by ({labels}) ({inner}))"


def p95_of_journey(spec: Specification, place: int, alert: Alert) -> Rule:
    """The p95 of a journey's routes that no journey before it has; streams are left out."""
    journey, before = spec.journeys[place], spec.journeys[:place]
    selector = f'{ROUTED}, {ROUTE}=~"{journey.routes}"'
    if before:
        selector += f', {ROUTE}!~"{"|".join(item.routes for item in before)}"'
    expr = f"{p95(REQUESTS, selector, alert.window)} unless {STREAMED_RECORD}"
    return record(P95_RECORD, expr, journey=journey.id)


def new_failures(alert: Alert) -> str:
    """Failed executions in the window.

    A process that runs one job and ends leaves a series that begins at 1: `increase` sees nothing in
    it, so a series that is new in the window counts whole.
    """
    window = duration(alert.window)
    failed = f'{JOBS}_count{{{FAILED}, {OPERATION}=~"{alert.operations}"}}'
    now, before = f"{failed}[{window}]", f"{failed}[{window}] offset {window}"
    new = f"(last_over_time({now}) unless last_over_time({before}))"
    return f"sum by ({', '.join((*SERVICE, OPERATION))}) ({new} or increase({now}))"


def errors_alert(spec: Specification, alert: Alert) -> Rule:
    """Share of 5xx per endpoint."""
    expr = f"{ERROR_RATIO_RECORD} > {alert.threshold:g} and {ERRORS_RECORD} >= {alert.at_least}"
    instructions = {
        "exemplars": exemplar_selector(REQUESTS, SERVER_ERROR),
        "tags": endpoint_tags(error="true"),
    }
    return alert_rule(spec, alert, expr, f"{alert.threshold:.0%}", instructions)


def latency_alert(spec: Specification, journey: Journey, alert: Alert) -> Rule:
    """The p95 of a journey's endpoints."""
    enough = f"and ignoring (journey) {REQUESTS_RECORD} >= {alert.at_least}"
    expr = f'{P95_RECORD}{{journey="{journey.id}"}} > {journey.threshold:g} {enough}'
    instructions = {
        "exemplars": exemplar_selector(REQUESTS),
        "above": f"{journey.threshold:g}",
        "tags": endpoint_tags(),
        "min_seconds": f"{journey.threshold:g}",
    }
    own = {"journey": journey.id}
    return alert_rule(spec, alert, expr, duration(journey.threshold), instructions, own_labels=own)


def stream_alert(spec: Specification, alert: Alert) -> Rule:
    """The p95 of the time to a stream's first byte."""
    enough = f"and ignoring (journey) {STREAMED_RECORD} >= {alert.at_least}"
    expr = f"{FIRST_BYTE_RECORD} > {spec.stream_threshold:g} {enough}"
    instructions = {
        "exemplars": exemplar_selector(STREAMS),
        "above": f"{spec.stream_threshold:g}",
        "tags": endpoint_tags(),
        "min_seconds": f"{spec.stream_threshold:g}",
    }
    own = {"journey": "stream"}
    return alert_rule(
        spec, alert, expr, duration(spec.stream_threshold), instructions, own_labels=own
    )


def job_alert(spec: Specification, alert: Alert) -> Rule:
    """Any failed execution."""
    selector = f"{label('service_name')}, {label(OPERATION)}, {FAILED}"
    tags = {semconv.SAAS_OPERATION: value(OPERATION), "error": "true"}
    instructions = {
        "exemplars": f"{JOBS}_bucket{{{selector}}}",
        "tags": json.dumps(tags),
        "no_request": alert.no_request,
    }
    expr = f"{JOB_FAILURES_RECORD} > {alert.threshold:g}"
    return alert_rule(spec, alert, expr, f"{alert.threshold:g}", instructions)


def alert_rule(
    spec: Specification,
    alert: Alert,
    expr: str,
    threshold: str,
    instructions: Mapping[str, str],
    *,
    own_labels: Mapping[str, str] | None = None,
) -> Rule:
    """An alert rule with all that a message needs, and what the relay is to look for."""
    labels = labels_of(alert)
    texts = {"window": duration(alert.window), "threshold_text": threshold}
    texts |= {name: labels[name] for name in ("service", "endpoint")}
    link = spec.links["runbook"].replace("{anchor}", alert.id.replace(".", ""))
    annotations = {
        "summary": filled(alert.summary, texts),
        "description": filled(alert.description, texts),
        "value": alert.value,
        "threshold": threshold,
        "runbook_url": link,
        "dashboard_url": spec.links["dashboard"].replace("{uid}", alert.dashboard),
        "relay_service": value("service_name"),
        "relay_window": f"{alert.window + alert.lasting + 2 * spec.interval:g}",
    }
    return {
        "alert": alert.alertname,
        "expr": expr,
        "for": duration(alert.lasting) if alert.lasting else "0s",
        "labels": {**labels, **(own_labels or {})},
        "annotations": annotations | {f"relay_{k}": v for k, v in instructions.items()},
    }


def labels_of(alert: Alert) -> dict[str, str]:
    """The labels every alert has; they are its identity for grouping and silences."""
    is_job = bool(alert.operations)
    endpoint = value(OPERATION) if is_job else f"{value(METHOD)} {value(ROUTE)}"
    return {
        "alert_id": alert.id,
        "severity": alert.severity,
        "service": value("service_name"),
        "endpoint": endpoint,
    }


def filled(text: str, texts: Mapping[str, str]) -> str:
    """A text of the specification; only our own placeholders are replaced, not Prometheus's."""
    for name, replacement in texts.items():
        text = text.replace(f"{{{name}}}", replacement)
    return text


def value(name: str) -> str:
    """A label's value in a Prometheus template."""
    return f"{{{{ $labels.{name} }}}}"


def label(name: str) -> str:
    """A selector for the alert's own value of a label."""
    return f'{name}="{value(name)}"'


def exemplar_selector(metric: str, also: str = "") -> str:
    """The raw series of an alert's endpoint: recorded ones have no exemplars."""
    own = ", ".join(label(name) for name in ("service_name", METHOD, ROUTE))
    return f"{metric}_bucket{{{own}{', ' if also else ''}{also}}}"


def endpoint_tags(**more: str) -> str:
    """What a trace search looks for."""
    tags = {http.HTTP_REQUEST_METHOD: value(METHOD), http.HTTP_ROUTE: value(ROUTE)}
    return json.dumps(tags | more)
