"""What all rules share: names as Prometheus has them, and rules with all that a message needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.semconv._incubating.attributes import (
    deployment_attributes as deployment,
)
from opentelemetry.semconv._incubating.attributes import service_attributes as service
from opentelemetry.semconv.attributes import http_attributes as http
from opentelemetry.semconv.metrics import http_metrics

from monitoring.quoting import quoted
from monitoring.specification import Alert, Specification
from otel_shim import _semconv as semconv
from otel_shim.relay import measures

Rule = dict[str, Any]


def series(name: str, suffix: str = "") -> str:
    """A metric or attribute as Prometheus names it (UnderscoreEscapingWithSuffixes)."""
    return name.replace(".", "_") + suffix


NAMESPACE, ENVIRONMENT = (
    series(name) for name in (service.SERVICE_NAMESPACE, deployment.DEPLOYMENT_ENVIRONMENT_NAME)
)
SERVICE = (NAMESPACE, series(service.SERVICE_NAME), ENVIRONMENT)

REQUESTS = series(http_metrics.HTTP_SERVER_REQUEST_DURATION, "_seconds")
STREAMS = series(semconv.METRIC_SAAS_STREAM_TIME_TO_FIRST_BYTE, "_seconds")
JOBS = series(semconv.METRIC_SAAS_JOB_DURATION, "_seconds")
JOB_START = series(semconv.METRIC_SAAS_JOB_LAST_START_TIMESTAMP, "_seconds")
JOB_SUCCESS = series(semconv.METRIC_SAAS_JOB_LAST_SUCCESS_TIMESTAMP, "_seconds")
JOB_TOOK = series(semconv.METRIC_SAAS_JOB_LAST_DURATION, "_seconds")
JOB_DECLARED = series(semconv.METRIC_SAAS_JOB_DECLARED_TIMESTAMP, "_seconds")
JOB_PERIOD = series(semconv.METRIC_SAAS_JOB_PERIOD, "_seconds")
JOB_MAX_RUNTIME = series(semconv.METRIC_SAAS_JOB_MAX_RUNTIME, "_seconds")
JOB_ACTIVE = series(semconv.METRIC_SAAS_JOB_ACTIVE)
JOB_ACTIVE_SINCE = series(semconv.METRIC_SAAS_JOB_ACTIVE_SINCE_TIMESTAMP, "_seconds")
JOB_RECOVERY_POINT = series(semconv.METRIC_SAAS_JOB_RECOVERY_POINT_TIMESTAMP, "_seconds")
QUEUE_DEPTH = series(semconv.METRIC_SAAS_QUEUE_DEPTH)
QUEUE_AGE = series(semconv.METRIC_SAAS_QUEUE_OLDEST_AGE, "_seconds")
QUEUE_WAIT = series(semconv.METRIC_SAAS_QUEUE_WAIT_DURATION, "_seconds")
QUEUE_WORKERS = series(semconv.METRIC_SAAS_QUEUE_WORKERS)
QUEUE_ARRIVALS = series(semconv.METRIC_SAAS_QUEUE_ARRIVALS, "_total")
QUEUE_COMPLETIONS = series(semconv.METRIC_SAAS_QUEUE_COMPLETIONS, "_total")
CALENDARS = series(semconv.METRIC_SAAS_CALENDAR_SYNC_DURATION, "_seconds")
CALENDAR_SUCCESS = series(semconv.METRIC_SAAS_CALENDAR_OLDEST_SUCCESS_TIMESTAMP, "_seconds")
RELAY_LOST = f"{measures.PREFIX}alerts_unaccepted_total"
RELAY_REFUSED = f"{measures.PREFIX}alerts_refused_total"
RELAY_LOOKUPS = f"{measures.PREFIX}lookup_failures_total"

METHOD, ROUTE = series(http.HTTP_REQUEST_METHOD), series(http.HTTP_ROUTE)
STATUS = series(http.HTTP_RESPONSE_STATUS_CODE)
OPERATION = series(semconv.SAAS_OPERATION)
OUTCOME = series(semconv.SAAS_JOB_OUTCOME)
CRITICAL = series(semconv.SAAS_JOB_CRITICAL)
QUEUE_NAME = series(semconv.SAAS_QUEUE_NAME)
QUEUE_STATE = series(semconv.SAAS_QUEUE_STATE)
WORKER_STATE = series(semconv.SAAS_WORKER_STATE)
PROVIDER = series(semconv.SAAS_CALENDAR_PROVIDER)
BUCKET = series(semconv.SAAS_CALENDAR_BUCKET)
SYNC_OUTCOME = series(semconv.SAAS_CALENDAR_SYNC_OUTCOME)
FAILED = f'{OUTCOME}=~"{semconv.SAAS_JOB_OUTCOME_FAILURE}|{semconv.SAAS_JOB_OUTCOME_TIMEOUT}"'
READY = f'{QUEUE_STATE}="{semconv.SAAS_QUEUE_STATE_READY}"'
BUSY = f'{WORKER_STATE}="{semconv.SAAS_WORKER_STATE_BUSY}"'
ENDPOINT = (*SERVICE, METHOD, ROUTE)
ROUTED = f'{ROUTE}!=""'
SERVER_ERROR = f'{STATUS}=~"5.."'
UNROUTED = "unrouted"
"""In place of the route, of requests that failed before one was chosen."""

REQUESTS_RECORD = "saas:http_requests:increase"
ERRORS_RECORD = "saas:http_errors:increase"
ERROR_RATIO_RECORD = "saas:http_errors:ratio"
P95_RECORD = "saas:http_duration_seconds:p95"
FIRST_BYTE_RECORD = "saas:stream_first_byte_seconds:p95"
STREAMED_RECORD = "saas:streams:increase"
JOB_FAILURES_RECORD = "saas:job_failures:increase"
JOB_PERIOD_RECORD = "saas:job_period:seconds"
JOB_MAX_RUNTIME_RECORD = "saas:job_max_runtime:seconds"
JOB_CRITICAL_RECORD = "saas:job_critical_period:seconds"
JOB_RUNNING_RECORD = "saas:job_running:runs"
JOB_RUNNING_AGE_RECORD = "saas:job_running_age:seconds"
JOB_PROCESSES_RECORD = "saas:job_running:processes"
JOB_START_RECORD = "saas:job_start_age:seconds"
JOB_SUCCESS_RECORD = "saas:job_success_age:seconds"
RECOVERY_POINT_RECORD = "saas:recovery_point_age:seconds"
RECOVERY_TIME_RECORD = "saas:recovery_time:seconds"
QUEUE_READY_RECORD = "saas:queue_ready:items"
QUEUE_AGE_RECORD = "saas:queue_oldest_age:seconds"
QUEUE_WORKERS_RECORD = "saas:queue_workers:count"
QUEUE_UTILISATION_RECORD = "saas:queue_utilisation:ratio"
QUEUE_ARRIVALS_RECORD = "saas:queue_arrivals:rate"
QUEUE_COMPLETIONS_RECORD = "saas:queue_completions:rate"
QUEUE_SATURATION_RECORD = "saas:queue_saturation:ratio"
QUEUE_DRAIN_RECORD = "saas:queue_drain:seconds"
CALENDAR_RECORD = "saas:calendar_success_age:seconds"
RECORDS = (
    REQUESTS_RECORD,
    ERRORS_RECORD,
    ERROR_RATIO_RECORD,
    P95_RECORD,
    FIRST_BYTE_RECORD,
    STREAMED_RECORD,
    JOB_FAILURES_RECORD,
    JOB_PERIOD_RECORD,
    JOB_MAX_RUNTIME_RECORD,
    JOB_CRITICAL_RECORD,
    JOB_RUNNING_RECORD,
    JOB_RUNNING_AGE_RECORD,
    JOB_PROCESSES_RECORD,
    JOB_START_RECORD,
    JOB_SUCCESS_RECORD,
    RECOVERY_POINT_RECORD,
    RECOVERY_TIME_RECORD,
    QUEUE_READY_RECORD,
    QUEUE_AGE_RECORD,
    QUEUE_WORKERS_RECORD,
    QUEUE_UTILISATION_RECORD,
    QUEUE_ARRIVALS_RECORD,
    QUEUE_COMPLETIONS_RECORD,
    QUEUE_SATURATION_RECORD,
    QUEUE_DRAIN_RECORD,
    CALENDAR_RECORD,
)


def duration(value: float) -> str:
    """Seconds as Prometheus writes a duration."""
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        if value >= size and value % size == 0:
            return f"{value / size:g}{unit}"
    return f"{value * 1000:.0f}ms"


def record(name: str, expr: str, **labels: str) -> Rule:
    """A recording rule."""
    return {"record": name, "expr": expr} | ({"labels": labels} if labels else {})


def by(*labels: str) -> str:
    """The labels that an aggregation keeps."""
    return f"by ({', '.join(labels)})"


def over(function: str, metric: str, selector: str, window: float) -> str:
    """A function of a raw series over a window."""
    inner = f"{{{selector}}}" if selector else ""
    return f"{function}({metric}{inner}[{duration(window)}])"


def counted(selected: str, window: float, heard: float) -> str:
    """Increases of counters in the window; a series that is new in it counts whole.

    A series begins with what its process counted before its first export, in which `increase` sees
    nothing. New is what was not heard of for as long as `heard` before: a process that was cut off
    comes back with what it counted in all its life.
    """
    now = f"{selected}[{duration(window)}]"
    before = f"{selected}[{duration(heard)}] offset {duration(window)}"
    return f"(last_over_time({now}) unless last_over_time({before})) or increase({now})"


def last(metric: str, selector: str, window: float) -> str:
    """The last sample of each series in the window, of series too that have ended."""
    return over("last_over_time", metric, selector, window)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom an alert is about: its labels, and the service under which its traces are searched, if they can be."""

    service: str
    endpoint: str
    reason: str = ""
    trace_service: str | None = None


def of_service(endpoint: str, reason: str = "") -> Subject:
    """A subject whose service is the one that sent the series."""
    return Subject(value("service_name"), endpoint, reason, value("service_name"))


def alert_rule(
    spec: Specification,
    alert: Alert,
    subject: Subject,
    expr: str,
    *,
    threshold: str,
    instructions: Mapping[str, str],
    severity: str = "",
    own_labels: Mapping[str, str] | None = None,
) -> Rule:
    """An alert rule with all that a message needs, and what the relay is to look for."""
    labels = {
        "alert_id": alert.id,
        "severity": severity or alert.severity,
        "service": subject.service,
        "endpoint": subject.endpoint,
    }
    if subject.reason:
        labels["reason"] = subject.reason
    return {
        "alert": alert.alertname,
        "expr": expr,
        "for": duration(alert.lasting) if alert.lasting else "0s",
        "labels": {**labels, **(own_labels or {})},
        "annotations": {
            **for_people(spec, alert, subject, threshold),
            **quoted(for_relay(spec, alert, subject, instructions)),
        },
    }


def for_people(
    spec: Specification, alert: Alert, subject: Subject, threshold: str
) -> dict[str, str]:
    """What people read."""
    texts = {
        "reason_text": alert.reasons.get(subject.reason, ""),
        "value_text": alert.values.get(subject.reason, ""),
        "window": duration(alert.window),
        "lasting": duration(alert.lasting),
        "grace": duration(alert.grace),
        "threshold_text": threshold,
        "limit": threshold,
        "service": subject.service,
        "endpoint": subject.endpoint,
    }
    link = spec.links["runbook"].replace("{anchor}", alert.id.replace(".", ""))
    return {
        "summary": filled(alert.summary, texts),
        "description": filled(alert.description, texts),
        "value": filled(alert.value, texts),
        "threshold": threshold,
        "runbook_url": link,
        "dashboard_url": dashboard_link(spec, alert.dashboard),
    }


def for_relay(
    spec: Specification, alert: Alert, subject: Subject, instructions: Mapping[str, str]
) -> dict[str, str]:
    """What the relay reads and takes out."""
    window = alert.window + alert.lasting + 2 * spec.interval + spec.export
    given = {"window": f"{window:g}", **instructions}
    if subject.trace_service is not None:
        given = {"service": subject.trace_service, "resource": RESOURCE, **given}
    if alert.no_request:
        given["no_request"] = alert.no_request
    return {f"relay_{name}": text for name, text in given.items()}


def dashboard_link(spec: Specification, uid: str) -> str:
    """The address of a dashboard; without its base no channel would make a link of it."""
    return spec.links["dashboard"].replace("{uid}", uid)


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


def own(*names: str) -> str:
    """A selector for series of the alert's own service, in its environment, with these labels."""
    return ", ".join(label(name) for name in (*SERVICE, *names))


RESOURCE = json.dumps(
    {
        service.SERVICE_NAMESPACE: value(NAMESPACE),
        deployment.DEPLOYMENT_ENVIRONMENT_NAME: value(ENVIRONMENT),
    }
)
"""What a trace search must find beside the service's name; the relay leaves out what is empty."""
