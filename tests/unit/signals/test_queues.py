"""otel_shim.signals.queues: readings at collection time, through the SDK, with brokers that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest.mock import Mock

import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from otel_shim import _semconv as semconv
from otel_shim.queues import QueueReading, Read
from otel_shim.signals import queues as signal
from otel_shim.signals.queues import QueueMetrics

DEPTH = semconv.METRIC_SAAS_QUEUE_DEPTH
AGE = semconv.METRIC_SAAS_QUEUE_OLDEST_AGE
WORKERS = semconv.METRIC_SAAS_QUEUE_WORKERS
UNREADABLE = semconv.METRIC_SAAS_QUEUE_UNREADABLE
QUEUE = "calendar.sync"
Points = dict[tuple[object, ...], Any]


class Broker:
    """A queue whose answer the test gives."""

    def __init__(self) -> None:
        self.answer: Callable[[], QueueReading] = QueueReading
        self.asked = 0
        self.gate = threading.Event()

    def read(self) -> QueueReading:
        self.asked += 1
        return self.answer()

    def hang(self) -> QueueReading:
        assert self.gate.wait(60)
        return QueueReading(ready=9)


class Collected:
    """A provider whose one reader the test reads."""

    def __init__(self, reads: Mapping[str, Read]) -> None:
        self._reader = InMemoryMetricReader()
        self.metrics = QueueMetrics(MeterProvider([self._reader]), lambda: reads)

    def points(self) -> dict[str, Points]:
        """The values of all metrics, by the labels beside the queue's name."""
        self.metrics._rounds._known_at = -signal.FRESH_SECONDS  # as if the last one were long ago
        data = self._reader.get_metrics_data()
        return {
            metric.name: {
                tuple(v for k, v in (point.attributes or {}).items() if k != "saas.queue.name"): (
                    point.sum if hasattr(point, "sum") else point.value
                )
                for point in metric.data.data_points
            }
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.gate.set()


@pytest.fixture
def collected(broker: Broker) -> Collected:
    return Collected({QUEUE: broker.read})


class TestReading:
    def test_all_that_is_known_is_reported(self, broker: Broker, collected: Collected) -> None:
        """Depth by state, age and workers by state, each as the broker says."""
        broker.answer = lambda: QueueReading(5, 2, 1, 3, 12.5, 2, 8)
        points = collected.points()
        assert points[DEPTH] == {("ready",): 5, ("in_flight",): 2, ("delayed",): 1, ("dead",): 3}
        assert points[AGE] == {(): 12.5}
        assert points[WORKERS] == {("busy",): 2, ("idle",): 6}
        assert UNREADABLE not in points

    def test_what_is_unknown_has_no_series(self, broker: Broker, collected: Collected) -> None:
        """A state that a broker does not know is absent, which is not 0."""
        broker.answer = lambda: QueueReading(ready=5)
        points = collected.points()
        assert points[DEPTH] == {("ready",): 5}
        assert AGE not in points
        assert WORKERS not in points

    def test_an_error_is_counted_by_its_type(self, broker: Broker, collected: Collected) -> None:
        """A broker that refuses is counted, and its queue has no depth; its text goes nowhere."""
        broker.answer = lambda: (_ for _ in ()).throw(ConnectionError("redis://:secret@host"))
        points = collected.points()
        assert points[UNREADABLE] == {("ConnectionError",): 1}
        assert DEPTH not in points
        assert "secret" not in str(points)

    def test_a_limit_of_the_clients_own_is_a_timeout_too(
        self, broker: Broker, collected: Collected
    ) -> None:
        """One series, whether the client's limit or the round's ends first."""
        client = type("TimeoutError", (Exception,), {})
        for error in (TimeoutError(), client("redis://:secret@host")):
            broker.answer = Mock(side_effect=error)
            points = collected.points()
        assert points[UNREADABLE] == {("timeout",): 2}

    def test_what_is_no_reading_is_counted(self, broker: Broker, collected: Collected) -> None:
        """A function that forgot to return is unreadable."""
        broker.answer = lambda: None  # type: ignore[assignment, return-value]
        assert collected.points()[UNREADABLE] == {("TypeError",): 1}

    def test_others_are_read_when_one_fails(self, broker: Broker) -> None:
        """One broken queue does not take the others along."""
        broker.answer = lambda: (_ for _ in ()).throw(OSError)
        both = Collected({QUEUE: broker.read, "mail": lambda: QueueReading(ready=1)})
        assert both.points()[DEPTH] == {("ready",): 1}

    def test_no_span_and_nobody_is_there(self, broker: Broker, collected: Collected) -> None:
        """A reading belongs to nobody, also where a request's collection makes it."""
        seen: list[object] = []

        def answer() -> QueueReading:
            seen.extend((context.get_current().get("who"), is_instrumentation_enabled()))
            seen.append(trace.get_current_span().get_span_context().is_valid)
            return QueueReading()

        broker.answer = answer
        token = context.attach(context.set_value("who", "somebody"))
        with TracerProvider().get_tracer("t").start_as_current_span("request"):
            collected.points()
        context.detach(token)
        assert seen == [None, False, False]


class TestHanging:
    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(signal, "LIMIT_SECONDS", 0.05)

    def test_it_is_counted_and_not_asked_again(self, broker: Broker, collected: Collected) -> None:
        """A broker that hangs keeps one thread, however often metrics are collected."""
        broker.answer = broker.hang
        assert collected.points()[UNREADABLE] == {("timeout",): 1}
        assert collected.points()[UNREADABLE] == {("timeout",): 2}
        assert broker.asked == 1

    def test_the_last_reading_holds_for_a_while(self, broker: Broker, collected: Collected) -> None:
        """One missed reading is no gap; an old one is not passed off as today's."""
        broker.answer = lambda: QueueReading(ready=4)
        assert collected.points()[DEPTH] == {("ready",): 4}
        broker.answer = broker.hang
        assert collected.points()[DEPTH] == {("ready",): 4}

    def test_an_old_reading_is_dropped(
        self, broker: Broker, collected: Collected, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What nobody could confirm for long is not reported."""
        broker.answer = lambda: QueueReading(ready=4)
        collected.points()
        monkeypatch.setattr(signal, "STALE_SECONDS", 0.0)
        broker.answer = broker.hang
        assert DEPTH not in collected.points()

    def test_what_comes_late_is_used(self, broker: Broker, collected: Collected) -> None:
        """A slow broker's answer counts at the next collection, and then it is asked anew."""
        broker.answer = broker.hang
        collected.points()
        broker.gate.set()
        for thread in threading.enumerate():
            if thread.name == "otel-shim-queue":
                thread.join()
        broker.answer = lambda: (_ for _ in ()).throw(OSError)
        assert collected.points()[DEPTH] == {("ready",): 9}
        assert broker.asked == 2


class TestItems:
    def test_what_goes_through_is_recorded(self, collected: Collected) -> None:
        """Arrivals and completions are counted, waits are a histogram."""
        collected.metrics.enqueued(QUEUE, 3)
        collected.metrics.taken(QUEUE, 2.5)
        collected.metrics.finished(QUEUE, 1)
        points = collected.points()
        assert points[semconv.METRIC_SAAS_QUEUE_ARRIVALS] == {(): 3}
        assert points[semconv.METRIC_SAAS_QUEUE_WAIT_DURATION] == {(): 2.5}
        assert points[semconv.METRIC_SAAS_QUEUE_COMPLETIONS] == {(): 1}


def test_one_round_serves_all_instruments(broker: Broker, collected: Collected) -> None:
    """Three instruments are collected together, and the broker is asked once."""
    broker.answer = lambda: QueueReading(1, oldest_age=1.0, busy=1, workers=1)
    assert {DEPTH, AGE, WORKERS} <= collected.points().keys()
    assert broker.asked == 1
