"""otel_shim.signals.forks: what a forked process counts, and that it can."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_shim import counters
from otel_shim.signals import export, forks

SECONDS = 20


def values(reader: InMemoryMetricReader) -> dict[str, float]:
    data = reader.get_metrics_data()
    return {
        metric.name: metric.data.data_points[0].value  # type: ignore[union-attr]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def in_child(work: Callable[[], object]) -> str:
    """What a forked process finds; empty where it did not come to an end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = threading.Thread(
            target=lambda: os.write(writing, repr(work()).encode()), daemon=True
        )
        answer.start()
        answer.join(SECONDS)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    return found


def test_a_child_counts_from_nothing() -> None:
    """What the parent counted is not reported again by each of its children."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    forks.count_for_itself(meters)
    counter = meters.get_meter("app").create_counter("uses")
    counter.add(5)

    def work() -> dict[str, float]:
        counter.add(2)
        return values(reader)

    assert in_child(work) == "{'uses': 2}"
    assert values(reader) == {"uses": 5}


def test_a_child_of_a_collection_collects() -> None:
    """A process that is forked while metrics are collected can collect its own."""
    asked, answer = threading.Event(), threading.Event()
    parent = os.getpid()

    def observe(_: CallbackOptions) -> list[Observation]:
        if os.getpid() == parent:
            asked.set()
            assert answer.wait(SECONDS)
        return [Observation(3)]

    collected, childs = InMemoryMetricReader(), InMemoryMetricReader()
    meters = MeterProvider([collected, childs])
    forks.count_for_itself(meters)
    meters.get_meter("app").create_observable_gauge("depth", [observe])
    collecting = threading.Thread(target=collected.collect)
    collecting.start()
    assert asked.wait(SECONDS)
    try:
        assert in_child(lambda: values(childs)) == "{'depth': 3}"
    finally:
        answer.set()
        collecting.join()


def test_a_child_of_a_count_counts() -> None:
    """A process that is forked while a thread of its parent counts has a lock of its own."""

    def work() -> dict[str, int]:
        counters.add("uses")
        return counters.snapshot()

    with vars(counters)["_lock"]:
        assert in_child(work) == "{'uses': 1}"


def test_a_child_of_an_outage_notes_its_own() -> None:
    """A process that is forked while its parent notes a failure can note that it is over."""
    outage = vars(export)["_outage"]

    def work() -> bool:
        outage.failed("spans", "refused")
        outage.succeeded("spans")
        return export.is_failing()

    with vars(outage)["_lock"]:
        assert in_child(work) == "False"


def test_a_fork_waits_for_a_request_and_the_next_request_for_the_fork() -> None:
    """What a request holds is free in the child; one that hangs holds a fork only for a moment."""
    gate = forks.Gate(lambda: False)
    begun, answered, after = threading.Event(), threading.Event(), threading.Event()

    def request() -> None:
        begun.set()
        answered.wait(SECONDS)

    sending = threading.Thread(target=gate.guard(request))
    sending.start()
    assert begun.wait(SECONDS)
    gate.close()  # the request hangs, and the fork goes on
    later = threading.Thread(target=gate.guard(after.set))
    later.start()
    assert not after.wait(0.05)
    gate.open()
    assert after.wait(SECONDS)
    threading.Timer(0.01, answered.set).start()
    gate.close()
    sending.join(SECONDS if not answered.is_set() else 0.05)
    assert answered.is_set()
    gate.open()
    sending.join(SECONDS)
    later.join(SECONDS)
    assert not sending.is_alive() and not later.is_alive()


def test_a_fork_in_an_outage_does_not_wait_and_its_child_sends() -> None:
    """Requests are under way all the time then; a child's threads go on, whenever they began to wait."""
    gate = forks.Gate(lambda: True)
    answered = threading.Event()
    hanging = threading.Thread(target=gate.guard(answered.wait), args=(SECONDS,))
    hanging.start()
    gate.close()
    sent = threading.Event()
    early = threading.Thread(target=gate.guard(sent.set))
    early.start()
    gate.renew()
    gate.guard(sent.wait)(SECONDS)
    assert sent.is_set()
    answered.set()
    for thread in (early, hanging):
        thread.join(SECONDS)
        assert not thread.is_alive()
