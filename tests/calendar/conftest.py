"""Fixtures: real servers, and the instrumentors recording into memory, each usable alone.

``CALENDAR_TRANSPORT=others`` hides niquests, so that caldav takes requests and httpx.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

if find_spec("caldav") is None:  # another environment: see the Makefile's `calendar`
    collect_ignore_glob = ["test_*.py"]
if os.environ.get("CALENDAR_TRANSPORT") == "others":
    sys.modules["niquests"] = None  # type: ignore[assignment]

from opentelemetry import context as otel_context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_shim import attributes, context, pseudonym
from otel_shim.capture.caldav import CaldavInstrumentor
from otel_shim.capture.google_calendar import GoogleCalendarInstrumentor
from otel_shim.capture.ics import IcalendarInstrumentor
from otel_shim.signals import calendars
from otel_shim.signals.spans import IdentitySpanProcessor

from . import servers
from .recording import Recording

SECRET = b"a fixed secret of the tests, 32 bytes and more"
INSTRUMENTORS = (CaldavInstrumentor, IcalendarInstrumentor, GoogleCalendarInstrumentor)


@pytest.fixture(scope="session")
def radicale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.CalendarServer]:
    """A running Radicale."""
    with servers.radicale(tmp_path_factory.mktemp("radicale")) as server:
        yield server


@pytest.fixture(scope="session")
def xandikos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.CalendarServer]:
    """A running Xandikos."""
    with servers.xandikos(tmp_path_factory.mktemp("xandikos")) as server:
        yield server


@pytest.fixture(params=["radicale", "xandikos"])
def server(request: pytest.FixtureRequest) -> servers.CalendarServer:
    """Each of the servers."""
    found: servers.CalendarServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def recording() -> Iterator[Recording]:
    """The instrumentors at work, with providers of the test's own that stamp identity."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([reader])
    tracers.add_span_processor(IdentitySpanProcessor())
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    maker = pseudonym.pseudonymiser(SECRET)
    before = context.use_stamp(lambda identity: attributes.of(identity, maker))
    calendars.use_pseudonyms(maker)
    token = otel_context.attach(otel_context.Context())
    for instrumentor in INSTRUMENTORS:
        instrumentor().instrument(tracer_provider=tracers, meter_provider=meters)
    yield Recording(tracers, meters, exporter, reader)
    for instrumentor in INSTRUMENTORS:
        instrumentor().uninstrument()
    otel_context.detach(token)
    context.use_stamp(before)
    calendars.use_pseudonyms(None)
    meters.shutdown()
