"""What the demo prints."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from otel_shim import _semconv

from .checks import USER_HASH, Evidence, Finding
from .jaeger import Jaeger, Span, Trace

EXAMPLES = 5
HEALTH = "/health"
ORIGIN = _semconv.SAAS_IDENTITY_ORIGIN


def tree(trace: Trace) -> Iterator[str]:
    """A trace as indented lines: milliseconds, service, span, who, and where that came from."""
    yield _columns("ms", "service", "span", "organisation", "user.hash", "identity")
    for root in trace.roots():
        yield from _branch(trace, root, "", "")


def _branch(trace: Trace, span: Span, lead: str, below: str) -> Iterator[str]:
    yield _line(span, lead)
    children = trace.children(span)
    for child in children:
        last = child is children[-1]
        joint, gap = ("└ ", "  ") if last else ("├ ", "│ ")
        yield from _branch(trace, child, below + joint, below + gap)


def _line(span: Span, lead: str) -> str:
    org = str(span.tags.get(_semconv.SAAS_ORG_ID, "-"))
    user = str(span.tags.get(USER_HASH, "-"))
    took = f"{span.duration_us / 1000:.1f}"
    return _columns(took, span.service, lead + span.name, org, user, origin(span))


def _columns(took: str, service: str, name: str, org: str, user: str, identity: str) -> str:
    cells = (_cell(service, 16), _cell(name, 50), _cell(org, 12), _cell(user, 14))
    return f"  {took:>7}  {'  '.join(cells)}  {identity}"


def _cell(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def origin(span: Span) -> str:
    """How a span came by its identity."""
    if ORIGIN in span.tags:
        return f"completed from {span.tags[ORIGIN]}"
    if _semconv.SAAS_ORG_ID in span.tags:
        return "own"
    return str(span.tags.get(_semconv.SAAS_ACTOR_TYPE, "none"))


def found(title: str, traces: Sequence[Trace], jaeger: Jaeger) -> Iterator[str]:
    """The traces of one search, with links to some."""
    spans = sum(len(trace.spans) for trace in traces)
    yield f"  {title}: {len(traces)} trace{'s' * (len(traces) != 1)}, {spans} spans"
    for trace in traces[:EXAMPLES]:
        root = trace.roots()[0].name if trace.roots() else "?"
        yield f"    {root:<42} {jaeger.page(trace.trace_id)}"
    if len(traces) > EXAMPLES:
        yield f"    … and {len(traces) - EXAMPLES} more"


def job(
    name: str, traces: Sequence[Trace], organisations: Mapping[str, int], jaeger: Jaeger
) -> Iterator[str]:
    """The runs of a job, a link to the first, and for how many organisations it is found."""
    page = jaeger.page(traces[0].trace_id) if traces else "none"
    whose = f"of {len([*filter(None, organisations.values())])} organisations"
    yield f"  {name:<22} {len(traces):>2} runs  {whose if organisations else '':<18}  {page}"


def why_without(trace: Trace, evidence_kinds: Mapping[str, str]) -> str:
    """Why the spans of a trace without identity have none."""
    if any(HEALTH in str(span.tags.get("url.path", span.name)) for span in trace.spans):
        return "health checks"
    if any(_semconv.SAAS_JOB_RUN_ID in span.tags for span in trace.roots()):
        return "what a job does for no single organisation"
    kind = evidence_kinds.get(trace.trace_id)
    if kind == "anonymous":
        return "anonymous requests"
    if kind is None and not any(span.tags.get("span.kind") == "server" for span in trace.spans):
        return "start of the processes (no request)"
    return "UNEXPLAINED"


def counts(traces: Iterable[Trace], evidence: Evidence) -> Counter[str]:
    """Spans by how they came by their identity, or why they have none."""
    kinds = {call.trace_id or "": call.caller.kind for call in evidence.calls}
    result: Counter[str] = Counter()
    for trace in traces:
        for span in trace.spans:
            known = _semconv.SAAS_ORG_ID in span.tags
            result[origin(span) if known else f"none: {why_without(trace, kinds)}"] += 1
    return result


def table(rows: Mapping[str, float]) -> Iterator[str]:
    """Names and numbers in two columns."""
    for name, number in sorted(rows.items()):
        yield f"    {name:<58} {number:>10g}"


def span_table(rows: Counter[str]) -> Iterator[str]:
    """How many spans arrived, and how they came by their identity."""
    with_identity = sum(count for name, count in rows.items() if not name.startswith("none"))
    yield f"    {'spans in Jaeger':<58} {rows.total():>10}"
    yield f"    {'of these with an organisation':<58} {with_identity:>10}"
    for name, count in sorted(rows.items(), key=lambda row: (row[0].startswith("none"), row)):
        yield f"      {name:<56} {count:>10}"


def findings(items: Sequence[Finding]) -> Iterator[str]:
    """One line for each check, and examples of what contradicts it."""
    for item in items:
        yield f"  {'ok  ' if item.ok else 'FAIL'} {item.what} ({item.checked} checked)"
        for text in item.contradictions[:EXAMPLES]:
            yield f"         {text}"
        if len(item.contradictions) > EXAMPLES:
            yield f"         … and {len(item.contradictions) - EXAMPLES} more"
