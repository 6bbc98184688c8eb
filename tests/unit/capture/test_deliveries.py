"""otel_shim.capture.deliveries: what a message says, and what becomes of it as spans."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import otel_shim
from otel_shim import _semconv as semconv
from otel_shim import jobs, queues
from otel_shim.capture import deliveries
from otel_shim.capture.deliveries import Delivery
from tests.unit.telemetry import Telemetry
from tests.unit.test_queues import Told

QUEUE = "reports"


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, telemetry: Telemetry) -> None:
    monkeypatch.setattr(deliveries, "_relation", "link")
    monkeypatch.setattr(queues, "_names", set())
    for module in (jobs, deliveries):
        monkeypatch.setattr(module, "_tracer", telemetry.tracers.get_tracer("otel_shim"))


@pytest.fixture
def told() -> Iterator[Told]:
    meter = Told()
    before = queues.use_meter(meter)
    yield meter
    queues.use_meter(before)


class TestRunIds:
    def test_a_uuid_is_the_run(self) -> None:
        """Both libraries make UUIDs, and those say nothing about anybody."""
        made = str(uuid.uuid4())
        assert deliveries.run_id_of(made) == made

    def test_an_id_of_the_application_is_not_shown(self) -> None:
        """It may name a person; the same one gives the same run."""
        found = deliveries.run_id_of("report-of-anna@example.com")
        assert found is not None
        assert "anna" not in found
        assert found == deliveries.run_id_of("report-of-anna@example.com")
        assert found != deliveries.run_id_of("report-of-bob@example.com")

    @pytest.mark.parametrize("value", [None, "", 7, b"x"])
    def test_what_is_no_id_has_none(self, value: object) -> None:
        """A message without an id makes no run id up."""
        assert deliveries.run_id_of(value) is None


class TestMoments:
    @pytest.mark.parametrize(
        "value",
        [
            1_800_000_000,
            "2027-01-15T08:00:00Z",
            "2027-01-15T09:00:00+01:00",
            "2027-01-15T08:00:00",
            datetime(2027, 1, 15, 8, tzinfo=timezone.utc),
            datetime(2027, 1, 15, 8),
        ],
    )
    def test_every_way_to_write_a_time(self, value: object) -> None:
        """Numbers, datetimes and ISO text with and without a zone are the same moment."""
        assert deliveries.moment(value) == 1_800_000_000

    @pytest.mark.parametrize(
        "value", [None, "", "soon", float("nan"), float("inf"), -5, 1e300, {}, "9" * 400]
    )
    def test_what_is_no_time_is_none(self, value: object) -> None:
        """A header is an outside input."""
        assert deliveries.moment(value) is None


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class TestProducers:
    @pytest.mark.parametrize(
        "carrier",
        [
            {},
            *(
                {"traceparent": text}
                for text in (
                    f"00-{TRACE}-{SPAN}-01",
                    f"00-{TRACE}-{SPAN}-00",
                    f"00-{TRACE}-{SPAN}-03",
                    f" 00-{TRACE}-{SPAN}-01 ",
                    f"00-{TRACE}-{SPAN}-01\n",
                    f"00-{TRACE}-{SPAN}-01-more",
                    f"01-{TRACE}-{SPAN}-01-more",
                    f"ff-{TRACE}-{SPAN}-01",
                    f"00-{TRACE.upper()}-{SPAN}-01",
                    f"00-{'0' * 32}-{SPAN}-01",
                    f"00-{TRACE}-{'0' * 16}-01",
                    "junk",
                    "",
                    7,
                    None,
                )
            ),
            {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1", "baggage": "a=b"},
            {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": 7},
        ],
    )
    def test_what_the_propagator_finds(self, carrier: dict[str, Any]) -> None:
        """Also where it need not be asked: ids, flags and state are the same, and so is that there is none."""
        texts = {name: text for name, text in carrier.items() if isinstance(text, str)}
        context = TraceContextTextMapPropagator().extract(texts, Context())
        official = trace.get_current_span(context).get_span_context()
        assert deliveries.producer_of(carrier) == (official if official.is_valid else None)

    def test_another_propagator_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What it reads may stand elsewhere, or be written another way."""

        class Own(TraceContextTextMapPropagator):
            def extract(self, *_: Any, **__: Any) -> Context:
                other = trace.SpanContext(1, 2, is_remote=True)
                return trace.set_span_in_context(trace.NonRecordingSpan(other), Context())

        monkeypatch.setattr(propagate, "get_global_textmap", Own)
        found = deliveries.producer_of({"traceparent": f"00-{TRACE}-{SPAN}-01"})
        assert found is not None and found.trace_id == 1


def delivery(**more: Any) -> Delivery:
    return Delivery("celery", "calendar.sync", QUEUE, str(uuid.uuid4()), **more)


class TestSince:
    def test_it_waits_since_it_was_put_in(self) -> None:
        """The time in the message counts."""
        assert delivery(enqueued_at=100.0).since() == 100.0

    def test_it_does_not_wait_before_it_is_due(self) -> None:
        """A countdown is no wait for a worker."""
        assert delivery(enqueued_at=100.0, due=160.0).since() == 160.0

    def test_nobody_wrote_it_down(self) -> None:
        """A message of a producer without us has no wait, which is not none."""
        assert delivery(due=160.0).since() is None


def sent(carrier: dict[str, Any], error: BaseException | None = None) -> None:
    sending = deliveries.sending("celery", "calendar.sync")
    assert sending is not None
    sending.to(QUEUE, str(uuid.uuid4()))
    deliveries.mark(carrier, QUEUE)
    sending.end(error)


class TestStory:
    def test_link(self, telemetry: Telemetry, told: Told) -> None:
        """Request, sending and wait are one trace; the run is another, and they refer to each other."""
        carrier: dict[str, Any] = {}
        with telemetry.tracer().start_as_current_span("request", kind=SpanKind.SERVER):
            otel_shim.bind(org_id="acme", user_id="anna")
            sent(carrier)
        message = delivery(
            producer=deliveries.producer_of(carrier), enqueued_at=carrier[deliveries.ENQUEUED_AT]
        )
        taken = deliveries.take(message)
        assert taken is not None
        assert otel_shim.current_identity().org_id is None
        taken.end()
        spans = {span.name: span for span in telemetry.spans()}
        send, wait, run = (
            spans[name] for name in ("send calendar.sync", f"wait {QUEUE}", "calendar.sync")
        )
        assert send.context is not None
        assert run.context is not None
        assert wait.parent is not None
        assert wait.parent.span_id == send.context.span_id
        assert [link.context.span_id for link in wait.links] == [run.context.span_id]
        assert [link.context.span_id for link in run.links] == [send.context.span_id]
        assert run.parent is None
        assert run.context.trace_id != send.context.trace_id
        assert (run.attributes or {}).get(semconv.SAAS_ORG_ID) is None
        assert [kind for kind, _, _ in told.heard] == ["enqueued", "taken", "finished"]

    def test_parent(self, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
        """By choice the run is a part of the trace that asked; still nobody's identity comes along."""
        monkeypatch.setattr(deliveries, "_relation", "parent")
        carrier: dict[str, Any] = {}
        with telemetry.tracer().start_as_current_span("request", kind=SpanKind.SERVER):
            otel_shim.bind(org_id="acme")
            sent(carrier)
        taken = deliveries.take(delivery(producer=deliveries.producer_of(carrier)))
        assert taken is not None
        taken.end()
        spans = {span.name: span for span in telemetry.spans()}
        run, send = spans["calendar.sync"], spans["send calendar.sync"]
        assert run.parent is not None
        assert send.context is not None
        assert run.parent.span_id == send.context.span_id
        assert semconv.SAAS_ORG_ID not in (run.attributes or {})

    def test_what_cannot_be_sent(self, telemetry: Telemetry, told: Told) -> None:
        """The span fails by its type only, the context is that of before, and nothing arrived."""
        with telemetry.tracer().start_as_current_span("request") as request:
            sent({}, ConnectionError("redis://:secret@host"))
            assert trace.get_current_span() is request
        failed = next(span for span in telemetry.spans() if span.name == "send calendar.sync")
        assert failed.status.status_code is StatusCode.ERROR
        assert failed.status.description is None
        assert (failed.attributes or {})["error.type"] == "ConnectionError"
        assert not failed.events
        assert told.heard == []

    def test_a_message_from_elsewhere(self, telemetry: Telemetry, told: Told) -> None:
        """Without us at the producer there is a run, and neither a link nor a wait."""
        taken = deliveries.take(delivery(producer=deliveries.producer_of({"traceparent": "junk"})))
        assert taken is not None
        taken.end()
        assert [span.name for span in telemetry.spans()] == ["calendar.sync"]
        assert not telemetry.spans()[0].links
        assert [kind for kind, _, _ in told.heard] == ["finished"]

    def test_clocks_that_differ(self, telemetry: Telemetry) -> None:
        """A message from the future waited not at all."""
        carrier: dict[str, Any] = {}
        sent(carrier)
        ahead = delivery(producer=deliveries.producer_of(carrier), enqueued_at=time.time() + 60)
        taken = deliveries.take(ahead)
        assert taken is not None
        taken.end()
        wait = next(span for span in telemetry.spans() if span.name.startswith("wait"))
        assert wait.start_time == wait.end_time


def test_a_message_carries_no_identity(telemetry: Telemetry) -> None:
    """A broker is read by many: trace context, time and queue are all that a message says."""
    carrier: dict[str, Any] = {}
    with telemetry.tracer().start_as_current_span("request", kind=SpanKind.SERVER):
        otel_shim.bind(org_id="acme", user_id="anna", plan="pro")
        sent(carrier)
    assert carrier.keys() == {"traceparent", deliveries.ENQUEUED_AT, deliveries.QUEUE}
