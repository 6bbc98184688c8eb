"""A run of APScheduler: in the thread, process or task of the job.

A run starts in an empty context: the scheduler's thread has that of whoever started it, a task that of whoever added the job.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from contextvars import Token
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any, NamedTuple

from opentelemetry.context import Context, attach
from opentelemetry.trace import SpanContext, TraceFlags

from otel_shim import _semconv as semconv
from otel_shim import context, jobs
from otel_shim._guard import guarded
from otel_shim.capture.scheduled import RunTimes
from otel_shim.jobs import Course, Run, Work
from otel_shim.signals import flushing

_MISSED, _ERROR = 1 << 14, 1 << 13  # EVENT_JOB_MISSED, EVENT_JOB_ERROR


class Report(NamedTuple):
    """How a run went, for the scheduler's process; ``told`` where the job's own has recorded it."""

    due: datetime
    course: Course
    told: bool


class Events(list[Any]):
    """What APScheduler makes of runs, and the reports of those that nobody recorded."""

    reports: tuple[Report, ...] = ()


def run_jobs(job: Any, jobstore_alias: str, run_times: list[datetime], logger_name: str) -> Any:
    """What ``scheduled.run_job`` does, when all is imported."""
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
            how = (ended.seconds, ended.outcome, ended.error_type, work.items, work.backlog)
            course = Course(work.started_at, *how, work.recovery_point)
            self.reports = (Report(work.run.scheduled_time, course, told),)


def run_of(times: RunTimes, due: datetime) -> Run:
    """The run that was due at a time."""
    late = due.timestamp() < times.since
    return Run(
        times.name,
        semconv.SAAS_JOB_SYSTEM_APSCHEDULER,
        semconv.SAAS_JOB_TRIGGER_CATCH_UP if late else times.trigger,
        due,
        link=_link(times.link),
    )


@guarded(default=None)
def _run_of(job: Any, times: list[datetime], due: datetime) -> Run | None:
    """The run that is due; without what the scheduler adds, as much as the job itself tells."""
    if not isinstance(times, RunTimes):
        times = described(RunTimes(times), job)
    return run_of(times, due)


@guarded(default=False)
def _is_late(job: Any, due: datetime) -> bool:
    """Whether APScheduler will find that the time of a run has passed; it asks the same a moment later."""
    grace = job.misfire_grace_time
    return grace is not None and datetime.now(timezone.utc) - due > timedelta(seconds=grace)


def described(times: RunTimes, job: Any) -> RunTimes:
    """Put to the times of runs what the job itself tells."""
    times.name = jobs.name_of(job.func)
    if type(job.trigger).__name__ == "DateTrigger":
        times.trigger = semconv.SAAS_JOB_TRIGGER_MANUAL
    return times


def _link(ids: tuple[int, int, int] | None) -> SpanContext | None:
    if ids is None:
        return None
    return SpanContext(ids[0], ids[1], is_remote=False, trace_flags=TraceFlags(ids[2]))
