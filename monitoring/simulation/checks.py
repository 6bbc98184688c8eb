"""What a message must say, and what the trace it names must show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from opentelemetry.semconv.attributes import http_attributes as http

from examples.saas.demo.jaeger import Span, Trace
from monitoring import alerting
from monitoring.simulation.parts import ENVIRONMENT
from monitoring.simulation.receivers import Received
from otel_shim import _semconv as semconv

TRACE_ID = re.compile(r"[0-9a-f]{32}")
FIELDS = (
    *("service", "namespace", "environment", "endpoint", "severity", "request_id", "trace_id"),
    *("runbook", "dashboard", "value", "threshold"),
)
EXEMPLARS = "exemplars"
"""What the relay says found a trace, where it was not a search."""
UNSENT_SECONDS = 3.0
SLOW_US = 200_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault, the alert that must follow, and how its trace shows it.

    `fault` is a line of the sample's fault switch; empty: the process of the jobs is killed. `endpoints`
    is a pattern of what it breaks, `reason` one of why it fires: another reason is not this fault. `shows` says what a trace lacks of it, by the endpoint and by when the
    fault was switched on.
    """

    alert_id: str
    endpoints: str
    fault: str
    severities: tuple[str, ...]
    shows: Callable[[Trace, str, float], str | None]
    threshold: str = ".+"
    has_request: bool = False
    has_trace: bool = True
    reason: str = ".*"

    @property
    def name(self) -> str:
        """For people."""
        reason = "" if self.reason == ".*" else f" ({self.reason})"
        return f"{self.alert_id}{reason} of {self.endpoints}"

    def is_about(self, message: Received) -> bool:
        """Whether a message is of this alert, at what the fault breaks."""
        said = {"endpoint": self.endpoints, "reason": self.reason}
        fits = (re.fullmatch(wanted, message.fields.get(name, "")) for name, wanted in said.items())
        return message.alert_id == self.alert_id and all(fits)


def failed_request(trace: Trace, endpoint: str, since: float) -> str | None:
    """What a trace of a 5xx lacks."""
    if not any(s.tags.get(http.HTTP_RESPONSE_STATUS_CODE) == 500 for s in _at(trace, endpoint)):
        return f"no {endpoint} with status 500"
    failed = (_failed(span) and "db.system.name" in span.tags for span in trace.spans)
    return None if any(failed) else "no failed statement"


def unrouted_request(trace: Trace, endpoint: str, since: float) -> str | None:
    """What a trace of a 5xx before routing lacks."""
    servers = [s for s in trace.spans if s.tags.get("span.kind") == "server"]
    failed = (
        s.tags.get(http.HTTP_RESPONSE_STATUS_CODE) == 500 and http.HTTP_ROUTE not in s.tags
        for s in servers
    )
    return None if any(failed) else "no request with status 500 and without a route"


def slow_request(trace: Trace, endpoint: str, since: float) -> str | None:
    """What a trace of a slow request, or of a stream that was slow to begin, lacks.

    One that began before the fault was slow by itself: it is among those that the alert is about, too.
    """
    slow = [span for span in trace.spans if span.duration_us > SLOW_US]
    found = [span for span in _at(trace, endpoint) if span in slow]
    if not found:
        return f"no {endpoint} above 200 ms"
    before = found[0].start_us < since * 1e6
    return None if before or any("db.system.name" in s.tags for s in slow) else "no slow statement"


def failed_job(trace: Trace, endpoint: str, since: float) -> str | None:
    """What a trace of a failed job lacks."""
    return None if any(_failed(span) for span in _runs(trace, endpoint)) else "no failed job"


def run_of_job(trace: Trace, endpoint: str, since: float) -> str | None:
    """What a trace of a job's last run lacks."""
    return None if _runs(trace, endpoint) else f"no run of {endpoint}"


def last_run_of_job(trace: Trace, endpoint: str, since: float) -> str | None:
    """What a trace of a killed process's run lacks; spans that it had not sent yet died with it."""
    return None if _lost(trace, since) else run_of_job(trace, endpoint, since)


def last_delivery(trace: Trace, endpoint: str, since: float) -> str | None:
    """What a trace of the item that a killed process took last lacks, likewise."""
    return None if _lost(trace, since) else delivery(trace, endpoint, since)


def _lost(trace: Trace, since: float) -> bool:
    """Whether a process that was killed then may not have sent all of a trace."""
    ended = max(span.start_us + span.duration_us for span in trace.spans)
    return ended > (since - UNSENT_SECONDS) * 1e6


def old_copy(trace: Trace, endpoint: str, since: float) -> str | None:
    """What a trace of a verification that passed, and whose copy is too old, lacks."""
    well = (span for span in _runs(trace, endpoint) if not _failed(span))
    told = any(semconv.SAAS_JOB_RECOVERY_POINT in span.tags for span in well)
    return None if told else "no verification that says of when its copy is"


def failed_synchronisation(trace: Trace, endpoint: str, since: float) -> str | None:
    """What a trace of a calendar that could not be synchronised lacks."""
    runs = _runs(trace, semconv.OPERATION_CALENDAR_SYNCHRONIZE)
    failed = (_failed(span) and semconv.SAAS_CALENDAR_PROVIDER in span.tags for span in runs)
    return None if any(failed) else "no failed synchronisation"


def delivery(trace: Trace, endpoint: str, since: float) -> str | None:
    """What a trace of an item of the queue lacks."""
    return None if _runs(trace, "calendar.deliver") else "no delivery to a calendar"


def _at(trace: Trace, endpoint: str) -> Iterator[Span]:
    """The requests to an endpoint."""
    for span in trace.spans:
        said = (span.tags.get(name) for name in (http.HTTP_REQUEST_METHOD, http.HTTP_ROUTE))
        if span.tags.get("span.kind") == "server" and " ".join(map(str, said)) == endpoint:
            yield span


def _runs(trace: Trace, operation: str) -> list[Span]:
    return [s for s in trace.spans if s.tags.get(semconv.SAAS_OPERATION) == operation]


def _failed(span: Span) -> bool:
    return span.tags.get("error") in (True, "true") or span.tags.get("otel.status_code") == "ERROR"


PAGE, NOTICE, EITHER = ("critical",), ("warning",), ("critical", "warning")
SWITCHED = (
    # The restore drill reads the table, too, but not one organisation's part of it.
    Scenario(
        "api.5xx",
        "GET /billing/usage",
        "fail WHERE usage.org_id",
        PAGE,
        failed_request,
        "5%",
        True,
    ),
    Scenario(
        "api.5xx", alerting.UNROUTED, "middleware fail /auth/me", PAGE, unrouted_request, "5%", True
    ),
    Scenario(
        "api.latency",
        "GET /planning/plans",
        'slow 0.3 FROM "plan"',
        NOTICE,
        slow_request,
        "200ms",
        True,
    ),
    # With the line above more than half a second passes before the first byte.
    Scenario(
        "api.latency",
        r"GET /planning/plans/\{plan_id\}/export\.csv",
        'slow 0.4 WHERE "plan".id',
        NOTICE,
        slow_request,
        "500ms",
        True,
    ),
    Scenario(
        "audit.job.failure",
        "audit.retention.job",
        "job fail audit.retention.job",
        PAGE,
        failed_job,
    ),
    # One item in six seconds is done, and three arrive: the queue grows, and its oldest item waits.
    Scenario("calendar.queue", "calendar.sync", "worker slow 6", PAGE, delivery, reason="waiting"),
    Scenario(
        "calendar.queue", "calendar.sync", "worker slow 6", NOTICE, delivery, reason="saturated"
    ),
    Scenario(
        "calendar.delay",
        "calendar.synchronize caldav",
        "calendar down",
        PAGE,
        failed_synchronisation,
    ),
    Scenario(
        "job.late",
        "privacy.rollup",
        "job fail privacy.rollup",
        EITHER,
        failed_job,
        reason="no_success",
    ),
    Scenario(
        "job.late",
        "material.import",
        "job hang material.import",
        EITHER,
        run_of_job,
        has_trace=False,
        reason="overrun",
    ),
    # No new copy is made, and verification passes on the last one.
    Scenario(
        "backup.rpo",
        "backup.verify",
        "job fail backup.create",
        PAGE,
        old_copy,
        reason="recovery_point",
    ),
    # Four hours are 3.3 seconds here.
    Scenario(
        "backup.rto",
        "backup.restore_drill",
        "job slow 3.4 backup.restore_drill",
        NOTICE,
        run_of_job,
    ),
)
KILLED = Scenario("job.missed", ".*", "", EITHER, last_run_of_job)
# The worker of the queue dies with the jobs.
UNMANNED = Scenario("calendar.queue", "calendar.sync", "", PAGE, last_delivery, reason="no_worker")
SCENARIOS = (*SWITCHED, KILLED, UNMANNED)


def of_any(message: Received) -> Iterator[str]:
    """What any message lacks, also of an alert that no fault explains."""
    fields = message.fields
    yield from (f"no {name}" for name in FIELDS if not fields.get(name))
    if fields.get("environment") != ENVIRONMENT:
        yield f"environment {fields.get('environment')}"
    if f"#{message.alert_id.replace('.', '')}" not in fields.get("runbook", ""):
        yield f"runbook: {fields.get('runbook')}"
    for name in ("runbook", "dashboard"):
        address = fields.get(name, "")
        if not address.startswith("http") or address not in fields["links"]:
            yield f"no link to its {name}"


def of_message(message: Received, scenario: Scenario, page: Callable[[str], str]) -> Iterator[str]:
    """What a message about the fault lacks; `page` gives the address of a trace."""
    fields = message.fields
    if fields.get("severity") not in scenario.severities:
        yield f"severity {fields.get('severity')}"
    if re.fullmatch(scenario.threshold, fields.get("threshold", "")) is None:
        yield f"threshold {fields.get('threshold')}"
    if fields.get("request_id", "none").startswith("none") and scenario.has_request:
        yield f"request id: {fields.get('request_id')}"
    if scenario.has_trace:
        yield from _of_trace_link(fields.get("trace_id", ""), message, page)


def _of_trace_link(trace_id: str, message: Received, page: Callable[[str], str]) -> Iterator[str]:
    if TRACE_ID.fullmatch(trace_id) is None:
        yield f"trace id: {trace_id}"
    elif message.fields.get("trace_url") != page(trace_id):
        yield f"trace link: {message.fields.get('trace_url')}"
    elif page(trace_id) not in message.fields["links"]:
        yield "no link to its trace"


def of_trace(
    message: Received, scenario: Scenario, trace: Trace | None, since: float
) -> Iterator[str]:
    """What the trace that a message names lacks."""
    if trace is None:
        yield f"trace {message.fields.get('trace_id')} is not in Jaeger"
        return
    lacking = scenario.shows(trace, message.fields.get("endpoint", ""), since)
    if lacking is not None:
        yield f"trace {trace.trace_id}: {lacking}"
    requests = {span.tags.get(semconv.SAAS_REQUEST_ID) for span in trace.spans}
    if scenario.has_request and message.fields.get("request_id") not in requests:
        yield f"trace {trace.trace_id} is of another request"
