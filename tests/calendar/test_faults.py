"""Servers that misbehave, and telemetry that does: the application sees what it would without us."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import icalendar
import pytest
from caldav.lib import error

from otel_shim import counters
from otel_shim.signals import calendars

from . import proxy
from .clients import KINDS, Account, account, client, refused, settled
from .proxy import Proxy
from .recording import Recording
from .servers import CalendarServer
from .test_feeds import CLIENTS, Site, site

__all__ = ["site"]


@pytest.fixture
def between(server: CalendarServer) -> Iterator[Proxy]:
    """A proxy before each of the servers."""
    with proxy.before(server.home) as made:
        yield made


@pytest.fixture
def patience() -> float:
    """Seconds that the client waits for an answer; a busy machine gives one late."""
    return 30.0


@pytest.fixture(params=KINDS)
async def mine(
    request: pytest.FixtureRequest,
    server: CalendarServer,
    between: Proxy,
    recording: Recording,
    patience: float,
) -> AsyncIterator[Account]:
    """A calendar with three events, reached through the proxy."""
    made = await account(request.param, server)
    await made.put("one", "two", "three")
    await made.close()
    opened = client(
        request.param,
        between.url,
        server.login,
        server.password,
        timeout=patience,
        rate_limit_handle=True,
        rate_limit_max_sleep=10,
    )
    path = urlsplit(str(made.calendar.url)).path.removeprefix("/")
    recording.clear()
    yield Account(opened, opened.calendar(url=between.url + path))
    await settled(opened.close())


async def test_rate_limit(mine: Account, between: Proxy, recording: Recording) -> None:
    """The client sleeps inside of the call: how long is told, each attempt is a request."""
    between.limits = 2
    await settled(mine.calendar.get_objects())
    sync = recording.sync()
    assert sync.ended == ("initial", "success", None)
    limited = refused(429, "RateLimitError")
    assert [status for _, status in sync.requests if status != 401] == [limited, limited, 207]
    assert 2 <= sync.facts["wait"] <= 5
    assert (sync.span.end_time or 0) - (sync.span.start_time or 0) >= sync.facts["wait"] * 1e9


async def test_rate_limit_that_lasts(mine: Account, between: Proxy, recording: Recording) -> None:
    """Where the client gives up, that is the error."""
    between.limits = 100
    mine.client.rate_limit_handle = False
    with pytest.raises(error.RateLimitError):
        await settled(mine.calendar.get_objects())
    assert recording.sync().ended == ("initial", "failure", "rate_limited")


@pytest.mark.parametrize("patience", [2.0])
async def test_server_that_stops_answering(
    mine: Account, between: Proxy, recording: Recording
) -> None:
    """It answered before; now it is too slow."""
    first = await settled(mine.calendar.get_objects())
    between.silent = Event()
    with pytest.raises(Exception, match=r"(?i)timed? ?out|^$"):
        await settled(mine.calendar.get_objects(first.sync_token))
    assert recording.syncs()[1].ended == ("incremental", "failure", "timeout")


async def test_truncated_list(mine: Account, between: Proxy, recording: Recording) -> None:
    """The server has more and does not come to an end: a part only, which is no complete synchronisation."""
    first = await settled(mine.calendar.get_objects())
    (before,) = recording.points("saas.calendar.oldest_success.timestamp")
    await mine.put("four", "five")
    between.truncates = True
    found = await settled(mine.calendar.get_objects(first.sync_token))
    assert found.truncated
    assert recording.syncs()[1].ended == ("truncated", "success", None)
    assert recording.points("saas.calendar.oldest_success.timestamp") == [before]


async def test_answer_that_is_no_xml(mine: Account, between: Proxy, recording: Recording) -> None:
    """An answer that cannot be parsed."""
    between.body = b"<multistatus"
    with pytest.raises(SyntaxError):
        await settled(mine.calendar.get_objects())
    assert recording.sync().ended == ("initial", "failure", "malformed")


LOGIN_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><p>Hello<br></body></html>"
)


@pytest.mark.parametrize("token", [None, "http://radicale.org/ns/sync/1"])
async def test_login_page(
    mine: Account, between: Proxy, recording: Recording, token: str | None
) -> None:
    """A page in the place of a list: caldav stumbles over it, and the span says why."""
    between.page = LOGIN_PAGE
    with pytest.raises(AttributeError):
        await settled(mine.calendar.get_objects(token))
    sync = recording.sync()
    mode = "initial" if token is None else "incremental"
    assert sync.ended == (mode, "failure", "not_a_calendar")
    assert list(sync.requests) == [("REPORT", 200)]


async def test_login_page_of_items(mine: Account, between: Proxy, recording: Recording) -> None:
    """A page in the place of each item: caldav hands them out, the span counts them as failed."""
    between.page, between.paged = LOGIN_PAGE, ("GET",)
    found = await settled(mine.calendar.get_objects(load_objects=True))
    assert len(found) == 3
    sync = recording.sync()
    assert sync.ended == ("initial", "partial", None)
    assert sync.items[3] == 3


async def test_server_error(mine: Account, between: Proxy, recording: Recording) -> None:
    """A REPORT that fails otherwise costs the token too, for caldav falls back all the same."""
    first = await settled(mine.calendar.get_objects())
    between.statuses = [500]
    found = await settled(mine.calendar.get_objects(first.sync_token))
    assert found.sync_token.startswith("fake-")
    sync = recording.syncs()[1]
    assert sync.ended == ("full_resync", "success", None)
    assert sync.facts["token.lost"] is True


class Broken:
    """A tracer that fails."""

    def start_span(self, *_: Any, **__: Any) -> Any:
        """Fail."""
        raise RuntimeError("telemetry is broken")


async def test_telemetry_that_fails(
    mine: Account, site: Site, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of ours fails is counted, and the application does not notice."""
    made = calendars.recorder(recording.tracers, recording.meters)
    monkeypatch.setattr(made, "tracer", Broken())
    monkeypatch.setattr(calendars.Running, "end", None)
    before = counters.snapshot().get("internal_errors", 0)
    copy = await settled(mine.calendar.get_objects(load_objects=True))
    assert len(copy) == 3
    await settled(copy.sync())
    for get in CLIENTS.values():
        response = await settled(get(site.feed))
        assert len(icalendar.Calendar.from_ical(response.text).events) == 3
    assert recording.spans() == ()
    assert counters.snapshot()["internal_errors"] > before


class Hostile(Exception):
    """An error of the application's own transport, whose properties raise."""

    @property
    def response(self) -> Any:
        """Fail."""
        raise RuntimeError("the response was not read")

    preconditions = response


async def test_error_that_cannot_be_asked(
    mine: Account, site: Site, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application gets its own error, whatever asking it would raise."""

    def fails(*_: Any, **__: Any) -> Any:
        raise Hostile

    monkeypatch.setattr(mine.client, "request", fails)
    with pytest.raises(Hostile):
        await settled(mine.calendar.get_objects())
    monkeypatch.setattr(icalendar.Calendar, "_get_ical_parser", fails)
    text = CLIENTS["httpx"](site.feed).text
    with pytest.raises(Hostile):
        icalendar.Calendar.from_ical(text)
    assert [sync.error for sync in recording.syncs()] == ["Hostile", "malformed"]


ALONE = """
import sys
from importlib.metadata import entry_points
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
names = {"caldav", "icalendar", "google_calendar"}
found = [e for e in entry_points(group="opentelemetry_instrumentor") if e.name in names]
assert {e.name for e in found} == names
for each in found:
    each.load()().instrument(skip_dep_check=True)
libraries = {"caldav", "icalendar", "googleapiclient", "httpx", "requests", "niquests"}
assert not libraries & sys.modules.keys(), libraries & sys.modules.keys()
assert not {m for m in sys.modules if m.startswith("otel_shim.distro")}
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
import caldav
client = caldav.DAVClient(url=sys.argv[1], username=sys.argv[2], password=sys.argv[3])
calendar = client.get_principal().make_calendar(name="alone", cal_id="alone")
calendar.get_objects()
span = next(s for s in exporter.get_finished_spans() if s.name == "calendar.synchronize")
print(sorted(span.attributes))
"""


def test_alone(radicale: CalendarServer) -> None:
    """Without the distro, by their entry points: nothing is imported before the application does, there is no identity."""
    assert radicale.login and radicale.password
    done = subprocess.run(
        [sys.executable, "-c", ALONE, radicale.home, radicale.login, radicale.password],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "saas.calendar.sync.mode" in done.stdout
    assert "saas.org.id" not in done.stdout and "saas.calendar.hash" not in done.stdout
