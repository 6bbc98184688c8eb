"""caldav: one span for each synchronisation, sync and async, whatever carries its HTTP.

    Calendar.get_objects_by_sync_token, its aliases ─┐
    SynchronizableCalendarObjectCollection.sync ─────┴▶ calendar.synchronize ─▶ PROPFIND, REPORT, GET, PUT

caldav falls back to downloading everything where a server refuses its token, and hands back a token
of its own (``fake-…``): no HTTP request shows that, so it is read off the tokens.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.trace import get_current_span

from otel_shim import _semconv as semconv
from otel_shim import calendars, feeds
from otel_shim._guard import guarded
from otel_shim.addresses import absolute
from otel_shim.capture.patches import Patches
from otel_shim.signals import calendar_logs, calendar_requests
from otel_shim.signals.calendar_requests import AnyRequest, Asked, Counted
from otel_shim.signals.calendars import Recorder, Running, recorder, running_now

_PROVIDER = semconv.SAAS_CALENDAR_PROVIDER_CALDAV
_CONDITIONS = frozenset(("if-match", "if-none-match", "if-schedule-tag-match"))
_WRITES = frozenset(("PUT", "DELETE", "POST", "MOVE", "COPY", "PROPPATCH"))
_REMEMBERED_FAILURES = 1024
_COLLECTION = "caldav.collection"
_Conclude = Callable[[Running, Any], None]


class CaldavInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments caldav, when the application imports it.

    ``instrument`` takes ``tracer_provider``, ``meter_provider`` and ``logger_provider``; the global
    ones are the default. From that logger provider what caldav logs of people's data is withheld.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions whose functions are known."""
        return ("caldav >= 3.5, < 4",)

    def _instrument(self, **kwargs: Any) -> None:
        capture = Caldav(recorder(kwargs.get("tracer_provider"), kwargs.get("meter_provider")))
        calendar_logs.install(kwargs.get("logger_provider"))
        self._patches = Patches()
        wrap = self._patches.when_imported
        by_token = "Calendar.get_objects_by_sync_token"  # noqa: S105 - the name of a method
        wrap(_COLLECTION, by_token, capture.listed, "get_objects")
        wrap(_COLLECTION, "SynchronizableCalendarObjectCollection.sync", capture.merged)
        wrap("caldav.davclient", "DAVClient._sync_request", capture.request)
        wrap("caldav.async_davclient", "AsyncDAVClient._async_request", capture.async_request)
        wrap("caldav.base_client", "BaseDAVClient._rate_limit_sleep_seconds", capture.sleeps)
        wrap("caldav.lib.vcal", "parse_ical", capture.parsed)
        wrap("caldav.datastate", "parse_ical", capture.parsed)

    def _uninstrument(self, **kwargs: Any) -> None:
        self._patches.remove()


class Crowd(NamedTuple):
    """A crowded synchronisation, of which a request by a client ``began`` by ``time.perf_counter``."""

    running: Running
    client: Any
    began: float


class Caldav:
    """The wrappers around caldav's functions."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._failures: OrderedDict[tuple[int, ...], None] = OrderedDict()

    def listed(
        self, wrapped: Any, calendar: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``get_objects_by_sync_token``: a list of what there is, or of what has changed."""
        token = args[0] if args else kwargs.get("sync_token")
        conclude = partial(_conclude_list, token)
        return self._observed(calendar, token, conclude, partial(wrapped, *args, **kwargs))

    def merged(self, wrapped: Any, copy: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``sync``: a copy is brought up to date."""
        token, size = copy.sync_token, _length(copy)
        conclude = partial(_conclude_merge, copy, token, size)
        return self._observed(copy.calendar, token, conclude, partial(wrapped, *args, **kwargs))

    def _observed(
        self, calendar: Any, token: object, conclude: _Conclude, call: Callable[[], Any]
    ) -> Any:
        """Call it as one synchronisation, unless it is a part of one."""
        if running_now() is not None:
            return call()
        if _is_async(calendar):
            return self._awaited(calendar, token, conclude, call())
        running = self._begin(calendar, token)
        if running is None:
            return call()
        with running:
            with running.current():
                result = call()
            conclude(running, result)
        return result

    async def _awaited(
        self, calendar: Any, token: object, conclude: _Conclude, coroutine: Any
    ) -> Any:
        running = self._begin(calendar, token)
        if running is None:
            return await coroutine
        with running:
            with running.current():
                result = await coroutine
            conclude(running, result)
        return result

    @guarded(default=None)
    def _begin(self, calendar: Any, token: object) -> Running | None:
        address = calendars.without_login(str(calendar.url or ""))
        return self._recorder.begin(_PROVIDER, address, calendars.expected_mode(token))

    def request(
        self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """One HTTP request of the sync client."""
        running = calendar_requests.crowd_now()
        if running is None:
            return self._traced(wrapped, client, args, kwargs)
        began = time.perf_counter()
        try:
            response = wrapped(*args, **kwargs)
        except BaseException as error:
            self._lost(Crowd(running, client, began), error, *args, **kwargs)
            raise
        self._counted(Crowd(running, client, began), response, *args, **kwargs)
        return response

    async def async_request(
        self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """One HTTP request of the async client, over whichever library."""
        running = calendar_requests.crowd_now()
        if running is None:
            return await self._async_traced(wrapped, client, args, kwargs)
        began = time.perf_counter()
        try:
            response = await wrapped(*args, **kwargs)
        except BaseException as error:
            self._lost(Crowd(running, client, began), error, *args, **kwargs)
            raise
        self._counted(Crowd(running, client, began), response, *args, **kwargs)
        return response

    def _traced(
        self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        request = self._begin_request(client, *args, **kwargs)
        if request is None:
            return wrapped(*args, **kwargs)
        with request:
            response = wrapped(*args, **kwargs)
        self._answered(request, response, args, kwargs)
        return response

    async def _async_traced(
        self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        request = self._begin_request(client, *args, **kwargs)
        if request is None:
            return await wrapped(*args, **kwargs)
        with request:
            response = await wrapped(*args, **kwargs)
        self._answered(request, response, args, kwargs)
        return response

    @guarded(default=None)
    def _begin_request(
        self, client: Any, url: Any, method: str = "GET", *_: Any, **__: Any
    ) -> AnyRequest | None:
        return calendar_requests.start(self._recorder, method, absolute(url, client), client)

    @guarded(default=None)
    def _answered(
        self, request: AnyRequest, response: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        request.answered(response.status, _received(response))
        if (running := running_now()) is not None:
            _look_for_page(running, response, args[1] if len(args) > 1 else kwargs.get("method"))
        self._look_for_conflict(response, args, kwargs)

    def _look_for_conflict(
        self, response: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if response.status == 412 and _conditional(*args, **kwargs):
            self._recorder.conflict(_PROVIDER)

    @guarded(default=None)
    def _counted(
        self, crowd: Crowd, response: Any, url: Any, method: str = "GET", *rest: Any, **named: Any
    ) -> None:
        """A request of a crowded synchronisation was answered; there may be thousands, so of a good one little is done."""
        running, client, began = crowd
        seconds, status = time.perf_counter() - began, response.status
        if status < 400:
            running.count((method, url, client, status, seconds), _received(response))
            return _look_for_page(running, response, method)
        self._in_crowd(crowd, url, method).answered(status, _received(response))
        return self._look_for_conflict(response, (url, method, *rest), named)

    @guarded(default=None)
    def _lost(
        self, crowd: Crowd, error: BaseException, url: Any, method: str = "GET", *_: Any, **__: Any
    ) -> None:
        """A request of a crowded synchronisation had no answer."""
        self._in_crowd(crowd, url, method).failed(error)

    def _in_crowd(self, crowd: Crowd, url: Any, method: str) -> Counted:
        asked = Asked(method, absolute(url, crowd.client))
        return Counted(self._recorder, asked, crowd.running, crowd.began)

    def sleeps(
        self, wrapped: Any, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """How long the client will sleep because the server limits its rate."""
        seconds = wrapped(*args, **kwargs)
        _add_wait(seconds)
        return seconds

    def parsed(self, wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An item is read, mostly after the synchronisation, when the application looks at it."""
        try:
            component = wrapped(*args, **kwargs)
        except Exception:
            self._failed(args)
            raise
        self._look_for_errors(component, args)
        return component

    @guarded(default=None)
    def _look_for_errors(self, component: Any, args: tuple[Any, ...]) -> None:
        if any(each.errors for each in component.subcomponents):
            self._failed(args)

    @guarded(default=None)
    def _failed(self, args: tuple[Any, ...]) -> None:
        """Count an item that cannot be read, once for each piece of work that looks at it."""
        work = get_current_span().get_span_context().span_id
        content = args[0] if args and isinstance(args[0], (str, bytes)) else b""
        item = (work, *feeds.identity(content))
        if item not in self._failures:
            self._failures[item] = None
            while len(self._failures) > _REMEMBERED_FAILURES:
                self._failures.popitem(last=False)
            self._recorder.failed_items(_PROVIDER, 1)


@guarded(default=None)
def _conclude_list(token: object, running: Running, result: Any) -> None:
    mode, lost = calendars.mode_of_tokens(token, result.sync_token, _truncated(result))
    running.mode, running.token_lost = mode, lost
    running.items = calendars.listed_items(mode, len(result), len(_deleted(result)))


@guarded(default=None)
def _conclude_merge(copy: Any, token: object, size: int, running: Running, result: Any) -> None:
    updated, deleted = (len(part) for part in result)
    mode, lost = calendars.mode_of_tokens(token, copy.sync_token, _truncated(copy))
    running.mode, running.token_lost = mode, lost
    running.items = calendars.merged_items(size, _length(copy), updated, deleted)


@guarded(default=None)
def _add_wait(seconds: float) -> None:
    if (running := running_now()) is not None:
        running.wait += seconds


def _look_for_page(running: Running, response: Any, method: object) -> None:
    """A web page that came with a good status: for a list there is no calendar, for an item that one has failed."""
    if response.status >= 400:
        return
    if method == "REPORT":
        running.page = "html" in str(response.headers.get("Content-Type") or "").lower()
    elif method in ("GET", None) and (response._raw or b"")[:64].lstrip()[:1] in (b"<", "<"):  # noqa: SLF001 - as below
        running.failed += 1


@guarded(default=False)
def _is_async(calendar: Any) -> bool:
    return bool(calendar.is_async_client)


@guarded(default=0)
def _length(copy: Any) -> int:
    return len(copy)


def _truncated(result: Any) -> bool:
    return bool(getattr(result, "truncated", False))


def _deleted(result: Any) -> Collection[Any]:
    return getattr(result, "deleted_urls", ())


def _received(response: Any) -> int:
    """Bytes of the body as the server sent them, else as they were read."""
    read = len(response._raw or b"")  # noqa: SLF001 - read only; there is no public way to its length
    return calendars.size(response.headers.get("Content-Length"), read)


def _conditional(
    url: Any, method: str = "GET", body: Any = "", headers: Any = None, **_: Any
) -> bool:
    """Whether a request was a write that was to fail where somebody else had written."""
    named = {str(name).lower() for name in headers or ()}
    return method in _WRITES and not named.isdisjoint(_CONDITIONS)
