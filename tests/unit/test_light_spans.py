"""otel_shim._sdk_compat.light_spans: the spans that the SDK makes, for less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from otel_shim import counters
from otel_shim._sdk_compat import light_spans
from otel_shim.memory import CountedIds

GIVEN: dict[str, Any] = {"text": "a", "number": 7, "share": 0.5, "true": True}


class Adding(Sampler):
    """Samples everything and says so on the span."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE, {"sampled.by": "us"}, TraceState())

    def get_description(self) -> str:
        return "Adding"


def above(*, sampled: bool, remote: bool, flags: int = 0) -> Context:
    """A context with a parent."""
    state = TraceState([("vendor", "1")])
    parent = SpanContext(9, 8, remote, TraceFlags(int(sampled) | flags), state)
    return set_span_in_context(NonRecordingSpan(parent), Context())


PARENTS = {
    "none": Context(),
    "local": above(sampled=True, remote=False),
    "remote": above(sampled=True, remote=True, flags=TraceFlags.RANDOM_TRACE_ID),
    "unsampled": above(sampled=False, remote=True),
}
PROVIDERS: Mapping[str, dict[str, Any]] = {
    "default": {"sampler": DEFAULT_ON},
    "always": {"sampler": ALWAYS_ON},
    "never": {"sampler": ALWAYS_OFF},
    "ratio": {"sampler": ParentBased(TraceIdRatioBased(0.5))},
    "some": {"sampler": ParentBased(ALWAYS_ON, remote_parent_not_sampled=ALWAYS_ON)},
    "adding": {"sampler": Adding()},
    "full": {"span_limits": SpanLimits(max_span_attributes=5)},
    "few": {"span_limits": SpanLimits(max_span_attributes=3)},
    "none": {"span_limits": SpanLimits(max_span_attributes=0)},
    "short": {"span_limits": SpanLimits(max_span_attribute_length=0)},
    "small": {"span_limits": SpanLimits(max_events=1, max_links=1)},
}


class Recorder:
    """A provider, and what it exported."""

    def __init__(self, **settings: Any) -> None:
        self.provider = TracerProvider(
            id_generator=CountedIds(),
            shutdown_on_exit=False,
            resource=Resource({"service.name": "shop"}),
            **settings,
        )
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("scope", "1", schema_url="https://schema")

    def spans(self) -> list[dict[str, Any]]:
        """All that was exported, without times."""
        return [described(span) for span in self._exporter.get_finished_spans()]


def described(span: ReadableSpan) -> dict[str, Any]:
    """All of a span but for its times."""
    fields: dict[str, Any] = {**vars(span)}
    for name in ("_start_time", "_end_time", "_instrumentation_info"):
        fields.pop(name)
    fields["_attributes"] = list((span.attributes or {}).items())  # in their order
    fields["_events"] = [(event.name, dict(event.attributes or {})) for event in span.events]
    fields["_links"] = [(link.context, dict(link.attributes or {})) for link in span.links]
    fields["dropped"] = span.dropped_attributes, span.dropped_events, span.dropped_links
    fields["_status"] = span.status.status_code, span.status.description
    fields["type"] = type(span)
    return fields


def use(span: trace.Span) -> None:
    """Everything that one can do with a span."""
    span.set_attribute("later", 1)
    span.set_attribute("text", "set once more")
    for odd in ([1, 2], None, {"a": {"b": object}}, b"bytes", object):
        span.set_attribute(f"odd {odd!s:.9}", odd)  # type: ignore[arg-type]
    span.set_attribute("", "no key")
    span.set_attribute(7, "no text")  # type: ignore[arg-type]
    span.set_attributes({"later.still": "x", "text": "changed"})
    for number in range(2):
        span.add_event("event", {"n": number})
        span.add_link(SpanContext(3 + number, 4, is_remote=True), {"n": number})
    span.record_exception(ValueError("no"))
    span.update_name("renamed")
    span.set_status(StatusCode.ERROR, "why")


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("settings", PROVIDERS)
@pytest.mark.parametrize("used", [True, False])
def test_as_the_sdk(
    settings: str, parent: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name, ids, flags, state, attributes, events, links, status, drops: all are the same."""
    official, ours = Recorder(**PROVIDERS[settings]), Recorder(**PROVIDERS[settings])
    context = PARENTS[parent]
    theirs = official.tracer.start_span("n", context, SpanKind.CLIENT, GIVEN)
    made = light_spans.start_span(ours.tracer, "n", SpanKind.CLIENT, GIVEN, context)
    assert made.get_span_context() == theirs.get_span_context()
    for span in (theirs, made):
        if used:
            use(span)
        span.end()
    found, expected = ours.spans(), official.spans()
    for exported in (*found, *expected):  # the stack differs by its lines
        for _, attributes in exported["_events"]:
            attributes.pop("exception.stacktrace", None)
    assert found == expected
    assert not counters.snapshot()


def test_light_where_it_may_be() -> None:
    """The light way is taken with default settings, and by nobody whose settings could matter."""
    light = {
        name: isinstance(
            light_spans.start_span(Recorder(**how).tracer, "n", SpanKind.CLIENT, GIVEN, Context()),
            light_spans.LightSpan,
        )
        for name, how in PROVIDERS.items()
    }
    assert [name for name, is_light in light.items() if is_light] == [
        "default", "always", "some", "full", "small",
    ]  # fmt: skip


def test_processors_see_it_in_the_given_context() -> None:
    """Processors are told with the context, as ever."""
    seen: list[Any] = []

    class Watcher(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            seen.append((span.attributes["text"], parent_context))

    recorder = Recorder()
    recorder.provider.add_span_processor(Watcher())
    light_spans.start_span(recorder.tracer, "n", SpanKind.CLIENT, GIVEN, PARENTS["local"])
    light_spans.start_span(recorder.tracer, "n", SpanKind.CLIENT, GIVEN)
    assert seen == [("a", PARENTS["local"]), ("a", None)]


@pytest.mark.parametrize("settings", ["default", "adding", "small"])
@pytest.mark.parametrize("more", [{"n": 1}, None], ids=["attributes", "bare"])
@pytest.mark.parametrize("numbers", [(0, 3, 5), (3,), (0,)], ids=["three", "one", "invalid"])
def test_links_are_there_at_the_start(
    settings: str, numbers: tuple[int, ...], more: dict[str, int] | None
) -> None:
    """Samplers and processors see them, as limits allow, and those that are invalid are none."""
    seen: list[Any] = []

    class Watcher(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            seen.append(
                ([(at.context, dict(at.attributes)) for at in span.links], span.dropped_links)
            )

    def recorder() -> Recorder:
        made = Recorder(**PROVIDERS[settings])
        made.provider.add_span_processor(Watcher())
        return made

    def links() -> list[trace.Link]:
        return [trace.Link(SpanContext(number, 4, is_remote=True), more) for number in numbers]

    official, ours = recorder(), recorder()
    theirs = official.tracer.start_span("n", Context(), SpanKind.CLIENT, GIVEN, links())
    made = light_spans.start_span(
        ours.tracer, "n", SpanKind.CLIENT, GIVEN, Context(), links=links()
    )
    for span in (theirs, made):
        span.add_link(SpanContext(6, 4, is_remote=True))
        span.end()
    assert seen[0] == seen[1] and bool(seen[0][0]) is (more is not None or any(numbers))
    assert ours.spans() == official.spans()
    assert isinstance(made, light_spans.LightSpan) is (settings != "adding")


def test_too_late() -> None:
    """An ended span takes no attribute."""
    span: Any = light_spans.start_span(Recorder().tracer, "n", SpanKind.CLIENT, GIVEN)
    span.end()
    span.set_attribute("a", 1)
    assert dict(span.attributes) == GIVEN


def test_given_attributes_are_not_kept() -> None:
    """Who passes attributes may go on using them."""
    given = {"a": 1}
    span: Any = light_spans.start_span(Recorder().tracer, "n", SpanKind.CLIENT, given)
    span.set_attribute("b", 2)
    given["c"] = 3
    assert dict(span.attributes) == {"a": 1, "b": 2}


@pytest.mark.parametrize("change", ["more", "less", "other", "raises"])
def test_another_sdk(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the SDK's span has other fields, the SDK makes it."""
    kind: Any = vars(light_spans)["_Span"]
    make = kind.__init__

    def changed(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        if change == "more":
            self._new = None
        elif change == "less":
            del self._trace_config
        elif change == "other":
            self._lock = None
        else:
            raise TypeError("another signature")

    monkeypatch.setattr(light_spans, "_shapes", {})
    tracer: Any = Recorder().tracer
    with monkeypatch.context() as patched:
        patched.setattr(kind, "__init__", changed)
        assert not light_spans._is_as_known(tracer)
    span = light_spans.start_span(tracer, "n", SpanKind.CLIENT, GIVEN)
    assert not isinstance(span, light_spans.LightSpan)
    assert bool(counters.snapshot()) is (change == "raises")


def test_disabled_and_foreign_tracers() -> None:
    """A tracer that is switched off, or is none of the SDK, decides itself."""
    tracer: Any = Recorder().tracer
    tracer._tracer_config.is_enabled = False
    for other in (tracer, trace.NoOpTracer(), trace.ProxyTracer("x")):
        span = light_spans.start_span(other, "n", SpanKind.CLIENT, GIVEN)
        assert not span.is_recording()
