"""Locks of ours in forked processes: one that a thread of the parent holds holds nobody up in the child."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import pytest
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim import context, operations
from otel_shim.capture import schedulers
from otel_shim.capture.feed_fetch import Known, Memory
from otel_shim.capture.google_calendar import GoogleCalendar
from otel_shim.capture.rq_hearing import Hearing
from otel_shim.ops import _Latest
from otel_shim.signals.calendar_successes import Key
from otel_shim.signals.calendars import Recorder
from tests.unit.telemetry import Telemetry

SECONDS = 20
KEY = Key("ics", "north", "https://calendars.example/a.ics")


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """A lock that another thread holds for as long as the block lasts."""
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            over.wait(SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(SECONDS)
    try:
        yield
    finally:
        over.set()
        thread.join()


def goes_on(work: Callable[[], object]) -> bool:
    """Whether a process that is forked here can do it, in the context of this place."""
    here = contextvars.copy_context()
    child = os.fork()
    if child == 0:
        thread = threading.Thread(target=here.run, args=(work,), daemon=True)
        thread.start()
        thread.join(SECONDS)
        os._exit(1 if thread.is_alive() else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _feeds() -> tuple[Any, Callable[[], object]]:
    memory = Memory()
    return memory, lambda: memory.learn(KEY, Known({1: 1}))


def _google() -> tuple[Any, Callable[[], object]]:
    calendar = GoogleCalendar(Recorder(None, None))
    return calendar, lambda: calendar._remember(KEY, lost=False)


def _pending() -> tuple[Any, Callable[[], object]]:
    pending = schedulers._Pending()
    return pending, lambda: pending.take("job", None)


def _links() -> tuple[Any, Callable[[], object]]:
    links = schedulers._Links()
    return links, lambda: links.take("job", None)


def _hearing() -> tuple[Any, Callable[[], object]]:
    reading, writing = os.pipe()
    os.close(writing)
    hearing = Hearing(reading)
    return hearing, hearing.over


def _latest() -> tuple[Any, Callable[[], object]]:
    latest = _Latest(lambda: None)  # type: ignore[arg-type, return-value]
    return latest, latest.get


@pytest.mark.parametrize("make", [_feeds, _google, _pending, _links, _hearing, _latest])
def test_a_child_does_not_wait_for_a_thread_of_its_parent(
    make: Callable[[], tuple[Any, Callable[[], object]]],
) -> None:
    """What a thread held when the process was forked is free in the child, and held on in the parent."""
    owner, work = make()
    with held(owner._lock):
        assert goes_on(work)
        assert owner._lock.locked()
    work()


@pytest.mark.parametrize("name", ["binding", "_lock"])
def test_a_child_of_a_request_goes_on_with_it(telemetry: Telemetry, name: str) -> None:
    """Identity is bound, and spans are started, in a process that is forked while another thread does so."""
    with telemetry.tracer().start_as_current_span("GET", kind=SpanKind.SERVER) as span:
        place = context.place_of(span)
        assert place is not None

        def work() -> None:
            otel_shim.bind(org_id="north")
            telemetry.tracer().start_span("SELECT").end()

        with held(getattr(place.root, name)):
            assert goes_on(work)


@pytest.mark.parametrize("part", ["_lock", "_attributes._lock"])
def test_a_child_may_write_on_the_spans_it_was_forked_in(telemetry: Telemetry, part: str) -> None:
    """A span that another thread was writing on can be written on, and ended."""
    with telemetry.tracer().start_as_current_span("GET", kind=SpanKind.SERVER) as span:
        assert isinstance(span, Span)
        with held(attrgetter(part)(span)):
            assert goes_on(lambda: otel_shim.bind(org_id="north"))


def test_a_child_ends_blocks_that_were_left_elsewhere() -> None:
    """Nobody waits for the lock that settles them, but held for ever it would keep them open."""
    with held(operations._settling):
        assert goes_on(lambda: _assert_free(operations._settling.acquire(blocking=False)))


def _assert_free(taken: bool) -> None:
    if not taken:
        os._exit(1)
