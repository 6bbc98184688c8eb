"""APScheduler in the scheduler's process: what is submitted, skipped, lost, and what is scheduled at all."""

from __future__ import annotations

import functools
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import SpanContext

from otel_shim import _semconv as semconv
from otel_shim import jobs, schedule
from otel_shim._guard import guarded
from otel_shim.capture import scheduled, scheduled_runs
from otel_shim.capture.patches import Patches
from otel_shim.capture.scheduled import RunTimes
from otel_shim.capture.scheduled_runs import described, run_of
from otel_shim.heartbeats import Declaration, heartbeats
from otel_shim.jobs import Course, Run
from otel_shim.locks import Locked
from otel_shim.signals import jobs as job_metrics

_EXECUTORS = "apscheduler.executors"
_SCHEDULER = "apscheduler.schedulers.base"
_PENDING = "_otel_shim_pending"
_STARTED = "_otel_shim_started"
_MOST_REMEMBERED = 10_000
_TRIGGERS = "apscheduler.triggers."
_RUNS = 370
"""Next runs of a trigger that are looked at: a year of a daily job."""
_SPAN = 8 * 366 * 86_400.0
"""Seconds that are looked at: two leap days, for what runs on the 29th of February."""
_SHORTEST_SPAN = 10 * 86_400.0
"""Seconds that are looked at in any case: a whole week, so that nights and weekends are seen."""
_MOST_RUNS = 15_000
"""Runs in ten days of a job that runs each minute, and a few."""
_AT_ONCE = timedelta(microseconds=1)
_WEEK = [datetime(2024, 1, day, tzinfo=timezone.utc) for day in range(1, 8)]  # Monday to Sunday


def install(patches: Patches, meters: MeterProvider | None) -> None:
    """Put the wrappers on; for the instrumentor."""
    job_metrics.install(meters)
    put = patches.replace_when_imported
    for module in ("pool", "asyncio", "debug"):
        put(f"{_EXECUTORS}.{module}", "run_job", scheduled.run_job)
    put(f"{_EXECUTORS}.asyncio", "run_coroutine_job", scheduled_runs.run_coroutine_job)
    wrap = patches.when_imported
    wrap(f"{_EXECUTORS}.base", "BaseExecutor.submit_job", _submit)
    wrap(f"{_EXECUTORS}.base", "BaseExecutor._run_job_success", _succeed)
    wrap(f"{_EXECUTORS}.base", "BaseExecutor._run_job_error", _fail)
    wrap("apscheduler.job", "Job.__init__", _make_job)
    wrap("apscheduler.job", "Job._get_run_times", _find_due)
    wrap(_SCHEDULER, "BaseScheduler.start", _start)
    wrap(_SCHEDULER, "BaseScheduler._real_add_job", _add)
    wrap(_SCHEDULER, "BaseScheduler.modify_job", _modify)
    wrap(_SCHEDULER, "BaseScheduler.remove_job", _remove)
    wrap(_SCHEDULER, "BaseScheduler.remove_all_jobs", _remove_all)


# --- what is submitted -----------------------------------------------------------------------------------


def _submit(wrapped: Any, executor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``submit_job``: what is not submitted was skipped, or is lost."""
    job, times = _job_and_times(*args, **kwargs)
    known = _describe(executor, job, times)
    if known is None:
        return wrapped(job, times)
    try:
        return wrapped(job, known)
    except BaseException as error:
        _refused(executor, job, known, error)
        raise


def _job_and_times(job: Any, run_times: list[datetime]) -> tuple[Any, list[datetime]]:
    return job, run_times


@guarded(default=None)
def _describe(executor: Any, job: Any, times: list[datetime]) -> RunTimes | None:
    """Put to the times of runs what the scheduler knows, and remember them until they are over."""
    known = described(RunTimes(times), job)
    scheduler = executor._scheduler  # noqa: SLF001 - the executor's only way to it
    known.since = getattr(scheduler, _STARTED, 0.0)
    known.scheduler = os.getpid()
    known.link = _links.take(job.id, job.trigger)
    _declare(scheduler, job)
    vars(executor).setdefault(_PENDING, _Pending()).add(job.id, known)
    return known


@guarded(default=None)
def _refused(executor: Any, job: Any, times: RunTimes, error: BaseException) -> None:
    vars(executor)[_PENDING].take(job.id, times[0])
    full = type(error).__name__ == "MaxInstancesReachedError"
    for due in times:
        if full:
            jobs.unstarted(run_of(times, due), semconv.SAAS_JOB_OUTCOME_SKIPPED)
        else:
            _lost(run_of(times, due), error)


def _succeed(wrapped: Any, executor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``_run_job_success``: runs of which their process could not tell are recorded here."""
    _over(executor, *args, **kwargs)
    return wrapped(*args, **kwargs)


@guarded(default=None)
def _over(executor: Any, job_id: str, events: Any) -> None:
    due = events[0].scheduled_run_time if events else None
    times = vars(executor).get(_PENDING, _NOTHING_PENDING).take(job_id, due)
    for report in getattr(events, "reports", ()):
        if times is not None:
            jobs.took_place(run_of(times, report.due), report.course)


def _fail(wrapped: Any, executor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``_run_job_error``: the process of a job was killed, or the job could not be sent to it."""
    _broken(executor, *args, **kwargs)
    return wrapped(*args, **kwargs)


@guarded(default=None)
def _broken(executor: Any, job_id: str, exc: BaseException, traceback: Any = None) -> None:
    times = vars(executor).get(_PENDING, _NOTHING_PENDING).take(job_id, None)
    for due in times or ():
        _lost(run_of(times, due), exc)


def _lost(run: Run, error: BaseException) -> None:
    """A run that was submitted and never told how it ended; its start is not known."""
    kind = type(error).__qualname__
    course = Course(time.time(), 0.0, semconv.SAAS_JOB_OUTCOME_FAILURE, kind)
    jobs.took_place(run, course)


class _Pending(Locked):
    """The runs of an executor that are not over, by their job."""

    def __init__(self) -> None:
        super().__init__()
        self._times: dict[str, list[RunTimes]] = {}

    def add(self, job_id: str, times: RunTimes) -> None:
        """Remember runs that are submitted."""
        with self._lock:
            self._times.setdefault(job_id, []).append(times)

    def take(self, job_id: str, due: datetime | None) -> RunTimes | None:
        """Forget runs: those due at this time, or the oldest."""
        with self._lock:
            waiting = self._times.get(job_id, [])
            found = next((times for times in waiting if due in (None, times[0])), None)
            if found is not None:
                waiting.remove(found)
            if not waiting:
                self._times.pop(job_id, None)
            return found


_NOTHING_PENDING = _Pending()


class _Links(Locked):
    """Which span asked for a job that runs once; the newest ten thousand."""

    def __init__(self) -> None:
        super().__init__()
        self._spans: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def note(self, job_id: str, span: SpanContext) -> None:
        """Remember who asks for a job."""
        with self._lock:
            self._spans[job_id] = (span.trace_id, span.span_id, int(span.trace_flags))
            if len(self._spans) > _MOST_REMEMBERED:
                self._spans.popitem(last=False)

    def take(self, job_id: str, trigger: Any) -> tuple[int, int, int] | None:
        """Who asked for a job; what runs by the clock is asked for by nobody."""
        with self._lock:
            found = self._spans.pop(job_id, None)
        return found if type(trigger).__name__ == "DateTrigger" else None


_links = _Links()


def _make_job(wrapped: Any, job: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``Job.__init__``, in the thread of whoever asks for the job."""
    wrapped(*args, **kwargs)
    _note_link(job)


@guarded(default=None)
def _note_link(job: Any) -> None:
    above = trace.get_current_span().get_span_context()
    if above.is_valid:
        _links.note(job.id, above)


def _find_due(wrapped: Any, job: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``_get_run_times``: of several that are due, only the last one of a coalescing job is run."""
    times = wrapped(*args, **kwargs)
    _count_coalesced(job, times)
    return times


@guarded(default=None)
def _count_coalesced(job: Any, times: list[datetime]) -> None:
    if len(times) > 1 and job.coalesce:
        run = run_of(described(RunTimes(times), job), times[0])
        jobs.unstarted(run, semconv.SAAS_JOB_OUTCOME_MISSED, len(times) - 1)


# --- what is scheduled -----------------------------------------------------------------------------------

_names: OrderedDict[str, str] = OrderedDict()
"""Source of a declaration to the operation that it is of."""


def _start(wrapped: Any, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    vars(scheduler)[_STARTED] = time.time()
    return wrapped(*args, **kwargs)


def _add(wrapped: Any, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``_real_add_job``: a job is in its store."""
    result = wrapped(*args, **kwargs)
    _added(scheduler, *args, **kwargs)
    return result


@guarded(default=None)
def _added(scheduler: Any, job: Any, *_: Any, **__: Any) -> None:
    """It may take the place of another (``replace_existing``), or not be to run (no ``next_run_time``)."""
    _modified(scheduler, job)


def _modify(wrapped: Any, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``modify_job``, which pausing, resuming and rescheduling are too."""
    job = wrapped(*args, **kwargs)
    _modified(scheduler, job)
    return job


@guarded(default=None)
def _modified(scheduler: Any, job: Any) -> None:
    """Declare it anew; what is only changed is not withdrawn in between, or it would count as due from now."""
    source = _source(scheduler, job.id)
    before = _names.pop(source, None)
    if getattr(job, "next_run_time", _WEEK[0]) is not None:
        _declare(scheduler, job)
    if before is not None and _names.get(source) != before:
        heartbeats.withdraw(before, source)


def _remove(wrapped: Any, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    _removed(scheduler, *args, **kwargs)
    return result


@guarded(default=None)
def _removed(scheduler: Any, job_id: str, *_: Any, **__: Any) -> None:
    _withdraw(_source(scheduler, job_id))


def _remove_all(wrapped: Any, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    _all_removed(scheduler)
    return result


@guarded(default=None)
def _all_removed(scheduler: Any) -> None:
    prefix = _source(scheduler, "")
    for source in [each for each in list(_names) if each.startswith(prefix)]:
        _withdraw(source)


def _withdraw(source: str) -> None:
    name = _names.pop(source, None)
    if name is not None:
        heartbeats.withdraw(name, source)


def _source(scheduler: Any, job_id: str) -> str:
    return f"{semconv.SAAS_JOB_SYSTEM_APSCHEDULER}:{id(scheduler)}:{job_id}"


def _declare(scheduler: Any, job: Any) -> None:
    """Declare what the trigger of a job says; once, until the job changes."""
    source = _source(scheduler, job.id)
    if source in _names or len(_names) >= _MOST_REMEMBERED:
        return
    planned = _planned(job.trigger)
    if planned is not None:
        name = _names[source] = jobs.name_of(job.func)
        jobs.declare(Declaration(name, planned.text, planned.period), source)


def _planned(trigger: Any) -> schedule.Schedule | None:
    """The schedule of a trigger; None for what runs once, and for what only its author understands."""
    kind = type(trigger).__name__
    jitter = float(getattr(trigger, "jitter", None) or 0)
    if kind == "DateTrigger" or not _is_apschedulers(trigger):
        return None
    if kind == "IntervalTrigger":
        found: schedule.Schedule | None = schedule.every(trigger.interval_length)
    else:
        text = _cron(trigger) if kind == "CronTrigger" else None
        found = _of_cron(text, trigger.timezone) if text is not None else None
        found = found or _sampled(trigger)
    return replace(found, period=found.period + jitter) if found is not None else None


def _is_apschedulers(trigger: Any) -> bool:
    """Whether a trigger may be asked for runs that nobody waits for: one of an application may do anything."""
    own = type(trigger).__module__.startswith(_TRIGGERS)
    return own and all(_is_apschedulers(each) for each in getattr(trigger, "triggers", ()))


def _cron(trigger: Any) -> str | None:
    """A trigger as five-field cron; None where that cannot say it: seconds, weeks, years, days of both kinds."""
    fields = {field.name: field for field in trigger.fields}
    texts = {name: str(field) for name, field in fields.items()}
    both = texts["day"] != "*" and texts["day_of_week"] != "*"
    more = texts["year"] != "*" or texts["week"] != "*" or not texts["second"].isdigit()
    if both or more or trigger.end_date is not None:
        return None
    days = ",".join(str((day + 1) % 7) for day in range(7) if _falls_on(fields["day_of_week"], day))
    weekday = "*" if texts["day_of_week"] == "*" else days
    return " ".join((texts["minute"], texts["hour"], texts["day"], texts["month"], weekday))


def _falls_on(field: Any, day: int) -> bool:
    """Whether a field for the day of the week takes a day, counted from Monday."""
    return bool(field.get_next_value(_WEEK[day]) == day)


@functools.lru_cache(maxsize=256)
def _of_cron(text: str, zone: Any) -> schedule.Schedule | None:
    try:
        return schedule.parse(text, zone)
    except schedule.ScheduleError:
        return None


def _sampled(trigger: Any) -> schedule.Schedule | None:
    """The longest gap between the next runs of a trigger, from a sample that nights and weekends are in."""
    times: list[float] = []
    for run in islice(_next_runs(trigger), _MOST_RUNS):
        times.append(run.timestamp())
        seen = times[-1] - times[0]
        if len(times) > 2 and (seen > _SPAN or (len(times) > _RUNS and seen > _SHORTEST_SPAN)):
            break
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return schedule.Schedule(None, max(gaps)) if gaps else None


def _next_runs(trigger: Any) -> Iterator[datetime]:
    """The next runs of a trigger; none of one that would not come back.

    ``AndTrigger`` (3.11) looks for a time that all agree on, and goes on for ever where one of them starts
    from the run before. Cron need not be told of it.
    """
    kinds = {type(each).__name__ for each in _parts(trigger)}
    agreeing = "AndTrigger" in kinds
    if agreeing and not kinds <= {"AndTrigger", "OrTrigger", "CronTrigger"}:
        return
    run = trigger.get_next_fire_time(None, datetime.now(timezone.utc))
    while run is not None:
        yield run
        before = None if agreeing else run
        run = trigger.get_next_fire_time(before, run + _AT_ONCE if agreeing else run)


def _parts(trigger: Any) -> Iterator[Any]:
    """A trigger, and those that it is made of."""
    yield trigger
    for each in getattr(trigger, "triggers", ()):
        yield from _parts(each)
