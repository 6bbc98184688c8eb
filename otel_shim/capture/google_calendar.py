"""Google Calendar by google-api-python-client: the pages of one ``events.list`` are one span.

    page without pageToken ─▶ calendar.synchronize begins ─▶ nextPageToken: it waits for the next page
                                                          ─▶ nextSyncToken, or an error: it ends

A list with bounds, which no sync token could continue, is a look at a calendar and no synchronisation of it.
410 says that a sync token is no longer valid: that synchronisation fails, and the next one of the
same calendar without a token is the full one that makes up for it.
https://developers.google.com/workspace/calendar/api/guides/sync
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled

from otel_shim import _semconv as semconv
from otel_shim import calendars
from otel_shim._guard import guarded
from otel_shim.calendars import Items
from otel_shim.capture.patches import Patches
from otel_shim.capture.unfinished import SECONDS, Unfinished, conclude_at_exit
from otel_shim.locks import Locked
from otel_shim.signals import calendar_logs, calendar_requests
from otel_shim.signals.calendar_requests import AnyRequest
from otel_shim.signals.calendar_successes import Key
from otel_shim.signals.calendars import (
    Recorder,
    Running,
    organisation_now,
    recorder,
    running_now,
)

_PROVIDER = semconv.SAAS_CALENDAR_PROVIDER_GOOGLE
_API = "calendar."
_LIST = "calendar.events.list"
_PRIMARY = "primary"
_ACCOUNT = ("account", "_subject", "service_account_email", "refresh_token")
_MOST_CALENDARS = 10_000
_SINCE = "timeMin"
_BOUNDS = frozenset(
    {
        *("timeMax", "q", "orderBy", "updatedMin", "iCalUID"),
        *("privateExtendedProperty", "sharedExtendedProperty"),
    }
)
"""What a sync token cannot be used with (https://developers.google.com/workspace/calendar/api/v3/reference/events/list),
but for ``timeMin``: Google's own guide begins with it, to leave out what is old."""


class GoogleCalendarInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments google-api-python-client for calendars, when the application imports it.

    ``instrument`` takes ``tracer_provider``, ``meter_provider`` and ``logger_provider``; the global
    ones are the default. From that logger provider addresses of calendars are withheld.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions whose functions are known."""
        return ("google-api-python-client >= 2.50, < 3",)

    def _instrument(self, **kwargs: Any) -> None:
        self._capture = GoogleCalendar(
            recorder(kwargs.get("tracer_provider"), kwargs.get("meter_provider"))
        )
        calendar_logs.install(kwargs.get("logger_provider"))
        self._patches = Patches()
        self._patches.when_imported(
            "googleapiclient.http", "HttpRequest.execute", self._capture.executed
        )
        conclude_at_exit()

    def _uninstrument(self, **kwargs: Any) -> None:
        self._patches.remove()
        self._capture.finish()


class Page(NamedTuple):
    """A request for a page of events; the address names the calendar and is never exported."""

    address: str
    sync_token: str | None
    page_token: str | None
    named: frozenset[str] = frozenset()
    """The parameters that the application gave."""

    def is_look(self) -> bool:
        """Whether it lists only what the application wants to see now."""
        return self.sync_token is None and not self.named.isdisjoint(_BOUNDS)

    def leaves_out(self, found: Mapping[str, Any]) -> bool:
        """Whether the last page of a list with a beginning gives nothing to go on with."""
        return _SINCE in self.named and "nextSyncToken" not in found


class GoogleCalendar(Locked):
    """The wrapper around ``HttpRequest.execute``."""

    def __init__(self, recorder: Recorder, seconds: float = SECONDS) -> None:
        super().__init__()
        self._recorder = recorder
        self._unfinished: Unfinished[Listing] = Unfinished(Listing.abandoned, seconds)
        self._seen: OrderedDict[Key, bool] = OrderedDict()
        """Calendars that were listed, and whether their token has been lost since."""

    def finish(self) -> None:
        """Conclude what no further page was asked for."""
        self._unfinished.finish()

    def executed(
        self, wrapped: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``HttpRequest.execute``."""
        method_id = getattr(request, "methodId", None) or ""
        if not method_id.startswith(_API) or not is_http_instrumentation_enabled():
            return wrapped(*args, **kwargs)
        call = partial(self._call, wrapped, request, args, kwargs)
        if method_id != _LIST or running_now() is not None:
            return call()
        return self._listed(request, args, kwargs, call)

    def _listed(
        self, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: Any
    ) -> Any:
        page = _page(request, *args, **kwargs)
        listing = self._begin(page)
        if page is None or listing is None:
            return call()
        try:
            with listing.running.current():
                found = call()
        except BaseException as error:
            self._failed(page, listing, error)
            raise
        self._continue(page, listing, found)
        return found

    def _call(
        self, wrapped: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """One request, with a span of its own, its answer's size and the client's own waits."""
        watched = self._watch(request)
        if watched is None:
            return wrapped(*args, **kwargs)
        try:
            with watched.span:
                found = wrapped(*args, **kwargs)
        except BaseException as error:
            self._refused(request, error)
            raise
        finally:
            watched.release()
        watched.answered()
        return found

    @guarded(default=None)
    def _watch(self, request: Any) -> Watched | None:
        span = calendar_requests.start(self._recorder, request.method, request.uri, request)
        return Watched(request, span) if span is not None else None

    @guarded(default=None)
    def _refused(self, request: Any, error: BaseException) -> None:
        if request.method != "GET" and calendars.status_of(error) == 412:
            self._recorder.conflict(_PROVIDER)

    @guarded(default=None)
    def _begin(self, page: Page | None) -> Listing | None:
        if page is None or page.is_look():
            return None
        if page.page_token is not None and (listing := self._continued(page)) is not None:
            return listing
        mode = semconv.SAAS_CALENDAR_SYNC_MODE_INCREMENTAL
        running = self._recorder.begin(_PROVIDER, page.address, mode)
        if running is None:
            return None
        if page.sync_token is None:
            running.mode = self._mode(running.key)
        return Listing(running)

    def _continued(self, page: Page) -> Listing | None:
        """The list that a page goes on with, of this organisation or from before it was known."""
        for organisation in dict.fromkeys((organisation_now(), None)):
            found = self._unfinished.take((organisation, page.address, page.page_token))
            if found is not None:
                return found
        return None

    def _mode(self, key: Key | None) -> str:
        """What is asked for without a token: everything, for the first time, again, or as ever."""
        lost = self._seen.get(key) if key is not None else None
        if lost is None:
            return semconv.SAAS_CALENDAR_SYNC_MODE_INITIAL
        if lost:
            return semconv.SAAS_CALENDAR_SYNC_MODE_FULL_RESYNC
        return semconv.SAAS_CALENDAR_SYNC_MODE_EMULATED

    @guarded(default=None)
    def _continue(self, page: Page, listing: Listing, found: Any) -> None:
        page_found = found if isinstance(found, dict) else {}
        listing.add(page_found)
        following = page_found.get("nextPageToken")
        if following:
            self._unfinished.put((organisation_now(), page.address, following), listing)
        elif page.leaves_out(page_found):
            listing.abandoned()
        else:
            listing.running.end()
            self._remember(listing.running.key, lost=False)

    @guarded(default=None)
    def _failed(self, page: Page, listing: Listing, error: BaseException) -> None:
        kind = calendars.error_type(error)
        if page.sync_token is not None and calendars.status_of(error) == 410:
            kind = calendars.TOKEN_LOST
            self._remember(listing.running.key, lost=True)
        listing.running.end(kind)

    def _remember(self, key: Key | None, *, lost: bool) -> None:
        if key is None:
            return
        with self._lock:
            self._seen[key] = lost
            self._seen.move_to_end(key)
            if len(self._seen) > _MOST_CALENDARS:
                self._seen.popitem(last=False)


class Listing:
    """The pages of one synchronisation, as far as they have come."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._until = time.perf_counter()

    def add(self, page: Mapping[str, Any]) -> None:
        """Take in the events of a page; those cancelled are gone."""
        listed = page.get("items")
        events = [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
        gone = sum(1 for event in events if event.get("status") == "cancelled")
        found = calendars.listed_items(self.running.mode, len(events), gone)
        so_far = self.running.items
        self.running.items = Items(
            so_far.created + found.created,
            so_far.changed + found.changed,
            so_far.deleted + found.deleted,
        )
        self._until = time.perf_counter()

    def abandoned(self) -> None:
        """It is not all that there is: no further page was asked for, or it gave nothing to go on with."""
        self.running.mode = semconv.SAAS_CALENDAR_SYNC_MODE_TRUNCATED
        self.running.end(None, self._until)


class Watched:
    """One request of the client while it is made: its answer, its repetitions and its waits."""

    def __init__(self, request: Any, span: AnyRequest) -> None:
        self.span = span
        self._request = request
        self._answer: Any = None
        self._repeated = 0
        self._sleep = getattr(request, "_sleep", None)
        request.add_response_callback(self._callback)
        if self._sleep is not None:
            request._sleep = self._sleeping  # noqa: SLF001 - made to be replaced; the waits are nowhere else

    def _callback(self, answer: Any) -> None:
        self._answer = answer

    def _sleeping(self, seconds: float) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        self._repeated += 1
        if (running := running_now()) is not None:
            running.requests += 1
            running.wait += seconds

    @guarded(default=None)
    def release(self) -> None:
        """Leave the client's request as it was."""
        with suppress(ValueError):
            self._request.response_callbacks.remove(self._callback)
        if self._sleep is not None:
            self._request._sleep = self._sleep  # noqa: SLF001 - as above

    @guarded(default=None)
    def answered(self) -> None:
        """The answer was good."""
        answer = self._answer or {}
        status = getattr(answer, "status", 200)
        self.span.answered(status, calendars.size(answer.get("content-length"), 0))


@guarded(default=None)
def _page(request: Any, http: Any = None, *_: Any, **__: Any) -> Page:
    parts = urlsplit(request.uri)
    query = parse_qs(parts.query)
    _, _, rest = parts.path.partition("/calendars/")
    address = unquote(rest.partition("/")[0])
    if address == _PRIMARY:
        address = _primary(http if http is not None else request.http)
    return Page(address, _only(query, "syncToken"), _only(query, "pageToken"), frozenset(query))


def _only(query: dict[str, list[str]], name: str) -> str | None:
    return next(iter(query.get(name, ())), None)


def _primary(http: Any) -> str:
    """What tells one account's primary calendar from another's; empty where nothing does."""
    credentials = getattr(http, "credentials", None)
    found = (getattr(credentials, name, None) for name in _ACCOUNT)
    account = next((each for each in found if isinstance(each, str) and each), None)
    return f"{_PRIMARY} {account}" if account is not None else ""
