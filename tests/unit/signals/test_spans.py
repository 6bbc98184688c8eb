"""otel_shim.signals.spans: each span is stamped when it starts, and a request's server span but once."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim import context, counters
from otel_shim.peers import Trust
from otel_shim.signals.spans import IdentitySpanProcessor
from tests.unit.telemetry import Telemetry


def _inbound(**marks: Any) -> context.Inbound:
    inbound = context.Inbound("r-1", Trust(identity=False, trace=True))
    for name, value in marks.items():
        setattr(inbound, name, value)
    return inbound


def test_first_server_span_is_the_requests(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """It carries request id and operation; another server span below, or a client span, takes nothing over."""
    inbound = _inbound()
    token = attach(context.with_inbound(inbound))
    with tracer.start_as_current_span("before", kind=SpanKind.CLIENT):
        pass
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER) as server:
        root = inbound.root
        assert root is not None and root.span() is server
        with tracer.start_as_current_span("inner", kind=SpanKind.SERVER):
            assert inbound.root is root
    with tracer.start_as_current_span(
        "second", kind=SpanKind.SERVER, context=context.with_inbound(inbound, Context())
    ):
        assert inbound.root is root
    detach(token)
    assert telemetry.span("before") == {} and telemetry.span("second") == {}
    assert telemetry.span("GET") == {"saas.request.id": "r-1", "saas.operation": "http.request"}
    assert telemetry.span("inner") == {"saas.request.id": "r-1"}


def test_a_request_that_is_over_gives_its_id_to_nobody(
    telemetry: Telemetry, tracer: trace.Tracer
) -> None:
    """An unsampled request has no root; what a leftover task of it serves afterwards is not that request."""
    inbound = _inbound()
    left_over = context.with_inbound(inbound, Context())
    inbound.close()
    tracer.start_span("later", kind=SpanKind.SERVER, context=left_over).end()
    assert telemetry.span("later") == {} and inbound.root is None


def test_edge_is_marked_on_the_server_span_only(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """The mark says where identity stops: children do not repeat it."""
    with (
        tracer.start_as_current_span(
            "GET",
            kind=SpanKind.SERVER,
            context=context.with_inbound(_inbound(edge=True), Context()),
        ),
        tracer.start_as_current_span("child"),
    ):
        pass
    assert telemetry.span("GET")["saas.identity.edge"] is True
    assert "saas.identity.edge" not in telemetry.span("child")


def test_restarted_trace_is_linked(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """The caller's span is kept as a link."""
    theirs = trace.SpanContext(7, 8, is_remote=True)
    inbound = _inbound(link=trace.Link(theirs))
    tracer.start_span(
        "GET", kind=SpanKind.SERVER, context=context.with_inbound(inbound, Context())
    ).end()
    (span,) = telemetry.spans()
    assert [link.context for link in span.links] == [theirs]


def test_applications_own_attributes_stay(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """A stamp adds to what a span starts with."""
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
        otel_shim.bind(org_id="acme")
        tracer.start_span("child", attributes={"own": [1, 2]}).end()
    assert telemetry.span("child") == {"own": (1, 2), "saas.org.id": "acme"}


def test_exact_types(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Integers become text, as the contract says; extras keep their type."""
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
        otel_shim.bind(org_id=7, campaign=3, share=0.5, trial=True)
    found = telemetry.span("GET")
    assert {k: (type(v), v) for k, v in found.items()} == {
        "saas.org.id": (str, "7"),
        "saas.extra.campaign": (int, 3),
        "saas.extra.share": (float, 0.5),
        "saas.extra.trial": (bool, True),
    }


@pytest.mark.parametrize("limit", [1, 3])
def test_limits_of_the_sdk_hold(limit: int) -> None:
    """The operator's limits on attributes are kept by our stamps too."""
    provider = TracerProvider(
        span_limits=SpanLimits(max_span_attributes=limit, max_span_attribute_length=4)
    )
    provider.add_span_processor(IdentitySpanProcessor())
    with provider.get_tracer("x").start_as_current_span("GET", kind=SpanKind.SERVER) as span:
        otel_shim.bind(org_id="organisation", plan="p", actor_role="r", actor_type="t")
        attributes: Any = vars(span)["_attributes"]
        assert len(attributes) == limit
        assert all(len(str(value)) <= 4 for value in attributes.values())


def test_ended_spans_are_not_touched(
    telemetry: Telemetry, tracer: trace.Tracer, caplog: pytest.LogCaptureFixture
) -> None:
    """Binding after a child ended changes nothing on it, and logs nothing."""
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
        child = tracer.start_span("child")
        child.end()
        otel_shim.bind(org_id="acme")
        otel_shim.bind(org_id="globex")
    assert telemetry.span("child") == {}
    assert caplog.records == []


def test_a_fault_of_ours_leaves_the_span(
    telemetry: Telemetry, tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever breaks in us, the application's span starts and ends as ever."""

    def broken(*_: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(context, "place_of", broken)
    with tracer.start_as_current_span("work"):
        pass
    assert telemetry.span("work") == {}
    assert counters.snapshot() == {"internal_errors": 1}
