"""APScheduler, without a line for telemetry in what schedules: `python -m apps.scheduled <kind> <jobs>`.

Each job is asked for by a request of some organisation. A third of the jobs says for whom it works, a third
walks over two organisations, a third says nothing.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import threading
import time
from datetime import datetime, timezone
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from opentelemetry import trace

import otel_shim

tracer = trace.get_tracer("scheduled")
OPTIONS: dict[str, Any] = {"misfire_grace_time": None}


def work(number: int) -> None:
    with tracer.start_as_current_span("begin", attributes={"number": number}):
        pass
    if number % 3 == 0:
        otel_shim.bind(org_id=f"own-{number}")
    elif number % 3 == 1:
        for side in ("left", "right"):
            with otel_shim.identity(org_id=f"{side}-{number}"):
                step(number)
    if number % 100 == 99:
        raise LookupError("nobody's business")
    step(number)


def step(number: int) -> None:
    with otel_shim.operation("etl.load"):
        pass


async def work_async(number: int) -> None:
    await asyncio.sleep(0)
    work(number)


def ask(scheduler: Any, function: Any, jobs: int) -> None:
    """Ask for jobs, each in a request of another customer."""
    now = datetime.now(timezone.utc)
    for number in range(jobs):
        with tracer.start_as_current_span("POST /jobs", kind=trace.SpanKind.SERVER):
            otel_shim.bind(org_id=f"customer-{number}", user_id=f"user-{number}")
            scheduler.add_job(
                function, "date", run_date=now, args=(number,), id=f"job-{number}", **OPTIONS
            )


class Tally:
    """Counts what APScheduler says has ended."""

    def __init__(self, jobs: int) -> None:
        self.left = jobs
        self.all_done = threading.Event()

    def __call__(self, event: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.all_done.set()


def listen(scheduler: Any, jobs: int) -> Tally:
    tally = Tally(jobs)
    scheduler.add_listener(tally, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED)
    return tally


def in_background(executor: Any, jobs: int) -> Tally:
    scheduler = BackgroundScheduler(executors={"default": executor}, timezone="UTC")
    tally = listen(scheduler, jobs)
    with tracer.start_as_current_span("POST /start", kind=trace.SpanKind.SERVER):
        otel_shim.bind(org_id="whoever-starts", user_id="operator")
        scheduler.start()
    ask(scheduler, work, jobs)
    tally.all_done.wait(300)
    scheduler.shutdown()
    return tally


def blocking(jobs: int) -> Tally:
    scheduler = BlockingScheduler(timezone="UTC")
    tally = listen(scheduler, jobs)
    ask(scheduler, work, jobs)

    def stop() -> None:
        tally.all_done.wait(300)
        scheduler.shutdown()

    threading.Thread(target=stop).start()
    scheduler.start()
    return tally


async def in_loop(function: Any, jobs: int) -> Tally:
    executors = {"default": AsyncIOExecutor()}
    scheduler = AsyncIOScheduler(executors=executors, timezone="UTC")
    tally = listen(scheduler, jobs)
    with tracer.start_as_current_span("GET /start", kind=trace.SpanKind.SERVER):
        otel_shim.bind(org_id="whoever-starts", user_id="operator")
        scheduler.start()
    ask(scheduler, function, jobs)
    deadline = time.monotonic() + 300
    while not tally.all_done.is_set() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    scheduler.shutdown()
    return tally


def main(kind: str, jobs: int) -> None:
    if kind == "thread":
        tally = in_background(ThreadPoolExecutor(8), jobs)
    elif kind in ("spawn", "fork", "forkserver"):
        options = {"mp_context": multiprocessing.get_context(kind)}
        tally = in_background(ProcessPoolExecutor(2, options), jobs)
    elif kind == "blocking":
        tally = blocking(jobs)
    else:
        function = work_async if kind == "coroutine" else work
        tally = asyncio.run(in_loop(function, jobs))
    print(f"left {tally.left}")
    print(f"dropped {otel_shim.counters_snapshot().get('spans_queue_dropped', 0)}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
