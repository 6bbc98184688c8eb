"""APScheduler 3: each run of a job is a trace of its own, on thread, process and asyncio executors.

    BaseExecutor.submit_job ─▶ RunTimes: name, trigger, link ─▶ run_job, in whichever thread or process
    run_job                 ─▶ jobs.running around each run ─▶ Events with reports
    Events                  ─▶ a run that its process could not tell of is recorded by the scheduler's

What runs a job is pickled for a process pool, so it is a plain function here. A run starts in an empty
context: the scheduler's thread has that of whoever started it, a task that of whoever added the job.
"""

from __future__ import annotations

import functools
import multiprocessing
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from contextvars import Token
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from types import TracebackType
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]
    BaseInstrumentor,
)
from opentelemetry.trace import SpanContext, TraceFlags

from otel_shim import _semconv as semconv
from otel_shim import context, jobs, schedule
from otel_shim._guard import guarded
from otel_shim.capture.patches import Patches
from otel_shim.heartbeats import Declaration, heartbeats
from otel_shim.jobs import Course, Run, Work
from otel_shim.signals import flushing
from otel_shim.signals import jobs as job_metrics

_EXECUTORS = "apscheduler.executors"
_SCHEDULER = "apscheduler.schedulers.base"
_PENDING = "_otel_shim_pending"
_STARTED = "_otel_shim_started"
_MOST_REMEMBERED = 10_000
_SAMPLED_RUNS = 60
_MISSED, _ERROR = 1 << 14, 1 << 13  # EVENT_JOB_MISSED, EVENT_JOB_ERROR
_WEEK = [datetime(2024, 1, day, tzinfo=timezone.utc) for day in range(1, 8)]  # Monday to Sunday


class ApschedulerInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments APScheduler 3, when the application imports it.

    ``instrument`` takes ``meter_provider``; the global one is the default. Executors of gevent, Tornado
    and Twisted are left alone.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions whose functions are known."""
        return ("apscheduler >= 3.10, < 4",)

    def _instrument(self, **kwargs: Any) -> None:
        job_metrics.install(kwargs.get("meter_provider"))
        self._patches = Patches()
        put = self._patches.replace_when_imported
        for module in ("pool", "asyncio", "debug"):
            put(f"{_EXECUTORS}.{module}", "run_job", run_job)
        put(f"{_EXECUTORS}.asyncio", "run_coroutine_job", run_coroutine_job)
        wrap = self._patches.when_imported
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

    def _uninstrument(self, **kwargs: Any) -> None:
        self._patches.remove()


# --- a run: in the thread, process or task of the job ----------------------------------------------------


class RunTimes(list[datetime]):
    """When runs were due, and what the scheduler's process knows of them; pickled with the job."""

    name = ""
    trigger = semconv.SAAS_JOB_TRIGGER_SCHEDULE
    since = 0.0
    """When this process began to schedule; what was due before is caught up."""
    link: tuple[int, int, int] | None = None
    """Trace, span and flags of what asked for the job."""

    def run(self, due: datetime) -> Run:
        """The run that was due at a time."""
        late = due.timestamp() < self.since
        return Run(
            self.name,
            semconv.SAAS_JOB_SYSTEM_APSCHEDULER,
            semconv.SAAS_JOB_TRIGGER_CATCH_UP if late else self.trigger,
            due,
            link=_link(self.link),
        )


class Report(NamedTuple):
    """How a run went, for the scheduler's process; ``told`` where the job's own has recorded it."""

    due: datetime
    course: Course
    told: bool


class Events(list[Any]):
    """What APScheduler makes of runs, and the reports of those that nobody recorded."""

    reports: tuple[Report, ...] = ()


def run_job(job: Any, jobstore_alias: str, run_times: list[datetime], logger_name: str) -> Any:
    """``apscheduler.executors.base.run_job``, each run as one of ``jobs``."""
    from apscheduler.executors import base  # noqa: PLC0415

    found = Events()
    for due in run_times:
        with _Attempt(job, run_times, due) as attempt:
            events = base.run_job(job, jobstore_alias, [due], logger_name)
            attempt.concludes(events)
        found.extend(events)
        found.reports += attempt.reports
    return found


async def run_coroutine_job(
    job: Any, jobstore_alias: str, run_times: list[datetime], logger_name: str
) -> Any:
    """``apscheduler.executors.base.run_coroutine_job``, likewise."""
    from apscheduler.executors import base  # noqa: PLC0415

    found = Events()
    for due in run_times:
        with _Attempt(job, run_times, due) as attempt:
            events = await base.run_coroutine_job(job, jobstore_alias, [due], logger_name)
            attempt.concludes(events)
        found.extend(events)
    return found


class _Attempt:
    """One run: APScheduler catches what the job raises, so how it ended is read off its events."""

    __slots__ = ("_events", "_run", "_token", "_work", "reports")

    def __init__(self, job: Any, times: list[datetime], due: datetime) -> None:
        self._events: Iterable[Any] = ()
        self._token: Token[Context] | None = None
        self._work: Work | None = None
        self.reports: tuple[Report, ...] = ()
        self._run = _run_of(job, times, due)
        if self._run is not None and not _is_late(job, due):
            self._work = jobs.start_run(self._run)

    def __enter__(self) -> _Attempt:
        if self._work is not None:
            self._token = attach(self._work.inside)
        return self

    def concludes(self, events: Iterable[Any]) -> None:
        """Take what APScheduler made of the run."""
        self._events = events

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token is not None:
            context.leave(self._token)
        self._end(error)

    @guarded(default=None)
    def _end(self, error: BaseException | None) -> None:
        codes = {event.code for event in self._events}
        errors = [event.exception for event in self._events if event.code == _ERROR]
        if self._run is not None and self._work is None:
            jobs.unstarted(self._run, semconv.SAAS_JOB_OUTCOME_MISSED)
        outcome = semconv.SAAS_JOB_OUTCOME_MISSED if _MISSED in codes else None
        ended = jobs.end_run(self._work, errors[0] if errors else error, outcome)
        if self._work is not None and ended is not None:
            self._report(self._work, ended)

    def _report(self, work: Work, ended: jobs.Ended) -> None:
        """Tell the scheduler's process, where this one is another and records nothing."""
        if multiprocessing.parent_process() is None:
            return
        told = work.span.get_span_context().is_valid
        if told:
            flushing.flush_at_exit_of_child()
        elif work.run.scheduled_time is not None:
            course = Course(work.started_at, ended.seconds, ended.outcome, ended.error_type)
            self.reports = (Report(work.run.scheduled_time, course, told),)


@guarded(default=None)
def _run_of(job: Any, times: list[datetime], due: datetime) -> Run | None:
    """The run that is due; without what the scheduler adds, as much as the job itself tells."""
    if not isinstance(times, RunTimes):
        times = _described(RunTimes(times), job)
    return times.run(due)


@guarded(default=False)
def _is_late(job: Any, due: datetime) -> bool:
    """Whether APScheduler will find that the time of a run has passed; it asks the same a moment later."""
    grace = job.misfire_grace_time
    return grace is not None and datetime.now(timezone.utc) - due > timedelta(seconds=grace)


# --- in the scheduler's process --------------------------------------------------------------------------


def _submit(wrapped: Any, executor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``submit_job``: what is not submitted was skipped, or is lost."""
    job, times = _job_and_times(*args, **kwargs)
    described = _describe(executor, job, times)
    if described is None:
        return wrapped(job, times)
    try:
        return wrapped(job, described)
    except BaseException as error:
        _refused(executor, job, described, error)
        raise


def _job_and_times(job: Any, run_times: list[datetime]) -> tuple[Any, list[datetime]]:
    return job, run_times


@guarded(default=None)
def _describe(executor: Any, job: Any, times: list[datetime]) -> RunTimes | None:
    """Put to the times of runs what the scheduler knows, and remember them until they are over."""
    described = _described(RunTimes(times), job)
    scheduler = executor._scheduler  # noqa: SLF001 - the executor's only way to it
    described.since = getattr(scheduler, _STARTED, 0.0)
    described.link = _links.take(job.id, job.trigger)
    _declare(scheduler, job)
    vars(executor).setdefault(_PENDING, _Pending()).add(job.id, described)
    return described


def _described(times: RunTimes, job: Any) -> RunTimes:
    times.name = jobs.name_of(job.func)
    if type(job.trigger).__name__ == "DateTrigger":
        times.trigger = semconv.SAAS_JOB_TRIGGER_MANUAL
    return times


@guarded(default=None)
def _refused(executor: Any, job: Any, times: RunTimes, error: BaseException) -> None:
    vars(executor)[_PENDING].take(job.id, times[0])
    full = type(error).__name__ == "MaxInstancesReachedError"
    for due in times:
        if full:
            jobs.unstarted(times.run(due), semconv.SAAS_JOB_OUTCOME_SKIPPED)
        else:
            _lost(times.run(due), error)


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
            jobs.took_place(times.run(report.due), report.course)


def _fail(wrapped: Any, executor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``_run_job_error``: the process of a job was killed, or the job could not be sent to it."""
    _broken(executor, *args, **kwargs)
    return wrapped(*args, **kwargs)


@guarded(default=None)
def _broken(executor: Any, job_id: str, exc: BaseException, traceback: Any = None) -> None:
    times = vars(executor).get(_PENDING, _NOTHING_PENDING).take(job_id, None)
    for due in times or ():
        _lost(times.run(due), exc)


def _lost(run: Run, error: BaseException) -> None:
    """A run that was submitted and never told how it ended; its start is not known."""
    kind = type(error).__qualname__
    course = Course(time.time(), 0.0, semconv.SAAS_JOB_OUTCOME_FAILURE, kind)
    jobs.took_place(run, course)


class _Pending:
    """The runs of an executor that are not over, by their job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
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


class _Links:
    """Which span asked for a job that runs once; the newest ten thousand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
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


def _link(ids: tuple[int, int, int] | None) -> SpanContext | None:
    if ids is None:
        return None
    return SpanContext(ids[0], ids[1], is_remote=False, trace_flags=TraceFlags(ids[2]))


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
        run = _described(RunTimes(times), job).run(times[0])
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
    _declare(scheduler, job)


def _modify(wrapped: Any, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``modify_job``, which pausing, resuming and rescheduling are too."""
    job = wrapped(*args, **kwargs)
    _modified(scheduler, job)
    return job


@guarded(default=None)
def _modified(scheduler: Any, job: Any) -> None:
    paused = getattr(job, "next_run_time", _WEEK[0]) is None
    _names_by_source_forget(_source(scheduler, job.id))
    if not paused:
        _declare(scheduler, job)


def _remove(wrapped: Any, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    _removed(scheduler, *args, **kwargs)
    return result


@guarded(default=None)
def _removed(scheduler: Any, job_id: str, *_: Any, **__: Any) -> None:
    _names_by_source_forget(_source(scheduler, job_id))


def _remove_all(wrapped: Any, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = wrapped(*args, **kwargs)
    _all_removed(scheduler)
    return result


@guarded(default=None)
def _all_removed(scheduler: Any) -> None:
    prefix = _source(scheduler, "")
    for source in [each for each in list(_names) if each.startswith(prefix)]:
        _names_by_source_forget(source)


def _names_by_source_forget(source: str) -> None:
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
    """The schedule of a trigger; None for what runs once."""
    kind = type(trigger).__name__
    jitter = float(getattr(trigger, "jitter", None) or 0)
    if kind == "DateTrigger":
        return None
    if kind == "IntervalTrigger":
        found: schedule.Schedule | None = schedule.every(trigger.interval_length)
    else:
        text = _cron(trigger) if kind == "CronTrigger" else None
        found = _of_cron(text, trigger.timezone) if text is not None else None
        found = found or _sampled(trigger)
    return replace(found, period=found.period + jitter) if found is not None else None


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
    """The longest gap between the next runs of a trigger of any kind."""
    now = datetime.now(timezone.utc)
    runs = [trigger.get_next_fire_time(None, now)]
    while runs[-1] is not None and len(runs) < _SAMPLED_RUNS:
        runs.append(trigger.get_next_fire_time(runs[-1], runs[-1]))
    times = [run.timestamp() for run in runs if run is not None]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return schedule.Schedule(None, max(gaps)) if gaps else None
