"""What a message must say, and what the trace it names must show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from opentelemetry.semconv.attributes import http_attributes as http

from examples.saas.demo.jaeger import Span, Trace
from monitoring.simulation.receivers import Received
from otel_shim import _semconv as semconv

TRACE_ID = re.compile(r"[0-9a-f]{32}")
FIELDS = ("service", "endpoint", "severity", "request_id", "trace_id", "runbook", "value")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault, the alert that must follow, and how its trace shows it.

    `fault` is a line of the sample's fault switch; empty: the process of the jobs is killed. `endpoints`
    is a pattern of what it breaks.
    """

    alert_id: str
    fault: str
    severities: tuple[str, ...]
    shows: Callable[[Trace, str], str | None]
    endpoints: str = ".*"
    has_request: bool = False
    has_trace: bool = True


def failed_request(trace: Trace, endpoint: str) -> str | None:
    """What a trace of a 5xx lacks."""
    servers = [s for s in trace.spans if s.tags.get(http.HTTP_RESPONSE_STATUS_CODE) == 500]
    if not servers:
        return "no span with status 500"
    return (
        None
        if any(_failed(s) and "db.system.name" in s.tags for s in trace.spans)
        else ("no failed statement")
    )


def slow_request(trace: Trace, endpoint: str) -> str | None:
    """What a trace of a slow request lacks."""
    slow = [span for span in trace.spans if span.duration_us > 200_000]
    if not any(http.HTTP_ROUTE in span.tags for span in slow):
        return "no request above 200 ms"
    return None if any("db.system.name" in s.tags for s in slow) else "no slow statement"


def failed_job(trace: Trace, endpoint: str) -> str | None:
    """What a trace of a failed job lacks."""
    return None if any(_failed(span) for span in _runs(trace, endpoint)) else "no failed job"


def run_of_job(trace: Trace, endpoint: str) -> str | None:
    """What a trace of a job's last run lacks."""
    return None if _runs(trace, endpoint) else f"no run of {endpoint}"


def delivery(trace: Trace, endpoint: str) -> str | None:
    """What a trace of an item of the queue lacks."""
    return None if _runs(trace, "calendar.deliver") else "no delivery to a calendar"


def _runs(trace: Trace, operation: str) -> list[Span]:
    return [s for s in trace.spans if s.tags.get(semconv.SAAS_OPERATION) == operation]


def _failed(span: Span) -> bool:
    return span.tags.get("error") in (True, "true") or span.tags.get("otel.status_code") == "ERROR"


SWITCHED = (
    Scenario(
        "api.5xx",
        "fail FROM usage",
        ("critical",),
        failed_request,
        "GET /billing/usage",
        has_request=True,
    ),
    Scenario(
        "api.latency",
        'slow 0.3 FROM "plan"',
        ("warning",),
        slow_request,
        "GET /planning/.*",
        has_request=True,
    ),
    Scenario("audit.job.failure", "job fail audit.retention.job", ("critical",), failed_job),
    Scenario("calendar.queue", "worker stop", ("critical", "warning"), delivery),
    Scenario(
        "job.late",
        "job hang material.import",
        ("critical", "warning"),
        run_of_job,
        "material.import",
        has_trace=False,
    ),
    Scenario("backup.rpo", "backup corrupt", ("critical",), failed_job),
)
KILLED = Scenario("job.missed", "", ("critical", "warning"), run_of_job)
SCENARIOS = (*SWITCHED, KILLED)


def of_message(message: Received, scenario: Scenario) -> Iterator[str]:
    """What a message lacks."""
    fields = message.fields
    for name in FIELDS:
        if not fields.get(name):
            yield f"no {name}"
    if fields.get("severity") not in scenario.severities:
        yield f"severity {fields.get('severity')}"
    if TRACE_ID.fullmatch(fields.get("trace_id", "")) is None and scenario.has_trace:
        yield f"trace id: {fields.get('trace_id')}"
    if fields.get("request_id", "none").startswith("none") and scenario.has_request:
        yield f"request id: {fields.get('request_id')}"
    if f"#{scenario.alert_id.replace('.', '')}" not in fields.get("runbook", ""):
        yield f"runbook: {fields.get('runbook')}"


def of_trace(message: Received, scenario: Scenario, trace: Trace | None) -> Iterator[str]:
    """What the trace that a message names lacks."""
    if trace is None and not scenario.has_trace and message.fields["trace_id"].startswith("none"):
        return
    if trace is None:
        yield f"trace {message.fields.get('trace_id')} is not in Jaeger"
        return
    lacking = scenario.shows(trace, message.fields.get("endpoint", ""))
    if lacking is not None:
        yield f"trace {trace.trace_id}: {lacking}"
    requests = {span.tags.get(semconv.SAAS_REQUEST_ID) for span in trace.spans}
    if scenario.has_request and message.fields.get("request_id") not in requests:
        yield f"trace {trace.trace_id} is of another request"
