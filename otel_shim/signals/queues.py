"""Metrics of queues. What is in them is read at the broker, while metrics are collected and only then.

    collection ─▶ Rounds.readings ─▶ one thread for each queue ─▶ read()
                        │ waits LIMIT_SECONDS for all of them together
                        ▼
              saas.queue.depth · oldest.age · workers      a queue that could not be read: unreadable

A broker that hangs keeps one thread of its own and nothing else: while it hangs it is not asked again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.metrics import CallbackOptions, Counter, MeterProvider, Observation
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

from otel_shim import _sdk_compat, counters, queues
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim.queues import QueueReading, Read
from otel_shim.signals.metrics import SCOPE, histogram

LIMIT_SECONDS = 1.0
"""How long a collection waits for all queues together."""
FRESH_SECONDS = 2.0
"""For how long a round of readings is used again: the instruments of one collection share it."""
STALE_SECONDS = 30.0
"""How old the last reading of a queue that cannot be read may be; after that there is none."""
_TIMEOUT = "timeout"
Unreadable = Callable[[str, str], object]
"""Takes the queue and the type of the error."""


class Attempt:
    """One reading of a queue, in a thread of its own. Nobody's identity, and no spans."""

    def __init__(self, read: Read) -> None:
        self.reading: QueueReading | None = None
        self.error: str | None = None
        self.ended_at = 0.0
        self._read = read
        self._thread = threading.Thread(target=self._run, name="otel-shim-queue", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        token = attach(Context())
        try:
            with suppress_instrumentation():
                self.reading = queues.checked(self._read())
        except Exception as error:  # noqa: BLE001 - a broker's client may raise anything
            self.error = _error_type(error)
        finally:
            self.ended_at = time.monotonic()
            detach(token)

    def at_work(self) -> bool:
        """Whether it has not ended yet. After a fork it has: threads stay behind."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Wait for its end, not longer than this."""
        self._thread.join(max(0.0, seconds))


def _error_type(error: Exception) -> str:
    """The name of its class; ``timeout`` however it was noticed that the time was up.

    A client's own limit and that of the round end at about the same time, and either may be the first.
    """
    name = type(error).__qualname__
    return _TIMEOUT if name == TimeoutError.__qualname__ else name


class Watch:
    """One queue: the attempt to read it, and what the last one that succeeded said."""

    def __init__(self, name: str, read: Read, unreadable: Unreadable) -> None:
        self.name = name
        self.read = read
        self._unreadable = unreadable
        self._attempt: Attempt | None = None
        self._last: QueueReading | None = None
        self._last_at = 0.0

    def begin(self) -> None:
        """Start to read, unless an earlier attempt still hangs; what that brought late is taken."""
        if self._attempt is not None:
            self._take(self._attempt)
            if self._attempt.at_work():
                return
        try:
            self._attempt = Attempt(self.read)
        except (
            RuntimeError
        ):  # no thread can be started: the interpreter ends, or there are too many
            self._attempt = None
            counters.add("queue_unread")

    def result(self, deadline: float) -> QueueReading | None:
        """What is known of the queue at the deadline; that it cannot be read is counted."""
        attempt = self._attempt
        if attempt is not None:
            attempt.wait(deadline - time.monotonic())
            if attempt.at_work():
                self._unreadable(self.name, _TIMEOUT)
            elif attempt.error is not None:
                self._unreadable(self.name, attempt.error)
            self._take(attempt)
        recent = time.monotonic() - self._last_at < STALE_SECONDS
        return self._last if recent else None

    def _take(self, attempt: Attempt) -> None:
        if attempt.reading is not None and attempt.ended_at > self._last_at:
            self._last, self._last_at = attempt.reading, attempt.ended_at


class Rounds:
    """Readings of all queues, one round for each collection."""

    def __init__(
        self, unreadable: Unreadable, registered: Callable[[], Mapping[str, Read]]
    ) -> None:
        self._unreadable = unreadable
        self._registered = registered
        self._watches: dict[str, Watch] = {}
        self._known: dict[str, QueueReading] = {}
        self._known_at = -FRESH_SECONDS

    def readings(self) -> Mapping[str, QueueReading]:
        """What is known of each queue now; read anew where the last round is not fresh."""
        if time.monotonic() - self._known_at >= FRESH_SECONDS:
            self._known = self._round()
            self._known_at = time.monotonic()
        return self._known

    def _round(self) -> dict[str, QueueReading]:
        self._watches = {name: self._watch(name, read) for name, read in self._registered().items()}
        watches = list(self._watches.values())
        for watch in watches:
            watch.begin()
        deadline = time.monotonic() + LIMIT_SECONDS
        found = {watch.name: watch.result(deadline) for watch in watches}
        return {name: reading for name, reading in found.items() if reading is not None}

    def _watch(self, name: str, read: Read) -> Watch:
        known = self._watches.get(name)
        if known is not None and known.read == read:
            return known
        return Watch(name, read, self._unreadable)


class _Flow:
    """What is recorded of items, a series for each queue, found once."""

    def __init__(self, instrument: Any) -> None:
        self._instrument = instrument
        self._series: dict[str, _sdk_compat.Series] = {}

    def record(self, queue: str, value: float) -> None:
        series = self._series.get(queue)
        if series is None:
            labels = {semconv.SAAS_QUEUE_NAME: queue}
            series = self._series[queue] = _sdk_compat.Series(self._instrument, labels)
        series.record(value, {}, get_current())


class QueueMetrics:
    """The instruments of queues; one for the process."""

    def __init__(
        self,
        meters: MeterProvider,
        registered: Callable[[], Mapping[str, Read]] = queues.registered,
    ) -> None:
        self._waits = _Flow(histogram(meters, semconv.METRIC_SAAS_QUEUE_WAIT_DURATION))
        self._arrivals = _Flow(_counter(meters, semconv.METRIC_SAAS_QUEUE_ARRIVALS))
        self._completions = _Flow(_counter(meters, semconv.METRIC_SAAS_QUEUE_COMPLETIONS))
        self._failures = _counter(meters, semconv.METRIC_SAAS_QUEUE_UNREADABLE)
        self._rounds = Rounds(self._unreadable, registered)
        meter = meters.get_meter(SCOPE)
        for name, describe in _GAUGES.items():
            meter.create_observable_gauge(name, [_observer(self._rounds, describe)], *_about(name))
        # Workers are each process's own, so they add up; what is in a queue is the same for all.
        workers = semconv.METRIC_SAAS_QUEUE_WORKERS
        meter.create_observable_up_down_counter(
            workers, [_observer(self._rounds, _workers)], *_about(workers)
        )

    def enqueued(self, queue: str, items: int) -> None:
        """Items were put into a queue."""
        self._arrivals.record(queue, items)

    def taken(self, queue: str, waited_seconds: float) -> None:
        """A worker took an item that waited this long."""
        self._waits.record(queue, waited_seconds)

    def finished(self, queue: str, items: int) -> None:
        """Workers are done with items."""
        self._completions.record(queue, items)

    def _unreadable(self, queue: str, error_type: str) -> None:
        self._failures.add(1, {semconv.SAAS_QUEUE_NAME: queue, ERROR_TYPE: error_type})


def install(meters: MeterProvider) -> None:
    """Record queues with the meters of a provider; where something records them already, it goes on."""
    if queues.current_meter() is None:
        queues.use_meter(QueueMetrics(meters))


def _counter(meters: MeterProvider, name: str) -> Counter:
    return meters.get_meter(SCOPE).create_counter(name, *_about(name))


def _about(name: str) -> tuple[str, str]:
    """A metric's unit and description."""
    return semconv.METRICS[name]


_Describe = Callable[[QueueReading], Iterator[tuple[float, dict[str, str]]]]
Observe = Callable[[CallbackOptions], Iterable[Observation]]


def _observer(rounds: Rounds, describe: _Describe) -> Observe:
    @guarded(default=())
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(value, {semconv.SAAS_QUEUE_NAME: name, **labels})
            for name, reading in rounds.readings().items()
            for value, labels in describe(reading)
        ]

    return observe


def _depths(reading: QueueReading) -> Iterator[tuple[float, dict[str, str]]]:
    states = {
        semconv.SAAS_QUEUE_STATE_READY: reading.ready,
        semconv.SAAS_QUEUE_STATE_IN_FLIGHT: reading.in_flight,
        semconv.SAAS_QUEUE_STATE_DELAYED: reading.delayed,
        semconv.SAAS_QUEUE_STATE_DEAD: reading.dead,
    }
    for state, items in states.items():
        if items is not None:
            yield items, {semconv.SAAS_QUEUE_STATE: state}


def _ages(reading: QueueReading) -> Iterator[tuple[float, dict[str, str]]]:
    if reading.oldest_age is not None:
        yield reading.oldest_age, {}


def _workers(reading: QueueReading) -> Iterator[tuple[float, dict[str, str]]]:
    if reading.busy is not None:
        yield reading.busy, {semconv.SAAS_WORKER_STATE: semconv.SAAS_WORKER_STATE_BUSY}
    if reading.busy is not None and reading.workers is not None:
        idle = max(0, reading.workers - reading.busy)
        yield idle, {semconv.SAAS_WORKER_STATE: semconv.SAAS_WORKER_STATE_IDLE}


_GAUGES: dict[str, _Describe] = {
    semconv.METRIC_SAAS_QUEUE_DEPTH: _depths,
    semconv.METRIC_SAAS_QUEUE_OLDEST_AGE: _ages,
}
