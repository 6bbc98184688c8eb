"""otel_shim.capture.apscheduler: runs, those that never started, and what triggers declare."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
)
from apscheduler.executors import pool
from apscheduler.executors.base import run_job as apschedulers_own
from apscheduler.executors.debug import DebugExecutor
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

import otel_shim
from otel_shim import counters, jobs, startup
from otel_shim.capture import scheduled, scheduled_runs, schedulers
from otel_shim.capture.apscheduler import ApschedulerInstrumentor
from otel_shim.heartbeats import heartbeats
from tests.unit.telemetry import Telemetry

SECONDS = 60
NOW = datetime.now(timezone.utc)


class Recording:
    """What is told of runs."""

    def __init__(self) -> None:
        self.missing: list[tuple[str, str, int]] = []
        self.outcomes: list[str] = []

    def started(self, work: jobs.Work) -> None:
        """Nothing of interest."""

    def ended(self, ended: jobs.Ended) -> None:
        self.outcomes.append(ended.outcome)

    def unstarted(self, name: str, outcome: str, count: int) -> None:
        self.missing.append((name.rpartition(".")[2], outcome, count))


@pytest.fixture(autouse=True)
def recording(telemetry: Telemetry) -> Iterator[Recording]:
    """APScheduler instrumented, with a recorder of the test's own."""
    made = Recording()
    before = jobs.use_recorder(made)
    ApschedulerInstrumentor().instrument()
    yield made
    ApschedulerInstrumentor().uninstrument()
    jobs.use_recorder(before)


Start = Callable[..., BackgroundScheduler]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts schedulers; all are shut down at the end."""
    with contextlib.ExitStack() as started:

        def make(executor: Any = None, **options: Any) -> BackgroundScheduler:
            executors = {"default": executor or ThreadPoolExecutor(4)}
            scheduler = BackgroundScheduler(executors=executors, timezone="UTC", **options)
            scheduler.start()
            started.callback(scheduler.shutdown)
            return scheduler

        yield make


class Waiting:
    """Waits for so many events of a scheduler."""

    def __init__(self, scheduler: Any, mask: int, count: int = 1) -> None:
        self._left = count
        self._over = threading.Event()
        scheduler.add_listener(self._seen, mask)

    def _seen(self, event: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._over.set()

    def wait(self) -> None:
        assert self._over.wait(SECONDS)


def quick() -> int:
    otel_shim.job_items(read=1)
    return 7


def failing() -> None:
    raise LookupError("anna@example.com")


async def coroutine() -> None:
    await asyncio.sleep(0)
    otel_shim.job_items(read=1)


@otel_shim.job("audit.retention.job", critical=True)
def declared() -> None:
    otel_shim.job_items(written=1)


def runs(telemetry: Telemetry) -> list[ReadableSpan]:
    """The spans of runs."""
    return [s for s in telemetry.spans() if "saas.job.run.id" in (s.attributes or {})]


def only(telemetry: Telemetry) -> dict[str, Any]:
    """The attributes of the one run."""
    (span,) = runs(telemetry)
    return dict(span.attributes or {})


# --- runs -----------------------------------------------------------------------------------------------


def test_a_run(telemetry: Telemetry, tracer: trace.Tracer, start: Start) -> None:
    """What was due when, from whom, and how it ended."""
    scheduler = start()
    over = Waiting(scheduler, EVENT_JOB_EXECUTED)
    with tracer.start_as_current_span("POST", kind=SpanKind.SERVER) as request:
        otel_shim.bind(org_id="acme", user_id="anna")
        scheduler.add_job(quick)
    over.wait()
    found = only(telemetry)
    (span,) = runs(telemetry)
    assert span.name == "tests.unit.capture.test_apscheduler.quick" == found["saas.operation"]
    assert [link.context.span_id for link in span.links] == [request.get_span_context().span_id]
    assert found["saas.job.trigger"] == "manual" and found["saas.job.system"] == "apscheduler"
    assert found["saas.job.scheduled_time"].endswith("Z")
    assert 0 <= found["saas.job.start.delay"] < SECONDS
    assert found["saas.job.items.read"] == 1 and found["saas.job.outcome"] == "success"
    assert "saas.org.id" not in found and "user.hash" not in found
    assert counters.snapshot() == {}


def test_what_runs_by_the_clock_refers_to_nobody(
    telemetry: Telemetry, tracer: trace.Tracer, start: Start
) -> None:
    """Whoever made the schedule is not who triggers each run."""
    scheduler = start()
    over = Waiting(scheduler, EVENT_JOB_EXECUTED)
    with tracer.start_as_current_span("POST", kind=SpanKind.SERVER):
        scheduler.add_job(quick, "interval", hours=1, next_run_time=NOW, misfire_grace_time=None)
    over.wait()
    (span,) = runs(telemetry)
    assert span.links == ()
    assert only(telemetry)["saas.job.schedule"] == "every 1h"


def test_a_job_that_fails(telemetry: Telemetry, recording: Recording, start: Start) -> None:
    """APScheduler tells its listeners as ever; the run says the error's type only."""
    seen: list[Any] = []
    scheduler = start()
    over = Waiting(scheduler, EVENT_JOB_ERROR)
    scheduler.add_listener(lambda event: seen.append(event.exception), EVENT_JOB_ERROR)
    scheduler.add_job(failing)
    over.wait()
    found = only(telemetry)
    assert (found["saas.job.outcome"], found["error.type"]) == ("failure", "LookupError")
    assert "anna" not in str(runs(telemetry)[0].to_json())
    assert recording.outcomes == ["failure"]
    assert [type(each) for each in seen] == [LookupError]


def test_a_decorated_job_is_one_run(telemetry: Telemetry, start: Start) -> None:
    """With the name, and what else the decorator says."""
    scheduler = start()
    over = Waiting(scheduler, EVENT_JOB_EXECUTED)
    scheduler.add_job(declared)
    over.wait()
    found = only(telemetry)
    assert found["saas.operation"] == "audit.retention.job"
    assert found["saas.job.system"] == "apscheduler"
    assert found["saas.job.items.written"] == 1


def test_the_result_reaches_the_listener(start: Start) -> None:
    """What a job returns is what it returned."""
    results: list[Any] = []
    scheduler = start(DebugExecutor())
    over = Waiting(scheduler, EVENT_JOB_EXECUTED)
    scheduler.add_listener(lambda event: results.append(event.retval), EVENT_JOB_EXECUTED)
    scheduler.add_job(quick)
    over.wait()
    assert results == [7]


async def test_coroutines_of_one_loop(telemetry: Telemetry) -> None:
    """Many at once: each is its own trace, and the task that added them keeps its context."""
    scheduler = AsyncIOScheduler(timezone="UTC")
    over = Waiting(scheduler, EVENT_JOB_EXECUTED, 50)
    with otel_shim.identity(org_id="whoever-starts"):
        scheduler.start()
        for _ in range(50):
            scheduler.add_job(coroutine, misfire_grace_time=None)
    await asyncio.to_thread(over.wait)
    scheduler.shutdown()
    found = runs(telemetry)
    assert len({span.context.trace_id for span in found if span.context}) == 50
    assert not [span for span in found if "saas.org.id" in (span.attributes or {})]


def test_a_process_that_cannot_tell(telemetry: Telemetry, start: Start) -> None:
    """A child without the SDK: its run is recorded here, with the times that it had."""
    scheduler = start(ProcessPoolExecutor(1))
    over = Waiting(scheduler, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR, 3)
    scheduler.add_job(declared, misfire_grace_time=None, id="declared")
    scheduler.add_job(quick, misfire_grace_time=None, id="good")
    scheduler.add_job(failing, misfire_grace_time=None, id="bad")
    over.wait()
    outcomes = {
        span.name.rpartition(".")[2]: (span.attributes or {})["saas.job.outcome"]
        for span in runs(telemetry)
    }
    assert outcomes == {"job": "success", "quick": "success", "failing": "failure"}
    assert telemetry.span("audit.retention.job")["saas.job.items.written"] == 1
    for span in runs(telemetry):
        assert span.start_time is not None and span.end_time is not None
        assert NOW.timestamp() * 1e9 < span.start_time <= span.end_time


def test_a_job_that_cannot_be_sent(telemetry: Telemetry, start: Start) -> None:
    """APScheduler says so in its log only; here it is a run that failed."""
    scheduler = start(ProcessPoolExecutor(1))
    failed = threading.Event()
    executor = scheduler._lookup_executor("default")
    fail = executor._run_job_error

    def note(*args: Any, **kwargs: Any) -> None:
        fail(*args, **kwargs)
        failed.set()

    executor._run_job_error = note
    scheduler.add_job(lambda: None, misfire_grace_time=None)
    assert failed.wait(SECONDS)
    assert only(telemetry)["saas.job.outcome"] == "failure"


# --- runs that never started -----------------------------------------------------------------------------


def test_a_missed_run(telemetry: Telemetry, recording: Recording, start: Start) -> None:
    """Due too long ago: not run, and said so."""
    scheduler = start()
    over = Waiting(scheduler, EVENT_JOB_MISSED)
    scheduler.add_job(quick, "date", run_date=NOW - timedelta(hours=1))
    over.wait()
    assert recording.missing == [("quick", "missed", 1)]
    assert recording.outcomes == []
    assert only(telemetry)["saas.job.outcome"] == "missed"
    assert heartbeats.beats() == {}


def test_a_skipped_run(telemetry: Telemetry, recording: Recording, start: Start) -> None:
    """An earlier run was still at work."""
    go, begun = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go.wait(SECONDS)

    scheduler = start()
    skipped = Waiting(scheduler, EVENT_JOB_MAX_INSTANCES)
    done = Waiting(scheduler, EVENT_JOB_EXECUTED)
    job = scheduler.add_job(slow, "interval", hours=1, next_run_time=NOW, misfire_grace_time=None)
    assert begun.wait(SECONDS)
    job.modify(next_run_time=datetime.now(timezone.utc))
    skipped.wait()
    go.set()
    done.wait()
    assert recording.missing == [("slow", "skipped", 1)]
    assert recording.outcomes == ["success"]
    outcomes = sorted(str((s.attributes or {})["saas.job.outcome"]) for s in runs(telemetry))
    assert outcomes == ["skipped", "success"]


def test_runs_that_were_put_together(recording: Recording, start: Start) -> None:
    """Of many that are due, a coalescing job runs one; the others are counted as missed."""
    scheduler = start()
    over = Waiting(scheduler, EVENT_JOB_EXECUTED)
    past = datetime.now(timezone.utc) - timedelta(minutes=10, seconds=30)
    scheduler.add_job(
        quick, "interval", minutes=1, next_run_time=past, coalesce=True, misfire_grace_time=None
    )
    over.wait()
    assert recording.missing == [("quick", "missed", 10)]
    assert recording.outcomes == ["success"]


def test_runs_that_were_not_put_together(
    telemetry: Telemetry, recording: Recording, start: Start
) -> None:
    """Each is a run with its own time, and those whose time has passed are missed."""
    scheduler = start()
    over = Waiting(scheduler, EVENT_JOB_EXECUTED | EVENT_JOB_MISSED, 4)
    past = datetime.now(timezone.utc) - timedelta(minutes=3, seconds=30)
    scheduler.add_job(
        quick, "interval", minutes=1, next_run_time=past, coalesce=False, misfire_grace_time=120
    )
    over.wait()
    due = [(s.attributes or {})["saas.job.scheduled_time"] for s in runs(telemetry)]
    assert len(set(due)) == 4
    triggers = {(s.attributes or {})["saas.job.trigger"] for s in runs(telemetry)}
    assert triggers == {"catch_up"}
    assert recording.missing == [("quick", "missed", 1)] * 2
    assert recording.outcomes == ["success"] * 2


# --- what is scheduled -----------------------------------------------------------------------------------


def _cron(**fields: Any) -> CronTrigger:
    """Each five minutes, of what is said."""
    return CronTrigger(minute="*/5", timezone="UTC", **fields)


@pytest.mark.parametrize(
    ("trigger", "period", "text"),
    [
        (IntervalTrigger(minutes=15), 900.0, "every 15m"),
        (IntervalTrigger(minutes=15, jitter=30), 930.0, "every 15m"),
        (CronTrigger(hour=3, timezone="UTC"), 86400.0, "0 3 * * *"),
        (CronTrigger.from_crontab("0 3 * * *", "UTC"), 86400.0, "0 3 * * *"),
        (CronTrigger(day_of_week="mon-fri", hour=3, timezone="UTC"), 3 * 86400.0, "0 3 * * 1,2,3,4,5"),
        (CronTrigger(day_of_week="0", hour=3, timezone="UTC"), 7 * 86400.0, "0 3 * * 1"),
        (CronTrigger(day_of_week="sat,sun", hour=3, timezone="UTC"), 6 * 86400.0, "0 3 * * 6,0"),
        (CronTrigger(minute="*/5", hour="8-17", timezone="UTC"), 14 * 3600.0 + 300, "*/5 8-17 * * *"),
        (CronTrigger(hour=4, timezone="Europe/Berlin"), 25 * 3600.0, "0 4 * * *"),
        (CronTrigger(second="*/10", timezone="UTC"), 10.0, None),
        (CronTrigger(day="last", timezone="UTC"), 31 * 86400.0, None),
        (CronTrigger(week=1, day_of_week="mon", timezone="UTC"), 371 * 86400.0, None),
        (CalendarIntervalTrigger(days=2, hour=3, timezone="UTC"), 2 * 86400.0, None),
        (OrTrigger([IntervalTrigger(hours=2), IntervalTrigger(hours=3)]), 7200.0, None),
        (OrTrigger([_cron(hour="8-17"), _cron(hour=9)]), 14 * 3600.0 + 300, None),
        (_cron(hour="8-17", end_date=NOW + timedelta(days=400)), 14 * 3600.0 + 300, None),
        (_cron(day_of_week="mon-fri", hour="8-17", end_date="2099-01-01"), 62 * 3600.0 + 300, None),
        (AndTrigger([_cron(hour="8-17"), _cron(day_of_week="mon-fri")]), 62 * 3600.0 + 300, None),
        (AndTrigger([_cron(), IntervalTrigger(hours=2)]), None, None),
        (DateTrigger(datetime(2099, 1, 1, tzinfo=timezone.utc)), None, None),
    ],
    ids=str,
)  # fmt: skip
def test_periods(trigger: Any, period: float | None, text: str | None) -> None:
    """The longest time between two runs, whatever the trigger; nothing for what runs once."""
    found = schedulers._planned(trigger)
    if period is None:
        assert found is None
    else:
        assert found is not None
        assert found.period == pytest.approx(period, abs=1)
        assert found.text == text


class Weather(IntervalTrigger):  # type: ignore[misc]
    """A trigger of an application, which looks out of the window each time it is asked."""

    asked = 0

    def get_next_fire_time(self, *args: Any) -> Any:
        Weather.asked += 1
        return super().get_next_fire_time(*args)


def test_an_applications_own_trigger_is_not_asked(start: Start) -> None:
    """Not once more than APScheduler asks it, alone or as a part; and no period is made up for it."""
    trigger = Weather(hours=1)
    assert schedulers._planned(trigger) is None
    assert schedulers._planned(OrTrigger([trigger, IntervalTrigger(hours=2)])) is None
    assert Weather.asked == 0
    start().add_job(quick, trigger)
    assert Weather.asked == 1
    assert periods() == {}
    assert counters.snapshot() == {}


def periods() -> dict[str, float | None]:
    """What is declared, by the function's name."""
    return {each.name.rpartition(".")[2]: each.period for each in heartbeats.declarations()}


def test_what_is_declared_follows_the_scheduler(start: Start) -> None:
    """Added, rescheduled, paused, resumed, removed: only what is to run can be missed."""
    scheduler = start()
    job = scheduler.add_job(quick, "interval", hours=1)
    scheduler.add_job(failing, "interval", hours=5)
    scheduler.add_job(coroutine, "date", run_date=NOW + timedelta(hours=1))
    assert periods() == {"quick": 3600.0, "failing": 18000.0}
    job.reschedule("interval", hours=2)
    assert periods() == {"quick": 7200.0, "failing": 18000.0}
    job.pause()
    assert periods() == {"failing": 18000.0}
    job.resume()
    assert periods() == {"quick": 7200.0, "failing": 18000.0}
    job.remove()
    assert periods() == {"failing": 18000.0}
    scheduler.remove_all_jobs()
    assert periods() == {}
    assert counters.snapshot() == {}


def told() -> dict[str, tuple[float | None, float]]:
    """Period and time that outsiders are told, by the function's name."""
    return {each.name.rpartition(".")[2]: (each.period, each.at) for each in heartbeats.told()}


def test_outsiders_are_told_that_a_job_is_paused(start: Start) -> None:
    """Or removed: from then on; resumed it is due anew, and not since it was first declared."""
    scheduler = start()
    job = scheduler.add_job(quick, "interval", hours=1)
    _, added = told()["quick"]
    job.reschedule("interval", hours=2)
    job.modify(name="same")
    assert told()["quick"] == (7200.0, added)
    job.pause()
    period, paused = told()["quick"]
    assert period == 0 and paused > added
    job.resume()
    period, resumed = told()["quick"]
    assert period == 7200.0 and resumed > paused
    job.remove()
    assert told()["quick"][0] == 0


def test_outsiders_are_told_that_a_job_is_over(start: Start) -> None:
    """Its end date is reached: APScheduler takes it out, and nobody misses it."""
    scheduler = start()
    end = datetime.now(timezone.utc) + timedelta(seconds=1.5)
    scheduler.add_job(quick, "interval", seconds=1, end_date=end)
    assert told()["quick"][0] == 1.0
    deadline = time.monotonic() + SECONDS
    while told()["quick"][0] != 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert periods() == {}


def test_a_job_that_takes_the_place_of_another(start: Start) -> None:
    """What is declared is the new one; and nothing, while it is added without a time to run at."""
    scheduler = start()
    options: dict[str, Any] = {"id": "one", "replace_existing": True}
    scheduler.add_job(quick, "interval", hours=1, **options)
    scheduler.add_job(quick, "interval", hours=2, **options)
    assert periods() == {"quick": 7200.0}
    scheduler.add_job(quick, "interval", hours=2, next_run_time=None, **options)
    assert periods() == {}
    scheduler.resume_job("one")
    assert periods() == {"quick": 7200.0}
    scheduler.add_job(failing, "interval", hours=3, **options)
    assert periods() == {"failing": 10800.0}
    assert counters.snapshot() == {}


def test_a_job_that_is_added_paused(start: Start) -> None:
    """It cannot be missed."""
    scheduler = start()
    job = scheduler.add_job(quick, "interval", hours=1, next_run_time=None)
    assert periods() == {}
    job.resume()
    assert periods() == {"quick": 3600.0}


def test_two_schedules_of_one_function(start: Start) -> None:
    """It is missed by the one that runs more often, for as long as that is there."""
    scheduler = start()
    scheduler.add_job(quick, "interval", hours=5)
    often = scheduler.add_job(quick, "interval", hours=1)
    assert periods() == {"quick": 3600.0}
    often.remove()
    assert periods() == {"quick": 18000.0}


def test_jobs_of_a_scheduler_that_has_not_started(start: Start) -> None:
    """They are declared when it starts."""
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_job(quick, "interval", hours=1)
    assert periods() == {}
    scheduler.start()
    assert periods() == {"quick": 3600.0}
    scheduler.shutdown()


# --- itself ------------------------------------------------------------------------------------------------


def test_it_can_be_taken_off(telemetry: Telemetry, start: Start) -> None:
    """APScheduler is as it was."""
    ApschedulerInstrumentor().uninstrument()
    assert pool.run_job is apschedulers_own
    scheduler = start()
    over = Waiting(scheduler, EVENT_JOB_EXECUTED)
    scheduler.add_job(quick)
    over.wait()
    assert telemetry.spans() == ()
    ApschedulerInstrumentor().instrument()


def test_a_fault_of_ours_loses_no_job(
    telemetry: Telemetry, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job runs, its listener hears of it, and the fault is counted."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    for module, name in (
        (scheduled_runs, "described"),
        (scheduled_runs, "_link"),
        (schedulers, "described"),
        (schedulers, "_planned"),
    ):
        monkeypatch.setattr(module, name, broken)
    results: list[Any] = []
    scheduler = start()
    over = Waiting(scheduler, EVENT_JOB_EXECUTED)
    scheduler.add_listener(lambda event: results.append(event.retval), EVENT_JOB_EXECUTED)
    scheduler.add_job(quick, "interval", hours=1, next_run_time=NOW, misfire_grace_time=None)
    over.wait()
    assert results == [7]
    assert counters.snapshot()["internal_errors"] > 0


# --- what telemetry itself takes ----------------------------------------------------------------------------


def _submitted(due: datetime, scheduler: int) -> scheduled.RunTimes:
    times = scheduled.RunTimes([due])
    times.scheduler = scheduler
    return times


@pytest.mark.parametrize(
    ("elsewhere", "ready", "began", "grace"),
    [
        (True, 1, -60, 1 + 3),  # a child that was started for it
        (True, -1, -60, 1),  # one that was ready before
        (True, 1, 2, 1),  # due before the scheduler began, in a fork of that
        (False, 1, -60, 1),  # the scheduler's own process
    ],
)
def test_the_start_of_telemetry_is_not_held_against_a_job(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: bool,
    ready: float,
    began: float,
    grace: int,
) -> None:
    """In a child that was started for a job that may be later; in the scheduler's own process nothing changes."""
    due = datetime.now(timezone.utc) - timedelta(seconds=2)
    monkeypatch.setattr(startup, "_spent", 2.5)
    monkeypatch.setattr(startup, "_ready_at", due.timestamp() + ready)
    job = start().add_job(quick, "interval", hours=1, misfire_grace_time=1)
    pid = os.getppid() if elsewhere else os.getpid()
    times = _submitted(due, pid)
    times.since = due.timestamp() + began
    scheduled.run_job(job, "default", times, "apscheduler")
    assert job.misfire_grace_time == grace


def test_a_job_that_may_be_as_late_as_it_likes(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays so."""
    monkeypatch.setattr(startup, "_ready_at", datetime.now(timezone.utc).timestamp() + 60)
    job = start().add_job(quick, "interval", hours=1, misfire_grace_time=None)
    events = scheduled.run_job(job, "default", _submitted(NOW, os.getppid()), "apscheduler")
    assert job.misfire_grace_time is None
    assert [event.retval for event in events] == [7]
