"""otel_shim.signals.propagation: a caller's trace context, as far as the caller is trusted."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_shim import context, counters
from otel_shim.peers import Trust
from otel_shim.signals import propagation
from otel_shim.signals.propagation import EdgePropagator

USUAL = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
EDGE = EdgePropagator(USUAL)
HEADERS = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "baggage": "own=1",
}
REMOTE = trace.get_current_span(USUAL.extract(HEADERS)).get_span_context()


def _extract(trust: Trust, base: Context | None = None) -> tuple[Context, context.Inbound]:
    inbound = context.Inbound("r-1", trust)
    if base is not None:
        return EDGE.extract(HEADERS, context.with_inbound(inbound, base)), inbound
    token = attach(context.with_inbound(inbound))
    extracted = EDGE.extract(HEADERS)
    detach(token)
    return extracted, inbound


@pytest.mark.parametrize("base", [None, Context()])
@pytest.mark.parametrize(
    ("trust", "continued", "edge"),
    [
        (Trust(identity=True, trace=True), True, False),
        (Trust(identity=False, trace=True), True, True),
        (Trust(identity=False, trace=False), False, False),
    ],
)
def test_judgement(trust: Trust, continued: bool, edge: bool, base: Context | None) -> None:
    """Continued, continued behind an edge, or started anew with a link; baggage is left alone."""
    extracted, inbound = _extract(trust, base)
    found = trace.get_current_span(extracted).get_span_context()
    assert found == REMOTE if continued else not found.is_valid
    assert inbound.edge is edge
    assert (inbound.link.context if inbound.link else None) == (None if continued else REMOTE)
    assert baggage.get_all(extracted) == {"own": "1"}
    assert context.inbound_of(extracted) is inbound
    assert counters.snapshot() == {}


def test_nothing_brought_nothing_judged() -> None:
    """Without headers the request stays in the context, and there is no edge."""
    inbound = context.Inbound("r-1", Trust(identity=False, trace=False))
    token = attach(context.with_inbound(inbound))
    extracted = EDGE.extract({})
    detach(token)
    assert context.inbound_of(extracted) is inbound
    assert not inbound.edge and inbound.link is None


def test_outside_of_a_request_nothing_changes() -> None:
    """A message of a queue is extracted by the configured propagator, as ever."""
    found = EDGE.extract(HEADERS)
    assert trace.get_current_span(found).get_span_context() == REMOTE
    assert baggage.get_all(found) == {"own": "1"}
    assert EDGE.extract(HEADERS, Context({"own": 1}))["own"] == 1


def test_only_the_requests_own_headers_are_judged(tracer: trace.Tracer) -> None:
    """What an application extracts while it serves a request is its own business."""
    inbound = context.Inbound("r-1", Trust(identity=False, trace=False))
    at = context.with_inbound(inbound, Context())
    with tracer.start_as_current_span("GET", kind=trace.SpanKind.SERVER, context=at):
        assert inbound.root is not None
        extracted = EDGE.extract(HEADERS, at)
    assert trace.get_current_span(extracted).get_span_context() == REMOTE
    assert inbound.link is None


def test_injecting_is_the_configured_propagators() -> None:
    """What goes out is what went out before, in the same headers."""
    at = baggage.set_baggage("own", "1", trace.set_span_in_context(trace.NonRecordingSpan(REMOTE)))
    mine: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    EDGE.inject(mine, at)
    USUAL.inject(theirs, at)
    assert mine == theirs == HEADERS
    assert EDGE.fields == USUAL.fields


def test_what_an_application_sets_later_judges_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is wired, one edge is around what was given; an edge is taken as it is."""
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", USUAL)
    before = propagate.set_global_textmap
    undo = propagation.install()
    later, once = TraceContextTextMapPropagator(), propagate.set_global_textmap
    propagation.install()()
    assert propagate.set_global_textmap is once
    propagate.set_global_textmap(http_text_format=later)
    edge: Any = propagate.get_global_textmap()
    assert isinstance(edge, EdgePropagator) and edge._delegate is later
    propagate.set_global_textmap(edge)
    assert propagate.get_global_textmap() is edge
    undo()
    assert propagate.set_global_textmap is before
    assert propagate.get_global_textmap() is USUAL
