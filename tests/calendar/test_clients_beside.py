"""The instrumentors of HTTP clients beside those of calendars: a request is one span, whoever notices it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry.trace import SpanKind

from otel_shim.capture.niquests import NiquestsInstrumentor
from otel_shim.capture.retries import RetriesInstrumentor

from .clients import KINDS, Account, account, settled
from .recording import Recording
from .servers import CalendarServer


@pytest.fixture
def clients_too(recording: Recording) -> Iterator[Recording]:
    """All of them at work."""
    beside = (NiquestsInstrumentor(), RetriesInstrumentor())
    for each in beside:
        each.instrument(tracer_provider=recording.tracers, meter_provider=recording.meters)
    yield recording
    for each in beside:
        each.uninstrument()


@pytest.fixture(params=KINDS)
async def mine(
    request: pytest.FixtureRequest, radicale: CalendarServer, clients_too: Recording
) -> AsyncIterator[Account]:
    """An account with two events, through each kind of client."""
    made = await account(str(request.param), radicale)
    await made.put("one", "two")
    clients_too.clear()
    yield made
    await made.close()


async def test_requests_of_a_synchronisation_are_recorded_once(
    mine: Account, clients_too: Recording
) -> None:
    """As many client spans as requests, all below the synchronisation, none with a path."""
    await settled(mine.calendar.get_objects(load_objects=True))
    sync = clients_too.sync()
    requests = [span for span in clients_too.spans() if span.kind is SpanKind.CLIENT]
    assert len(requests) == len(sync.requests) == sync.facts["requests"] == 3
    for span in requests:
        assert span.parent is not None and span.parent.span_id == sync.span.context.span_id
        assert str((span.attributes or {})["url.full"]).endswith("/REDACTED")
    assert len(clients_too.spans()) == 4
