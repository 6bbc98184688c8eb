"""A pytest plugin: our instrumentors at work under somebody else's tests, recording for real."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import wrapt
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from otel_shim import counters
from otel_shim.capture.caldav import CaldavInstrumentor
from otel_shim.capture.feed_fetch import Fetch, Memory
from otel_shim.capture.google_calendar import GoogleCalendarInstrumentor
from otel_shim.capture.ics import IcalendarInstrumentor
from otel_shim.capture.niquests import NiquestsInstrumentor
from otel_shim.capture.retries import RetriesInstrumentor
from otel_shim.signals import calendars
from otel_shim.signals.spans import IdentitySpanProcessor

INSTRUMENTORS = (
    *(CaldavInstrumentor, IcalendarInstrumentor, GoogleCalendarInstrumentor),
    *(NiquestsInstrumentor, RetriesInstrumentor, HTTPXClientInstrumentor, RequestsInstrumentor),
)
"""What the launcher loads for these libraries and their HTTP clients."""


class Counting(SpanProcessor):
    """Counts spans, so that an instrumentor that did nothing is noticed."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def on_end(self, span: object) -> None:
        """Count one."""
        name = str(getattr(span, "name", ""))
        self.names[name] = self.names.get(name, 0) + 1


_counting = Counting()


def pytest_configure(config: pytest.Config) -> None:
    """Instrument before anything of the tests is imported."""
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(IdentitySpanProcessor())
    tracers.add_span_processor(_counting)
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    for instrumentor in INSTRUMENTORS:
        instrumentor().instrument(tracer_provider=tracers, meter_provider=meters)
    _fetch_all(IcalendarInstrumentor()._capture, calendars.recorder(tracers, meters))


def _fetch_all(capture: Any, recorder: calendars.Recorder) -> None:
    """Let all that is parsed be a feed that was fetched: else nothing of the reader would be at work."""
    memory = Memory()

    def claim(st: Any = None, *_: Any, **__: Any) -> Fetch | None:
        running = recorder.begin("ics", "http://127.0.0.1/a.ics", "initial")
        if running is None or not isinstance(st, (str, bytes)):
            return None
        fetch = Fetch(memory, running)
        fetch.body = st.encode("utf-8", "replace") if isinstance(st, str) else st
        return fetch

    capture._claim = claim


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was recorded, and whether anything of ours failed."""
    for line in _lines():
        terminalreporter.line(line)


def _lines() -> Iterator[str]:
    yield f"wrapped: {', '.join(_wrapped()) or 'nothing'}"
    spans = ", ".join(f"{count} {name}" for name, count in sorted(_counting.names.items()))
    yield f"instrumented: {spans or 'nothing'}"
    yield f"internal errors: {counters.snapshot().get('internal_errors', 0)}"


def _wrapped() -> Iterator[str]:
    """The functions that really were replaced, of modules that the tests imported."""
    for module, holder, name in (
        ("icalendar", "Calendar", "from_ical"),
        ("caldav.collection", "Calendar", "get_objects"),
        ("caldav.collection", "SynchronizableCalendarObjectCollection", "sync"),
        ("caldav.davclient", "DAVClient", "_sync_request"),
        ("caldav.async_davclient", "AsyncDAVClient", "_async_request"),
        ("niquests.sessions", "Session", "send"),
        ("niquests.async_session", "AsyncSession", "send"),
    ):
        found = getattr(sys.modules.get(module), holder, None)
        if isinstance(vars(found).get(name) if found else None, wrapt.FunctionWrapper):
            yield f"{holder}.{name}"
