"""otel_shim.capture.celery: Celery's own way of running a task, without a broker."""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, signals
from celery.app.trace import build_tracer
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

import otel_shim
from otel_shim import _semconv as semconv
from otel_shim import counters, jobs, operations, queues
from otel_shim.capture import celery as capture
from otel_shim.capture import celery_queue, deliveries
from tests.unit.telemetry import Telemetry
from tests.unit.test_queues import Told

PRODUCER = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch, telemetry: Telemetry) -> Iterator[Told]:
    """Celery instrumented, telling a meter of the test's own."""
    tracer = telemetry.tracers.get_tracer("otel_shim")
    for module in (jobs, deliveries, operations):
        monkeypatch.setattr(module, "_tracer", tracer)
    monkeypatch.setattr(deliveries, "_relation", "link")
    monkeypatch.setattr(queues, "_names", set())
    monkeypatch.setattr(queues, "_reads", {})
    meter = Told()
    before, recorder = queues.use_meter(meter), jobs.use_recorder(None)
    capture.CeleryInstrumentor().instrument()
    yield meter
    capture.CeleryInstrumentor().uninstrument()
    celery_queue.forget()
    queues.use_meter(before)
    jobs.use_recorder(recorder)


@pytest.fixture
def app() -> Celery:
    made = Celery("tests", broker="memory://", set_as_current=False)
    made.conf.task_ignore_result = True
    return made


def run(app: Celery, function: Callable[..., Any], **headers: Any) -> None:
    """Run a function as a worker does with a message that has these headers."""
    task = app.task(function, name="reports.send", bind=False)
    request = {
        "id": str(uuid.uuid4()),
        "delivery_info": {"routing_key": "reports"},
        "ignore_result": True,
        **headers,
    }
    build_tracer(task.name, task, app=app)(request["id"], (), {}, request)


def only(telemetry: Telemetry, name: str = "reports.send") -> ReadableSpan:
    (found,) = [span for span in telemetry.spans() if span.name == name]
    return found


def nothing() -> None:
    """Done at once."""


def raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


class TestOutcomes:
    def test_success(self, app: Celery, telemetry: Telemetry) -> None:
        """A task that returns is a success, with what its message says."""
        run(app, nothing, retries=2, traceparent=PRODUCER)
        span = only(telemetry)
        attributes = dict(span.attributes or {})
        assert attributes[semconv.SAAS_JOB_OUTCOME] == "success"
        assert attributes[semconv.SAAS_JOB_ATTEMPT] == 3
        assert attributes[semconv.SAAS_JOB_TRIGGER] == "retry"
        assert attributes[semconv.SAAS_QUEUE_NAME] == "reports"
        assert [f"{link.context.span_id:016x}" for link in span.links] == ["b" * 16]

    @pytest.mark.parametrize(
        ("error", "outcome", "kind"),
        [
            (ValueError("anna@example.com"), "failure", "ValueError"),
            (SoftTimeLimitExceeded(5), "timeout", "SoftTimeLimitExceeded"),
            (Reject("no"), "failure", "Reject"),
            (Ignore(), "success", None),
        ],
    )
    def test_others(
        self,
        app: Celery,
        telemetry: Telemetry,
        error: BaseException,
        outcome: str,
        kind: str | None,
    ) -> None:
        """An error is recorded by its type only."""
        run(app, raising(error))
        span = only(telemetry)
        assert (span.attributes or {})[semconv.SAAS_JOB_OUTCOME] == outcome
        assert (span.attributes or {}).get("error.type") == kind
        assert span.status.status_code is (StatusCode.UNSET if kind is None else StatusCode.ERROR)
        assert span.status.description is None
        assert not span.events

    def test_what_ends_the_process(self, app: Celery, telemetry: Telemetry) -> None:
        """It passes unchanged, and where no other process tells of it the run is a failure."""
        with pytest.raises(SystemExit):
            run(app, raising(SystemExit(3)))
        assert (only(telemetry).attributes or {})["error.type"] == "SystemExit"

    def test_in_a_pool_another_process_tells_it(
        self, app: Celery, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that is killed says nothing, so that nothing is told twice; its context is left."""
        monkeypatch.setattr(capture, "_in_pool", True)
        with pytest.raises(SystemExit):
            run(app, raising(SystemExit(15)))
        assert telemetry.spans() == ()
        assert not trace.get_current_span().get_span_context().is_valid


class TestContext:
    def test_nothing_of_before_and_nothing_after(self, app: Celery, telemetry: Telemetry) -> None:
        """A run does not see the identity around it, and leaves none behind."""
        seen: list[Any] = []

        def work() -> None:
            seen.append(otel_shim.current_identity().org_id)
            otel_shim.bind(org_id="acme")
            otel_shim.identity(org_id="other").__enter__()

        with otel_shim.identity(org_id="around"):
            run(app, work)
            run(app, work)
            assert otel_shim.current_identity().org_id == "around"
        assert seen == [None, None]

    def test_a_declared_name(self, app: Celery, telemetry: Telemetry) -> None:
        """A function that is a declared job is one run, under the name that was declared."""
        run(app, otel_shim.job("calendar.sync")(nothing))
        assert [span.name for span in telemetry.spans()] == ["calendar.sync"]
        attributes = dict(telemetry.spans()[0].attributes or {})
        assert attributes[semconv.SAAS_JOB_SYSTEM] == "celery"


class TestMessages:
    def test_items_are_told(self, app: Celery, told: Told) -> None:
        """Wait and completion are of the queue that the message went into."""
        run(app, nothing, **{"saas-enqueued-at": time.time() - 5, "saas-queue": "mail"})
        (taken, queue, waited), finished = told.heard
        assert (taken, queue, finished) == ("taken", "mail", ("finished", "mail", 1))
        assert waited >= 5

    @pytest.mark.parametrize(
        "headers",
        [
            {"traceparent": 7, "saas-enqueued-at": "x", "saas-queue": "\n"},
            {"retries": "many"},
            {"delivery_info": {"routing_key": 7}},
            {"eta": [1], "saas-queue": {"a": 1}},
        ],
    )
    def test_headers_of_anybody(
        self, app: Celery, telemetry: Telemetry, headers: dict[str, Any]
    ) -> None:
        """A message is an outside input: whatever it says, the task runs and the context is left."""
        ran: list[int] = []

        def work() -> None:
            ran.append(1)

        run(app, work, **headers)
        assert ran == [1]
        assert not trace.get_current_span().get_span_context().is_valid

    def test_what_is_sent_by_its_name_only(self, app: Celery, told: Told) -> None:
        """A task that this process does not know leaves no context open."""
        app.send_task("elsewhere.work", queue="mail")
        assert told.heard == [("enqueued", "mail", 1)]
        assert not trace.get_current_span().get_span_context().is_valid

    def test_what_no_trace_is_kept_of(
        self, app: Celery, told: Told, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A sampler that drops the sending drops neither the time in the message nor the count."""
        monkeypatch.setattr(
            deliveries, "_tracer", TracerProvider(sampler=ALWAYS_OFF).get_tracer("otel_shim")
        )
        sent: list[dict[str, Any]] = []

        def keep(headers: dict[str, Any], **_: Any) -> None:
            sent.append(headers)

        signals.after_task_publish.connect(keep)
        app.send_task("elsewhere.work", queue="mail")
        signals.after_task_publish.disconnect(keep)
        assert told.heard == [("enqueued", "mail", 1)]
        assert sent[0][deliveries.QUEUE] == "mail"
        assert int(sent[0]["traceparent"][-2:], 16) & 1 == 0

    def test_what_cannot_be_sent(self, app: Celery, telemetry: Telemetry, told: Told) -> None:
        """The error is the application's, as it was; the span has its type only."""
        with pytest.raises(Exception, match="object"):
            app.send_task("elsewhere.work", (object(),), queue="mail")
        assert (only(telemetry, "send elsewhere.work").attributes or {})["error.type"]
        assert told.heard == []
        assert not trace.get_current_span().get_span_context().is_valid
        assert counters.snapshot().get("internal_errors", 0) == 0
