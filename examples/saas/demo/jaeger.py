"""Questions to Jaeger's HTTP API, and its answers as spans and traces."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

POLL_SECONDS = 1.0
IDS_PER_QUESTION = 40
ANY = 10_000  # more traces than the demo makes


@dataclass(frozen=True, slots=True)
class Span:
    """One span as Jaeger returns it; times in microseconds."""

    trace_id: str
    span_id: str
    parent_id: str | None
    service: str
    name: str
    start_us: int
    duration_us: int
    tags: Mapping[str, Any]
    links: tuple[str, ...] = ()
    """The traces it refers to."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of one trace, the earliest first."""

    trace_id: str
    spans: tuple[Span, ...]

    def roots(self) -> tuple[Span, ...]:
        """Spans without a parent in this trace."""
        known = {span.span_id for span in self.spans}
        return tuple(span for span in self.spans if span.parent_id not in known)

    def children(self, parent: Span) -> tuple[Span, ...]:
        """The spans directly below one."""
        return tuple(span for span in self.spans if span.parent_id == parent.span_id)


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A Jaeger v2 query service at `url`."""

    url: str

    def search(self, service: str, tags: Mapping[str, str] | None = None) -> tuple[Trace, ...]:
        """Traces with a span of this service that has all these tags."""
        question = {"service": service, "limit": str(ANY)}
        if tags:
            question["tags"] = json.dumps(dict(tags))
        return self._traces([*question.items()])

    def by_id(self, trace_ids: Iterable[str]) -> dict[str, Trace]:
        """The traces with these ids, as far as they are there."""
        found: dict[str, Trace] = {}
        wanted = sorted(set(trace_ids))
        for first in range(0, len(wanted), IDS_PER_QUESTION):
            part = wanted[first : first + IDS_PER_QUESTION]
            traces = self._traces([("traceID", trace_id) for trace_id in part])
            found |= {trace.trace_id: trace for trace in traces}
        return found

    def page(self, trace_id: str) -> str:
        """Where a browser shows a trace."""
        return f"{self.url}/trace/{trace_id}"

    def api(self, trace_id: str) -> str:
        """Where the API returns a trace."""
        return f"{self.url}/api/traces/{trace_id}"

    def _traces(self, question: Sequence[tuple[str, str]]) -> tuple[Trace, ...]:
        answer = httpx.get(f"{self.url}/api/traces", params=list(question), timeout=30)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return ()
        answer.raise_for_status()
        return tuple(parse_trace(item) for item in answer.json()["data"] or ())


def parse_trace(item: Mapping[str, Any]) -> Trace:
    """One trace of an answer."""
    services = {key: str(value["serviceName"]) for key, value in item["processes"].items()}
    spans = [parse_span(span, services[span["processID"]]) for span in item["spans"]]
    return Trace(str(item["traceID"]), tuple(sorted(spans, key=lambda span: span.start_us)))


def parse_span(item: Mapping[str, Any], service: str) -> Span:
    """One span of an answer."""
    references = item["references"]
    parents = [ref["spanID"] for ref in references if ref["refType"] == "CHILD_OF"]
    return Span(
        trace_id=str(item["traceID"]),
        span_id=str(item["spanID"]),
        parent_id=parents[0] if parents else None,
        service=service,
        name=str(item["operationName"]),
        start_us=int(item["startTime"]),
        duration_us=int(item["duration"]),
        tags={tag["key"]: tag["value"] for tag in item["tags"]},
        links=tuple(str(ref["traceID"]) for ref in references if ref["refType"] != "CHILD_OF"),
    )


def wait_for(
    ask: Callable[[], dict[str, Trace]],
    lacking: Callable[[dict[str, Trace]], str | None],
    seconds: float,
    settled: bool = True,
) -> tuple[dict[str, Trace], str | None]:
    """Ask until nothing is lacking and, if that is to be `settled`, two answers have equally many spans.

    Returns the last answer and, when time ran out, what it lacked.
    """
    deadline = time.monotonic() + seconds
    before = -1
    while True:
        traces = ask()
        spans = sum(len(trace.spans) for trace in traces.values())
        lack = lacking(traces)
        if lack is None and (spans == before or not settled):
            return traces, None
        if time.monotonic() > deadline:
            return traces, lack or "the number of spans still grows"
        before = spans
        time.sleep(POLL_SECONDS)


def incomplete(trace: Trace) -> str | None:
    """What a trace lacks: its root, a parent, or the server's span of a call between services."""
    ids = {span.span_id for span in trace.spans}
    parents = {span.parent_id for span in trace.spans}
    for span in trace.spans:
        if span.parent_id is not None and span.parent_id not in ids:
            return f"the parent of {span.service} {span.name}"
        if _calls_a_service(span) and span.span_id not in parents:
            return f"the span of the service that {span.name} called"
    return None


def _calls_a_service(span: Span) -> bool:
    is_http = "http.request.method" in span.tags or "http.method" in span.tags
    return span.tags.get("span.kind") == "client" and is_http
