"""monitoring.simulation: what it would let pass without a fault shown, it must not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from examples.saas.demo import parts as demo
from examples.saas.demo.jaeger import Span, Trace
from examples.saas.demo.stack import PartError
from monitoring import specification
from monitoring.simulation import checks, dashboards, examination, health, parts
from monitoring.simulation.checks import KILLED, SCENARIOS, Scenario
from monitoring.simulation.receivers import CHANNELS, Inbox, Received
from monitoring.simulation.report import Times
from monitoring.simulation.traffic import PATHS, Traffic

TRACE = "0af7651916cd43dd8448eb211c80319c"
LINK = f"http://jaeger/trace/{TRACE}"
USAGE = SCENARIOS[0]
TIMES = Times(0.0, dict.fromkeys(SCENARIOS, 10.0), dict.fromkeys(SCENARIOS, 20.0))
FIELDS = {
    "service": "roster-api",
    "namespace": "saas-demo",
    "environment": "simulation",
    "endpoint": "GET /billing/usage",
    "severity": "critical",
    "request_id": "r-1",
    "trace_id": TRACE,
    "trace_url": LINK,
    "trace_source": "exemplars",
    "runbook": "https://x/runbooks.md#api5xx",
    "dashboard": "http://localhost:3000/d/saas-api-health",
    "value": "50%",
    "threshold": "5%",
    "links": f"https://x/runbooks.md#api5xx {LINK} http://localhost:3000/d/saas-api-health",
}


class Backend:
    """A Jaeger that knows one trace, and counts how often it is asked."""

    def __init__(self, trace: Trace | None) -> None:
        self.trace, self.asked = trace, 0

    def by_id(self, trace_ids: Any) -> dict[str, Trace]:
        """The trace."""
        self.asked += 1
        return {TRACE: self.trace} if self.trace else {}

    def page(self, trace_id: str) -> str:
        """Its address."""
        return f"http://jaeger/trace/{trace_id}"


def span(kind: str = "internal", **tags: Any) -> Span:
    """A span with tags, dots written as double underscores."""
    named = {name.replace("__", "."): value for name, value in tags.items()}
    tags = {"span.kind": kind, "saas.request.id": "r-1", **named}
    return Span(TRACE, "1", None, "roster-api", "s", 0, 300_000, tags)


def failed(route: str = "/billing/usage") -> Trace:
    """A request that failed at a route, and its statement."""
    server = span(
        "server", http__request__method="GET", http__route=route, http__response__status_code=500
    )
    return Trace(TRACE, (server, span(db__system__name="sqlite", error=True)))


def messages(**different: str) -> Inbox:
    """What each channel is told of the first fault."""
    fields = {**FIELDS, **different}
    told = [Received(channel, 15.0, "firing", USAGE.alert_id, fields, "") for channel in CHANNELS]
    return Inbox(told)


def problems(inbox: Inbox, backend: Backend, scenario: Scenario = USAGE) -> list[str]:
    """What is said against the messages about one fault."""
    others = [each.name for each in SCENARIOS if each is not scenario]
    found = examination.examine(inbox, backend, TIMES)  # type: ignore[arg-type]
    return [each for each in found if not each.startswith(tuple(f"{name}:" for name in others))]


def test_messages_that_say_all_are_good() -> None:
    """And the trace was asked for."""
    backend = Backend(failed())
    assert problems(messages(), backend) == []
    assert backend.asked


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"trace_url": ""}, "trace link"),
        ({"trace_url": "http://jaeger/trace/other"}, "trace link"),
        ({"links": FIELDS["links"].replace(LINK, "")}, "no link to its trace"),
        ({"threshold": "", "value": "50%"}, "no threshold"),
        ({"threshold": "7%"}, "threshold 7%"),
        ({"environment": "staging"}, "environment staging"),
        ({"dashboard": "/d/saas-api-health"}, "no link to its dashboard"),
        ({"trace_id": "none: nothing"}, "trace id: none"),
        ({"trace_source": "jaeger"}, "no exemplar named its trace"),
        ({"request_id": "r-2"}, "is of another request"),
        ({"severity": "warning"}, "severity warning"),
    ],
)
def test_a_message_that_lacks_something_fails_the_run(different: dict[str, str], said: str) -> None:
    """Whichever it is, on each channel."""
    found = problems(messages(**different), Backend(failed()))
    assert any(said in each for each in found), found


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (None, "is not in Jaeger"),
        (failed("/billing/invoices"), "no GET /billing/usage with status 500"),
        (Trace(TRACE, failed().spans[:1]), "no failed statement"),
    ],
)
def test_a_trace_of_something_else_fails_the_run(trace: Trace | None, said: str) -> None:
    """Also one that failed elsewhere."""
    assert any(said in each for each in problems(messages(), Backend(trace)))


def test_an_alert_of_another_endpoint_is_not_that_of_the_fault() -> None:
    """It is missing, and there is no message of the fault; the other one is told beside it, and fails nothing."""
    inbox = messages(endpoint="GET /auth/me", trace_id="none: busy")
    backend = Backend(failed())
    assert len(examination.missing(inbox, "firing", [USAGE])) == len(CHANNELS)
    assert any("no message of the fault on slack" in each for each in problems(inbox, backend))
    with_fault = Inbox([*messages().messages, *inbox.messages])
    assert problems(with_fault, backend) == []
    assert examination.unresolved(inbox) == []
    assert "GET /auth/me" in examination.beside(with_fault, TIMES)


def test_what_precedes_a_route_has_none() -> None:
    """A request with a route is no proof of it, nor one that a client sent."""
    spans = {"with": failed(), "client": Trace(TRACE, (span("client"),))}
    assert all(checks.unrouted_request(trace, "unrouted", 0) for trace in spans.values())
    lost = Trace(TRACE, (span("server", http__response__status_code=500),))
    assert checks.unrouted_request(lost, "unrouted", 0) is None


def test_a_slow_request_is_one_of_the_endpoint() -> None:
    """A slow one elsewhere in the trace shows nothing."""
    server = span("server", http__request__method="GET", http__route="/planning/plans")
    trace = Trace(TRACE, (server, span(db__system__name="sqlite")))
    assert checks.slow_request(trace, "GET /planning/plans", 0) is None
    assert checks.slow_request(trace, "GET /billing/usage", 0)
    alone = Trace(TRACE, (server,))
    assert checks.slow_request(alone, "GET /planning/plans", 0) == "no slow statement"
    # Slow before there was a fault: true all the same.
    assert checks.slow_request(alone, "GET /planning/plans", 1) is None
    quick = Trace(TRACE, (replace(server, duration_us=1000), *trace.spans[1:]))
    assert checks.slow_request(quick, "GET /planning/plans", 0)


def test_what_a_killed_process_had_not_sent_is_not_asked_for() -> None:
    """Its last run may lack its end; one that ended long before may not."""
    trace = Trace(TRACE, (span(),))
    assert checks.last_run_of_job(trace, "backup.verify", 1.0) is None
    assert checks.last_run_of_job(trace, "backup.verify", 9.0) == "no run of backup.verify"


def test_an_alert_without_a_fault_is_true_only_where_the_senders_were_slow() -> None:
    """Above the threshold of its journey, at its endpoint; errors and jobs are never excused."""
    spec = specification.load(parts.SPEED)
    slow = {"alert_id": "api.latency", "endpoint": "GET /planning/plans", "journey": "planning"}
    stream = {"endpoint": "GET /planning/plans/{plan_id}/export.csv", "journey": "stream"}
    fired = [slow, {**slow, **stream}, {**slow, "alert_id": "api.5xx"}]
    seen = {"/planning/plans": 0.21, "/planning/plans/{plan}/export.csv": 0.49}
    assert health.false_alarms(spec, fired, seen) == [
        f"api.latency {stream['endpoint']}",
        "api.5xx GET /planning/plans",
    ]
    assert health.false_alarms(spec, [slow], {"/planning/plans": 0.19}) == [health.named(slow)]


def test_every_fault_names_what_it_breaks() -> None:
    """Only the killed scheduler breaks whatever runs."""
    assert [each for each in SCENARIOS if each.endpoints == ".*"] == [KILLED]


@pytest.mark.parametrize(
    ("expr", "series", "said"),
    [
        ("sum by (saas_plan) (a[5m])", [{"metric": {}}], ["no saas_plan"]),
        ("sum by (saas_plan) (a[5m])", [{"metric": {"saas_plan": "team"}}], []),
        ("histogram_quantile(0.9, sum by (le, b) (a[5m]))", [{"metric": {"b": "1"}}], []),
        ("sum(a[5m])", [], ["no data"]),
    ],
)
def test_a_query_has_data_and_its_labels(
    expr: str, series: list[dict[str, Any]], said: list[str]
) -> None:
    """A single line without the label by which it is grouped is what a lost dimension looks like."""
    assert [*dashboards.lacks(expr, series)] == said


def test_a_job_that_does_not_end_is_told_by_its_name(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with a traceback."""
    build = demo.ROOT / ".build"
    site = parts.choose_site(demo.Places(build, tmp_path, build, tmp_path))
    (tmp_path / "bin").mkdir()
    launcher = tmp_path / "bin/opentelemetry-instrument"
    launcher.write_text("#!/bin/sh\nexec sleep 60\n")
    launcher.chmod(0o755)
    monkeypatch.setattr(parts, "RUN_SECONDS", 0.2)
    with pytest.raises(PartError, match="did not end within"):
        parts.run_job(site)


def test_traffic_that_stops_is_noticed() -> None:
    """A path that was never asked, a pause, too few requests, and answers that never came."""
    traffic, now = Traffic("http://nobody"), time.monotonic()
    assert len([*traffic.not_kept_up(10)]) == len(PATHS)
    for path in PATHS:
        traffic.took[path] = [(now - 20 + second, 0.1) for second in range(21)]
    assert [*traffic.not_kept_up(10)] == []
    assert traffic.too_few(20, 15, now - 15) != [] and traffic.too_few(10, 15, now - 15) == []
    del traffic.took[PATHS[0]][5:]
    assert [*traffic.not_kept_up(10)] == [f"no request to {PATHS[0]} for 16 s"]
    traffic.answers[PATHS[0], 200], traffic.lost["ReadTimeout"] = 100, 3
    assert "3 requests without an answer" in next(traffic.not_kept_up(20))


def test_traffic_goes_on_after_a_request_without_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its senders sign in again; one that cannot is counted."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        if len(seen) % 7 == 0:
            raise httpx.ReadError("gone", request=request)
        return httpx.Response(200, json=[{"id": 1}] if request.method == "GET" else TOKEN)

    client: Callable[..., Any] = httpx.AsyncClient
    transport = httpx.MockTransport(answer)
    monkeypatch.setattr(httpx, "AsyncClient", lambda **more: client(transport=transport, **more))
    monkeypatch.setattr("monitoring.simulation.traffic.PAUSE_SECONDS", 0.001)
    traffic = Traffic("http://api")
    stop_after(traffic, lambda: traffic.lost["ReadError"] > 20)
    assert traffic.lost["ReadError"] > 20
    assert sum(traffic.answers.values()) > 20


TOKEN = {"access_token": "t"}


def stop_after(traffic: Traffic, holds: Callable[[], bool]) -> None:
    """Run it in a thread until something holds, or for ten seconds."""
    thread = threading.Thread(target=traffic.run)
    thread.start()
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline and thread.is_alive():
        time.sleep(0.01)
    traffic.stop()
    thread.join()
