"""Feeds from a real HTTP server, fetched by every client and read by icalendar: one span each."""

from __future__ import annotations

import gc
import gzip
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import httpx
import icalendar
import pytest
import requests
from opentelemetry.context import Context
from opentelemetry.trace import Span, Tracer, get_current_span

import otel_shim
from otel_shim import context, counters
from otel_shim.capture import feed_fetch, ics
from otel_shim.capture.ics import IcalendarInstrumentor
from otel_shim.signals import calendars

from .clients import item, settled
from .recording import Recording

try:
    import niquests
except ImportError:
    niquests = None

LOGIN_PAGE = b"<!DOCTYPE html><html><title>Sign in</title><form action=/login></form></html>"
SECRET_PATH = "/calendar/ical/alice%40example.com/private-0f1e2d3c/basic.ics"


def feed(*uids: str, summary: str = "Shift", head: str = "", stamp: str = "20260101") -> bytes:
    """A feed of some events."""
    events = [item(uid, summary).partition("BEGIN:VEVENT")[2] for uid in uids]
    body = "".join("BEGIN:VEVENT" + each.partition("END:VCALENDAR")[0] for each in events)
    text = f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//t//EN\r\n{head}{body}END:VCALENDAR\r\n"
    return text.replace("DTSTAMP:20260101", f"DTSTAMP:{stamp}").encode()


@dataclass
class Site:
    """A server of feeds, and what it is to answer next."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    etag: str | None = None
    silent: Event | None = None

    @property
    def feed(self) -> str:
        """The address of a feed, as secret as Google's."""
        return self.url + SECRET_PATH

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.asked.append({name.lower(): value for name, value in handler.headers.items()})
        if self.silent is not None:
            self.silent.wait(30)
            return
        if self.etag is not None and handler.headers.get("If-None-Match") == self.etag:
            handler.send_response(304)
            handler.send_header("ETag", self.etag)
            handler.end_headers()
            return
        if handler.path.startswith("/old"):
            handler.send_response(302)
            handler.send_header("Location", self.feed)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(self.status)
        for name, value in {"Content-Type": "text/calendar; charset=utf-8", **self.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(self.body)))
        if self.etag is not None:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        handler.wfile.write(self.body)


@pytest.fixture
def site() -> Iterator[Site]:
    """A running server of feeds."""
    made = Site(body=feed("one", "two", "three"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.answer(self)

        def log_message(self, *_: Any) -> None:
            """Keep the output of the tests clean."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        made.url = f"http://127.0.0.1:{port}"
        yield made
        if made.silent is not None:
            made.silent.set()


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[int]:
    """Run a server of the standard library in a thread; gives its port."""
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _httpx_async(url: str, **kwargs: Any) -> Any:
    async with httpx.AsyncClient() as client:
        return await client.get(url, **kwargs)


async def _niquests_async(url: str, **kwargs: Any) -> Any:
    async with niquests.AsyncSession() as session:
        return await session.get(url, **kwargs)


Get = Callable[..., Any]
CLIENTS: dict[str, Get] = {
    "httpx": httpx.get,
    "httpx-async": _httpx_async,
    "requests": requests.get,
}
if niquests is not None:
    CLIENTS |= {"niquests": niquests.get, "niquests-async": _niquests_async}


@pytest.fixture(params=list(CLIENTS))
def get(request: pytest.FixtureRequest) -> Get:
    """Each of the clients."""
    return CLIENTS[request.param]


async def test_fetched_and_read(site: Site, get: Get, recording: Recording) -> None:
    """The fetch and the reading are one span, the request is below it, nothing of the address leaves."""
    response = await settled(get(site.feed))
    assert not recording.syncs(), "it ends when it is read"
    found = icalendar.Calendar.from_ical(response.text)
    assert type(found) is icalendar.Calendar and len(found.events) == 3
    sync = recording.sync()
    assert sync.ended == ("initial", "success", None)
    assert sync.items == (3, 0, 0, 0)
    assert list(sync.requests) == [("GET", 200)]
    assert sync.said("provider", "requests", "bytes") == ("ics", 1, len(site.body))
    assert len(recording.spans()) == 2
    for span in recording.spans():
        for secret in ("alice", "private", "basic", "bob@example.com"):
            assert secret not in span.to_json()


async def test_read_from_bytes(site: Site, get: Get, recording: Recording) -> None:
    """Bytes or text, with whatever ends of lines: it is the same calendar."""
    content = (await settled(get(site.feed))).content
    icalendar.Calendar.from_ical(content.replace(b"\r\n", b"\n").strip())
    assert recording.sync().items == (3, 0, 0, 0)


async def test_second_fetch(site: Site, get: Get, recording: Recording) -> None:
    """A feed is always sent whole; what changed is compared here, but for when it was exported."""
    icalendar.Calendar.from_ical((await settled(get(site.feed))).text)
    site.body = feed("one", "two", "four", "five", stamp="20260202").replace(b"one", b"one", 1)
    site.body = site.body.replace(b"SUMMARY:Shift", b"SUMMARY:Leave", 1)
    icalendar.Calendar.from_ical((await settled(get(site.feed))).text)
    first, second = recording.syncs()
    assert first.ended == ("initial", "success", None)
    assert second.ended == ("emulated", "success", None)
    assert second.items == (2, 1, 1, 0)
    assert 0 < second.facts["delay"] < 60
    icalendar.Calendar.from_ical((await settled(get(site.feed))).text)
    assert recording.syncs()[2].items == (0, 0, 0, 0)


async def test_not_modified(site: Site, get: Get, recording: Recording) -> None:
    """304 is a complete synchronisation in which nothing happened; there is nothing to read."""
    site.etag = '"v1"'
    icalendar.Calendar.from_ical((await settled(get(site.feed))).text)
    response = await settled(get(site.feed, headers={"If-None-Match": '"v1"'}))
    assert response.status_code == 304
    second = recording.syncs()[1]
    assert second.ended == ("unchanged", "success", None)
    assert second.items == (0, 0, 0, 0)
    assert list(second.requests) == [("GET", 304)]
    assert second.facts["bytes"] == 0


async def test_login_page(site: Site, get: Get, recording: Recording) -> None:
    """An HTML page where a calendar was expected, with status 200: the parser's error is the application's."""
    site.body, site.headers = LOGIN_PAGE, {"Content-Type": "text/html"}
    response = await settled(get(site.feed))
    sync = recording.sync()
    assert sync.ended == ("initial", "failure", "not_a_calendar")
    assert list(sync.requests) == [("GET", 200)]
    with pytest.raises(ValueError, match=r"Content line could not be parsed|Found no components"):
        icalendar.Calendar.from_ical(response.text)
    assert len(recording.syncs()) == 1


def refusal(content: bytes) -> tuple[type, str]:
    """The parser's error."""
    try:
        icalendar.Calendar.from_ical(content)
    except ValueError as error:
        return type(error), str(error)
    raise AssertionError("it was parsed")


@pytest.mark.parametrize(
    "body",
    [
        feed("one", "two").partition(b"END:VEVENT")[0],
        feed("one").replace(b"BEGIN:VEVENT", b"BEGIN VEVENT"),
        feed("one") + feed("two"),
    ],
    ids=["truncated", "no-colon", "two-calendars"],
)
async def test_malformed(site: Site, body: bytes, recording: Recording) -> None:
    """What the parser refuses is a failed synchronisation, and its error passes unchanged."""
    site.body = body
    response = httpx.get(site.feed)
    refused = refusal(response.content)
    IcalendarInstrumentor().uninstrument()
    assert refused == refusal(response.content)
    IcalendarInstrumentor().instrument()
    assert recording.sync().ended == ("initial", "failure", "malformed")


async def test_items_with_errors(site: Site, get: Get, recording: Recording) -> None:
    """The parser passes over broken properties without an exception; their items count as failed."""
    site.body = feed("one", "two", "three").replace(b"20260105T090000Z", b"notadate", 2)
    found = icalendar.Calendar.from_ical((await settled(get(site.feed))).text)
    assert len(found.events) == 3
    sync = recording.sync()
    assert sync.ended == ("initial", "partial", None)
    assert sync.items == (3, 0, 0, 2)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "auth"),
        (403, "auth"),
        (404, "not_found"),
        (410, "not_found"),
        (429, "rate_limited"),
        (500, "server_error"),
    ],
)
async def test_refused(site: Site, get: Get, status: int, kind: str, recording: Recording) -> None:
    """A status that is an error ends the synchronisation with its type."""
    site.status, site.body = status, b"no"
    await settled(get(site.feed))
    sync = recording.sync()
    assert sync.ended == ("initial", "failure", kind)
    assert list(sync.requests) == [("GET", status)]


async def test_unreachable(get: Get, recording: Recording) -> None:
    """Nobody listens; the client's own error passes unchanged."""
    with pytest.raises(Exception, match=r"(?i)connect|refused|retries"):
        await settled(get("http://127.0.0.1:9/team.ics"))
    assert recording.sync().ended == ("initial", "failure", "unreachable")


async def test_slow(site: Site, get: Get, recording: Recording) -> None:
    """The server does not answer in time."""
    site.silent = Event()
    with pytest.raises(Exception, match=r"(?i)timed? ?out|^$"):
        await settled(get(site.feed, timeout=0.5))
    assert recording.sync().ended == ("initial", "failure", "timeout")


def test_redirects(site: Site, recording: Recording) -> None:
    """A redirect that is followed is a request more; one that is not is no calendar."""
    response = requests.get(site.url + "/old.ics", timeout=10)
    icalendar.Calendar.from_ical(response.text)
    followed = recording.sync()
    assert followed.ended == ("initial", "success", None)
    assert followed.facts["requests"] == 2
    recording.clear()
    httpx.get(site.url + "/old/team.ics")
    assert recording.sync().ended == ("initial", "failure", "redirected")


async def test_feed_that_nobody_expected(site: Site, get: Get, recording: Recording) -> None:
    """An address that does not look like a feed is one by the type of its answer; from then on it is expected."""
    address = site.url + "/export?team=7"
    icalendar.Calendar.from_ical((await settled(get(address))).text)
    first = recording.sync()
    assert first.ended == ("initial", "success", None)
    assert first.said("requests", "bytes") == (1, len(site.body))
    assert list(first.requests) == []
    recording.clear()
    site.body, site.headers = LOGIN_PAGE, {"Content-Type": "text/html"}
    await settled(get(address))
    second = recording.sync()
    assert second.ended == ("emulated", "failure", "not_a_calendar")
    assert list(second.requests) == [("GET", 200)]


async def test_other_requests_are_none_of_ours(site: Site, get: Get, recording: Recording) -> None:
    """A page, an API, an upload: no span, and no calendar either that was not fetched."""
    site.headers = {"Content-Type": "application/json"}
    site.body = b"{}"
    await settled(get(site.url + "/api/shifts"))
    icalendar.Calendar.from_ical(feed("one"))
    assert recording.spans() == ()


def test_nobody_reads_it(site: Site, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reader the span ends by itself, as long as the fetch took, with what can be seen."""
    capture = ics.Feeds(calendars.recorder(recording.tracers, recording.meters), seconds=1.0)
    with httpx.Client() as client:
        request = client.build_request("GET", site.feed)
        capture.sent(httpx.Client.send.__wrapped__.__get__(client), client, (request,), {})  # type: ignore[attr-defined]
    deadline = time.monotonic() + 20
    while not recording.syncs() and time.monotonic() < deadline:
        time.sleep(0.02)
    sync = recording.sync()
    assert sync.ended == ("initial", "success", None)
    assert sync.items == (3, 0, 0, 0)
    ended = max(span.end_time or 0 for span in recording.below(sync.span))
    assert abs((sync.span.end_time or 0) - ended) < 0.5e9  # not when it was given up


def test_nobody_reads_what_was_cut(site: Site, recording: Recording) -> None:
    """A calendar without an end is malformed, read or not."""
    site.body = feed("one").partition(b"END:VEVENT")[0]
    httpx.get(site.feed)
    IcalendarInstrumentor().uninstrument()
    IcalendarInstrumentor().instrument()
    assert recording.sync().ended == ("initial", "failure", "malformed")


def test_streamed(site: Site, recording: Recording) -> None:
    """A body that the application reads itself is joined by the work it is read in."""
    with recording.tracers.get_tracer("app").start_as_current_span("planning.import"):
        with httpx.stream("GET", site.feed) as response:
            body = b"".join(response.iter_bytes())
        icalendar.Calendar.from_ical(body)
    sync = recording.sync()
    assert sync.ended == ("initial", "success", None)
    assert list(sync.requests) == [("GET", 200)]


def test_many_at_once(site: Site, recording: Recording) -> None:
    """Feeds fetched in threads and read elsewhere: each its own span, each fetch joined to its reading."""
    bodies = {f"/{n}.ics": feed(*(f"{n}-{k}" for k in range(n))) for n in range(1, 9)}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = bodies[handler.path]
        handler.send_response(200)
        handler.send_header("Content-Type", "text/calendar")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    site.answer = answer  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda path: httpx.get(site.url + path).text, bodies))
    for text in reversed(texts):
        icalendar.Calendar.from_ical(text)
    assert sorted(sync.items[0] for sync in recording.syncs()) == list(range(1, 9))
    for sync in recording.syncs():
        assert sync.facts["bytes"] == len(bodies[f"/{sync.items[0]}.ics"])


def test_two_tenants_with_equal_feeds(site: Site, recording: Recording) -> None:
    """Each fetch is read in its own trace, for its own organisation, whoever parses first; no other context is entered."""
    tracer = recording.tracers.get_tracer("app")
    with tracer.start_as_current_span("a") as a, otel_shim.identity(org_id="acme"):
        first = httpx.get(site.feed).text
        with start_root(tracer, "b") as b, otel_shim.identity(org_id="globex"):
            second = httpx.get(site.feed).text
            assert not recording.syncs(), "a fetch concludes no other"
            assert parse(first) == (trace_of(b), "globex")
        assert [sync.span.context.trace_id for sync in recording.syncs()] == [trace_of(b)]
        assert parse(second) == (trace_of(a), "acme")
    assert {sync.span.context.trace_id for sync in recording.syncs()} == {trace_of(a), trace_of(b)}


def test_tenants_walked_in_one_trace(site: Site, recording: Recording) -> None:
    """A job that works for one organisation after another joins no fetch of the one to the reading of the other."""
    tracer = recording.tracers.get_tracer("app")
    with tracer.start_as_current_span("job") as job:
        with otel_shim.identity(org_id="acme"):
            text = httpx.get(site.feed).text
        with otel_shim.identity(org_id="globex"):
            assert parse(text) == (trace_of(job), "globex")
        assert not recording.syncs()
        with otel_shim.identity(org_id="acme"):
            assert parse(text) == (trace_of(job), "acme")
        assert len(recording.syncs()) == 1


def test_no_span_on_one_side(site: Site, recording: Recording) -> None:
    """What was fetched outside of any span is not joined to a trace, nor the other way round."""
    tracer = recording.tracers.get_tracer("app")
    text = httpx.get(site.feed).text
    with tracer.start_as_current_span("request"):
        icalendar.Calendar.from_ical(text)
        assert not recording.syncs()
        httpx.get(site.feed)
    icalendar.Calendar.from_ical(text)
    assert len(recording.syncs()) == 1
    icalendar.Calendar.from_ical(text)
    assert len(recording.syncs()) == 1


def test_organisations_without_a_span(site: Site, recording: Recording) -> None:
    """Outside of any span, too, a fetch is joined to a reading for the same organisation only."""
    with otel_shim.identity(org_id="acme"):
        text = httpx.get(site.feed).text
    with otel_shim.identity(org_id="globex"):
        icalendar.Calendar.from_ical(text)
    assert not recording.syncs()
    with otel_shim.identity(org_id="acme"):
        icalendar.Calendar.from_ical(text)
    assert len(recording.syncs()) == 1


def parse(text: str) -> tuple[int, str | None]:
    """Parse, by the wrapper; gives the trace and the organisation that the parser was at work for."""

    def inside(_: str) -> icalendar.Calendar:
        scope = context.governing()
        seen.append((trace_of(get_current_span()), scope.identity.org_id if scope else None))
        return icalendar.Calendar()

    seen: list[tuple[int, str | None]] = []
    IcalendarInstrumentor()._capture.parsed(inside, None, (text,), {})
    return seen[0]


def start_root(tracer: Tracer, name: str) -> Any:
    """A trace of its own."""
    return tracer.start_as_current_span(name, context=Context())


def trace_of(span: Span) -> int:
    """The trace of a span."""
    return span.get_span_context().trace_id


@pytest.mark.parametrize("read", [True, False])
def test_a_large_body_is_not_kept(site: Site, recording: Recording, read: bool) -> None:
    """It is looked at when it comes; what it says is known all the same, read or not."""
    site.body = feed("one", "two", summary="x" * (3 << 20))
    text = httpx.get(site.feed).text
    assert len(text) > 6 << 20
    fetches = [each for each in gc.get_objects() if type(each) is feed_fetch.Fetch]
    assert [each.body for each in fetches if each.running.open] == [None]
    assert not recording.syncs()
    if read:
        icalendar.Calendar.from_ical(text)
    else:
        IcalendarInstrumentor()._capture.finish()
    assert recording.sync().ended == ("initial", "success", None)
    assert recording.sync().items == (2, 0, 0, 0)
    assert recording.sync().facts["bytes"] == len(site.body)


def test_a_large_body_that_was_cut(site: Site, recording: Recording) -> None:
    """Also that is known after its bytes are gone."""
    site.body = feed("one", summary="x" * (5 << 20)).partition(b"END:VEVENT")[0]
    httpx.get(site.feed)
    IcalendarInstrumentor()._capture.finish()
    assert recording.sync().ended == ("initial", "failure", "malformed")


def test_unread_feeds_hold_few_bytes(site: Site, recording: Recording) -> None:
    """Beyond 32 MiB of all that wait, the oldest is concluded: of twelve with 3 MiB, two."""
    for number in range(12):
        site.body = feed(f"{number}", summary="x" * (3 << 20))
        httpx.get(site.url + f"/{number}.ics")
    assert [sync.ended for sync in recording.syncs()] == [("initial", "success", None)] * 2


def test_staleness(site: Site, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is stale when it is half again as old as the interval that the feed suggests."""
    site.body = feed("one", head="REFRESH-INTERVAL;VALUE=DURATION:PT1H\r\n")
    site.headers = {"Last-Modified": formatdate(time.time() - 7200, usegmt=True)}
    real = time.time
    for later in (0, 3600, 3600 + 6000, 3600 + 6000 + 60):
        monkeypatch.setattr(time, "time", lambda later=later: real() + later)
        site.status = 500 if later == 3600 + 6000 + 60 else 200
        response = httpx.get(site.feed)
        if response.status_code == 200:
            icalendar.Calendar.from_ical(response.text)
    facts = [sync.said("feed.stale", "sync.outcome") for sync in recording.syncs()]
    assert facts == [(None, "success"), (False, "success"), (True, "success"), (False, "failure")]
    assert 7000 < recording.syncs()[0].facts["feed.age"] < 7400


def test_published_ttl(site: Site, recording: Recording) -> None:
    """X-PUBLISHED-TTL counts likewise."""
    site.body = feed("one", head="X-PUBLISHED-TTL:P1D\r\n")
    for _ in range(2):
        icalendar.Calendar.from_ical(httpx.get(site.feed).text)
    assert [sync.facts.get("feed.stale") for sync in recording.syncs()] == [None, False]


def test_compressed(site: Site, get: Get, recording: Recording) -> None:
    """Bytes are those that the server sent."""
    plain = site.body
    site.body, site.headers = gzip.compress(plain), {"Content-Encoding": "gzip"}
    icalendar.Calendar.from_ical(requests.get(site.feed, timeout=10).text)
    assert recording.sync().facts["bytes"] == len(site.body) < len(plain)


UNCLOSED = "BEGIN:VEVENT\r\nUID:1\r\nBEGIN:VALARM\r\nEND:VEVENT\r\n"
NO_OFFSET = (
    "BEGIN:VTIMEZONE\r\nTZID:X\r\nBEGIN:STANDARD\r\nDTSTART:20260101T000000\r\n"
    "TZOFFSETFROM:+9900\r\nTZOFFSETTO:+0100\r\nEND:STANDARD\r\nEND:VTIMEZONE\r\n"
)


@pytest.mark.parametrize(
    ("head", "error"), [("", ""), (UNCLOSED, "component"), (NO_OFFSET, "Offset|offset")]
)
def test_lazy_calendars_stay_lazy(site: Site, recording: Recording, head: str, error: str) -> None:
    """What icalendar parses when it is looked at is not parsed by us, and what is wrong in it is not raised early."""
    site.body = feed("one", "two", head=head)
    found = icalendar.LazyCalendar.from_ical(httpx.get(site.feed).text)
    assert found.is_lazy()
    assert recording.sync().ended == ("initial", "success", None)
    assert recording.sync().items[3] == 0
    if head:
        with pytest.raises(ValueError, match=error):
            assert found.subcomponents
    else:
        assert len(found.events) == 2


@pytest.mark.parametrize("wrong", ["", "DTSTART:notadate\r\n"])
def test_deeply_nested(site: Site, recording: Recording, wrong: str) -> None:
    """A feed may be nested as deep as its author likes."""
    deep = "BEGIN:VEVENT\r\n" * 2000 + wrong + "END:VEVENT\r\n" * 2000
    site.body = feed("one", head=deep)
    before = counters.snapshot().get("internal_errors", 0)
    icalendar.Calendar.from_ical(httpx.get(site.feed).text)
    assert recording.sync().items[3] == bool(wrong)
    assert counters.snapshot().get("internal_errors", 0) == before


def test_what_a_feed_was_like_is_each_organisations_own(site: Site, recording: Recording) -> None:
    """A second tenant's first fetch of a feed is an initial one, whoever has fetched it before."""
    for org in ("north", "south", "north"):
        with otel_shim.identity(org_id=org):
            icalendar.Calendar.from_ical(httpx.get(site.feed).text)
    assert [(sync.facts["sync.mode"], sync.items[0]) for sync in recording.syncs()] == [
        ("initial", 3),
        ("initial", 3),
        ("emulated", 0),
    ]


def test_subclasses_keep_their_type(recording: Recording) -> None:
    """The wrapper stands before a class method; subclasses still get what they are."""

    class Mine(icalendar.Calendar):  # type: ignore[misc]
        """A calendar of the application's own."""

    assert type(Mine.from_ical(feed("one"))) is type(_without(Mine))
    assert icalendar.Calendar.from_ical.__doc__
    assert len(icalendar.Calendar.from_ical(feed("one") + feed("two"), multiple=True)) == 2


def _without(kind: type[icalendar.Calendar]) -> icalendar.Calendar:
    IcalendarInstrumentor().uninstrument()
    try:
        found: Any = kind.from_ical(feed("one"))
        return found
    finally:
        IcalendarInstrumentor().instrument()


async def test_the_server_is_told_of_the_request(
    site: Site, get: Get, recording: Recording
) -> None:
    """As the client's own instrumentor would: a feed's server, where it is ours, continues the trace."""
    headers = {"Accept": "text/calendar"}
    await settled(get(site.feed, headers=headers))
    await settled(get(site.feed))
    sent = {span.context.span_id for span in recording.spans() if span.name == "GET"}
    told = [asked["traceparent"].split("-")[2] for asked in site.asked]
    assert {int(each, 16) for each in told} == sent
    assert len(sent) == 2
    assert headers == {"Accept": "text/calendar"}
