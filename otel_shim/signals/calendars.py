"""Synchronisations with calendars as telemetry: one span each, their metrics, and when each calendar last succeeded.

    begin ─▶ Running ◀─ requests, bytes, waits, conflicts, failed items ─▶ end ─▶ span, metrics

The address of a calendar holds logins and secrets: it stays in the process, as a key of the memory of
successes and as what the pseudonym is made of.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from opentelemetry import metrics, trace
from opentelemetry.context import Context, attach, create_key, get_current, set_value
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.metrics import CallbackOptions, Counter, MeterProvider, Observation
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME
from opentelemetry.semconv.metrics.http_metrics import HTTP_CLIENT_REQUEST_DURATION
from opentelemetry.trace import (
    Span,
    Status,
    StatusCode,
    TracerProvider,
    get_current_span,
    set_span_in_context,
)

from otel_shim import _sdk_compat, calendars, context
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim.addresses import absolute, method_of, target
from otel_shim.calendars import Items, Synchronisation
from otel_shim.model import Scalar
from otel_shim.pseudonym import Pseudonymiser
from otel_shim.signals.calendar_successes import Key, Successes
from otel_shim.signals.metrics import SCOPE, as_of, histogram

OPERATION = semconv.OPERATION_CALENDAR_SYNCHRONIZE
_RUNNING = create_key("otel-shim-calendar")
_PURPOSE = "calendar"
# https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpclientrequestduration
_REQUEST_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_MOST_HOSTS = 200
_MOST_SERIES = 2000
_OTHER_HOST = "_OTHER"
_pseudonymiser: Pseudonymiser | None = None


def use_pseudonyms(maker: Pseudonymiser | None) -> Pseudonymiser | None:
    """Set what makes pseudonyms of calendars, and return what did; called once, when the distro is wired."""
    global _pseudonymiser
    before, _pseudonymiser = _pseudonymiser, maker
    return before


class Teller(Protocol):
    """What is told of synchronisations where another process records them."""

    def attempted(self, key: Key) -> object:
        """A synchronisation has begun."""

    def concluded(
        self, key: Key | None, sync: Synchronisation, seconds: float, span: Span
    ) -> object:
        """A synchronisation has ended."""


_teller: Teller | None = None


def tell(teller: Teller | None) -> None:
    """Say who is told of this process's synchronisations, in place of its metrics."""
    global _teller
    _teller = teller


class Exchanged(NamedTuple):
    """What is told of an HTTP request in metrics."""

    method: str
    scheme: str
    host: str
    port: int | None
    status: int | None
    error: str | None

    def labels(self) -> dict[str, Scalar]:
        """As attributes of OpenTelemetry's; what is unknown is absent."""
        found = zip(_LABELS, self, strict=True)
        return {key: value for key, value in found if value is not None}


Answered = tuple[str, object, Any, int, float]
"""A request that was answered well: method, address, the client by whose ``url`` one without a server is meant, status, seconds."""
_TOGETHER = 256
"""Requests without spans that are looked at together, when that code is in the processor's cache."""

_LABELS = (
    *(HTTP_REQUEST_METHOD, URL_SCHEME, SERVER_ADDRESS, SERVER_PORT),
    *(HTTP_RESPONSE_STATUS_CODE, ERROR_TYPE),
)


class Recorder:
    """Where synchronisations are recorded: a tracer, and the instruments of a meter."""

    def __init__(self, tracers: TracerProvider | None, meters: MeterProvider | None) -> None:
        meters = meters or metrics.get_meter_provider()
        meter = meters.get_meter(SCOPE)
        self.tracer = trace.get_tracer("otel_shim.calendars", tracer_provider=tracers)
        self.successes = Successes()
        self._duration = histogram(meters, semconv.METRIC_SAAS_CALENDAR_SYNC_DURATION)
        self._items = _counter(meter, semconv.METRIC_SAAS_CALENDAR_ITEMS)
        self._losses = _counter(meter, semconv.METRIC_SAAS_CALENDAR_TOKEN_LOSSES)
        self._conflicts = _counter(meter, semconv.METRIC_SAAS_CALENDAR_CONFLICTS)
        self._requests = meter.create_histogram(
            HTTP_CLIENT_REQUEST_DURATION,
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_REQUEST_BOUNDARIES,
        )
        self._series: dict[Exchanged, _sdk_compat.Series] = {}
        self._hosts: set[str] = set()
        name = semconv.METRIC_SAAS_CALENDAR_OLDEST_SUCCESS_TIMESTAMP
        unit, brief = semconv.METRICS[name]
        meter.create_observable_gauge(name, [self._oldest], unit, brief)

    @guarded(default=None)
    def begin(
        self, provider: str, address: str, mode: str, began: float | None = None
    ) -> Running | None:
        """Start a synchronisation of the calendar at an address; None where nothing is to be recorded.

        ``began`` is when it really did, by ``time.perf_counter``. Without an address that tells this
        calendar from others (``""``) nothing is remembered of it.
        """
        if not is_instrumentation_enabled():
            return None
        began = time.perf_counter() if began is None else began
        labels = {semconv.SAAS_OPERATION: OPERATION, semconv.SAAS_CALENDAR_PROVIDER: provider}
        span = self.tracer.start_span(OPERATION, attributes=labels, start_time=clock(began))
        _name_root(span)
        return Running(self, Calendar(provider, address), mode, span, began)

    @guarded(default=None)
    def conflict(self, provider: str) -> None:
        """A write was refused, because somebody else had written."""
        self._conflicts.add(1, {semconv.SAAS_CALENDAR_PROVIDER: provider})
        if (running := running_now()) is not None:
            running.conflicts += 1
        else:
            _add_to_work(semconv.SAAS_CALENDAR_CONFLICTS, 1)

    @guarded(default=None)
    def failed_items(self, provider: str, count: int) -> None:
        """Items could not be read, in a synchronisation or after it."""
        if (running := running_now()) is not None:
            running.failed += count
            return
        self._count_items(provider, Items(failed=count))
        _add_to_work(semconv.SAAS_CALENDAR_ITEMS_FAILED, count)

    def requested(self, exchanged: Exchanged, seconds: Sequence[float], span: Span | None) -> None:
        """Record how long HTTP requests to a calendar took that were alike, and the span that is to be their example."""
        series = self._series.get(exchanged)
        if series is None:
            named = self._named(exchanged)
            series = self._series.get(named) or _sdk_compat.Series(self._requests, named.labels())
            if len(self._series) < _MOST_SERIES:
                self._series[named] = series
        at = set_span_in_context(span, Context()) if span is not None else Context()
        series.record_all(seconds, at)

    def _named(self, exchanged: Exchanged) -> Exchanged:
        """Customers may bring any number of servers: beyond some they have one name in metrics."""
        if exchanged.host not in self._hosts and len(self._hosts) >= _MOST_HOSTS:
            return exchanged._replace(host=_OTHER_HOST, port=None)
        self._hosts.add(exchanged.host)
        return exchanged

    def attempted(self, key: Key) -> None:
        """Note that a synchronisation starts."""
        self.successes.attempted(key)
        if _teller is not None:
            _teller.attempted(key)

    def concluded(self, key: Key | None, sync: Synchronisation, seconds: float, span: Span) -> None:
        """Record a synchronisation that has ended."""
        if key is not None:
            (self.successes.succeeded if sync.complete() else self.successes.failed)(key)
        if _teller is None:
            self._measure(sync, seconds, span)
        else:
            _teller.concluded(key, sync, seconds, span)

    def _measure(self, sync: Synchronisation, seconds: float, span: Span) -> None:
        labels: dict[str, Scalar] = {
            semconv.SAAS_CALENDAR_PROVIDER: sync.provider,
            semconv.SAAS_CALENDAR_SYNC_MODE: sync.mode,
            semconv.SAAS_CALENDAR_SYNC_OUTCOME: sync.outcome(),
        }
        if sync.error is not None:
            labels[ERROR_TYPE] = sync.error
        self._duration.record(seconds, labels, context=set_span_in_context(span, Context()))
        self._count_items(sync.provider, sync.items)
        if sync.token_lost:
            self._losses.add(1, {semconv.SAAS_CALENDAR_PROVIDER: sync.provider})

    def _count_items(self, provider: str, items: Items) -> None:
        for state, count in items.states():
            labels = {
                semconv.SAAS_CALENDAR_PROVIDER: provider,
                semconv.SAAS_CALENDAR_ITEM_STATE: state,
            }
            self._items.add(count, labels)

    def _oldest(self, _options: CallbackOptions) -> Iterable[Observation]:
        if _teller is not None:
            return
        for (provider, bucket), seconds in self.successes.oldest().items():
            labels: dict[str, Scalar] = {
                semconv.SAAS_CALENDAR_PROVIDER: provider,
                semconv.SAAS_CALENDAR_BUCKET: bucket,
            }
            yield Observation(seconds, labels, as_of(seconds))


_global: Recorder | None = None


@functools.cache
def recorder(
    tracers: TracerProvider | None = None, meters: MeterProvider | None = None
) -> Recorder:
    """The recorder of these providers, by default the global ones; instrumentors share it."""
    global _global
    made = Recorder(tracers, meters)
    if tracers is None and meters is None:
        _global = made
    return made


def global_recorder() -> Recorder | None:
    """The recorder of the global providers, where there is one: none is made, which a collection of metrics must not."""
    return _global


_TOLD_BY_SERVERS = calendars.ERROR_TYPES - {calendars.MALFORMED}


class Calendar(NamedTuple):
    """A calendar outside of the product; its address is never to be exported."""

    provider: str
    address: str


class Running:
    """A synchronisation at work, with what is known of it so far."""

    __slots__ = (
        *("age", "calendar", "conflicts", "failed", "items", "key", "mode", "open", "page"),
        *("received", "requests", "span", "stale", "token_lost", "wait"),
        *("_began", "_context", "_answered", "_counted", "_hash", "_recorder"),
    )

    def __init__(
        self, recorder: Recorder, calendar: Calendar, mode: str, span: Span, began: float
    ) -> None:
        self.calendar, self.mode, self.span = calendar, mode, span
        self.items = calendars.NOTHING
        self.requests = self.received = self.conflicts = self.failed = 0
        self.wait = 0.0
        self.token_lost = False
        self.page = False
        """Whether the list that was asked for last came as a web page, which no client makes sense of."""
        self.stale: bool | None = None
        self.age: float | None = None
        self.open = True
        self._recorder = recorder
        self._began = began
        self._answered: list[Answered] = []
        self._counted: dict[Exchanged, list[float]] = {}
        inside = context.with_operation(OPERATION, set_span_in_context(span))
        inside = _sdk_compat.without_http_spans(inside)  # the requests have spans of ours
        self._context = set_value(_RUNNING, self, inside)
        self._hash, self.key = self._whose()
        if self.key is not None:
            recorder.attempted(self.key)

    @contextmanager
    def current(self) -> Iterator[None]:
        """A block that is part of this synchronisation."""
        token = attach(self._context)
        try:
            yield
        finally:
            context.leave(token)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._left(error)

    @guarded(default=None)
    def _left(self, error: BaseException | None) -> None:
        kind = calendars.error_type(error) if error is not None else None
        if self.page and kind not in _TOLD_BY_SERVERS:
            kind = calendars.NOT_A_CALENDAR
        self.end(kind)

    def count(self, answered: Answered, received: int) -> None:
        """Count a request that has no span; they are measured at the end, together, which costs less."""
        self.requests += 1
        self.received += received
        self._answered.append(answered)
        if len(self._answered) >= _TOGETHER:
            self._sort()

    def _sort(self) -> None:
        """Put the requests that were answered alike together, and let their addresses go."""
        answered, self._answered = self._answered, []
        for each in answered:
            if (alike := _exchanged(each)) is not None:
                self._counted.setdefault(alike, []).append(each[-1])

    @property
    def delay(self) -> float | None:
        """Seconds since the last complete synchronisation of this calendar; None before the first."""
        return self._recorder.successes.delay(self.key) if self.key is not None else None

    @guarded(default=None)
    def end(self, error: str | None = None, at: float | None = None) -> None:
        """End it, once; ``error`` is the type of what ended it, ``at`` when it did, by ``time.perf_counter``."""
        if not self.open:
            return
        self.open = False
        sync = self._summary(error)
        if self._hash is None:  # the organisation may have become known meanwhile
            self._hash, _ = self._whose()
        if self._hash is not None:
            self.span.set_attribute(semconv.SAAS_CALENDAR_HASH, self._hash)
        self.span.set_attributes(calendars.attributes(sync))
        if error is not None:
            self.span.set_status(Status(StatusCode.ERROR))
        at = time.perf_counter() if at is None else at
        self._sort()
        for alike, taken in self._counted.items():
            self._recorder.requested(alike, taken, self.span)
        self.span.end(clock(at))
        self._recorder.concluded(self.key, sync, at - self._began, self.span)

    def _summary(self, error: str | None) -> Synchronisation:
        items = self.items
        if self.failed:
            items = Items(items.created, items.changed, items.deleted, items.failed + self.failed)
        return Synchronisation(
            provider=self.calendar.provider,
            mode=self.mode,
            items=items,
            received=self.received,
            requests=self.requests,
            wait=self.wait,
            conflicts=self.conflicts,
            token_lost=self.token_lost or error == calendars.TOKEN_LOST,
            delay=self.delay,
            stale=self.stale,
            age=self.age,
            error=error,
        )

    def _whose(self) -> tuple[str | None, Key | None]:
        """The calendar's pseudonym, and its key in the memory of successes."""
        provider, address = self.calendar
        if not address:
            return None, None
        scope = context.governing(self._context)
        organisation = scope.identity.org_id if scope is not None else None
        key = Key(provider, organisation, address)
        if organisation is None or _pseudonymiser is None:
            return None, key
        return _pseudonymiser.pseudonym(_PURPOSE, organisation, address), key


@guarded(default=None)
def _exchanged(answered: Answered) -> Exchanged:
    """What is told of a request; nothing where its address is none."""
    method, url, client, status, _ = answered
    scheme, host, port, _shown = target(absolute(url, client))
    return Exchanged(method_of(method), scheme, host, port, status, None)


def clock(moment: float) -> int:
    """Nanoseconds since 1970 of a moment of ``time.perf_counter``."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)


def organisation_now() -> str | None:
    """The organisation that work is done for here; None where there is none, or it is unknown."""
    in_span = get_current_span().get_span_context().is_valid
    scope = context.governing() if in_span else context.opened_outside(None)
    return scope.identity.org_id if scope is not None else None


def running_now(at: Context | None = None) -> Running | None:
    """The synchronisation that the current work, or a point of the program, is part of, while it goes on."""
    found = (get_current() if at is None else at).get(_RUNNING)
    return found if isinstance(found, Running) and found.open else None


def _counter(meter: metrics.Meter, name: str) -> Counter:
    unit, brief = semconv.METRICS[name]
    return meter.create_counter(name, unit, brief)


def _name_root(span: Span) -> None:
    """A synchronisation that nothing is above names its own local root."""
    place = context.place_of(span)
    if place is not None and place.root.span() is span:
        place.root.operation = OPERATION


def _add_to_work(key: str, count: int) -> None:
    """Add to a count on the span at work: a save, or a late look at an item, is no part of a synchronisation."""
    span = get_current_span()
    if span.is_recording():
        before = (getattr(span, "attributes", None) or {}).get(key, 0)
        span.set_attribute(key, before + count)
