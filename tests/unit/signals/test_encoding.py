"""otel_shim.signals.encoding: the same messages as the official encoder makes, for any span."""

from __future__ import annotations

import copy
import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import _log_exporter, trace_exporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.span import TraceFlags, TraceState
from opentelemetry.util.types import AnyValue, Attributes

from otel_shim.signals import encoding

VALUES: tuple[Any, ...] = (
    "",
    "text",
    "é" * 100,
    "x" * 5000,
    0,
    1,
    -1,
    2**63 - 1,
    True,
    False,
    0.0,
    -0.0,
    1.0,
    b"\x00\xff",
    ("a", "b"),
    (1, 2),
    (),
)


RESOURCE = Resource({"service.name": "one"})


@pytest.fixture
def encoder() -> encoding.Encoder:
    return encoding.spans()


def recorded(count: int, seed: int) -> Sequence[ReadableSpan]:
    """Spans of two resources and three scopes, with everything that a span can have."""
    chance = random.Random(seed)
    exporter = InMemorySpanExporter()
    tracers = []
    for service in ("one", "two"):
        provider = TracerProvider(resource=Resource({"service.name": service}, "https://schema"))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracers += [provider.get_tracer("plain"), provider.get_tracer("other", "1", "https://s")]
    for _ in range(count):
        record(chance.choice(tracers), chance)
    return exporter.get_finished_spans()


def record(tracer: trace.Tracer, chance: random.Random) -> None:
    remote = SpanContext(chance.getrandbits(128), 7, True, TraceFlags(1), TraceState([("k", "v")]))
    parent = trace.set_span_in_context(NonRecordingSpan(remote)) if chance.random() < 0.5 else None
    span = tracer.start_span(
        "GET /é",
        context=parent,
        kind=chance.choice(list(SpanKind)),
        attributes=dict(attributes(chance)),
        links=[trace.Link(remote, {"link": 1})] if chance.random() < 0.2 else bare_links(chance),
    )
    if chance.random() < 0.3:
        span.add_event("event", dict(attributes(chance)))
    if chance.random() < 0.3:
        said = Status(StatusCode.ERROR, "why"), Status(StatusCode.ERROR), Status(StatusCode.OK)
        span.set_status(chance.choice(said))
    span.end()


def bare_links(chance: random.Random) -> list[trace.Link]:
    """Links without attributes, to spans of this process and of others."""
    to = [SpanContext(chance.getrandbits(128), 5, chance.random() < 0.5) for _ in range(2)]
    return [trace.Link(context) for context in to[: chance.randrange(3)]]


def attributes(chance: random.Random) -> Iterator[tuple[str, Any]]:
    for _ in range(chance.randrange(12)):
        yield f"key.{chance.randrange(8)}", chance.choice(VALUES)


def spans_of(message: ExportTraceServiceRequest) -> list[str]:
    """Every span with its resource and scope, in an order that does not depend on grouping."""
    return sorted(
        f"{of.resource}{of.schema_url}{under.scope}{under.schema_url}{span}"
        for of in message.resource_spans
        for under in of.scope_spans
        for span in under.spans
    )


@pytest.mark.parametrize("seed", range(5))
def test_same_messages(encoder: encoding.Encoder, seed: int) -> None:
    """Also from the memory of the first batch, every span is byte for byte what is official."""
    spans = recorded(150, seed)
    official = encode_spans(spans)
    for _ in range(2):
        ours = ExportTraceServiceRequest.FromString(encoder.encode(spans).SerializeToString())
        assert spans_of(ours) == spans_of(official)
        assert len(ours.resource_spans) == len(official.resource_spans)


def kept(encode: Callable[[int], object]) -> int:
    """The bytes that are still held after encoding a hundred batches."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(100):
            encode(number)
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("where", ["name", "key", "number"])
def test_long_names_and_keys_are_not_remembered(encoder: encoding.Encoder, where: str) -> None:
    """Whatever an application makes names and keys of, it is encoded as ever and not kept."""

    def encode(number: int) -> None:
        text = f"{number:05}." * 10_000
        given = {text: 7 if where == "number" else "v"} if where != "name" else {}
        name = text if where == "name" else "s"
        span = ReadableSpan(name, SpanContext(1, 2, False), attributes=given, resource=RESOURCE)
        ours = ExportTraceServiceRequest.FromString(encoder.encode([span]).SerializeToString())
        assert spans_of(ours) == spans_of(encode_spans([span]))

    assert kept(encode) < 1_000_000


def test_long_severities_are_not_remembered() -> None:
    """Levels of logging may be called anything."""
    encoder, (record, *_) = encoding.logs(), logged(1, 1)

    def encode(number: int) -> None:
        item = copy.copy(record.log_record)
        item.body, item.event_name = "body", None
        item.severity_text = f"{number:05}." * 10_000
        one = ReadableLogRecord(item, record.resource, record.instrumentation_scope)
        ours = ExportLogsServiceRequest.FromString(encoder.encode([one]).SerializeToString())
        assert logs_of(ours) == logs_of(encode_logs([one]))

    assert kept(encode) < 1_000_000


def test_equal_values_of_other_types_stay_apart(encoder: encoding.Encoder) -> None:
    """1, True and 1.0 are equal in Python and not in OTLP."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for value in (1, True, 1.0, 0, False):
        provider.get_tracer("t").start_span("s", attributes={"k": value}).end()
    spans = exporter.get_finished_spans()
    ours = ExportTraceServiceRequest.FromString(encoder.encode(spans).SerializeToString())
    kinds = [
        span.attributes[0].value.WhichOneof("value")
        for span in ours.resource_spans[0].scope_spans[0].spans
    ]
    assert kinds == ["int_value", "bool_value", "double_value", "int_value", "bool_value"]


def test_what_cannot_be_encoded_is_left_out(
    encoder: encoding.Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    """An attribute without an encoding costs itself, never the span or the batch."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("t").start_span("s", attributes={"big": 2**70, "good": "yes"}).end()
    ours = ExportTraceServiceRequest.FromString(
        encoder.encode(exporter.get_finished_spans()).SerializeToString()
    )
    span = ours.resource_spans[0].scope_spans[0].spans[0]
    assert [pair.key for pair in span.attributes] == ["good"]
    assert "Failed to encode key big" in caplog.text


def test_spans_of_another_type_show_what_they_want() -> None:
    """What a subclass hides, as a filter of an application may, is not read behind its back."""

    class Hiding(ReadableSpan):
        @property
        def attributes(self) -> Attributes:
            return {"password": "***"}

    span = Hiding("login", SpanContext(1, 2, False), attributes={"password": "secret"})
    data = encoding.spans().encode([span]).SerializeToString()
    assert b"***" in data and b"secret" not in data


def test_install_reaches_the_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter of OTLP over HTTP sends what this encoder made."""
    monkeypatch.setattr(trace_exporter, "encode_spans", encode_spans)
    monkeypatch.setattr(_log_exporter, "encode_logs", encode_logs)
    encoding.install()
    exporter = trace_exporter.OTLPSpanExporter(endpoint="http://127.0.0.1:9/v1/traces")
    sent: list[bytes] = []

    class Client:
        @staticmethod
        def export(data: bytes) -> Any:
            sent.append(data)
            return type("Result", (), {"success": True})

    monkeypatch.setattr(exporter, "_client", Client)
    spans = recorded(20, 1)
    exporter.export(spans)
    assert spans_of(ExportTraceServiceRequest.FromString(sent[0])) == spans_of(encode_spans(spans))


def test_what_ours_fails_on_is_encoded_officially(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items of a kind that we do not know cost nothing but time."""
    monkeypatch.setattr(trace_exporter, "encode_spans", lambda items: f"official {len(items)}")
    monkeypatch.setattr(_log_exporter, "encode_logs", encode_logs)
    encoding.install()
    encode: Any = vars(trace_exporter)["encode_spans"]
    assert encode([object()]) == "official 1"


@pytest.mark.parametrize("seed", range(3))
def test_same_log_messages(seed: int) -> None:
    """Also from the memory of the first batch, every log record is byte for byte what is official."""
    records = logged(150, seed)
    encoder = encoding.logs()
    official = encode_logs(records)
    for _ in range(2):
        ours = ExportLogsServiceRequest.FromString(encoder.encode(records).SerializeToString())
        assert logs_of(ours) == logs_of(official)


def logged(count: int, seed: int) -> Sequence[ReadableLogRecord]:
    """Log records of two resources, with everything that one can have."""
    chance = random.Random(seed)
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    bodies: tuple[AnyValue, ...] = (None, "text", "", "é" * 300, 7, {"deep": [1, "two"]})
    loggers = []
    for service in ("one", "two"):
        provider = LoggerProvider(resource=Resource({"service.name": service}))
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        loggers += [provider.get_logger("plain"), provider.get_logger("other", "1", "https://s")]
    for number in range(count):
        flags = TraceFlags(chance.choice((0, 1, 3)))
        span = NonRecordingSpan(SpanContext(number, number, False, flags))
        context = trace.set_span_in_context(span)
        chance.choice(loggers).emit(
            LogRecord(
                timestamp=chance.choice((None, number)),
                context=context,
                severity_number=SeverityNumber.WARN if chance.random() < 0.5 else None,
                severity_text=chance.choice((None, "WARN")),
                body=chance.choice(bodies),
                attributes={**dict(attributes(chance)), "deep": {"a": (1, 2)}},
                event_name=chance.choice((None, "event", "e" * 300)),
            )
        )
    return exporter.get_finished_logs()


def logs_of(message: ExportLogsServiceRequest) -> list[str]:
    """Every log record with its resource and scope, in an order that does not depend on grouping."""
    return sorted(
        f"{of.resource}{of.schema_url}{under.scope}{under.schema_url}{record}"
        for of in message.resource_logs
        for under in of.scope_logs
        for record in under.log_records
    )


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 16383, 16384, 70000])
def test_framing(size: int) -> None:
    """Lengths of one, two and three bytes."""
    scope = ScopeSpans(schema_url="x" * size)
    data = encoding.framed(b"\x12", scope.SerializeToString())
    parsed = ResourceSpans.FromString(data)
    assert parsed.scope_spans[0].schema_url == "x" * size
