"""What the traces of the product's single areas must show."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from otel_shim import _semconv

from .checks import Evidence, Finding
from .driver import Call
from .jaeger import Span, Trace
from .journeys import BEST_MODEL

NAMED = (
    "planning.publish",
    "chat.ask",
    "privacy.open",
    "privacy.process",
    "chart.compute",
    "payroll.run",
)
TIMEOUT, REFUSAL = "ReadTimeout", "503"
FAILURES = (TIMEOUT, REFUSAL)
RECORD = _semconv.AUDIT_RECORD_ID
REFERENCES = (
    RECORD,
    _semconv.SAAS_GDPR_PROCESSING_ACTIVITY_ID,
    _semconv.SAAS_GDPR_LEGAL_BASIS,
    _semconv.SAAS_GDPR_RETENTION_CLASS,
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One model that was asked, when, and how it failed if it did."""

    model: str
    start_us: int
    failure: str | None


def of_journeys(evidence: Evidence) -> list[Finding]:
    """One finding or more for each area."""
    return [
        _operations(evidence),
        _fallback(evidence),
        _recovery(evidence),
        _audited(evidence),
        _own_records(evidence),
        _computed_once(evidence),
    ]


def _operations(evidence: Evidence) -> Finding:
    """The product's own names are on spans, and the first of a request is on its server span."""
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    for call, trace in evidence.pairs():
        names = [span.name for span in trace.spans if span.name in NAMED]
        seen.update(names)
        if names and _server(trace).tags.get(_semconv.SAAS_OPERATION) != names[0]:
            wrong.append(f"{call}: its server span does not say {names[0]}")
    absent = [f"no span {name}" for name in NAMED if not seen[name]]
    return Finding("the product's operations name their requests", seen.total(), (*absent, *wrong))


def _fallback(evidence: Evidence) -> Finding:
    """Where a model failed, another one answered; both failures, timeout and refusal, were seen."""
    seen: Counter[str | None] = Counter()
    wrong: list[str] = []
    for call, trace in _of(evidence, "POST", "/chat/messages"):
        asked = [_attempt(span) for span in trace.spans if _model(span)]
        seen.update(each.failure for each in asked)
        if not asked or asked[-1].failure:
            wrong.append(f"{call}: nobody answered ({trace.trace_id})")
    absent = [f"no {failure} was seen" for failure in FAILURES if not seen[failure]]
    return Finding("chat: another model answers when one fails", seen.total(), (*absent, *wrong))


def _recovery(evidence: Evidence) -> Finding:
    """The best model answers again after it was sent to rest."""
    chats = _of(evidence, "POST", "/chat/messages")
    spans = (span for _, trace in chats for span in trace.spans if _model(span))
    best = [each for each in map(_attempt, spans) if each.model == BEST_MODEL]
    rested = min((each.start_us for each in best if each.failure == TIMEOUT), default=None)
    back = rested is not None and any(
        each.failure is None and each.start_us > rested for each in best
    )
    contradictions = () if back else (f"{BEST_MODEL} was never late, or never back",)
    return Finding("chat: the best model is asked again after a rest", len(best), contradictions)


def _audited(evidence: Evidence) -> Finding:
    """A request of a person names its audit record and what of the GDPR applies, also afterwards."""
    looked_at = [
        (call, span)
        for call, trace in _of(evidence, "POST", "/privacy/requests")
        for span in (_server(trace), *(s for s in trace.spans if s.name == "privacy.process"))
    ]
    gaps = tuple(
        f"{call}: {span.name} lacks {name}"
        for call, span in looked_at
        for name in REFERENCES
        if name not in span.tags
    )
    return Finding("privacy: request and processing name their audit record", len(looked_at), gaps)


def _own_records(evidence: Evidence) -> Finding:
    """An audit record belongs to one request, and nothing else carries one."""
    traces: dict[str, set[str]] = {}
    strays: list[str] = []
    for call, trace in evidence.pairs():
        records = {str(span.tags[RECORD]) for span in trace.spans if RECORD in span.tags}
        if records and not _is(call, "POST", "/privacy/requests"):
            strays.append(f"{call} carries {', '.join(records)}")
        for record in records:
            traces.setdefault(record, set()).add(trace.trace_id)
    shared = [f"{record} is on {len(ids)} traces" for record, ids in traces.items() if len(ids) > 1]
    return Finding("privacy: each audit record is on one trace", len(traces), (*strays, *shared))


def _computed_once(evidence: Evidence) -> Finding:
    """Everybody asks for the same chart twice; it is computed the first time only."""
    times: Counter[str | None] = Counter()
    for call, trace in _of(evidence, "POST", "/charts/natal"):
        times[call.caller.user_id] += sum(span.name == "chart.compute" for span in trace.spans)
    wrong = tuple(f"{user}: {count} times" for user, count in times.items() if count != 1)
    return Finding("charts: each is computed once", len(times), wrong)


def _of(evidence: Evidence, method: str, path: str) -> Iterator[tuple[Call, Trace]]:
    return ((call, trace) for call, trace in evidence.pairs() if _is(call, method, path))


def _is(call: Call, method: str, path: str) -> bool:
    return (call.step.method, call.step.path) == (method, path)


def _server(trace: Trace) -> Span:
    """The server span of the request; there is one, for `incomplete` would have said so."""
    return trace.roots()[0]


def _model(span: Span) -> str | None:
    """The model that a client span asked."""
    return _model_of(span.tags) if span.tags.get("span.kind") == "client" else None


def _model_of(tags: Mapping[str, object]) -> str | None:
    _, found, rest = str(tags.get("url.full", "")).partition("/models/")
    return rest.removesuffix("/answers") if found else None


def _attempt(span: Span) -> Attempt:
    return Attempt(_model_of(span.tags) or "", span.start_us, span.tags.get("error.type"))
