"""Beside the official instrumentors of the HTTP libraries: they make no spans of calendars, and of all else as ever."""

from __future__ import annotations

from collections.abc import Iterator

import icalendar
import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor

from .clients import KINDS, account, settled
from .recording import Recording
from .servers import CalendarServer
from .test_feeds import CLIENTS, Get, Site, get, site

__all__ = ["get", "site"]
OURS = "otel_shim.calendars"


@pytest.fixture
def official(recording: Recording) -> Iterator[None]:
    """The official instrumentors, at work."""
    instrumentors = (HTTPXClientInstrumentor(), RequestsInstrumentor())
    for each in instrumentors:
        each.instrument(tracer_provider=recording.tracers, meter_provider=recording.meters)
    yield
    for each in instrumentors:
        each.uninstrument()


def scopes(recording: Recording) -> set[str]:
    """Who made the spans."""
    return {
        span.instrumentation_scope.name for span in recording.spans() if span.instrumentation_scope
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_caldav(
    kind: str, radicale: CalendarServer, official: None, recording: Recording
) -> None:
    """Whatever carries caldav's requests, each has one span, ours."""
    mine = await account(kind, radicale)
    await mine.put("one")
    await settled(mine.calendar.get_objects(load_objects=True))
    await mine.close()
    assert scopes(recording) == {OURS}


async def test_feeds(site: Site, get: Get, official: None, recording: Recording) -> None:
    """The address of a feed is in no span; any other request has its span as ever."""
    icalendar.Calendar.from_ical((await settled(get(site.feed))).text)
    assert scopes(recording) == {OURS}
    recording.clear()
    site.headers = {"Content-Type": "application/json"}
    await settled(get(site.url + "/api"))
    theirs = {"httpx": "httpx", "httpx-async": "httpx", "requests": "requests"}
    name = next(name for name, each in CLIENTS.items() if each is get)
    expected = {f"opentelemetry.instrumentation.{theirs[name]}"} if name in theirs else set()
    assert scopes(recording) == expected
