"""caldav against real servers: every synchronisation is one span, with what really happened."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import caldav
import pytest
from caldav.lib import error

import otel_shim
from otel_shim.pseudonym import pseudonymiser
from otel_shim.signals.calendar_requests import MOST_SPANS

from . import servers
from .clients import KINDS, Account, account, client, item, refused, reopened, settled
from .conftest import SECRET
from .recording import Recording
from .servers import CalendarServer

UNKNOWN_TOKEN = {
    "radicale": "http://radicale.org/ns/sync/" + "0" * 64,
    "xandikos": "0" * 40,
}
REFUSED_TOKEN = {"radicale": refused(403, "AuthorizationError"), "xandikos": 412}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of client."""
    return str(request.param)


@pytest.fixture
async def mine(kind: str, server: CalendarServer, recording: Recording) -> AsyncIterator[Account]:
    """An account with three events in its calendar; what it took to make them is not recorded."""
    made = await account(kind, server)
    await made.put("one", "two", "three")
    recording.clear()
    yield made
    await made.close()


async def test_first_synchronisation(mine: Account, recording: Recording) -> None:
    """Everything is new; the list and each event are a request, all below the one span."""
    found = await settled(mine.calendar.get_objects(load_objects=True))
    sync = recording.sync()
    assert len(list(found)) == 3
    assert sync.ended == ("initial", "success", None)
    assert sync.items == (3, 0, 0, 0)
    assert list(sync.requests) == [("REPORT", 207)] + [("GET", 200)] * 3
    assert sync.said("provider", "requests", "conflicts", "token.lost") == ("caldav", 4, 0, False)
    assert sync.facts["bytes"] > 3 * 150
    assert "delay" not in sync.facts and "hash" not in sync.facts and "wait" not in sync.facts


async def test_incremental_synchronisation(
    mine: Account, kind: str, server: CalendarServer, recording: Recording
) -> None:
    """A copy is brought up to date: one span, although it asks for a list inside."""
    copy = await settled(mine.calendar.get_objects(load_objects=True))
    other = await reopened(kind, mine, server)
    await other.put("four")
    changed = await other.event("one")
    changed.data = item("one", "Doctor")
    await settled(changed.save())
    await settled((await other.event("two")).delete())
    recording.clear()
    updated, deleted = await settled(copy.sync())
    assert (len(updated), len(deleted)) == (2, 1)
    sync = recording.sync()
    assert sync.ended == ("incremental", "success", None)
    assert sync.items == (1, 1, 1, 0)
    assert list(sync.requests) == [("REPORT", 207), ("GET", 200), ("GET", 200)]
    assert 0 < sync.facts["delay"] < 60
    await other.close()


async def test_incremental_list(mine: Account, recording: Recording) -> None:
    """A list since a token does not tell new events from changed ones; those deleted it does."""
    first = await settled(mine.calendar.objects_by_sync_token())
    await mine.put("four")
    await settled((await mine.event("two")).delete())
    recording.clear()
    again = await settled(mine.calendar.objects(first.sync_token))
    assert len(again.deleted_urls) == 1
    sync = recording.sync()
    assert sync.ended == ("incremental", "success", None)
    assert sync.items == (0, 1, 1, 0)
    assert list(sync.requests) == [("REPORT", 207)]


async def test_lost_token(mine: Account, server: CalendarServer, recording: Recording) -> None:
    """The client hides the loss behind a token of its own; the span and a metric say it."""
    token = UNKNOWN_TOKEN[server.name]
    found = await settled(mine.calendar.get_objects_by_sync_token(token))
    assert found.sync_token.startswith("fake-")
    sync = recording.sync()
    assert sync.ended == ("full_resync", "success", None)
    assert sync.facts["token.lost"] is True
    assert sync.items == (0, 3, 0, 0)
    assert list(sync.requests[:2]) == [("REPORT", REFUSED_TOKEN[server.name]), ("REPORT", 207)]
    assert recording.points("saas.calendar.token.losses") == [
        ({"saas.calendar.provider": "caldav"}, 1)
    ]
    recording.clear()
    await settled(mine.calendar.get_objects_by_sync_token(found.sync_token))
    sync = recording.sync()
    assert sync.ended == ("emulated", "success", None)
    assert sync.facts["token.lost"] is False
    assert sync.items == (0, 0, 0, 0)
    assert recording.points("saas.calendar.token.losses")[0][1] == 1


async def test_lost_token_of_a_copy(
    mine: Account, server: CalendarServer, recording: Recording
) -> None:
    """Likewise where a copy is brought up to date: what was deleted is found by comparing."""
    copy = await settled(mine.calendar.get_objects(load_objects=True))
    await mine.put("four")
    await settled((await mine.event("two")).delete())
    copy.sync_token = UNKNOWN_TOKEN[server.name]
    recording.clear()
    updated, deleted = await settled(copy.sync())
    sync = recording.sync()
    assert sync.ended == ("full_resync", "success", None)
    assert sync.facts["token.lost"] is True
    created, changed, gone, _ = sync.items
    assert (created + changed, gone) == (len(updated), len(deleted))
    assert (created, gone) == (1, 1)


async def test_lost_token_that_is_not_hidden(
    mine: Account, server: CalendarServer, recording: Recording
) -> None:
    """Where the application forbids the fall back it sees the error, and so does the span."""
    token = UNKNOWN_TOKEN[server.name]
    with pytest.raises((error.AuthorizationError, error.ReportError)) as caught:
        await settled(mine.calendar.get_objects_by_sync_token(token, disable_fallback=True))
    assert "{DAV:}valid-sync-token" in caught.value.preconditions
    sync = recording.sync()
    assert sync.ended == ("incremental", "failure", "token_lost")
    assert sync.facts["token.lost"] is True
    assert list(sync.requests) == [("REPORT", REFUSED_TOKEN[server.name])]
    assert len(recording.points("saas.calendar.token.losses")) == 1


async def test_conflict(
    mine: Account, kind: str, server: CalendarServer, recording: Recording
) -> None:
    """Two write the same event: the second is refused, on its request, its work and a metric."""
    first, second = await mine.event("one"), await mine.event("one")
    await settled(first.load())
    await settled(second.load())
    first.data = item("one", "Doctor")
    await settled(first.save())
    recording.clear()
    second.data = item("one", "Vet")
    push = recording.tracers.get_tracer("app").start_as_current_span("calendar.push")
    with push, pytest.raises((error.ETagMismatchError, error.ScheduleTagMismatchError)):
        await settled(second.save())
    assert not recording.syncs()
    (work,) = [span for span in recording.spans() if span.name == "calendar.push"]
    assert dict(work.attributes or {})["saas.calendar.conflicts"] == 1
    (put,) = recording.below(work)
    assert (put.name, dict(put.attributes or {})["error.type"]) == ("PUT", "412")
    assert recording.points("saas.calendar.conflicts") == [
        ({"saas.calendar.provider": "caldav"}, 1)
    ]


async def test_wrong_password(kind: str, radicale: CalendarServer, recording: Recording) -> None:
    """The server knows the login and not the password. Of Radicale only: Xandikos has no accounts."""
    opened = client(kind, radicale.home, radicale.login, "wrong")
    calendar = opened.calendar(url=radicale.home + "alice%40example.com/work/")
    with pytest.raises(error.AuthorizationError) as caught:
        await settled(calendar.get_objects())
    assert getattr(caught.value, "status", 401) == 401
    sync = recording.sync()
    assert sync.ended == ("initial", "failure", "auth")
    assert set(sync.requests) == {("REPORT", 401)}
    assert sync.facts["requests"] == len(sync.requests) >= 2
    await settled(opened.close())


async def test_missing_calendar(mine: Account, kind: str, recording: Recording) -> None:
    """There is no such calendar; what caldav makes of that passes unchanged and is one span."""
    gone = mine.client.calendar(url=str(mine.calendar.url).rstrip("/") + "-gone/")
    raised: BaseException | None = None
    try:
        await settled(gone.get_objects())
    except error.DAVError as caught:
        raised = caught
    sync = recording.sync()
    assert (sync.error is None) == (raised is None)
    if raised is not None:
        assert sync.error == "not_found"


async def test_server_down(kind: str, recording: Recording) -> None:
    """Nobody listens."""
    opened = client(kind, f"http://127.0.0.1:{servers.free_port()}/", "alice", "secret")
    calendar = opened.calendar(url="/alice/work/")
    with pytest.raises(Exception, match=r"(?i)connect|refused|retries") as caught:
        await settled(calendar.get_objects())
    assert not isinstance(caught.value, error.DAVError)
    sync = recording.sync()
    assert sync.ended == ("initial", "failure", "unreachable")
    ((method, kind_of_error),) = set(sync.requests)
    assert (method, kind_of_error) == ("REPORT", type(caught.value).__qualname__)
    await settled(opened.close())


@contextmanager
def silent() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


async def test_slow_server(kind: str, recording: Recording) -> None:
    """The server does not answer in time."""
    with silent() as port:
        opened = client(kind, f"http://127.0.0.1:{port}/", None, None, timeout=1)
        calendar = opened.calendar(url="/alice/work/")
        with pytest.raises(Exception, match=r"(?i)timed? ?out|^$") as caught:
            await settled(calendar.get_objects())
        assert "Timeout" in type(caught.value).__name__
        sync = recording.sync()
        assert sync.ended == ("initial", "failure", "timeout")
        assert list(sync.requests) == [("REPORT", type(caught.value).__qualname__)]
        assert (sync.span.end_time or 0) - (sync.span.start_time or 0) > 0.9e9
        await settled(opened.close())


async def test_identity_and_pseudonym(mine: Account, recording: Recording) -> None:
    """The span belongs to the organisation it was made for; the calendar has a pseudonym in it."""
    with otel_shim.identity(
        org_id="north",
        actor_type="job",
        processing_activity_id="ropa-017",
        legal_basis="contract",
        retention_class="r90d",
    ):
        await settled(mine.calendar.get_objects())
    with otel_shim.identity(org_id="south"):
        await settled(mine.calendar.get_objects())
    await settled(mine.calendar.get_objects())
    north, south, nobody = recording.syncs()
    maker = pseudonymiser(SECRET)
    address = str(mine.calendar.url)
    assert north.facts["hash"] == maker.pseudonym("calendar", "north", address)
    assert south.facts["hash"] == maker.pseudonym("calendar", "south", address)
    assert "hash" not in nobody.facts
    attributes = dict(north.span.attributes or {})
    assert attributes["saas.org.id"] == "north"
    assert attributes["saas.gdpr.processing_activity.id"] == "ropa-017"
    assert attributes["saas.gdpr.legal_basis"] == "contract"
    assert attributes["saas.gdpr.retention_class"] == "r90d"
    for request in recording.below(north.span):
        assert dict(request.attributes or {})["saas.org.id"] == "north"
    assert "delay" not in south.facts, "another organisation's success is none of ours"


async def test_nothing_of_the_address_leaves(mine: Account, recording: Recording) -> None:
    """No login, no path, no content: only the server."""
    await mine.put("five", summary="Oncology")
    copy = await settled(mine.calendar.get_objects(load_objects=True))
    await settled(copy.sync())
    name = str(mine.calendar.url).rstrip("/").rpartition("/")[2]
    for span in recording.spans():
        told = f"{span.to_json()}"
        for secret in ("alice", "example.com", "correct horse", "Oncology", "bob", name, "/user/"):
            assert secret not in told, told


@pytest.mark.parametrize("kind", ["async"])
async def test_two_calendars_at_once(
    mine: Account, kind: str, server: CalendarServer, recording: Recording
) -> None:
    """Synchronisations side by side are a span each, with their own requests only."""
    other = await account(kind, server)
    await other.put("a", "b")
    recording.clear()
    await asyncio.gather(
        mine.calendar.get_objects(load_objects=True), other.calendar.get_objects(load_objects=True)
    )
    counts = sorted((sync.items[0], len(sync.requests)) for sync in recording.syncs())
    assert counts == [(2, 3), (3, 4)]
    await other.close()


def test_two_calendars_in_threads(radicale: CalendarServer, recording: Recording) -> None:
    """Likewise with the sync client in threads."""
    made = [asyncio.run(_filled(radicale, count)) for count in (2, 3)]
    recording.clear()
    threads = [
        threading.Thread(target=each.calendar.get_objects, kwargs={"load_objects": True})
        for each in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = sorted((sync.items[0], len(sync.requests)) for sync in recording.syncs())
    assert counts == [(2, 3), (3, 4)]


async def _filled(server: CalendarServer, count: int) -> Account:
    made = await account("sync", server)
    await made.put(*(f"event-{number}" for number in range(count)))
    return made


def test_many_requests(radicale: CalendarServer, recording: Recording) -> None:
    """A large calendar is no large trace: the first requests have spans, all are counted and measured."""
    made = asyncio.run(_filled(radicale, MOST_SPANS + 5))
    recording.clear()
    measured = sum(count for _, count in recording.points("http.client.request.duration"))
    made.calendar.get_objects(load_objects=True)
    sync = recording.sync()
    assert sync.items == (MOST_SPANS + 5, 0, 0, 0)
    assert len(sync.requests) == MOST_SPANS
    assert sync.facts["requests"] == MOST_SPANS + 6
    again = sum(count for _, count in recording.points("http.client.request.duration"))
    assert again - measured == MOST_SPANS + 6


BROKEN = {
    "radicale": ("SUMMARY", "PRIORITY:high\r\nSUMMARY"),
    "xandikos": (":20260105T", ":not-a-date"),
}
"""What each server takes although it is broken: Radicale looks at dates itself."""


async def test_items_that_cannot_be_read(
    mine: Account, server: CalendarServer, recording: Recording
) -> None:
    """A broken item is parsed without an exception, and only when somebody looks at it."""
    address = str(mine.calendar.url) + "broken.ics"
    body = item("broken").replace(*BROKEN[server.name])
    answer = await settled(mine.client.put(address, body, {"Content-Type": "text/calendar"}))
    assert answer.status == 201
    found = await settled(mine.calendar.get_objects(load_objects=True))
    recording.clear()
    with recording.tracers.get_tracer("app").start_as_current_span("planning.import"):
        for each in found:
            each.icalendar_instance  # noqa: B018 - a property that parses
            each.get_icalendar_instance()
    (work,) = [span for span in recording.spans() if span.name == "planning.import"]
    assert dict(work.attributes or {})["saas.calendar.items.failed"] == 1
    failed = {"saas.calendar.provider": "caldav", "saas.calendar.item.state": "failed"}
    assert (failed, 1) in recording.points("saas.calendar.items")


async def test_metrics(mine: Account, recording: Recording) -> None:
    """Durations by mode and outcome, items by state, and when the calendar last succeeded."""
    copy = await settled(mine.calendar.get_objects(load_objects=True))
    await mine.put("four")
    await settled(copy.sync())
    caldav_only = {"saas.calendar.provider": "caldav"}
    success = {**caldav_only, "saas.calendar.sync.outcome": "success"}
    assert sorted(recording.points("saas.calendar.sync.duration"), key=str) == [
        ({**caldav_only, "saas.calendar.sync.mode": mode, **success}, 1)
        for mode in ("incremental", "initial")
    ]
    created = {**caldav_only, "saas.calendar.item.state": "created"}
    assert recording.points("saas.calendar.items") == [(created, 4)]
    ((labels, seconds),) = recording.points("saas.calendar.oldest_success.timestamp")
    bucket = labels.pop("saas.calendar.bucket")
    assert isinstance(bucket, int) and labels == caldav_only
    assert abs(seconds * 1e9 - (recording.syncs()[-1].span.end_time or 0)) < 5e9
    methods = {
        labels["http.request.method"]: labels["http.response.status_code"]
        for labels, _ in recording.points("http.client.request.duration")
    }
    assert methods["REPORT"] == 207 and methods["GET"] == 200


async def test_wrappers_change_nothing_visible(mine: Account, recording: Recording) -> None:
    """Names, kinds and results are those of caldav."""
    assert caldav.Calendar.get_objects.__name__ == "get_objects_by_sync_token"
    assert caldav.Calendar.get_objects.__doc__
    found: Any = await settled(mine.calendar.get_objects())
    assert type(found).__name__ == "SynchronizableCalendarObjectCollection"
    with pytest.raises(TypeError):
        await settled(mine.calendar.get_objects(nonsense=True))
