"""200 requests of many people at once, of every kind: nobody's identity is missing, nobody's is another's."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from examples.saas.demo.jaeger import Jaeger, Span, Trace, wait_for
from examples.saas.demo.stack import running

from . import environments, expected, server, traffic
from .apps.people import PEOPLE
from .traffic import Answered

REQUESTS = 200
ARRIVAL_SECONDS = 45.0
CALLER_SPAN = traffic.TRACE_PARENT.split("-")[2]
SETUPS = {
    "one-worker": (environments.LOCKED, 1),
    "two-workers": (environments.LOCKED, 2),
    "sqlalchemy-2.0": (environments.SQLALCHEMY_2_0, 1),
    "contrib-fastapi": (environments.CONTRIB_FASTAPI, 1),
}


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    service: str
    jaeger: Jaeger
    answers: list[Answered]
    traces: dict[str, Trace]
    log: str
    records: list[LogRecord]
    asked: list[dict[str, str]]

    def lines(self) -> list[dict[str, Any]]:
        """The application's output, parsed."""
        return [json.loads(line) for line in self.log.splitlines()]

    def spans(self) -> Iterator[tuple[Answered, Span]]:
        """Every span with the request it belongs to."""
        for answered in self.answers:
            for span in self.traces[answered.trace_id].spans:
                yield answered, span

    def counts(self, kind: traffic.Kind) -> Counter[str]:
        """The spans that a request must leave."""
        return +Counter(server=1, query=kind.queries, call=kind.calls)

    def identity(self, answered: Answered) -> expected.Identity:
        """Who must be on all that a request left."""
        return expected.identity(answered, server.SECRET)


@pytest.fixture(scope="module", params=SETUPS)
def outcome(
    request: pytest.FixtureRequest,
    backend: server.Backend,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Outcome]:
    """Run the help desk under the launcher, send everything at once, wait until all has arrived."""
    environment, workers = SETUPS[request.param]
    out = tmp_path_factory.mktemp(request.param)
    environments.make(environment)
    server.fill_database(environment, out)
    service = f"desk-{request.param}"
    with server.partner() as partner, running(out) as stack:
        env = server.telemetry(service, backend.otlp) | {"DESK_PARTNER": partner.url}
        desk = server.start(stack, environment, env, workers)
        answers = traffic.send_all(desk.url, traffic.plans(REQUESTS, service))
        traces = _arrived(backend, answers)
        desk.stop(seconds=20)
        records = _records(backend, service, desk.log)
        yield Outcome(service, backend.jaeger, answers, traces, desk.log, records, partner.asked)


def _arrived(backend: server.Backend, answers: list[Answered]) -> dict[str, Trace]:
    """Wait until every trace has the spans it must have, and no more arrive."""

    def lacking(traces: dict[str, Trace]) -> str | None:
        for answered in answers:
            trace = traces.get(answered.trace_id)
            if trace is None or len(trace.spans) < _span_count(answered):
                return f"{answered} has {len(trace.spans) if trace else 0} spans"
        return None

    def ask() -> dict[str, Trace]:
        return backend.jaeger.by_id(answered.trace_id for answered in answers)

    traces, lack = wait_for(ask, lacking, ARRIVAL_SECONDS)
    assert lack is None, lack
    return traces


def _records(backend: server.Backend, service: str, log: str) -> list[LogRecord]:
    """Wait until the Collector passed on each line that the application's own logger wrote."""
    written = len(server.lines_with(log, '"logger": "desk"'))

    def passed_on() -> bool:
        records = backend.logs(service)
        return sum("marker" in server.texts(record.attributes) for record in records) >= written

    server.eventually(passed_on, ARRIVAL_SECONDS, f"{written} records of {service} went through")
    return backend.logs(service)


def _span_count(answered: Answered) -> int:
    return 1 + answered.plan.kind.queries + answered.plan.kind.calls


def _who(tags: Any) -> expected.Identity:
    return {key: tags[key] for key in expected.KEYS if key in tags}


def _kind(span: Span) -> str:
    kind = span.tags["span.kind"]
    if kind == "client":
        return "query" if "db.system.name" in span.tags else "call"
    return "server" if kind == "server" else "inner"


def test_the_run_covers_many_people_and_every_kind(outcome: Outcome) -> None:
    """At least 40 people of 10 organisations asked at once, over every kind of request."""
    people = {answered.plan.person for answered in outcome.answers if answered.plan.person}
    assert len(people) >= 40
    assert len({person.org_id for person in people}) >= 10
    assert {answered.plan.kind for answered in outcome.answers} == set(traffic.KINDS)


def test_the_application_answers_as_it_would_without_telemetry(outcome: Outcome) -> None:
    """Every status is the one that the application's code gives."""
    wrong = [
        (str(a.plan.kind), a.status) for a in outcome.answers if a.status != a.plan.kind.status
    ]
    assert not wrong


def test_every_response_names_request_and_trace(outcome: Outcome) -> None:
    """X-Request-Id is the caller's where it sent one, else new; X-Trace-Id is the trace's in Jaeger."""
    for answered in outcome.answers:
        sent = answered.plan.request_id
        assert (
            answered.request_id == sent
            if sent
            else re.fullmatch(
                r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                answered.request_id,
            )
        )
        if answered.plan.trace_id:
            assert answered.trace_id == answered.plan.trace_id
    assert len({answered.request_id for answered in outcome.answers}) == REQUESTS
    assert len({answered.trace_id for answered in outcome.answers}) == REQUESTS
    assert outcome.traces.keys() == {answered.trace_id for answered in outcome.answers}


def test_a_request_is_one_server_span_and_one_span_for_each_query_and_call(
    outcome: Outcome,
) -> None:
    """Nothing is missing, doubled or left over; every span hangs below the server's."""
    for answered in outcome.answers:
        kind = answered.plan.kind
        trace = outcome.traces[answered.trace_id]
        found = Counter(_kind(span) for span in trace.spans)
        assert found == outcome.counts(kind), (kind, trace)
        (root,) = (span for span in trace.spans if _kind(span) == "server")
        assert root.parent_id == (CALLER_SPAN if answered.plan.trace_id else None)
        assert {span.parent_id for span in trace.spans if span is not root} <= {root.span_id}


def test_the_server_span_says_what_was_asked_and_answered(outcome: Outcome) -> None:
    """Name, route, status, operation and error code are on it; an untrusted caller makes it an edge."""
    for answered, span in outcome.spans():
        kind = answered.plan.kind
        if _kind(span) != "server":
            continue
        assert span.tags["http.response.status_code"] == kind.status
        assert span.tags["saas.operation"] == "http.request"
        assert span.tags.get("saas.error.code") == kind.error
        assert span.tags.get("saas.identity.edge") == (True if answered.plan.trace_id else None)
        if route := kind.route:
            assert span.tags["http.route"] == route
            assert span.name == f"{kind.method} {route}"


def test_every_span_carries_exactly_its_own_identity(outcome: Outcome) -> None:
    """Organisation, pseudonym, actor and request are the requester's: its own or from an ancestor."""
    wrong = [
        (str(answered.plan.kind), span.name, _who(span.tags), outcome.identity(answered))
        for answered, span in outcome.spans()
        if _who(span.tags) != outcome.identity(answered)
    ]
    assert not wrong


def test_only_spans_that_ended_before_authentication_are_completed(outcome: Outcome) -> None:
    """What the Collector completes, from the server span, is at most the queries of authentication."""
    completed: dict[str, list[Span]] = defaultdict(list)
    for answered, span in outcome.spans():
        if "saas.identity.origin" in span.tags:
            assert span.tags["saas.identity.origin"] == "ancestor"
            assert _kind(span) == "query"
            completed[answered.trace_id].append(span)
    for answered in outcome.answers:
        assert len(completed[answered.trace_id]) <= answered.plan.kind.late, answered


def test_a_trace_is_found_by_request_organisation_and_user(outcome: Outcome) -> None:
    """A search in Jaeger for one of them gives these traces and no other."""
    by_tag: dict[tuple[str, str], set[str]] = defaultdict(set)
    for answered in outcome.answers:
        for key, value in outcome.identity(answered).items():
            by_tag[key, value].add(answered.trace_id)
    samples = {"saas.org.id": 1, "user.hash": 6, "saas.request.id": 25}
    for key, value in (
        tag for name, nth in samples.items() for tag in [t for t in by_tag if t[0] == name][::nth]
    ):
        found = outcome.jaeger.search(outcome.service, {key: value})
        assert {trace.trace_id for trace in found} == by_tag[key, value], (key, value)


def test_every_line_on_the_console_is_json(outcome: Outcome) -> None:
    """The application's and the server's lines alike, on standard output and standard error."""
    for line in outcome.log.splitlines():
        fields = json.loads(line)
        assert {"timestamp", "severity", "logger", "message"} <= fields.keys()


def test_every_log_line_belongs_to_its_own_request(outcome: Outcome) -> None:
    """Trace, request and identity on a line are those of the request that wrote it."""
    by_marker = {answered.plan.marker: answered for answered in outcome.answers}
    seen: Counter[str] = Counter()
    for line in outcome.lines():
        answered = by_marker.get(line.get("marker", ""))
        if answered is None:
            continue
        seen[answered.plan.marker] += 1
        whole = outcome.identity(answered)
        found = _who(line)
        assert line["trace_id"] == answered.trace_id
        assert found["saas.request.id"] == answered.request_id
        assert found.items() <= whole.items()
        if line["message"] != "received":
            assert found == whole, line
            route = answered.plan.kind.route
            assert route is None or line["http.route"] == route
    for answered in outcome.answers:
        assert seen[answered.plan.marker] == 1 + answered.plan.kind.notes, answered


def test_the_exported_record_of_each_line_says_the_same(outcome: Outcome) -> None:
    """Through the Collector go the lines that the console shows, with trace and identity, and no more."""

    def written(message: str, trace_id: str, fields: Mapping[str, Any]) -> tuple[Any, ...]:
        return message, trace_id, fields["marker"], fields.get("http.route"), *_who(fields).items()

    shown = Counter(
        written(line["message"], line["trace_id"], line)
        for line in outcome.lines()
        if line["logger"] == "desk"
    )
    exported = Counter(
        written(record.body.string_value, record.trace_id.hex(), attributes)
        for record in outcome.records
        if "marker" in (attributes := server.texts(record.attributes))
    )
    assert exported == shown


def test_the_servers_own_lines_are_correlated_too(outcome: Outcome) -> None:
    """The access line of each request and the error line of each unhandled error carry its identity."""
    by_trace = {answered.trace_id: answered for answered in outcome.answers}
    seen: dict[str, Counter[str]] = {"uvicorn.access": Counter(), "uvicorn.error": Counter()}
    for line in outcome.lines():
        answered = by_trace.get(line.get("trace_id", ""))
        if answered is None or line["logger"] not in seen:
            continue
        assert _who(line) == outcome.identity(answered), line
        seen[line["logger"]][answered.trace_id] += 1
        if line["logger"] == "uvicorn.error":
            assert line["exception.type"] == line["saas.error.code"] == "RuntimeError"
    assert seen["uvicorn.access"] == Counter(by_trace.keys())
    broken = [a.trace_id for a in outcome.answers if a.plan.kind.status == 500]
    assert seen["uvicorn.error"] == Counter(broken)


def test_nothing_names_a_person_in_clear(outcome: Outcome) -> None:
    """No id, name, mail address or token of anybody is on a span, in the output or in an exported record."""
    spans = "\n".join(f"{span.name} {span.tags}" for _, span in outcome.spans())
    records = "\n".join(str(record) for record in outcome.records)
    for person in PEOPLE:
        for secret in expected.secrets_of(person):
            assert secret not in spans
            assert secret not in outcome.log
            assert secret not in records


def test_another_companys_server_gets_the_trace_and_nobodys_identity(outcome: Outcome) -> None:
    """Outgoing calls carry `traceparent`, and neither baggage nor anything that says who."""
    calls = sum(answered.plan.kind.calls for answered in outcome.answers)
    assert len(outcome.asked) == calls
    traces = Counter(a.trace_id for a in outcome.answers for _ in range(a.plan.kind.calls))
    assert Counter(headers["traceparent"].split("-")[1] for headers in outcome.asked) == traces
    known = {value for a in outcome.answers for value in outcome.identity(a).values()}
    known -= {"user", "anonymous", "admin", "member", "free", "team", "enterprise"}
    for headers in outcome.asked:
        assert not {"baggage", "tracestate", "x-request-id", "authorization"} & headers.keys()
        assert not known & set(headers.values())


def test_telemetry_reports_no_fault_of_its_own(outcome: Outcome) -> None:
    """Neither the shim nor the SDK warned of anything."""
    loud = [
        line
        for line in outcome.lines()
        if line["severity"] in ("WARNING", "ERROR", "CRITICAL")
        and line["logger"].startswith(("otel_shim", "opentelemetry"))
    ]
    assert not loud
