"""Metrics of jobs: recorded where runs end, and observed of what is known of each job.

    end of a run    ─▶ saas.job.duration, start.delay, overruns, overlaps, items   exemplar: trace, span
    collection time ─▶ heartbeats ─▶ last_start, last_success, last_duration, active, active_since,
                                     backlog, recovery_point, declared, period, max_runtime

Observed, because a heartbeat must be told again and again: a gauge that is set once is exported once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.metrics import (
    CallbackOptions,
    Counter,
    Histogram,
    MeterProvider,
    Observation,
    get_meter_provider,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE

from otel_shim import _sdk_compat, jobs
from otel_shim import _semconv as semconv
from otel_shim._guard import guarded
from otel_shim.heartbeats import MOST, Declaration, Heartbeat, heartbeats
from otel_shim.jobs import Ended, Work
from otel_shim.signals.metrics import LIMIT, OVERFLOW, SCOPE, as_of, histogram

_Label = tuple[str, str | bool]
_Labels = tuple[_Label, ...]
_OVERFLOWN: _Labels = ((OVERFLOW, True),)
_MOST_SERIES = 4 * MOST
_Observe = Callable[[CallbackOptions], Iterable[Observation]]


class JobMetrics:
    """What is recorded of runs; its histogram's count is their executions. One for the process."""

    def __init__(self, meters: MeterProvider) -> None:
        self._duration = histogram(meters, semconv.METRIC_SAAS_JOB_DURATION)
        self._start_delay = histogram(meters, semconv.METRIC_SAAS_JOB_START_DELAY)
        self._overruns = _counter(meters, semconv.METRIC_SAAS_JOB_OVERRUNS)
        self._overlaps = _counter(meters, semconv.METRIC_SAAS_JOB_OVERLAPS)
        self._unstarted = _counter(meters, semconv.METRIC_SAAS_JOB_UNSTARTED)
        self._items = _counter(meters, semconv.METRIC_SAAS_JOB_ITEMS)
        self._series: dict[tuple[int, str, _Labels], _sdk_compat.Series] = {}
        self._operations: dict[str, _Label] = {}
        _observe(meters)

    @guarded(default=None)
    def started(self, work: Work) -> None:
        """Record that a run started."""
        if work.start_delay is not None:
            self._record(self._start_delay, work.start_delay, work, work.at)
        if work.overlaps:
            self._record(self._overlaps, 1, work, work.at)

    @guarded(default=None)
    def ended(self, ended: Ended) -> None:
        """Record a run that ended, by an error or not."""
        work, at = ended.work, ended.work.at
        outcome: _Label = (semconv.SAAS_JOB_OUTCOME, ended.outcome)
        if ended.error_type is None:
            self._record(self._duration, ended.seconds, work, at, outcome)
        else:
            error = (ERROR_TYPE, ended.error_type)
            self._record(self._duration, ended.seconds, work, at, outcome, error)
        if ended.overrun:
            self._record(self._overruns, 1, work, at)
        for state, count in work.items.items():
            self._record(self._items, count, work, at, (semconv.SAAS_JOB_ITEM_STATE, state))

    @guarded(default=None)
    def unstarted(self, name: str, outcome: str, count: int) -> None:
        """Record runs that were due and not started."""
        labels = self._labels(name, (semconv.SAAS_JOB_OUTCOME, outcome))
        self._unstarted.add(count, dict(labels))

    def _labels(self, name: str, *more: _Label) -> _Labels:
        """The labels of an operation; names may be made of tenants: beyond the limit all have one series."""
        operation = self._operations.get(name)
        if operation is None:
            if len(self._operations) >= LIMIT:
                return _OVERFLOWN
            operation = self._operations[name] = (semconv.SAAS_OPERATION, name)
        return (operation, *more)

    def _record(
        self,
        instrument: Histogram | Counter,
        value: float,
        work: Work,
        at: Context,
        *more: _Label,
    ) -> None:
        """Record a value; its exemplar refers to the run's own span, the current one of ``at``."""
        series = self._series.get((id(instrument), work.run.name, more))
        if series is None:
            series = self._found(instrument, work.run.name, more)
        series.record(value, {}, at)

    def _found(
        self, instrument: Histogram | Counter, name: str, more: _Labels
    ) -> _sdk_compat.Series:
        """A series that is not remembered; beyond the limit of names all have one, without a name."""
        labels = self._labels(name, *more)
        key = (id(instrument), *(("", ()) if labels is _OVERFLOWN else (name, more)))
        series = self._series.get(key) or _sdk_compat.Series(instrument, dict(labels))
        if len(self._series) < _MOST_SERIES:
            self._series[key] = series
        return series


def install(meters: MeterProvider | None = None) -> None:
    """Record runs of jobs with a provider, by default the global one, unless somebody does already."""
    before = jobs.use_recorder(None)
    jobs.use_recorder(before or JobMetrics(meters or get_meter_provider()))


def _counter(meters: MeterProvider, name: str) -> Counter:
    unit, brief = semconv.METRICS[name]
    return meters.get_meter(SCOPE).create_counter(name, unit, brief)


def _observe(meters: MeterProvider) -> None:
    """Make the instruments that are read at collection time."""
    for name, of_beat in _BEATS.items():
        unit, brief = semconv.METRICS[name]
        meter = meters.get_meter(SCOPE)
        active = name == semconv.METRIC_SAAS_JOB_ACTIVE
        make = meter.create_observable_up_down_counter if active else meter.create_observable_gauge
        make(name, [_of_beats(of_beat)], unit, brief)
    for name, of_declaration in _DECLARED.items():
        unit, brief = semconv.METRICS[name]
        observe = _of_declarations(of_declaration)
        meters.get_meter(SCOPE).create_observable_gauge(name, [observe], unit, brief)


def _of_beats(value_of: Callable[[Heartbeat], _Told | None]) -> _Observe:
    @guarded(default=())
    def observe(_: Any) -> Iterable[Observation]:
        return list(_observations())

    def _observations() -> Iterator[Observation]:
        for name, beat in heartbeats.observed_beats().items():
            if (told := value_of(beat)) is not None:
                yield Observation(told.value, {semconv.SAAS_OPERATION: name}, as_of(told.at))

    return observe


def _of_declarations(value_of: Callable[[Declaration], float | None]) -> _Observe:
    @guarded(default=())
    def observe(_: Any) -> Iterable[Observation]:
        return list(_observations())

    def _observations() -> Iterator[Observation]:
        for declared in heartbeats.observed_declarations():
            if (value := value_of(declared)) is not None:
                labels: dict[str, str | bool] = {
                    semconv.SAAS_OPERATION: declared.name,
                    semconv.SAAS_JOB_CRITICAL: declared.critical,
                }
                # Of several processes' the first declaration counts, hence time that runs backwards.
                yield Observation(value, labels, as_of(-declared.at))

    return observe


class _Told(NamedTuple):
    """A value, and when it was true: where several processes run a job, the last one to run it is right."""

    value: float
    at: float


def _told(value: float | None, at: float | None) -> _Told | None:
    return _Told(value, at) if value is not None and at is not None else None


def _longest(beat: Heartbeat) -> _Told:
    """The start of the longest run; of several processes' the earliest counts, hence time that runs backwards."""
    since = beat.active_since
    return _Told(0.0, -math.inf) if since is None else _Told(since, -since)


_BEATS: dict[str, Callable[[Heartbeat], _Told | None]] = {
    semconv.METRIC_SAAS_JOB_ACTIVE: lambda beat: _told(beat.active, beat.last_start),
    semconv.METRIC_SAAS_JOB_BACKLOG: lambda beat: _told(beat.backlog, beat.last_start),
    semconv.METRIC_SAAS_JOB_LAST_START_TIMESTAMP: lambda beat: _told(
        beat.last_start, beat.last_start
    ),
    semconv.METRIC_SAAS_JOB_LAST_SUCCESS_TIMESTAMP: lambda beat: _told(
        beat.last_success, beat.last_success
    ),
    semconv.METRIC_SAAS_JOB_ACTIVE_SINCE_TIMESTAMP: _longest,
    semconv.METRIC_SAAS_JOB_RECOVERY_POINT_TIMESTAMP: lambda beat: _told(
        beat.recovery_point, beat.last_success
    ),
    semconv.METRIC_SAAS_JOB_LAST_DURATION: lambda beat: _told(
        beat.last_duration, beat.last_success
    ),
}
_DECLARED: dict[str, Callable[[Declaration], float | None]] = {
    semconv.METRIC_SAAS_JOB_DECLARED_TIMESTAMP: lambda job: (
        job.at if job.period is not None else None
    ),
    semconv.METRIC_SAAS_JOB_PERIOD: lambda job: job.period,
    semconv.METRIC_SAAS_JOB_MAX_RUNTIME: lambda job: job.max_runtime,
}
