"""otel_shim.jobs: a run is a trace of its own, linked to its trigger, with nobody's identity but its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import otel_shim
from otel_shim import context, counters, jobs
from otel_shim.heartbeats import heartbeats
from otel_shim.jobs import Course, Run
from tests.unit.telemetry import Telemetry

NAME = "audit.retention.job"
STEP = "etl.load"
SCOPE = "saas.identity.scope"
UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def run_span(telemetry: Telemetry, name: str = NAME) -> ReadableSpan:
    """The one span of a name."""
    (span,) = [each for each in telemetry.spans() if each.name == name]
    return span


def reported() -> dict[str, int]:
    """What was counted, faults of ours above all."""
    return counters.snapshot()


# --- a trace of its own ---------------------------------------------------------------------------------


def test_what_a_run_says(telemetry: Telemetry) -> None:
    """Names, types and values of a run without anything special."""

    @otel_shim.job(NAME, schedule="0 3 * * *", critical=True, max_runtime=timedelta(minutes=10))
    def retention() -> str:
        return "done"

    assert retention() == "done"
    span = run_span(telemetry)
    attributes = dict(span.attributes or {})
    assert len(str(attributes.pop("saas.job.run.id"))) == 36
    assert attributes == {
        "saas.operation": NAME,
        "saas.actor.type": "job",
        "saas.job.system": "function",
        "saas.job.attempt": 1,
        "saas.job.critical": True,
        "saas.job.schedule": "0 3 * * *",
        "saas.job.outcome": "success",
    }
    assert type(attributes["saas.job.attempt"]) is int
    assert span.kind is SpanKind.INTERNAL and span.parent is None and span.links == ()
    assert span.status.status_code is StatusCode.UNSET
    assert reported() == {}


def test_a_job_called_in_a_request(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """It is no part of the request's trace, refers to it, and knows nothing of its identity."""

    @otel_shim.job(NAME)
    def retention() -> None:
        assert baggage.get_all() == {}
        with otel_shim.operation(STEP):
            assert otel_shim.current_identity().org_id is None

    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER) as request:
        otel_shim.bind(org_id="acme", user_id="anna", plan="pro")
        token = attach(baggage.set_baggage("org", "acme"))
        with otel_shim.identity(org_id="acme", user_id="bert"):
            retention()
        detach(token)
        assert otel_shim.current_identity().org_id == "acme"
    span, step = run_span(telemetry), run_span(telemetry, STEP)
    assert span.context is not None and step.context is not None
    assert span.parent is None
    assert span.context.trace_id == step.context.trace_id != request.get_span_context().trace_id
    assert [link.context.span_id for link in span.links] == [request.get_span_context().span_id]
    assert (span.attributes or {})["saas.job.trigger"] == "manual"
    for each in (span, step):
        leaked = {"saas.org.id", "user.hash", "saas.plan", "saas.actor.hash"} & set(
            each.attributes or {}
        )
        assert not leaked
    assert "saas.operation" not in telemetry.span("GET")


def test_the_request_goes_on_as_before(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """After the job, context and identity are the request's."""

    @otel_shim.job(NAME)
    def retention() -> None:
        otel_shim.bind(org_id="globex")

    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER) as request:
        otel_shim.bind(org_id="acme")
        before = get_current()
        retention()
        assert get_current() == before
        assert trace.get_current_span() is request
    assert telemetry.span("GET")["saas.org.id"] == "acme"
    assert telemetry.span(NAME)["saas.org.id"] == "globex"
    assert reported() == {}


def test_a_job_inside_of_a_job(telemetry: Telemetry) -> None:
    """Each is a trace; the inner one refers to the outer."""

    @otel_shim.job("inner.job")
    def inner() -> None:
        otel_shim.job_items(written=1)

    @otel_shim.job(NAME)
    def outer() -> None:
        otel_shim.bind(org_id="acme")
        inner()
        otel_shim.job_items(read=5)

    outer()
    span, within = run_span(telemetry), run_span(telemetry, "inner.job")
    assert span.context is not None and within.context is not None
    assert within.parent is None
    assert within.links[0].context.trace_id == span.context.trace_id != within.context.trace_id
    assert "saas.org.id" not in telemetry.span("inner.job")
    assert telemetry.span("inner.job")["saas.job.items.written"] == 1
    assert telemetry.span(NAME)["saas.job.items.read"] == 5
    assert "saas.job.items.written" not in telemetry.span(NAME)


def test_an_identity_block_around_a_call(telemetry: Telemetry) -> None:
    """Outside of any span it is what the script says of its job, not what somebody else was given."""

    @otel_shim.job(NAME)
    def retention() -> None:
        pass

    with otel_shim.identity(org_id="acme"):
        retention()
    found = telemetry.span(NAME)
    assert (found["saas.org.id"], found["saas.actor.type"]) == ("acme", "job")
    assert "saas.actor.hash" in found


# --- for whom -------------------------------------------------------------------------------------------


def test_the_job_is_the_actor_where_the_organisation_is_known(telemetry: Telemetry) -> None:
    """Its pseudonym comes with the organisation, and differs from one to the next."""

    @otel_shim.job(NAME)
    def retention(org: str) -> None:
        otel_shim.bind(org_id=org)
        with otel_shim.operation(STEP):
            pass

    retention("acme")
    retention("globex")
    seen = [dict(s.attributes or {}) for s in telemetry.spans() if s.name == STEP]
    assert [s["saas.org.id"] for s in seen] == ["acme", "globex"]
    assert {s["saas.actor.type"] for s in seen} == {"job"}
    assert len({s["saas.actor.hash"] for s in seen}) == 2
    assert not [s for s in seen if "user.hash" in s]


def test_a_user_named_inside_is_a_user(telemetry: Telemetry) -> None:
    """Whom the application names takes the place of the job, without a conflict."""

    @otel_shim.job(NAME)
    def export() -> None:
        otel_shim.bind(org_id="acme", user_id="anna")

    @otel_shim.job("other.job")
    def other() -> None:
        with otel_shim.identity(org_id="acme", user_id="anna"), otel_shim.operation(STEP):
            otel_shim.bind(plan="pro")

    export()
    other()
    for found in (telemetry.span(NAME), telemetry.span(STEP)):
        assert found["saas.actor.type"] == "user"
        assert "user.hash" in found and "saas.actor.hash" not in found
    assert telemetry.span("other.job")["saas.actor.type"] == "job"
    assert reported() == {}


def test_a_job_that_walks_over_organisations(telemetry: Telemetry) -> None:
    """With the second one its span is marked as everybody's; each step is somebody's."""

    @otel_shim.job(NAME, retention_class="r90d")
    def retention(organisations: list[str]) -> None:
        for org in organisations:
            with otel_shim.identity(org_id=org), otel_shim.operation(STEP):
                pass

    retention(["acme", "globex", "initech"])
    found = telemetry.span(NAME)
    assert found[SCOPE] == "multi" and "saas.org.id" not in found
    steps = [dict(s.attributes or {}) for s in telemetry.spans() if s.name == STEP]
    assert [s["saas.org.id"] for s in steps] == ["acme", "globex", "initech"]
    assert {s["saas.gdpr.retention_class"] for s in steps} == {"r90d"}
    assert {s["saas.actor.type"] for s in steps} == {"job"}
    telemetry.clear()
    retention(["acme", "acme"])
    assert SCOPE not in telemetry.span(NAME)


def test_a_walk_by_binding(telemetry: Telemetry) -> None:
    """One after the other in one task: what follows is the newest one's, with the job's references."""

    @otel_shim.job(NAME, legal_basis="legal_obligation")
    def retention() -> None:
        for org in ("acme", "globex"):
            otel_shim.bind(org_id=org)
            with otel_shim.operation(STEP):
                pass

    retention()
    assert telemetry.span(NAME)[SCOPE] == "multi"
    steps = [dict(s.attributes or {}) for s in telemetry.spans() if s.name == STEP]
    assert [s["saas.org.id"] for s in steps] == ["acme", "globex"]
    assert {s["saas.gdpr.legal_basis"] for s in steps} == {"legal_obligation"}
    assert {s["saas.actor.type"] for s in steps} == {"job"}


def test_a_walk_with_threads_and_tasks(telemetry: Telemetry) -> None:
    """Marked whoever comes second, and no step is another's."""
    organisations = [f"org-{n}" for n in range(20)]

    def visit(org: str) -> None:
        with otel_shim.identity(org_id=org), otel_shim.operation(f"for.{org}"):
            pass

    async def visit_async(org: str) -> None:
        await asyncio.sleep(0)
        visit(org)

    @otel_shim.job("with.threads")
    def with_threads() -> None:
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(copy_context().run, visit, org) for org in organisations]:
                future.result()

    @otel_shim.job("with.tasks")
    async def with_tasks() -> None:
        await asyncio.gather(*map(visit_async, organisations))

    with_threads()
    asyncio.run(with_tasks())
    assert telemetry.span("with.threads")[SCOPE] == telemetry.span("with.tasks")[SCOPE] == "multi"
    steps = {
        (s.name, (s.attributes or {})["saas.org.id"])
        for s in telemetry.spans()
        if s.name.startswith("for.")
    }
    assert steps == {(f"for.{org}", org) for org in organisations}


def test_gdpr_references_stay_whoever_it_is_for(telemetry: Telemetry) -> None:
    """On the run and all below, blocks of other organisations included."""

    @otel_shim.job(
        NAME, processing_activity_id="pa-7", legal_basis="contract", retention_class="r90d"
    )
    def retention() -> None:
        otel_shim.bind(org_id="acme", user_id="anna")
        with otel_shim.operation("one"):
            pass
        with otel_shim.identity(org_id="globex", user_id="bert"), otel_shim.operation("two"):
            pass

    retention()
    references = {
        "saas.gdpr.processing_activity.id": "pa-7",
        "saas.gdpr.legal_basis": "contract",
        "saas.gdpr.retention_class": "r90d",
    }
    for name in (NAME, "one", "two"):
        assert references.items() <= telemetry.span(name).items()


# --- how it ends ----------------------------------------------------------------------------------------


def test_an_error_passes_unchanged(telemetry: Telemetry) -> None:
    """The run failed, by the error's type only."""
    error = KeyError("anna@example.com")

    @otel_shim.job(NAME)
    def retention() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        retention()
    assert caught.value is error
    span = run_span(telemetry)
    assert (span.attributes or {})["saas.job.outcome"] == "failure"
    assert (span.attributes or {})["error.type"] == "KeyError"
    assert span.status.status_code is StatusCode.ERROR and span.status.description is None
    assert span.events == ()
    assert heartbeats.beats()[NAME].last_success is None


@pytest.mark.parametrize(
    ("error", "max_runtime", "outcome"),
    [
        (TimeoutError(), 1e-9, "timeout"),
        (asyncio.CancelledError(), 1e-9, "timeout"),
        (TimeoutError(), 60, "failure"),  # somebody else's time
        (TimeoutError(), None, "failure"),
        (ValueError(), 1e-9, "failure"),
        (StopIteration(), None, "failure"),  # of an iterator that nobody caught
        (SystemExit(0), None, "success"),
        (SystemExit(), None, "success"),
        (SystemExit(3), None, "failure"),
        (KeyboardInterrupt(), None, "failure"),
    ],
)
def test_outcomes(
    telemetry: Telemetry, error: BaseException, max_runtime: float | None, outcome: str
) -> None:
    """A timeout is the job's own only where it took longer than it may; a script may end by exit."""

    @otel_shim.job(NAME, max_runtime=max_runtime)
    def retention() -> None:
        raise error

    with pytest.raises(type(error)):
        retention()
    found = telemetry.span(NAME)
    assert found["saas.job.outcome"] == outcome
    assert found.get("saas.job.overrun") == (True if max_runtime == 1e-9 else None)


def test_rejected_items_make_it_partial(telemetry: Telemetry) -> None:
    """Items add up; a run some of whose items failed is no success."""

    @otel_shim.job(NAME)
    def load() -> None:
        otel_shim.job_backlog(before=240)
        for _ in range(3):
            otel_shim.job_items(read=10, written=8, rejected=1, filtered=1)
        otel_shim.job_backlog(after=210)

    load()
    found = telemetry.span(NAME)
    assert found["saas.job.outcome"] == "partial"
    counts = {key.rpartition(".")[2]: found[key] for key in found if ".items." in key}
    assert counts == {"read": 30, "written": 24, "rejected": 3, "filtered": 3}
    assert (found["saas.job.backlog.before"], found["saas.job.backlog.after"]) == (240, 210)
    beat = heartbeats.beats()[NAME]
    assert (beat.backlog, beat.last_success) == (210, None)


def test_items_of_threads_and_steps(telemetry: Telemetry) -> None:
    """They count for the run, wherever below it they are reported."""

    @otel_shim.job(NAME)
    def load() -> None:
        with otel_shim.operation(STEP):
            otel_shim.job_items(read=1)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(copy_context().run, otel_shim.job_items, written=1).result()

    load()
    found = telemetry.span(NAME)
    assert (found["saas.job.items.read"], found["saas.job.items.written"]) == (1, 1)


@pytest.mark.parametrize("value", [-1, 1.5, True, "7", float("nan"), 1 << 70, [1]])
def test_numbers_that_are_none(telemetry: Telemetry, value: Any) -> None:
    """Left out and counted; the rest of the same call is taken."""

    @otel_shim.job(NAME)
    def load() -> None:
        otel_shim.job_items(read=value, written=2)
        otel_shim.job_backlog(before=value, after=1)

    load()
    found = telemetry.span(NAME)
    assert "saas.job.items.read" not in found and "saas.job.backlog.before" not in found
    assert (found["saas.job.items.written"], found["saas.job.backlog.after"]) == (2, 1)
    assert reported() == {"job_report_rejected": 2}


NIGHT = datetime(2026, 11, 23, 1, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "value", [NIGHT, NIGHT.replace(tzinfo=None), NIGHT.timestamp(), int(NIGHT.timestamp())]
)
def test_of_when_the_data_is(telemetry: Telemetry, value: Any) -> None:
    """A datetime or seconds; of several the earliest, on the span and for the heartbeat."""

    @otel_shim.job(NAME)
    def verify() -> None:
        otel_shim.recovery_point(NIGHT + timedelta(days=1))
        otel_shim.recovery_point(value)
        otel_shim.recovery_point(NIGHT + timedelta(days=2))

    verify()
    assert telemetry.span(NAME)["saas.job.recovery_point"] == "2026-11-23T01:00:00Z"
    assert heartbeats.beats()[NAME].recovery_point == NIGHT.timestamp()


@pytest.mark.parametrize(
    "value",
    [None, True, "2026", 0, -1, float("nan"), float("inf"), 1 << 70, time.time() + 1e6],
    ids=["None", "True", "text", "0", "-1", "nan", "inf", "endless", "future"],
)
def test_recovery_points_that_are_none(telemetry: Telemetry, value: Any) -> None:
    """A time that is none, or has not come yet, is counted: nothing would ever be too old."""

    @otel_shim.job(NAME)
    def verify() -> None:
        otel_shim.recovery_point(value)

    verify()
    otel_shim.recovery_point(1.0)
    assert "saas.job.recovery_point" not in telemetry.span(NAME)
    assert heartbeats.beats()[NAME].recovery_point is None
    assert reported() == {"job_report_rejected": 1, "job_report_without_run": 1}


def test_reports_outside_of_a_run(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Nobody's; counted, and no error."""
    otel_shim.job_items(read=1)
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
        otel_shim.job_backlog(after=1)
    with jobs.running(Run(NAME)):
        late = get_current()
    token = attach(late)
    otel_shim.job_items(read=1)
    detach(token)
    assert reported() == {"job_report_without_run": 3}
    assert "saas.job.items.read" not in telemetry.span(NAME)


def test_an_operation_under_nothing_is_a_job_too(telemetry: Telemetry) -> None:
    """It has a heartbeat and takes items; its span says no more than it was asked to."""
    with otel_shim.operation("billing.rollup"):
        otel_shim.job_items(read=3)
        assert heartbeats.beats()["billing.rollup"].active == 1
    beat = heartbeats.beats()["billing.rollup"]
    assert beat.active == 0 and beat.last_success is not None
    found = telemetry.span("billing.rollup")
    assert found == {"saas.operation": "billing.rollup", "saas.job.items.read": 3}


# --- every kind of function ------------------------------------------------------------------------------


async def test_coroutines_and_generators(telemetry: Telemetry) -> None:
    """One run each, current only while it is at work."""

    @otel_shim.job("of.coroutine")
    async def coroutine() -> int:
        await asyncio.sleep(0)
        otel_shim.job_items(read=1)
        return 1

    @otel_shim.job("of.generator")
    def generator() -> Iterator[int]:
        otel_shim.job_items(read=1)
        yield 1
        otel_shim.job_items(read=1)

    @otel_shim.job("of.stream")
    async def stream() -> AsyncIterator[int]:
        otel_shim.job_items(read=1)
        yield 1
        await asyncio.sleep(0)
        otel_shim.job_items(read=1)

    assert await coroutine() == 1
    for _ in generator():
        assert jobs.at_work() is None
    async for _ in stream():
        assert jobs.at_work() is None
    with otel_shim.job("of.block"):
        otel_shim.job_items(read=1)
    items = {s.name: (s.attributes or {})["saas.job.items.read"] for s in telemetry.spans()}
    assert items == {"of.coroutine": 1, "of.generator": 2, "of.stream": 2, "of.block": 1}
    assert reported() == {}


async def test_a_generator_that_is_abandoned_is_no_success(telemetry: Telemetry) -> None:
    """Its consumer stops after 3 of 10 items: nothing failed, and the job is not done."""

    @otel_shim.job("of.generator")
    def generator() -> Iterator[int]:
        yield from range(10)

    @otel_shim.job("of.stream")
    async def stream() -> AsyncGenerator[int, None]:
        for item in range(10):
            yield item

    items = generator()
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    del items
    later = stream()
    assert [await anext(later) for _ in range(3)] == [0, 1, 2]
    await later.aclose()
    for name in ("of.generator", "of.stream"):
        assert telemetry.span(name)["saas.job.outcome"] == "partial"
        assert run_span(telemetry, name).status.status_code is StatusCode.UNSET
        beat = heartbeats.beats()[name]
        assert (beat.active, beat.last_success) == (0, None)
    assert list(generator()) == list(range(10))
    assert heartbeats.beats()["of.generator"].last_success is not None


def test_a_cancelled_coroutine_ends_its_run(telemetry: Telemetry) -> None:
    """Cancellation passes and is a failure."""

    @otel_shim.job(NAME)
    async def retention() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(retention())
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert telemetry.span(NAME)["saas.job.outcome"] == "failure"
    assert heartbeats.beats()[NAME].active == 0


# --- what is declared -------------------------------------------------------------------------------------


def test_a_declaration_is_known_before_any_run() -> None:
    """That is how a job that never runs is missed."""

    @otel_shim.job(NAME, schedule="every 15m", max_runtime=60, critical=True)
    def retention() -> None:
        pass

    (declared,) = heartbeats.declarations()
    assert (declared.name, declared.period, declared.max_runtime) == (NAME, 900.0, 60.0)
    assert declared.critical
    assert heartbeats.beats() == {}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"schedule": "0 3 * *"}, "0 3 * *"),
        ({"schedule": "0 3 * * *", "timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"schedule": 15}, "15"),
        ({"max_runtime": "ten minutes"}, "max_runtime"),
        ({"max_runtime": -1}, "max_runtime"),
        ({"max_runtime": float("inf")}, "max_runtime"),
    ],
)
def test_a_bad_declaration_breaks_nothing(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], named: str
) -> None:
    """One line says what is wrong and how to mend it; the job runs without."""
    with caplog.at_level(logging.ERROR, logger="otel_shim"):

        @otel_shim.job(NAME, **wrong)
        def retention() -> int:
            return 7

    (line,) = [record.getMessage() for record in caplog.records]
    assert NAME in line and named in line and "write" in line
    assert retention() == 7
    assert telemetry.span(NAME)["saas.job.outcome"] == "success"
    assert reported() == {"job_declaration_rejected": 1}


def test_references_that_are_no_identifiers(telemetry: Telemetry) -> None:
    """Left out and counted."""
    unusable: Any = object()

    @otel_shim.job(
        NAME, legal_basis=unusable, retention_class="x" * 300, processing_activity_id="a"
    )
    def retention() -> None:
        pass

    retention()
    found = {key for key in telemetry.span(NAME) if key.startswith("saas.gdpr")}
    assert found == {"saas.gdpr.processing_activity.id"}
    assert reported() == {"job_declaration_rejected": 2}


def test_the_name_of_a_function() -> None:
    """As decorated, also under another decorator; else module and name."""

    @otel_shim.operation("x.y")
    @otel_shim.job(NAME)
    def declared() -> None:
        pass

    class Callable_:  # noqa: N801 - the name is what is looked at
        def __call__(self) -> None:
            pass

        def method(self) -> None:
            pass

    import functools

    assert jobs.name_of(declared) == jobs.name_of(functools.partial(declared)) == NAME
    assert jobs.name_of(test_what_a_run_says).endswith("test_jobs.test_what_a_run_says")
    assert jobs.name_of(Callable_().method).endswith("Callable_.method")
    assert jobs.name_of(Callable_()).endswith("Callable_")
    assert "<locals>" not in jobs.name_of(Callable_().method)
    assert jobs.name_of(functools.partial(print, 1)) == "builtins.print"


# --- what adapters use -------------------------------------------------------------------------------------


def test_samplers_and_processors_see_the_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    """The link is there when the span starts: what is decided then may depend on it."""
    seen: list[Any] = []

    class Asking(sampling.Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> sampling.SamplingResult:
            links = kwargs.get("links", args[5] if len(args) > 5 else None)
            seen.append([link.context.trace_id for link in links or ()])
            return sampling.SamplingResult(sampling.Decision.RECORD_AND_SAMPLE)

        def get_description(self) -> str:
            return "Asking"

    class Watcher(SimpleSpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            seen.append([link.context.trace_id for link in span.links])

    run = Run("invoice.send", link=trace.SpanContext(7, 8, is_remote=True))
    for sampler in (sampling.ALWAYS_ON, Asking()):
        tracers = TracerProvider(sampler, shutdown_on_exit=False)
        tracers.add_span_processor(Watcher(InMemorySpanExporter()))
        monkeypatch.setattr(jobs, "_tracer", tracers.get_tracer("jobs"))
        with jobs.running(run):
            pass
    assert seen == [[7], [7], [7]]


def test_a_run_of_an_adapter(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """Everything that a queue knows is on the span, and the work's identity is the work's."""
    due = datetime.now(timezone.utc) - timedelta(seconds=5)
    with tracer.start_as_current_span("send", kind=SpanKind.PRODUCER) as producer:
        otel_shim.bind(org_id="acme")
        run = Run(
            "invoice.send",
            system="celery",
            trigger="retry",
            scheduled_time=due,
            attempt=2,
            run_id="task-1",
            link=producer.get_span_context(),
            kind=SpanKind.CONSUMER,
            attributes={"messaging.system": "celery"},
        )
        with jobs.running(run) as work:
            assert work is not None and jobs.at_work() is work
            assert context.correlation()["saas.operation"] == "invoice.send"
    span = run_span(telemetry, "invoice.send")
    found = dict(span.attributes or {})
    assert span.kind is SpanKind.CONSUMER and span.parent is None
    assert span.links[0].context.span_id == producer.get_span_context().span_id
    delay = found.pop("saas.job.start.delay")
    assert isinstance(delay, float) and 5 <= delay < 60
    assert found == {
        "saas.operation": "invoice.send",
        "messaging.system": "celery",
        "saas.actor.type": "job",
        "saas.job.system": "celery",
        "saas.job.trigger": "retry",
        "saas.job.attempt": 2,
        "saas.job.run.id": "task-1",
        "saas.job.scheduled_time": due.isoformat().replace("+00:00", "Z"),
        "saas.job.outcome": "success",
    }


def test_a_run_as_a_part_of_its_triggers_trace(telemetry: Telemetry, tracer: trace.Tracer) -> None:
    """By choice; its identity is its own all the same."""
    with tracer.start_as_current_span("send", kind=SpanKind.PRODUCER) as producer:
        otel_shim.bind(org_id="acme")
        with jobs.running(Run(NAME, system="celery", parent=producer.get_span_context())):
            assert otel_shim.current_identity().org_id is None
    span = run_span(telemetry)
    assert span.parent is not None
    assert span.parent.span_id == producer.get_span_context().span_id
    assert "saas.org.id" not in (span.attributes or {})


def test_a_decorated_function_in_an_adapters_run_is_one_run(telemetry: Telemetry) -> None:
    """The first call is the run; a second one inside is a run of its own."""

    @otel_shim.job(NAME, critical=True)
    def retention(again: bool) -> None:
        otel_shim.job_items(read=1)
        if again:
            retention(again=False)

    with jobs.running(Run(jobs.name_of(retention), system="apscheduler", trigger="schedule")):
        retention(again=True)
    systems = [(s.attributes or {})["saas.job.system"] for s in telemetry.spans()]
    assert systems == ["function", "apscheduler"]
    outer = telemetry.spans()[1]
    assert (outer.attributes or {})["saas.job.critical"] is True
    assert {(s.attributes or {})["saas.job.items.read"] for s in telemetry.spans()} == {1}


def test_an_outcome_that_the_adapter_knows(telemetry: Telemetry) -> None:
    """Told at the end, once; a second end changes nothing."""
    work = jobs.start_run(Run(NAME, system="rq"))
    assert work is not None
    jobs.end_run(work, LookupError("x"), "timeout")
    jobs.end_run(work)
    found = telemetry.span(NAME)
    assert (found["saas.job.outcome"], found["error.type"]) == ("timeout", "LookupError")
    assert heartbeats.beats()[NAME].active == 0


def test_a_run_that_never_started(telemetry: Telemetry) -> None:
    """A short span says which; it moves no heartbeat."""
    due = datetime(2026, 11, 23, 3, tzinfo=timezone.utc)
    jobs.unstarted(Run(NAME, system="apscheduler", scheduled_time=due), "missed")
    span = run_span(telemetry)
    assert span.start_time == span.end_time
    assert (span.attributes or {})["saas.job.outcome"] == "missed"
    assert (span.attributes or {})["saas.job.scheduled_time"] == "2026-11-23T03:00:00Z"
    assert (span.attributes or {})["saas.actor.type"] == "job"
    assert heartbeats.beats() == {}


def test_a_run_of_another_process(telemetry: Telemetry) -> None:
    """With the times that it had."""
    jobs.took_place(Run(NAME, system="apscheduler"), Course(1000.0, 2.5, "failure", "OSError"))
    span = run_span(telemetry)
    assert (span.start_time, span.end_time) == (1000 * 10**9, 1002.5 * 10**9)
    assert (span.attributes or {})["saas.job.outcome"] == "failure"
    assert (span.attributes or {})["error.type"] == "OSError"
    assert span.status.status_code is StatusCode.ERROR
    beat = heartbeats.beats()[NAME]
    assert (beat.active, beat.last_start, beat.last_success) == (0, 1000.0, None)


def test_a_naive_time_is_utc(telemetry: Telemetry) -> None:
    """Brokers often leave the zone out."""
    run = Run(NAME, scheduled_time=datetime(2026, 11, 23, 3))
    with jobs.running(run):
        pass
    assert telemetry.span(NAME)["saas.job.scheduled_time"] == "2026-11-23T03:00:00Z"


def test_a_fault_of_ours_breaks_no_job(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function runs, its error is its own, and the fault is counted."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    @otel_shim.job(NAME)
    def retention(number: int) -> int:
        if number < 0:
            raise ValueError(number)
        return number

    monkeypatch.setattr(jobs, "_begin", broken)
    assert retention(7) == 7
    with pytest.raises(ValueError, match="-1"):
        retention(-1)
    assert reported() == {"internal_errors": 2}


def test_without_an_sdk_a_job_runs() -> None:
    """No provider, no spans, no difference."""

    @otel_shim.job(NAME)
    def retention() -> int:
        otel_shim.job_items(read=1)
        return 7

    assert retention() == 7


@pytest.mark.parametrize(
    ("name", "run_id"),
    [
        ("x" * 300, None),
        ("\ud800", "\udfff"),
        ("", ""),
        ("a\nb", "a\x00b"),
        (None, 7),
        (NAME, "r" * 1000),
        (b"bytes", object()),
    ],
)
def test_what_a_broker_hands_on(telemetry: Telemetry, name: Any, run_id: Any) -> None:
    """Names and ids that cannot be exported are counted; the run is told all the same."""
    run = Run(name, system="rq", run_id=run_id)
    with jobs.running(run):
        pass
    jobs.unstarted(run, "missed")
    jobs.took_place(run, Course(1.0, 1.0, "success"))
    assert len(telemetry.spans()) == 3
    for span in telemetry.spans():
        assert span.name == (NAME if name == NAME else jobs.UNNAMED)
        found = (span.attributes or {})["saas.job.run.id"]
        assert isinstance(found, str) and found.isprintable() and 0 < len(found) <= 256
    assert reported() == {"job_run_rejected": 3}


@pytest.mark.parametrize("due", [datetime.min, datetime.max, "tomorrow"])
def test_times_that_are_none(telemetry: Telemetry, due: Any) -> None:
    """Left out where no number can say them; the run goes on."""
    with jobs.running(Run(NAME, scheduled_time=due)):
        pass
    assert telemetry.span(NAME)["saas.job.outcome"] == "success"


def test_an_identity_block_that_names_a_user(telemetry: Telemetry) -> None:
    """The script says who acts: that is who acts, and the job's references stay."""

    @otel_shim.job(NAME, retention_class="r90d")
    def export() -> None:
        pass

    with otel_shim.identity(org_id="acme", user_id="anna"):
        export()
    found = telemetry.span(NAME)
    assert found["saas.actor.type"] == "user" and "user.hash" in found
    assert "saas.actor.hash" not in found
    assert found["saas.gdpr.retention_class"] == "r90d"


def test_attributes_that_have_to_be_cleaned(telemetry: Telemetry) -> None:
    """What the light way cannot take goes the SDK's."""
    attributes = {"messaging.destination": ["a", "b"], "plain": 1}
    with jobs.running(Run(NAME, attributes=attributes, link=trace.INVALID_SPAN_CONTEXT)):
        pass
    found = telemetry.span(NAME)
    assert (found["messaging.destination"], found["plain"]) == (("a", "b"), 1)
    assert run_span(telemetry).links == ()


def test_a_run_that_is_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No span, and yet a heartbeat, items and an outcome; steps below are no jobs of their own."""
    monkeypatch.setattr(
        jobs, "_tracer", TracerProvider(sampler=sampling.ALWAYS_OFF).get_tracer("otel_shim")
    )

    @otel_shim.job(NAME)
    def load() -> None:
        with otel_shim.operation(STEP):
            otel_shim.job_items(rejected=1)
        work = jobs.at_work()
        assert work is not None and work.items == {"rejected": 1}

    load()
    assert sorted(heartbeats.beats()) == [NAME]
    assert heartbeats.beats()[NAME].last_start is not None
    assert reported() == {}


def test_without_our_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instrumentor used alone: the run and its outcome, and nobody's identity."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(jobs, "_tracer", provider.get_tracer("otel_shim"))
    with jobs.running(Run(NAME, system="apscheduler")):
        otel_shim.bind(org_id="acme")
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["saas.job.outcome"] == "success"
    assert "saas.org.id" not in (span.attributes or {})
    assert reported() == {"bind_without_root": 1}


def test_a_block_in_an_adapters_run_leaves_another_threads_run(telemetry: Telemetry) -> None:
    """One object for all: in the adapter's run it begins none, and so it ends none."""
    shared = otel_shim.job(NAME)
    entered, over = threading.Event(), threading.Event()

    def elsewhere() -> bool:
        with shared:
            mine = trace.get_current_span()
            entered.set()
            assert over.wait(60)
            return mine.is_recording() and jobs.at_work() is not None

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(elsewhere)
        assert entered.wait(60)
        with jobs.running(Run(NAME, system="celery")), shared:
            assert trace.get_current_span() is not trace.INVALID_SPAN
        over.set()
        assert other.result(60)
    outcomes = [(span.attributes or {})["saas.job.outcome"] for span in telemetry.spans()]
    assert outcomes == ["success"] * 2
    assert heartbeats.beats()[NAME].active == 0
    assert counters.snapshot() == {}


def test_a_block_is_declared_once(telemetry: Telemetry) -> None:
    """However often it is entered, it was first declared when it was first declared."""
    seen = set()
    for _ in range(3):
        with otel_shim.job(NAME, schedule="every 15m"):
            pass
        seen |= {declared.at for declared in heartbeats.declarations()}
    assert len(seen) == 1
