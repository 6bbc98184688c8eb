"""Google Calendar: the real client against a local server that speaks the protocol of its edge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httplib2
import pytest
from googleapiclient import http as google_http
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

import otel_shim
from otel_shim.capture import google_calendar
from otel_shim.signals import calendars

from .recording import Recording, Sync
from .test_feeds import serving

CALENDAR = "alice@example.com"


def event(number: int, status: str = "confirmed") -> dict[str, str]:
    """An event as the API lists it."""
    return {"id": f"e{number}", "status": status, "summary": "Dentist", "etag": f'"{number}"'}


@dataclass
class Google:
    """A calendar at the edge: its events in pages of two, its valid sync tokens, what goes wrong next."""

    url: str = ""
    events: list[dict[str, str]] = field(default_factory=list)
    changes: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    failing: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    gives_token: bool = True

    def list(self, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """Answer ``events.list``."""
        token = query.get("syncToken", [None])[0]
        if token is not None and token not in self.changes:
            return 410, {"error": {"code": 410, "errors": [{"reason": "fullSyncRequired"}]}}
        events = self.events if token is None else self.changes[token]
        start = int(query.get("pageToken", ["0"])[0])
        page: dict[str, Any] = {"kind": "calendar#events", "items": events[start : start + 2]}
        if start + 2 < len(events):
            return 200, {**page, "nextPageToken": str(start + 2)}
        if not self.gives_token:
            return 200, page
        return 200, {**page, "nextSyncToken": f"token-{len(self.changes)}"}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.asked.append(f"{handler.command} {handler.path}")
        length = int(handler.headers.get("Content-Length") or 0)
        handler.rfile.read(length)
        if self.failing:
            status = self.failing.pop(0)
            body: dict[str, Any] = {"error": {"code": 0, "message": "alice"}}
        elif handler.command == "GET":
            status, body = self.list(parse_qs(urlsplit(handler.path).query))
        else:
            status, body = 200, event(1)
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


@pytest.fixture
def google() -> Iterator[Google]:
    """A running edge with three events."""
    made = Google(events=[event(1), event(2), event(3)])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.answer(self)

        def do_PUT(self) -> None:
            made.answer(self)

        def log_message(self, *_: Any) -> None:
            """Keep the output of the tests clean."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        made.url = f"http://127.0.0.1:{port}"
        yield made


@pytest.fixture
def service(google: Google, recording: Recording) -> Iterator[Any]:
    """The client, made from the description of the API that it ships."""
    made = build(
        "calendar",
        "v3",
        http=httplib2.Http(),
        static_discovery=True,
        client_options={"api_endpoint": google.url + "/calendar/v3/"},
    )
    yield made
    made.close()


def organisation(sync: Sync) -> object:
    """The organisation that a synchronisation was made for."""
    return (sync.span.attributes or {})["saas.org.id"]


def synchronise(service: Any, token: str | None = None) -> tuple[list[Any], str]:
    """Follow the pages, as Google's guide does."""
    found: list[Any] = []
    request = service.events().list(calendarId=CALENDAR, syncToken=token)
    while request is not None:
        page = request.execute()
        found += page["items"]
        last = page
        request = service.events().list_next(request, page)
    return found, last["nextSyncToken"]


def test_pages_are_one_synchronisation(service: Any, recording: Recording) -> None:
    """Two pages, two requests, one span; neither the account nor a token leaves."""
    with otel_shim.identity(org_id="north"):
        found, token = synchronise(service)
    assert (len(found), token) == (3, "token-0")
    sync = recording.sync()
    assert sync.ended == ("initial", "success", None)
    assert sync.items == (3, 0, 0, 0)
    assert list(sync.requests) == [("GET", 200), ("GET", 200)]
    assert sync.said("provider", "requests", "token.lost") == ("google", 2, False)
    assert sync.facts["bytes"] > 100 and "hash" in sync.facts
    for span in recording.spans():
        for secret in ("alice", "example.com", "Dentist", "token-0", "pageToken"):
            assert secret not in span.to_json()


def test_incremental(google: Google, service: Any, recording: Recording) -> None:
    """With a token what has changed is listed; events that are cancelled are gone."""
    google.changes["before"] = [event(4), event(2, "cancelled"), event(1)]
    synchronise(service)
    found, _ = synchronise(service, "before")
    assert len(found) == 3
    sync = recording.syncs()[1]
    assert sync.ended == ("incremental", "success", None)
    assert sync.items == (0, 2, 1, 0)
    assert 0 < sync.facts["delay"] < 60


def test_lost_token(service: Any, recording: Recording) -> None:
    """410 is a lost token; the full listing that follows makes up for it."""
    with pytest.raises(HttpError) as caught:
        synchronise(service, "too-old")
    assert caught.value.status_code == 410
    synchronise(service)
    lost, full = recording.syncs()
    assert lost.ended == ("incremental", "failure", "token_lost")
    assert lost.facts["token.lost"] is True
    assert list(lost.requests) == [("GET", 410)]
    assert full.ended == ("full_resync", "success", None)
    assert recording.points("saas.calendar.token.losses") == [
        ({"saas.calendar.provider": "google"}, 1)
    ]
    synchronise(service)
    assert recording.syncs()[2].ended == ("emulated", "success", None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "auth"), (404, "not_found"), (429, "rate_limited"), (503, "server_error")],
)
def test_refused(
    google: Google, service: Any, recording: Recording, status: int, kind: str
) -> None:
    """The client's error passes unchanged, and nothing of its text is recorded."""
    google.failing = [status]
    with pytest.raises(HttpError) as caught:
        synchronise(service)
    assert caught.value.status_code == status
    sync = recording.sync()
    assert sync.ended == ("initial", "failure", kind)
    assert list(sync.requests) == [("GET", status)]
    assert "alice" not in sync.span.to_json()


def test_unreachable(google: Google, service: Any, recording: Recording) -> None:
    """Nobody listens."""
    request = service.events().list(calendarId=CALENDAR)
    request.uri = request.uri.replace(google.url, "http://127.0.0.1:9")
    with pytest.raises(ConnectionRefusedError):
        request.execute()
    sync = recording.sync()
    assert sync.ended == ("initial", "failure", "unreachable")
    assert list(sync.requests) == [("GET", "ConnectionRefusedError")]


def test_repetitions_and_waits(google: Google, service: Any, recording: Recording) -> None:
    """The client's own repetitions count as requests, and its sleep as a wait; the request is left as it was."""
    google.failing = [429, 503]
    slept: list[float] = []
    request = service.events().list(calendarId=CALENDAR, maxResults=250)
    request._sleep, request._rand = slept.append, lambda: 0.5
    mine = request._sleep
    google.events = google.events[:1]
    request.execute(num_retries=3)
    assert slept == [1.0, 2.0]
    assert (request._sleep, request.response_callbacks) == (mine, [])
    sync = recording.sync()
    assert sync.ended == ("initial", "success", None)
    assert sync.said("requests", "wait") == (3, 3.0)


def test_failed_page(google: Google, service: Any, recording: Recording) -> None:
    """What was listed before the failure stays told."""
    request = service.events().list(calendarId=CALENDAR)
    page = request.execute()
    google.failing = [500]
    with pytest.raises(HttpError):
        service.events().list_next(request, page).execute()
    sync = recording.sync()
    assert sync.ended == ("initial", "failure", "server_error")
    assert sync.items == (2, 0, 0, 0)
    assert list(sync.requests) == [("GET", 200), ("GET", 500)]


def test_pages_left_out(service: Any, recording: Recording) -> None:
    """Where nobody asks for the next page, the synchronisation is a truncated one."""
    service.events().list(calendarId=CALENDAR).execute()
    assert not recording.syncs()
    google_calendar.GoogleCalendarInstrumentor().uninstrument()
    google_calendar.GoogleCalendarInstrumentor().instrument()
    sync = recording.sync()
    assert sync.ended == ("truncated", "success", None)
    assert sync.items == (2, 0, 0, 0)
    assert not [p for p in recording.points("saas.calendar.oldest_success.timestamp") if p[1] == 0]


DAY = {"timeMin": "2026-01-05T00:00:00Z", "timeMax": "2026-01-06T00:00:00Z"}


@pytest.mark.parametrize(
    "bounds",
    [
        DAY,
        {**DAY, "singleEvents": True, "orderBy": "startTime"},
        {"timeMax": DAY["timeMax"]},
        {"q": "dentist"},
        {"updatedMin": DAY["timeMin"]},
        {"iCalUID": "e1"},
        {"privateExtendedProperty": "a=b"},
    ],
)
def test_a_look_is_no_synchronisation(
    bounds: dict[str, Any], service: Any, recording: Recording
) -> None:
    """A list that no sync token could continue is a request like any other; a token that was lost stays lost."""
    with pytest.raises(HttpError):
        synchronise(service, "too-old")
    before = recording.points("saas.calendar.oldest_success.timestamp")
    request = service.events().list(calendarId=CALENDAR, **bounds)
    while request is not None:
        page = request.execute()
        request = service.events().list_next(request, page)
    assert len(recording.syncs()) == 1
    assert recording.points("saas.calendar.oldest_success.timestamp") == before
    synchronise(service)
    assert recording.syncs()[1].ended == ("full_resync", "success", None)


@pytest.mark.parametrize(("token", "mode"), [(True, "initial"), (False, "truncated")])
def test_from_a_day_on(
    google: Google, service: Any, recording: Recording, token: bool, mode: str
) -> None:
    """Google's guide begins a synchronisation with ``timeMin``; what gives no token to go on with is not complete."""
    google.events, google.gives_token = google.events[:2], token
    service.events().list(calendarId=CALENDAR, timeMin=DAY["timeMin"]).execute()
    assert recording.sync().ended == (mode, "success", None)


def test_fields_without_the_token(google: Google, service: Any, recording: Recording) -> None:
    """All of it is complete, also where the application does not ask for the token."""
    google.events, google.gives_token = google.events[:2], False
    service.events().list(calendarId=CALENDAR, fields="items(id)").execute()
    assert recording.sync().ended == ("initial", "success", None)


def test_each_organisations_first_time(service: Any, recording: Recording) -> None:
    """What one organisation has listed, or lost, says nothing of another."""
    for org in ("north", "south", "north"):
        with otel_shim.identity(org_id=org):
            synchronise(service)
    assert [sync.facts["sync.mode"] for sync in recording.syncs()] == [
        "initial",
        "initial",
        "emulated",
    ]


def test_pages_of_two_organisations(service: Any, recording: Recording) -> None:
    """One organisation's next page does not continue the list of another, though calendar and token are the same."""
    request = service.events().list(calendarId=CALENDAR)
    with otel_shim.identity(org_id="north"):
        page = request.execute()
    following = service.events().list_next(request, page)
    with otel_shim.identity(org_id="south"):
        following.execute()
    assert [organisation(sync) for sync in recording.syncs()] == ["south"]
    with otel_shim.identity(org_id="north"):
        following.execute()
    assert len(recording.syncs()) == 2
    (north,) = (each for each in recording.syncs() if organisation(each) == "north")
    assert north.items == (3, 0, 0, 0)


def test_conflict(google: Google, service: Any, recording: Recording) -> None:
    """A write refused with 412 is a conflict of the work that made it."""
    google.failing = [412]
    request = service.events().update(calendarId=CALENDAR, eventId="e1", body=event(1))
    request.headers["If-Match"] = '"0"'
    push = recording.tracers.get_tracer("app").start_as_current_span("calendar.push")
    with push, pytest.raises(HttpError):
        request.execute()
    (work,) = [span for span in recording.spans() if span.name == "calendar.push"]
    assert dict(work.attributes or {})["saas.calendar.conflicts"] == 1
    assert recording.points("saas.calendar.conflicts") == [
        ({"saas.calendar.provider": "google"}, 1)
    ]
    assert not recording.syncs()


def test_primary_calendars_are_told_apart(service: Any, recording: Recording) -> None:
    """Everybody's own calendar is called the same: without an account it has no pseudonym."""
    with otel_shim.identity(org_id="north"):
        service.events().list(calendarId="primary", maxResults=250).execute()
    google_calendar.GoogleCalendarInstrumentor().uninstrument()
    google_calendar.GoogleCalendarInstrumentor().instrument()
    assert "hash" not in recording.sync().facts


def test_other_apis_are_none_of_ours(google: Google, recording: Recording) -> None:
    """Other Google APIs pass untouched."""
    google.events = []
    http = httplib2.Http()
    request = google_http.HttpRequest(
        http, lambda _, content: content, google.url + "/x", methodId="drive.files.list"
    )
    assert request.execute()
    http.close()
    assert recording.spans() == ()
    assert calendars.running_now() is None
