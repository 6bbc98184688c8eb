"""What the instrumentation of a job takes of CPU time, against a limit of 150 µs, beside one official span.

    python -m benchmarks.jobs      (`make bench-jobs`; JOBS=500 ROUNDS=21 ONLY=Celery)

Rounds alternate between without and with, in one process under the real launcher, so that what slows the
machine slows both. CPU time is that of the whole process with all threads: the export over OTLP to another
process is in it, flushed within the round. What is printed is the median over pairs of neighbouring rounds.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from celery import Celery  # type: ignore[import-untyped]
from celery.app.trace import build_tracer  # type: ignore[import-untyped]
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor as OfficialCeleryInstrumentor
from rq.job import Job

import otel_shim
from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import clean_environment
from otel_shim.capture import rq
from otel_shim.capture.apscheduler import ApschedulerInstrumentor
from otel_shim.capture.celery import CeleryInstrumentor
from otel_shim.signals import export

JOBS = int(os.environ.get("JOBS", "500"))
ROUNDS = int(os.environ.get("ROUNDS", "21"))
ONLY = os.environ.get("ONLY", "")
LIMIT_MICROSECONDS = 150
_UNDER_LAUNCHER = "--measure"
SINK = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"""


def bare() -> None:
    pass


@otel_shim.job("benchmark.job", schedule="0 3 * * *", max_runtime=60, retention_class="r90d")
def declared() -> None:
    pass


@otel_shim.job("benchmark.walk", schedule="0 3 * * *")
def reporting() -> None:
    otel_shim.bind(org_id="acme")
    otel_shim.job_items(read=3, written=2, filtered=1)
    otel_shim.job_backlog(before=3, after=0)


async def bare_coroutine() -> None:
    pass


@otel_shim.job("benchmark.coroutine")
async def coroutine() -> None:
    pass


@otel_shim.operation("benchmark.operation")
def operation() -> None:
    pass


def official() -> None:
    with trace.get_tracer("benchmark").start_as_current_span("benchmark.official"):
        pass


def calls(function: Callable[[], Any]) -> Callable[[], None]:
    """Call a function for each job."""

    def work() -> None:
        for _ in range(JOBS):
            function()

    return work


def awaits(function: Callable[[], Any]) -> Callable[[], None]:
    """Await a coroutine function for each job, in one loop."""

    async def all_of_them() -> None:
        for _ in range(JOBS):
            await function()

    return lambda: asyncio.run(all_of_them())


class Scheduler:
    """APScheduler on threads, with and without its instrumentor."""

    def __init__(self) -> None:
        executors = {"default": ThreadPoolExecutor(4)}
        self._scheduler = BackgroundScheduler(executors=executors, timezone="UTC")
        self._left = 0
        self._over = threading.Event()
        self._scheduler.add_listener(self._ended, EVENT_JOB_EXECUTED)
        self._scheduler.start()

    def _ended(self, _: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._over.set()

    def _work(self) -> None:
        self._left = JOBS
        self._over.clear()
        for _ in range(JOBS):
            self._scheduler.add_job(bare, misfire_grace_time=None)
        self._over.wait()

    def without(self) -> None:
        """A round as APScheduler is."""
        if ApschedulerInstrumentor().is_instrumented_by_opentelemetry:
            ApschedulerInstrumentor().uninstrument()
        self._work()

    def instrumented(self) -> None:
        """A round with each job as a run."""
        if not ApschedulerInstrumentor().is_instrumented_by_opentelemetry:
            ApschedulerInstrumentor().instrument()
        self._work()


def message(number: int) -> dict[str, Any]:
    """What a producer under the launcher writes into a message, a moment ago."""
    return {
        "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01",
        "saas-enqueued-at": time.time() - 0.01,
        "saas-queue": "reports",
    }


class CeleryRuns:
    """A task by Celery's own tracer, as a process of its pool runs it; nothing of the broker."""

    def __init__(self) -> None:
        app = Celery("benchmark", set_as_current=False)
        app.conf.task_ignore_result = True
        app.task(name="benchmark.task")(bare)
        app.finalize()
        self._trace = build_tracer("benchmark.task", app.tasks["benchmark.task"], app=app)
        self._ids = [str(uuid.uuid4()) for _ in range(JOBS)]
        self._ours, self._official = CeleryInstrumentor(), OfficialCeleryInstrumentor()  # type: ignore[no-untyped-call]

    def _work(self) -> None:
        for number, task_id in enumerate(self._ids):
            request = {
                **message(number),
                "id": task_id,
                "retries": 0,
                "delivery_info": {"routing_key": "reports", "exchange": ""},
                "is_eager": False,
                "hostname": "worker@host",
            }
            self._trace(request["id"], (), {}, request)

    def _with(self, wanted: Any) -> None:
        for each in (self._ours, self._official):
            if each is not wanted and each.is_instrumented_by_opentelemetry:
                each.uninstrument()
        if wanted is not None and not wanted.is_instrumented_by_opentelemetry:
            wanted.instrument(skip_dep_check=True)
        self._work()

    def without(self) -> None:
        """A round as Celery is."""
        self._with(None)

    def instrumented(self) -> None:
        """A round with ours: the wait and the run as spans, identity, heartbeat, metrics."""
        self._with(self._ours)

    def official(self) -> None:
        """A round with the official instrumentor: the run as a span, and one metric."""
        self._with(self._official)


class _NoRedis:
    """What a job asks of Redis while it runs."""

    def persist(self, key: str) -> None:
        """Keep it."""


class RqRuns:
    """A job of RQ as its work horse performs it; nothing of the broker."""

    def __init__(self) -> None:
        self._jobs = [
            Job.create(bare, connection=_NoRedis(), id=str(uuid.uuid4()), origin="reports")  # type: ignore[arg-type]
            for _ in range(JOBS)
        ]

    def _work(self) -> None:
        for number, job in enumerate(self._jobs):
            job.enqueued_at = datetime.now(timezone.utc)
            job.meta = {rq.META: message(number)}
            job.perform()

    def without(self) -> None:
        """A round as RQ is."""
        if rq.RqInstrumentor().is_instrumented_by_opentelemetry:
            rq.RqInstrumentor().uninstrument()
        self._work()

    def instrumented(self) -> None:
        """A round with each job as a run."""
        if not rq.RqInstrumentor().is_instrumented_by_opentelemetry:
            rq.RqInstrumentor().instrument()
        self._work()


@dataclass(frozen=True)
class Case:
    """One way to run jobs."""

    name: str
    without: Callable[[], None]
    instrumented: Callable[[], None]


def cpu(work: Callable[[], None]) -> float:
    """CPU seconds of a round, its export included."""
    gc.collect()
    began = time.process_time()
    work()
    export.flush()
    return time.process_time() - began


def microseconds(case: Case) -> list[float]:
    """What each pair of rounds says one job takes more."""
    found: list[float] = []
    for number in range(ROUNDS + 2):
        rounds = [case.without, case.instrumented]
        swapped = number % 2 == 1
        spent = [cpu(each) for each in (reversed(rounds) if swapped else rounds)]
        before, after = reversed(spent) if swapped else spent
        found.append((after - before) / JOBS * 1e6)
    return found[2:]  # the first ones make series and caches


def measure() -> None:
    """Print a line for each case."""
    scheduler, tasks, jobs = Scheduler(), CeleryRuns(), RqRuns()
    cases = (
        Case("an official span alone", calls(bare), calls(official)),
        Case("operation under nothing", calls(bare), calls(operation)),
        Case("@job", calls(bare), calls(declared)),
        Case("@job, bind, items, backlog", calls(bare), calls(reporting)),
        Case("@job on a coroutine", awaits(bare_coroutine), awaits(coroutine)),
        Case("APScheduler on threads", scheduler.without, scheduler.instrumented),
        Case("Celery, official", tasks.without, tasks.official),
        Case("Celery, a run and its wait", tasks.without, tasks.instrumented),
        Case("RQ, a run and its wait", jobs.without, jobs.instrumented),
    )
    rival = 0.0
    print(f"{JOBS} jobs a round, {ROUNDS} pairs of rounds; µs of CPU time for each job")
    print(f"{'':28}{'median':>8}{'quartiles':>18}{'to span':>9}  limit {LIMIT_MICROSECONDS} µs")
    for case in (each for each in cases if ONLY in each.name):
        taken = microseconds(case)
        median = statistics.median(taken)
        rival = rival or median
        low, _, high = statistics.quantiles(taken, n=4)
        verdict = "within" if median <= LIMIT_MICROSECONDS else "above"
        span = f"{low:.0f} - {high:.0f}"
        print(f"{case.name:28}{median:8.0f}{span:>18}{median / rival:8.1f}x  {verdict}", flush=True)


@contextmanager
def sink() -> Iterator[str]:
    """Another process that takes what is exported."""
    (port,) = free_ports(1)
    argv = [sys.executable, "-c", SINK, str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def main() -> int:
    """Run this module again, under the launcher."""
    with sink() as url:
        env = clean_environment() | {
            "OTEL_SERVICE_NAME": "benchmark",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_SHIM_SECRET": "a-secret-for-measurements-only-0123456789",
            "OTEL_BSP_MAX_QUEUE_SIZE": "8192",
        }
        argv = ("opentelemetry-instrument", sys.executable, "-m", "benchmarks.jobs")
        return subprocess.run([*argv, _UNDER_LAUNCHER], env=env, check=False).returncode


if __name__ == "__main__":
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    if _UNDER_LAUNCHER in sys.argv:
        measure()
    else:
        sys.exit(main())
