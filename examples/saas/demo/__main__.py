"""Run the demo: `python -m examples.saas.demo`; `make demo` builds what it needs first.

Exit code 0 only when every check holds; otherwise the failing part is named.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx

from otel_shim import _semconv

from ..api.people import CUSTOMERS
from . import checks, job_checks, journey_checks, parts, report
from .collector import HELD, read_counters
from .driver import Call
from .jaeger import Jaeger, Trace, wait_for
from .stack import PartError, Stack, running
from .traffic import drive

READY_SECONDS = 60.0
ARRIVAL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Demo:
    """A running stack and how to reach it."""

    stack: Stack
    ports: parts.Ports
    jaeger: Jaeger
    started: float

    def telemetry_url(self) -> str:
        """The Collector's own metrics."""
        return parts.url(self.ports.telemetry, "/metrics")

    def jobs(self) -> dict[str, Trace]:
        """All traces of the jobs, by their id."""
        return {trace.trace_id: trace for trace in self.jaeger.search(parts.JOBS_SERVICE)}

    def metrics(self) -> str:
        """The services' metrics as Prometheus would scrape them from the Collector."""
        return httpx.get(parts.url(self.ports.prometheus, "/metrics"), timeout=10).text

    def say(self, text: str) -> None:
        """A progress line with the seconds since the start."""
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)


def show(lines: Iterable[str]) -> None:
    """Print lines."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Where things are; defaults are what `make demo` prepares."""
    build = parts.ROOT / ".build"
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--binaries", type=Path, default=build / "bin", help="jaeger, otelcol-shim")
    parser.add_argument("--api-env", type=Path, default=build / "envs/api", help="with otel-shim")
    parser.add_argument("--connector-env", type=Path, default=build / "envs/connector")
    parser.add_argument("--out", type=Path, default=build / "demo", help="logs and the database")
    parser.add_argument("--keep", action="store_true", help="leave it running (also KEEP=1)")
    return parser.parse_args(arguments)


def start(places: parts.Places, stack: Stack) -> Demo:
    """Start all programs at once and wait until they serve."""
    started = time.monotonic()
    ports = parts.choose_ports()
    demo = Demo(stack, ports, Jaeger(parts.url(ports.jaeger_query)), started)
    demo.say("starting Jaeger, Collector, connector, calendar server, API and scheduler")
    for make in (parts.jaeger, parts.collector, parts.radicale, parts.gate, parts.connector):
        stack.start(make(places, ports))
    parts.seed(places)
    for make in (parts.api, parts.scheduler):
        stack.start(make(places, ports))
    stack.wait_ready(READY_SECONDS)
    demo.say(f"stack up; logs in {places.out}")
    return demo


def send_traffic(demo: Demo) -> list[Call]:
    """Send all requests; the answers must be as expected before traces are worth a look."""
    calls = asyncio.run(drive(parts.url(demo.ports.api)))
    demo.stack.check_alive()
    organisations = {call.caller.org_id for call in calls} - {None}
    users = {call.caller.user_id for call in calls} - {None}
    demo.say(
        f"{len(calls)} requests of {len(users)} users of {len(organisations)} organisations sent"
    )
    require("api", checks.of_answers(calls))
    return calls


def require(part: str, findings: Sequence[checks.Finding]) -> None:
    """Print findings and fail when one is not ok."""
    show(report.findings(findings))
    bad = [item.what for item in findings if not item.ok]
    if bad:
        raise PartError(part, f"not so: {'; '.join(bad)}")


def await_traces(demo: Demo, calls: Sequence[Call]) -> checks.Evidence:
    """Poll Jaeger until every trace is there and complete."""
    trace_ids = [call.trace_id for call in calls if call.trace_id]
    traces, lack = wait_for(
        lambda: demo.jaeger.by_id(trace_ids),
        lambda found: checks.lacking(calls, found) or still_held(demo),
        ARRIVAL_SECONDS,
    )
    demo.stack.check_alive()
    if lack is not None:
        raise PartError("jaeger", f"after {ARRIVAL_SECONDS:.0f} s still without {lack}")
    demo.say(f"{len(traces)} traces complete in Jaeger")
    return checks.Evidence(calls, traces)


def still_held(demo: Demo) -> str | None:
    """Spans may wait in the processor for identity; Jaeger has not got all before they are out."""
    held = read_counters(demo.telemetry_url()).get(HELD, 0)
    return f"{held:.0f} spans that the identity processor holds" if held else None


def await_jobs(demo: Demo, calls: Sequence[Call]) -> None:
    """Wait until every job did its work for every organisation; then end them, so that counts stay."""
    _, lack = wait_for(
        demo.jobs, lambda found: job_checks.lacking(found, calls), ARRIVAL_SECONDS, settled=False
    )
    demo.stack.check_alive()
    demo.stack.end("scheduler")
    if lack is not None:
        raise PartError("scheduler", f"after {ARRIVAL_SECONDS:.0f} s still without {lack}")
    demo.say("every job ran, and published plans were read back from the calendars")


def search_jobs(demo: Demo, traces: Sequence[Trace]) -> list[checks.Finding]:
    """Search for each job by operation, and for what it did by operation and organisation."""
    show(["", "Jobs found in Jaeger by operation, and by operation and organisation:"])
    contradictions: list[str] = []
    for name, part in job_checks.JOBS.items():
        expected = {run.trace_id for run in job_checks.runs(traces, name)}
        found = demo.jaeger.search(parts.JOBS_SERVICE, {_semconv.SAAS_OPERATION: name})
        each = search_parts(demo, part) if part else {}
        show(report.job(name, found, {org: len(ids) for org, ids in each.items()}, demo.jaeger))
        if {trace.trace_id for trace in found} != expected:
            contradictions.append(f"{name}: {len(found)} found, {len(expected)} ran")
        contradictions += [
            f"{part} of {org}: {len(ids)} found, {len(ids - expected)} not of {name}"
            for org, ids in each.items()
            if not ids or not ids <= expected
        ]
    what = "search by operation, and by operation and organisation, finds the jobs and no others"
    return [checks.Finding(what, len(job_checks.JOBS), tuple(contradictions))]


def search_parts(demo: Demo, part: str) -> dict[str, set[str]]:
    """The traces in which a job did its work for each organisation."""
    return {
        customer.id: {
            trace.trace_id
            for trace in demo.jaeger.search(
                parts.JOBS_SERVICE,
                {_semconv.SAAS_ORG_ID: customer.id, _semconv.SAAS_OPERATION: part},
            )
        }
        for customer in CUSTOMERS
    }


def show_job(demo: Demo, traces: Sequence[Trace]) -> None:
    """One run as a tree, with what of the GDPR applies to it."""
    found = job_checks.runs(traces, job_checks.RETENTION)
    run = min(found, key=lambda span: span.start_us)
    trace = next(trace for trace in traces if trace.trace_id == run.trace_id)
    references = ", ".join(f"{name}={run.tags.get(name)}" for name in job_checks.REFERENCES)
    show(["", f"{run.name}, {references}: {demo.jaeger.api(run.trace_id)}", *report.tree(trace)])


def pick(evidence: checks.Evidence) -> tuple[Call, Trace]:
    """The request to show: a published plan, because it crosses both services."""
    for call, trace in evidence.pairs():
        if call.step.path.endswith("/publish") and call.status == httpx.codes.OK:
            return call, trace
    raise PartError("api", "no plan was published")


def search(demo: Demo, evidence: checks.Evidence) -> list[checks.Finding]:
    """Search by request, organisation and user as an operator would, and print what is found."""
    shown, trace = pick(evidence)
    user_hash = next(
        (s.tags[checks.USER_HASH] for s in trace.spans if checks.USER_HASH in s.tags), ""
    )
    same_org = [call for call in evidence.calls if call.caller.org_id == shown.caller.org_id]
    same_user = [call for call in same_org if call.caller.user_id == shown.caller.user_id]
    show(["", "Found in Jaeger:"])
    findings = [
        ask(demo, "request", _semconv.SAAS_REQUEST_ID, str(shown.request_id), [shown]),
        ask(demo, "organisation", _semconv.SAAS_ORG_ID, str(shown.caller.org_id), same_org),
        ask(demo, "user", checks.USER_HASH, str(user_hash), same_user),
    ]
    show(["", f"{shown}, request {shown.request_id}: {demo.jaeger.api(trace.trace_id)}"])
    show(report.tree(trace))
    return findings


def ask(demo: Demo, who: str, name: str, value: str, expected: Sequence[Call]) -> checks.Finding:
    """One search; it must find the traces of these calls and no others."""
    traces = demo.jaeger.search(parts.API_SERVICE, {name: value})
    show(report.found(f"{who} {name}={value}", traces, demo.jaeger))
    difference = {trace.trace_id for trace in traces} ^ {str(call.trace_id) for call in expected}
    what = f"search by {who} finds all its traces and no others"
    return checks.Finding(
        what, len(expected), tuple(f"trace {item}" for item in sorted(difference))
    )


def count(demo: Demo, evidence: checks.Evidence) -> list[checks.Finding]:
    """Print how every span that arrived came by its identity; none may be without a reason."""
    services = (parts.API_SERVICE, parts.CONNECTOR_SERVICE, parts.JOBS_SERVICE)
    traces = {t.trace_id: t for service in services for t in demo.jaeger.search(service)}
    rows = report.counts(traces.values(), evidence)
    show(["", "Spans:", *report.span_table(rows)])
    counters = read_counters(demo.telemetry_url())
    show(["", "The identity processor's own counters:", *report.table(counters)])
    unexplained = tuple(f"{number} spans" for name, number in rows.items() if "UNEXPLAINED" in name)
    return [
        checks.Finding("spans without identity have a known reason", rows.total(), unexplained),
        *checks.of_counts(traces.values(), counters),
    ]


def closing(demo: Demo, keep: bool) -> list[str]:
    """What to try next."""
    if not keep:
        return ["", "Try next: `make demo KEEP=1` leaves all of it running, for your own requests."]
    traces = f"{demo.jaeger.url}/api/traces?service={parts.API_SERVICE}"
    tag = json.dumps({_semconv.SAAS_ORG_ID: CUSTOMERS[0].id})
    return [
        "",
        "Running; Ctrl-C stops everything. Try next:",
        f"  API         {parts.url(demo.ports.api, '/docs')} (requests: examples/saas/README.md)",
        f"  Jaeger      {demo.jaeger.url}/search",
        f"  by org      curl -G '{traces}' --data-urlencode 'tags={tag}'",
        f"  jobs        {parts.url(demo.ports.scheduler, '/health')} (when each is due)",
        f"  calendars   {parts.url(demo.ports.radicale)} ({parts.CALENDAR_USER}, {parts.CALENDAR_PASSWORD})",
        f"  faults      echo 'worker stop' > {demo.stack.out / parts.FAULTS} (all: examples/saas/README.md)",
        f"  metrics     {parts.url(demo.ports.prometheus, '/metrics')}",
        f"  Collector   {demo.telemetry_url()}",
    ]


def examine(demo: Demo) -> None:
    """Send, find, check; `PartError` when something is not so."""
    calls = send_traffic(demo)
    await_jobs(demo, calls)
    evidence = await_traces(demo, calls)
    jobs = [*demo.jobs().values()]
    findings = [
        *search(demo, evidence),
        *search_jobs(demo, jobs),
        *count(demo, evidence),
        *checks.of_traces(evidence),
        *journey_checks.of_journeys(evidence),
        *job_checks.of_jobs(jobs),
        *job_checks.of_deliveries(evidence, jobs),
        *job_checks.of_metrics(demo.metrics()),
    ]
    show_job(demo, jobs)
    show(["", "Checks:"])
    require("identity", findings)


def named(demo: Demo) -> None:
    """Examine; an HTTP error becomes a `PartError` with the name of the part that did not answer."""
    try:
        examine(demo)
    except httpx.HTTPError as error:
        demo.stack.check_alive()
        url = error.request.url
        name = parts.name_of(demo.ports, url.port)
        raise demo.stack.failed(name, f"{error.request.method} {url.path}: {error!r}") from error


def outcome(demo: Demo) -> int:
    """Examine and turn the result into an exit code, so that a failed stack can be looked at."""
    try:
        named(demo)
    except PartError as failure:
        demo.say(f"FAILED: {failure}")
        return 1
    demo.say("every check holds")
    return 0


def interrupt(number: int, frame: FrameType | None) -> None:
    """Any way to end the demo stops what it started; a shell starts background jobs without SIGINT."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    options = parse_arguments(arguments)
    keep = options.keep or os.environ.get("KEEP", "") not in ("", "0")
    chosen = (options.binaries, options.api_env, options.connector_env, options.out)
    places = parts.Places(*(path.absolute() for path in chosen))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        with running(places.out) as stack:
            demo = start(places, stack)
            code = outcome(demo)
            show(closing(demo, keep))
            if keep:
                stack.end("scheduler")
                stack.start(parts.scheduler(places, demo.ports))
                signal.pause()
            return code
    except PartError as failure:
        print(f"demo failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
