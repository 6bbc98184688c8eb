"""One fetch of a feed, from the request to the end of its synchronisation, and what is remembered of feeds.

The clients differ little in their responses; what differs is asked for here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from otel_shim import _semconv as semconv
from otel_shim import calendars, feeds
from otel_shim._guard import guarded
from otel_shim.calendars import Items
from otel_shim.locks import Locked
from otel_shim.signals.calendar_requests import Request
from otel_shim.signals.calendar_successes import Key
from otel_shim.signals.calendars import Running

_MOST_FEEDS = 10_000
_MOST_ITEMS = 100_000
"""Items of all feeds together whose content is remembered, some 15 MB; beyond, the feeds read longest ago are forgotten."""
_LARGE = 4 << 20
"""Bytes of a body that is not kept until somebody reads it."""
_ITEM = 160
"""Bytes that an item takes in memory, as hashes."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a feed was like: its items, the interval it suggests, when it changed (seconds since 1970), and what it said, as a hash."""

    items: Mapping[int, int] | None = None
    interval: float | None = None
    changed: float | None = None
    says: int | None = None

    def mode(self) -> str:
        """How much the next fetch will ask for: a feed is always sent whole, and compared here."""
        if self.items is None:
            return semconv.SAAS_CALENDAR_SYNC_MODE_INITIAL
        return semconv.SAAS_CALENDAR_SYNC_MODE_EMULATED


NOTHING = Known()


class Memory(Locked):
    """What feeds were like when they were last read, for each organisation: its copy is its own."""

    def __init__(self) -> None:
        super().__init__()
        self._known: OrderedDict[Key, Known] = OrderedDict()
        self._items = 0

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def of(self, key: Key | None) -> Known:
        """What is known of a feed."""
        return self._known.get(key, NOTHING) if key is not None else NOTHING

    def learn(self, key: Key | None, known: Known) -> None:
        """Remember it, and forget others where there are too many."""
        if key is None:
            return
        with self._lock:
            self._items += len(known.items or ()) - len(self.of(key).items or ())
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > 1 and self._is_full():
                _, gone = self._known.popitem(last=False)
                self._items -= len(gone.items or ())

    def _is_full(self) -> bool:
        return len(self._known) > _MOST_FEEDS or self._items > _MOST_ITEMS


class Fetch:
    """One fetch of a feed; ``request`` is None where the request had been made before it was known for one."""

    def __init__(self, memory: Memory, running: Running) -> None:
        self._memory = memory
        self._known = memory.of(running.key)
        self._stack = ExitStack()
        self._ended: float | None = None
        self._modified: float | None = None
        self._seen: Known | None = None
        self._cut = False
        self.running = running
        running.mode = self._known.mode()
        self.request: Request | None = None
        self.body: bytes | None = None

    def __enter__(self) -> Fetch:
        self._stack.enter_context(self.running.current())
        if self.request is not None:
            self._stack.enter_context(self.request)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._failed(error)
        self._stack.close()

    @guarded(default=None)
    def _failed(self, error: BaseException) -> None:
        if self.request is not None:
            self.request.failed(error)
        self.end(calendars.error_type(error))

    def answered(self, response: Any) -> bool:
        """Take the answer in; whether there is a calendar in it to be read."""
        self.body = _body(response)
        self._count(response)
        self._modified = _modified(response)
        self._ended = time.perf_counter()
        if response.status_code == 304:
            return self._unchanged()
        error = _refusal(response.status_code, media_type(response), self.body)
        if error is not None:
            self.end(error)
        return error is None

    def _count(self, response: Any) -> None:
        received = calendars.size(response.headers.get("content-length"), len(self.body or b""))
        redirects = getattr(response, "history", None)
        if self.request is not None:
            with self.running.current():
                self.request.answered(response.status_code, received)
        else:
            self.running.requests, self.running.received = 1, received
        self.running.requests += len(redirects or ())

    def _unchanged(self) -> bool:
        self.running.mode = semconv.SAAS_CALENDAR_SYNC_MODE_UNCHANGED
        self._memory.learn(self.running.key, self._known)
        self.end(None)
        return False

    @guarded(default=None)
    def read(self, found: Any) -> None:
        """The calendar, or several, were read; items with errors in them count as failed."""
        self._conclude(_failed_items(found), None)

    def unread(self) -> None:
        """Nobody read it: all that is known is what was fetched."""
        self._see()
        if self._cut:
            return self.end(calendars.MALFORMED, self._ended)
        return self._conclude(0, self._ended)

    def rest(self) -> int:
        """Before it waits to be read: a large body is looked at now and let go. Bytes that it holds meanwhile."""
        if self.body is not None and len(self.body) > _LARGE:
            self._see()
        if self._seen is not None:
            return _ITEM * len(self._seen.items or ())
        return len(self.body or b"")

    def _see(self) -> None:
        """Look at the body, which after that is not needed any more."""
        if self.body is not None:
            self._cut = not feeds.is_whole(self.body)
            self._seen, self.body = self._look(self.body), None

    @guarded(default=None)
    def _conclude(self, failed: int, at: float | None) -> None:
        self._see()
        if self._seen is not None:
            before, self._known = self._known, self._seen
            self._memory.learn(self.running.key, self._known)
            counts = feeds.compare(before.items, self._known.items or {})
            self.running.items = Items(counts.created, counts.changed, counts.deleted, failed)
        self.end(None, at)

    def _look(self, body: bytes) -> Known:
        """What the feed is like now; where it says what it said before, its items are not looked at again."""
        before, said = self._known, feeds.content(body)
        wanted, says = feeds.interval(body), hash(said)
        if before.items is not None and before.says == says:
            return Known(before.items, wanted, self._modified or before.changed, says)
        return Known(feeds.snapshot(said), wanted, self._modified or time.time(), says)

    @guarded(default=None)
    def end(self, error: str | None, at: float | None = None) -> None:
        """End the synchronisation, with the type of an error or well."""
        known, running = self._known, self.running
        running.stale = feeds.is_stale(running.delay, known.interval)
        if known.changed is not None:
            running.age = max(0.0, time.time() - known.changed)
        running.end(error, at)


def _refusal(status: int, kind: str, body: bytes | None) -> str | None:
    """The type of the error that an answer is; None where it is a calendar, as far as can be seen."""
    if status >= 400:
        return calendars.error_type_of_status(status)
    if status >= 300:
        return calendars.REDIRECTED
    if body is None:
        return calendars.NOT_A_CALENDAR if kind == "text/html" else None
    return None if feeds.is_calendar(body) else calendars.NOT_A_CALENDAR


def media_type(response: Any) -> str:
    """The type of a response's body, without parameters."""
    kind: str = response.headers.get("content-type") or ""
    return kind.partition(";")[0].strip().lower()


def _body(response: Any) -> bytes | None:
    """The body, where the client has read it and it is of a size to look at; a stream is the application's."""
    consumed = getattr(response, "_content_consumed", None)  # requests, niquests
    if not (getattr(response, "is_stream_consumed", False) if consumed is None else consumed):
        return None
    body = response.content
    return body if isinstance(body, bytes) and len(body) <= feeds.LARGEST else None


def _modified(response: Any) -> float | None:
    """When the feed changed, as its server says."""
    text = response.headers.get("last-modified")
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (TypeError, ValueError, OverflowError):
        return None


@guarded(default=0)
def _failed_items(found: Any) -> int:
    """Items with errors, of those that are parsed: what is lazy stays so until the application looks."""
    calendars_found = found if isinstance(found, list) else [found]
    return sum(_has_errors(item) for each in calendars_found for item in _parts(each))


def _has_errors(component: Any) -> bool:
    """Whether it or anything in it has errors; a stranger's feed may be nested to any depth."""
    left = [component]
    while left:
        each = left.pop()
        if vars(each).get("errors"):
            return True
        left.extend(_parts(each))
    return False


def _parts(component: Any) -> Iterable[Any]:
    """What a component holds, without asking it: a property would parse, and may raise."""
    parts: Iterable[Any] = vars(component).get("subcomponents", ())
    return parts
