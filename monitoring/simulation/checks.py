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
    """A fault, the alert that must follow, and how its trace shows it."""

    alert_id: str
    fault: str
    endpoint: str
    severity: str
    shows: Callable[[Trace], str | None]
    has_request: bool = True


def failed_request(trace: Trace) -> str | None:
    """What a trace of a 5xx lacks."""
    servers = [s for s in trace.spans if s.tags.get(http.HTTP_RESPONSE_STATUS_CODE) == 500]
    if not servers:
        return "no span with status 500"
    return (
        None
        if any(_failed(s) and "db.system.name" in s.tags for s in trace.spans)
        else ("no failed statement")
    )


def slow_request(trace: Trace) -> str | None:
    """What a trace of a slow request lacks."""
    slow = [span for span in trace.spans if span.duration_us > 200_000]
    if not any(http.HTTP_ROUTE in span.tags for span in slow):
        return "no request above 200 ms"
    return None if any("db.system.name" in s.tags for s in slow) else "no slow statement"


def failed_job(trace: Trace) -> str | None:
    """What a trace of a failed job lacks."""
    jobs = [s for s in trace.spans if s.tags.get(semconv.SAAS_OPERATION) == "audit.retention.job"]
    return None if any(_failed(span) for span in jobs) else "no failed job"


def _failed(span: Span) -> bool:
    return span.tags.get("error") in (True, "true") or span.tags.get("otel.status_code") == "ERROR"


SCENARIOS = (
    Scenario("api.5xx", "fail FROM usage", "GET /billing/usage", "critical", failed_request),
    Scenario("api.latency", 'slow 0.3 FROM "plan"', "GET /planning/plans", "warning", slow_request),
    Scenario(
        "audit.job.failure",
        "fail DELETE FROM audit_note",
        "audit.retention.job",
        "critical",
        failed_job,
        has_request=False,
    ),
)


def of_message(message: Received, scenario: Scenario) -> Iterator[str]:
    """What a message lacks."""
    fields = message.fields
    for name in FIELDS:
        if not fields.get(name):
            yield f"no {name}"
    if fields.get("severity") != scenario.severity:
        yield f"severity {fields.get('severity')}"
    if not TRACE_ID.fullmatch(fields.get("trace_id", "")):
        yield f"trace id: {fields.get('trace_id')}"
    if fields.get("request_id", "none").startswith("none") and scenario.has_request:
        yield f"request id: {fields.get('request_id')}"
    if f"#{scenario.alert_id.replace('.', '')}" not in fields.get("runbook", ""):
        yield f"runbook: {fields.get('runbook')}"


def of_trace(message: Received, scenario: Scenario, trace: Trace | None) -> Iterator[str]:
    """What the trace that a message names lacks."""
    if trace is None:
        yield f"trace {message.fields.get('trace_id')} is not in Jaeger"
        return
    lacking = scenario.shows(trace)
    if lacking is not None:
        yield f"trace {trace.trace_id}: {lacking}"
    requests = {span.tags.get(semconv.SAAS_REQUEST_ID) for span in trace.spans}
    if scenario.has_request and message.fields.get("request_id") not in requests:
        yield f"trace {trace.trace_id} is of another request"
