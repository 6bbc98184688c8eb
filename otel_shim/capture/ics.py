"""Feeds of iCalendar text: the fetch, by httpx, requests or niquests, and the reading, by icalendar, are one span.

    GET of a feed ─▶ calendar.synchronize begins ─▶ 304, an error, a login page: it ends
                                   │
                                   └─▶ a calendar: kept by its trace, organisation and a fingerprint of its content
                                           ─▶ Calendar.from_ical of that content, in that trace: it ends
                                           ─▶ nobody reads it for half a minute: it ends as the fetch did

What a feed is: a GET of an address that ends in ``.ics``, that begins with ``webcal:``, that asks for
``text/calendar``, or whose answer was of that type before.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable
from typing import Any, NamedTuple

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled
from opentelemetry.trace import get_current_span

from otel_shim import _semconv as semconv
from otel_shim import calendars, feeds
from otel_shim._guard import guarded
from otel_shim.capture.feed_fetch import Fetch, Memory, media_type
from otel_shim.capture.patches import Patches
from otel_shim.capture.unfinished import SECONDS, Unfinished, conclude_at_exit
from otel_shim.signals import calendar_logs, calendar_requests
from otel_shim.signals.calendar_successes import Key
from otel_shim.signals.calendars import Recorder, organisation_now, recorder

_BEFORE_HEADERS = 4
"""Arguments of ``Session.request`` before its headers: method, address, params and data."""
_PROVIDER = semconv.SAAS_CALENDAR_PROVIDER_ICS


class IcalendarInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments icalendar and the clients that fetch its feeds, when the application imports them.

    ``instrument`` takes ``tracer_provider``, ``meter_provider`` and ``logger_provider``; the global
    ones are the default. From that logger provider addresses of calendars are withheld.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions whose functions are known."""
        return ("icalendar >= 5.0, < 8",)

    def _instrument(self, **kwargs: Any) -> None:
        capture = Feeds(recorder(kwargs.get("tracer_provider"), kwargs.get("meter_provider")))
        calendar_logs.install(kwargs.get("logger_provider"))
        self._capture = capture
        self._patches = Patches()
        wrap = self._patches.when_imported
        wrap("icalendar", "Calendar.from_ical", capture.parsed)
        wrap("httpx", "Client.send", capture.sent)
        wrap("httpx", "AsyncClient.send", capture.async_sent)
        for library in ("requests", "niquests"):
            wrap(f"{library}.sessions", "Session.request", capture.requested)
        wrap("niquests.async_session", "AsyncSession.request", capture.async_requested)
        conclude_at_exit()

    def _uninstrument(self, **kwargs: Any) -> None:
        self._patches.remove()
        self._capture.finish()


class Asked(NamedTuple):
    """An HTTP request of the application; ``began`` by ``time.perf_counter``.

    ``headers`` are httpx's, which may be added to; None for other clients.
    """

    method: str
    url: str
    accept: str
    client: Any
    began: float
    headers: Any = None


class Feeds:
    """The wrappers around the clients and around the parser."""

    def __init__(self, recorder: Recorder, seconds: float = SECONDS) -> None:
        self._recorder = recorder
        self._memory = Memory()
        self._unread: Unfinished[Fetch] = Unfinished(Fetch.unread, seconds)

    def finish(self) -> None:
        """Conclude what nobody has read."""
        self._unread.finish()

    def sent(self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``httpx.Client.send``."""
        return self._fetch(_httpx(client, *args, **kwargs), wrapped, args, kwargs)

    async def async_sent(
        self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``httpx.AsyncClient.send``."""
        return await self._async_fetch(_httpx(client, *args, **kwargs), wrapped, args, kwargs)

    def requested(
        self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``Session.request`` of requests and niquests."""
        if calendar_requests.in_request():  # caldav's own, which may be many
            return wrapped(*args, **kwargs)
        return self._fetch(_requests(client, *args, **kwargs), wrapped, args, kwargs)

    async def async_requested(
        self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``AsyncSession.request`` of niquests."""
        if calendar_requests.in_request():
            return await wrapped(*args, **kwargs)
        return await self._async_fetch(_requests(client, *args, **kwargs), wrapped, args, kwargs)

    def _fetch(
        self, asked: Asked | None, wrapped: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        fetch = self._begin(asked)
        if fetch is None:
            response = wrapped(*args, **kwargs)
        else:
            kwargs = _telling(fetch, asked, args, kwargs)
            with fetch:
                response = wrapped(*args, **kwargs)
        self._answered(asked, fetch, response)
        return response

    async def _async_fetch(
        self, asked: Asked | None, wrapped: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        fetch = self._begin(asked)
        if fetch is None:
            response = await wrapped(*args, **kwargs)
        else:
            kwargs = _telling(fetch, asked, args, kwargs)
            with fetch:
                response = await wrapped(*args, **kwargs)
        self._answered(asked, fetch, response)
        return response

    @guarded(default=None)
    def _begin(self, asked: Asked | None) -> Fetch | None:
        """The fetch of a feed that is expected at an address; None for any other request."""
        if asked is None or asked.method != "GET" or not self._expects(asked):
            return None
        if not is_http_instrumentation_enabled():  # caldav's own, for one
            return None
        fetch = self._started(asked)
        if fetch is not None:
            with fetch.running.current():
                request = calendar_requests.begin(
                    self._recorder, asked.method, asked.url, asked.client
                )
            fetch.request = request if isinstance(request, calendar_requests.Request) else None
        return fetch

    def _expects(self, asked: Asked) -> bool:
        if feeds.expected(asked.url, asked.accept):
            return True
        return bool(self._memory) and _key(asked) in self._memory

    def _started(self, asked: Asked) -> Fetch | None:
        address = calendars.without_login(asked.url)
        running = self._recorder.begin(
            _PROVIDER, address, semconv.SAAS_CALENDAR_SYNC_MODE_INITIAL, asked.began
        )
        return Fetch(self._memory, running) if running is not None else None

    @guarded(default=None)
    def _answered(self, asked: Asked | None, fetch: Fetch | None, response: Any) -> None:
        """Take the answer in, also that of a feed which nobody expected."""
        if fetch is None and asked is not None and self._is_news(asked, response):
            fetch = self._started(asked)
        if fetch is not None and fetch.answered(response):
            self._wait(fetch)

    @staticmethod
    def _is_news(asked: Asked, response: Any) -> bool:
        return (
            asked.method == "GET"
            and media_type(response) == feeds.MEDIA_TYPE
            and is_http_instrumentation_enabled()
        )

    def _wait(self, fetch: Fetch) -> None:
        """Wait for the parser: for this content, or where it was not read yet, for any in the same work."""
        found = _work() if fetch.body is None else feeds.fingerprint(fetch.body)
        if found is None:
            fetch.unread()
        else:
            self._unread.put((_whose(), found), fetch, fetch.rest())

    def parsed(self, wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``Calendar.from_ical``."""
        fetch = self._claim(*args, **kwargs)
        if fetch is None:
            return wrapped(*args, **kwargs)
        with fetch.running:
            try:
                with fetch.running.current():
                    found = wrapped(*args, **kwargs)
            except Exception:
                fetch.end(calendars.MALFORMED)
                raise
            fetch.read(found)
        return found

    @guarded(default=None)
    def _claim(self, st: Any = None, *_: Any, **__: Any) -> Fetch | None:
        """The fetch whose content is to be parsed: of the same trace and organisation, for all others its context is not."""
        if not self._unread:
            return None
        contents = [feeds.fingerprint(st)] if isinstance(st, (str, bytes)) else []
        for content in (*contents, _work()):
            for whose in _reachable(_whose()):
                found = self._unread.take((whose, content))
                if found is not None:
                    return found
        return None


def _key(asked: Asked) -> Key:
    """The feed at an address, as the current organisation knows it."""
    return Key(_PROVIDER, organisation_now(), calendars.without_login(asked.url))


class Whose(NamedTuple):
    """The trace that work is part of, and the organisation that it is done for; None where there is none, or it is unknown."""

    trace: int | None
    organisation: str | None


def _whose() -> Whose:
    """Whose work is being done. Feeds of two tenants may be alike, to the last byte."""
    at = get_current_span().get_span_context()
    return Whose(at.trace_id if at.is_valid else None, organisation_now())


def _reachable(whose: Whose) -> tuple[Whose, ...]:
    """Whose fetches a reader may join: its own, and in its trace those from before the organisation was known."""
    if whose.trace is None or whose.organisation is None:
        return (whose,)
    return whose, whose._replace(organisation=None)


def _work() -> Hashable:
    """The piece of work that is being done; None outside of any."""
    at = get_current_span().get_span_context()
    return ("work", at.span_id) if at.is_valid else None


@guarded(default=None)
def _httpx(client: Any, request: Any, *_: Any, **__: Any) -> Asked:
    accept = request.headers.get("accept", "")
    now = time.perf_counter()
    return Asked(request.method, str(request.url), accept, client, now, request.headers)


@guarded(default=None)
def _requests(client: Any, method: Any, url: Any, *args: Any, **kwargs: Any) -> Asked:
    address = url.decode() if isinstance(url, bytes) else str(url)
    if params := (args[0] if args else kwargs.get("params")):
        # Which calendar it is may be said there; this is never exported.
        address = f"{address}{'&' if '?' in address else '?'}{params!r}"
    headers = (args[2] if len(args) > 2 else kwargs.get("headers")) or {}
    accept = str(headers.get("Accept") or client.headers.get("Accept") or "")
    return Asked(str(method).upper(), address, accept, client, time.perf_counter())


def _telling(
    fetch: Fetch, asked: Asked | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments with headers that name the request to the server; the application's own stay as they are."""
    if fetch.request is None or asked is None:
        return kwargs
    if asked.headers is not None:
        fetch.request.inject(asked.headers)
        return kwargs
    given = kwargs.get("headers") or {}
    if len(args) > _BEFORE_HEADERS or type(given) is not dict:
        return kwargs
    headers = dict(given)
    fetch.request.inject(headers)
    return {**kwargs, "headers": headers}
