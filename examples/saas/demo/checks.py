"""What must be so, as pure functions of the calls sent and the traces found."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from otel_shim import _semconv

from ..api.people import CUSTOMERS, user_id
from .collector import COMPLETED, SEEN
from .driver import Call
from .jaeger import Span, Trace, incomplete
from .parts import API_SERVICE, CONNECTOR_SERVICE

USER_HASH, USER_ID, _ = _semconv.UPSTREAM_IDENTITY
IDENTITY_NAMES = _semconv.SAFE | frozenset(_semconv.UPSTREAM_IDENTITY)
PERSONAL = tuple(
    text
    for customer in CUSTOMERS
    for index, person in enumerate(customer.people)
    for text in (person.name, person.email, user_id(customer, index))
)

# Well-formed, and each header once: httpx joins repeated ones by a comma.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,55}")
TRACE_ID = re.compile(r"[0-9a-f]{32}")

CallRule = Callable[[Call], str | None]
SpanRule = Callable[[Call, Span], str | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what must be so, on how many things, and what contradicts it."""

    what: str
    checked: int
    contradictions: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Nothing contradicts it, and it was not checked on nothing."""
        return self.checked > 0 and not self.contradictions


@dataclass(frozen=True, slots=True)
class Evidence:
    """The calls that were sent and the traces found for them, by trace id."""

    calls: Sequence[Call]
    traces: Mapping[str, Trace]

    def pairs(self) -> Iterator[tuple[Call, Trace]]:
        """Calls with their trace, where there is one."""
        for call in self.calls:
            trace = self.traces.get(call.trace_id or "")
            if trace is not None:
                yield call, trace

    def spans(self, *kinds: str) -> list[tuple[Call, Span]]:
        """Spans of the requests of these kinds of callers."""
        chosen = [(call, trace) for call, trace in self.pairs() if call.caller.kind in kinds]
        return [(call, span) for call, trace in chosen for span in trace.spans]


def lacking(calls: Sequence[Call], traces: Mapping[str, Trace]) -> str | None:
    """What has not arrived yet, in words; None when all has."""
    missing = [call for call in calls if call.trace_id not in traces]
    if missing:
        return f"{len(missing)} of {len(calls)} traces, as that of {missing[0]}"
    gaps = ((trace, incomplete(trace)) for trace in traces.values())
    return next((f"{gap} (trace {trace.trace_id})" for trace, gap in gaps if gap), None)


def of_answers(calls: Sequence[Call]) -> list[Finding]:
    """What the answers alone must show."""
    times = Counter(call.request_id for call in calls)
    chosen = [call for call in calls if call.sent_request_id]
    return [
        _each("every answer has the expected status", calls, _unexpected),
        _each("every answer carries X-Request-Id and X-Trace-Id", calls, _without_ids),
        _each("a request id that the caller chose is kept", chosen, _not_kept),
        _each("no two answers share a request id", calls, lambda call: _shared(call, times)),
    ]


def of_traces(evidence: Evidence) -> list[Finding]:
    """What the traces must show."""
    users, keys = evidence.spans("user"), evidence.spans("api_key")
    strangers = evidence.spans("anonymous")
    return [
        _each_span("signed in: every span has organisation, user and request", users, _user_gap),
        _each_span(
            "API key: every span has organisation, key and request, no user", keys, _key_gap
        ),
        _each_span("no span carries another organisation or request", users + keys, _foreign),
        _each_span("anonymous: no span carries an organisation or a user", strangers, _known),
        _each_span(
            "no name, email or clear user id in identity attributes",
            users + keys + strangers,
            _personal,
        ),
        _one_hash_each(evidence),
        _both_services(evidence),
    ]


def of_counts(traces: Iterable[Trace], counters: Mapping[str, float]) -> list[Finding]:
    """What Jaeger has and what the processor counted must be the same numbers."""
    spans = [span for trace in traces for span in trace.spans]
    completed = sum(_semconv.SAAS_IDENTITY_ORIGIN in span.tags for span in spans)
    counted = sum(value for name, value in counters.items() if name.startswith(COMPLETED))
    return [
        _same("Jaeger has every span that the processor saw, once", len(spans), counters.get(SEEN)),
        _same("Jaeger and the processor agree on what was completed", completed, counted),
    ]


def _same(what: str, stored: int, counted: float | None) -> Finding:
    differ = f"{stored} in Jaeger, {counted} counted by the processor"
    return Finding(what, stored, () if stored == counted else (differ,))


def _each(what: str, calls: Sequence[Call], rule: CallRule) -> Finding:
    problems = ((call, rule(call)) for call in calls)
    return Finding(what, len(calls), tuple(f"{call}: {why}" for call, why in problems if why))


def _each_span(what: str, spans: Sequence[tuple[Call, Span]], rule: SpanRule) -> Finding:
    problems = ((call, span, rule(call, span)) for call, span in spans)
    texts = (
        f"{call}, span {span.service} {span.name} ({span.trace_id}): {why}"
        for call, span, why in problems
        if why
    )
    return Finding(what, len(spans), tuple(texts))


def _unexpected(call: Call) -> str | None:
    if call.status in call.step.expected:
        return None
    return f"expected {' or '.join(map(str, sorted(call.step.expected)))}"


def _without_ids(call: Call) -> str | None:
    if not call.request_id or not call.trace_id:
        return "header missing"
    well_formed = REQUEST_ID.fullmatch(call.request_id) and TRACE_ID.fullmatch(call.trace_id)
    return None if well_formed else f"malformed or repeated: {call.request_id}; {call.trace_id}"


def _not_kept(call: Call) -> str | None:
    return None if call.request_id == call.sent_request_id else f"got {call.request_id}"


def _shared(call: Call, times: Mapping[str | None, int]) -> str | None:
    return f"{call.request_id} occurs again" if times[call.request_id] > 1 else None


def _missing(span: Span, *names: str) -> str | None:
    absent = [name for name in names if not span.tags.get(name)]
    return f"lacks {', '.join(absent)}" if absent else None


def _present(span: Span, *names: str) -> str | None:
    there = [name for name in names if name in span.tags]
    return f"carries {', '.join(there)}" if there else None


def _user_gap(call: Call, span: Span) -> str | None:
    return _missing(span, _semconv.SAAS_ORG_ID, USER_HASH, _semconv.SAAS_REQUEST_ID)


def _key_gap(call: Call, span: Span) -> str | None:
    gap = _missing(span, _semconv.SAAS_ORG_ID, _semconv.SAAS_REQUEST_ID, _semconv.SAAS_ACTOR_HASH)
    return gap or _present(span, USER_HASH, USER_ID)


def _known(call: Call, span: Span) -> str | None:
    return _present(span, _semconv.SAAS_ORG_ID, USER_HASH, USER_ID)


def _foreign(call: Call, span: Span) -> str | None:
    own = {
        _semconv.SAAS_ORG_ID: call.caller.org_id,
        _semconv.SAAS_REQUEST_ID: call.request_id,
    }
    wrong = [name for name, value in own.items() if span.tags.get(name, value) != value]
    return ", ".join(f"{name}={span.tags[name]}" for name in wrong) or None


def _personal(call: Call, span: Span) -> str | None:
    values = {name: str(span.tags[name]) for name in IDENTITY_NAMES & span.tags.keys()}
    leaks = [name for name, value in values.items() if any(text in value for text in PERSONAL)]
    return f"personal data in {', '.join(leaks)}" if leaks else None


def _one_hash_each(evidence: Evidence) -> Finding:
    """A person has one pseudonym in all requests, processes and services; no two share one."""
    hashes: dict[str | None, set[str]] = defaultdict(set)
    for call, span in evidence.spans("user"):
        if USER_HASH in span.tags:
            hashes[call.caller.user_id].add(str(span.tags[USER_HASH]))
    people = Counter(value for values in hashes.values() for value in values)
    several = [f"{user} has {len(values)}" for user, values in hashes.items() if len(values) > 1]
    shared = [f"{value} belongs to {count} people" for value, count in people.items() if count > 1]
    return Finding("each person has exactly one user.hash", len(hashes), (*several, *shared))


def _both_services(evidence: Evidence) -> Finding:
    """Guards the checks above: there were spans of the connector to look at."""
    seen = Counter(span.service for _, span in evidence.spans("user"))
    absent = [name for name in (API_SERVICE, CONNECTOR_SERVICE) if not seen[name]]
    return Finding("spans of both services were looked at", sum(seen.values()), tuple(absent))
