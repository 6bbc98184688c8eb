"""APScheduler under the launcher: no job is lost, each is a trace, and none knows who asked for it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from examples.saas.demo.stack import clean_environment

from . import collectors, environments, server
from .collectors import Fake
from .environments import APPS, Environment
from .otlp import Span, plain, spans
from .test_jobs import arrived

JOBS = 1000
FAILS_EACH = 100
EXECUTORS = ("thread", "spawn", "fork", "forkserver", "asyncio", "coroutine", "blocking")
ASKED_BY = re.compile(r"customer-\d+|whoever-starts")
OWN = re.compile(r"(own|left|right)-(\d+)")
SECONDS = 400
ROOM = {"OTEL_BSP_MAX_QUEUE_SIZE": "16384"}
"""All is asked for at once and leaves 5 000 spans in a second or two: more than the default queue of 2 048
holds, where the thread that exports gets no turn."""


@pytest.fixture(scope="session")
def scheduler() -> Environment:
    """An environment with APScheduler: the one that the sample's jobs have."""
    return environments.make(environments.JOBS)


def run(environment: Environment, env: Mapping[str, str], out: Path, *arguments: str) -> str:
    """Run Python under the launcher to its end, and give what it printed."""
    done = subprocess.run(
        [
            environment.program("opentelemetry-instrument"),
            environment.program("python"),
            *arguments,
        ],
        cwd=out,
        env=clean_environment() | {"PYTHONPATH": str(APPS.parent)} | dict(env),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Ran:
    """What a thousand jobs left behind: their runs by the job's number, and everything below."""

    runs: Mapping[int, Span]
    requests: Mapping[int, Span]
    below: list[Span]
    output: str


def ran(everything: list[Span], output: str) -> Ran:
    """Sort spans by what they are; a run's number is on the first span below it."""
    by_id = {span.span_id: span for span in everything}
    numbered = {s.parent_id: s.attributes["number"] for s in everything if s.name == "begin"}
    runs = {numbered[each]: by_id[each] for each in numbered}
    asked = {
        int(str(s.attributes["saas.org.id"]).removeprefix("customer-")): s
        for s in everything
        if s.name == "POST /jobs"
    }
    below = [s for s in everything if s.parent_id in numbered]
    return Ran(runs, asked, below, output)


@pytest.fixture(scope="module", params=EXECUTORS)
def thousand(
    request: pytest.FixtureRequest, scheduler: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ran]:
    """A thousand jobs on one kind of executor."""
    with collectors.healthy() as fake:
        env = server.telemetry("scheduled", fake.url) | ROOM
        out = tmp_path_factory.mktemp(request.param)
        output = run(scheduler, env, out, "-m", "apps.scheduled", request.param, str(JOBS))
        yield ran(list(spans(fake)), output)


def test_no_job_is_lost(thousand: Ran) -> None:
    """APScheduler has run them all, each has one run, and each run is a trace of its own."""
    assert "left 0" in thousand.output
    assert "dropped 0" in thousand.output
    assert sorted(thousand.runs) == list(range(JOBS))
    assert len({run.trace_id for run in thousand.runs.values()}) == JOBS
    assert not [run for run in thousand.runs.values() if run.parent_id]
    outcomes = Counter(run.attributes["saas.job.outcome"] for run in thousand.runs.values())
    assert outcomes == {"success": JOBS - JOBS // FAILS_EACH, "failure": JOBS // FAILS_EACH}
    assert {run.attributes["saas.job.system"] for run in thousand.runs.values()} == {"apscheduler"}
    assert len({run.attributes["saas.job.run.id"] for run in thousand.runs.values()}) == JOBS


def test_who_asked_is_a_link(thousand: Ran) -> None:
    """The run refers to the request that asked for it, whatever process it was in."""
    for number, run_ in thousand.runs.items():
        assert run_.links == (thousand.requests[number].span_id,)


def test_nobodys_identity_enters(thousand: Ran) -> None:
    """Neither that of a request nor that of the scheduler's start nor that of an earlier job."""
    everything = [*thousand.runs.values(), *thousand.below]
    assert not [s for s in everything if ASKED_BY.fullmatch(str(s.attributes.get("saas.org.id")))]
    assert not [s for s in everything if "user.hash" in s.attributes]
    for number, run_ in thousand.runs.items():
        own = run_.attributes.get("saas.org.id")
        assert own == (f"own-{number}" if number % 3 == 0 else None)
        scope = run_.attributes.get("saas.identity.scope")
        assert scope == ("multi" if number % 3 == 1 else None)
        assert run_.attributes["saas.actor.type"] == "job"


def test_steps_are_their_jobs(thousand: Ran) -> None:
    """Below a run is its own work, and nothing else."""
    by_id = {run.span_id: number for number, run in thousand.runs.items()}
    steps = [s for s in thousand.below if s.name == "etl.load"]
    walked = sum(2 for number in range(JOBS) if number % 3 == 1)
    assert len(steps) == JOBS - JOBS // FAILS_EACH + walked
    for step in steps:
        found = OWN.fullmatch(str(step.attributes.get("saas.org.id", "")))
        assert found is None or int(found[2]) == by_id[step.parent_id]


KILLED = """
import multiprocessing, os, signal, threading
from datetime import datetime, timezone
from apscheduler.events import EVENT_ALL
from apscheduler.executors.pool import ProcessPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

def dies():
    os.kill(os.getpid(), signal.SIGKILL)

def lives():
    pass

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(1, {"mp_context": context})
    scheduler = BackgroundScheduler(executors={"default": pool}, timezone="UTC")
    scheduler.start()
    over = threading.Event()
    fail = pool._run_job_error
    def failed(*args, **kwargs):
        fail(*args, **kwargs)
        over.set()
    pool._run_job_error = failed
    scheduler.add_job(dies, misfire_grace_time=None, id="dies")
    assert over.wait(60)
    ended = threading.Event()
    scheduler.add_listener(lambda event: ended.set(), 1 << 12)
    scheduler.add_job(lives, misfire_grace_time=None, id="lives")
    assert ended.wait(60)
    scheduler.shutdown()
"""


def test_a_killed_worker_of_a_pool_is_a_failed_run(scheduler: Environment, tmp_path: Path) -> None:
    """Its own process could not tell; the scheduler's does, and the next job runs."""
    with collectors.healthy() as fake:
        run(scheduler, server.telemetry("killed", fake.url), tmp_path, "-c", KILLED)
        found = {s.name: s.attributes for s in spans(fake)}
    assert found["__main__.dies"]["saas.job.outcome"] == "failure"
    assert found["__main__.dies"]["error.type"] == "BrokenProcessPool"
    assert found["__main__.lives"]["saas.job.outcome"] == "success"


DECLARED = """
import threading, otel_shim
from apscheduler.schedulers.background import BackgroundScheduler

@otel_shim.job("audit.retention.job", max_runtime=600, critical=True, retention_class="r90d")
def retention():
    otel_shim.job_items(read=2, written=2)
    ran.set()

def never():
    pass

ran = threading.Event()
scheduler = BackgroundScheduler(timezone="UTC")
scheduler.add_job(retention, "interval", seconds=1)
scheduler.add_job(never, "cron", day_of_week="mon-fri", hour=3)
scheduler.start()
assert ran.wait(60)
scheduler.shutdown()
"""


def metrics(fake: Fake) -> dict[tuple[str, str], Any]:
    """The newest value of each gauge, by its name and the job."""
    found: dict[tuple[str, str], Any] = {}
    bodies = [body for path, body in list(fake.bodies) if path == "/v1/metrics"]
    for body in bodies:
        for part in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in (m for scope in part.scope_metrics for m in scope.metrics):
                for point in metric.gauge.data_points:
                    labels = plain(point.attributes)
                    found[metric.name, str(labels.get("saas.operation"))] = (
                        point.as_double or point.as_int,
                        labels.get("saas.job.critical"),
                    )
    return found


def test_what_a_trigger_declares(scheduler: Environment, tmp_path: Path) -> None:
    """Periods of interval and cron; a decorated job has its own name, in one trace, and never ran is told."""
    with collectors.healthy() as fake:
        run(scheduler, server.telemetry("declared", fake.url), tmp_path, "-c", DECLARED)
        told = metrics(fake)
        found = [s for s in spans(fake) if "saas.job.run.id" in s.attributes]
    name = "audit.retention.job"
    assert {s.name for s in found} == {name}
    assert len({s.trace_id for s in found}) == len(found)
    assert found[0].attributes["saas.job.system"] == "apscheduler"
    assert found[0].attributes["saas.job.trigger"] == "schedule"
    assert found[0].attributes["saas.job.schedule"] == "every 1s"
    assert found[0].attributes["saas.job.items.written"] == 2
    assert found[0].attributes["saas.gdpr.retention_class"] == "r90d"
    assert told["saas.job.period", name] == (1.0, True)
    assert told["saas.job.max_runtime", name] == (600.0, True)
    assert told["saas.job.period", "__main__.never"] == (3 * 86400.0, False)
    assert ("saas.job.last_start.timestamp", "__main__.never") not in told
    assert ("saas.job.last_success.timestamp", name) in told


def test_jobs_are_found_in_jaeger(
    scheduler: Environment, backend: server.Backend, tmp_path: Path
) -> None:
    """By operation and organisation, through a real Collector."""
    env = server.telemetry("scheduled-jobs", backend.otlp)
    run(scheduler, env, tmp_path, "-m", "apps.scheduled", "spawn", "6")
    arrived(backend, "scheduled-jobs", 6 + 6 + 1 + 6 + 6 + 4)
    tags = {"saas.operation": "__main__.work", "saas.org.id": "own-3"}
    (trace,) = backend.jaeger.search("scheduled-jobs", tags)
    (root,) = trace.roots()
    assert root.name == "__main__.work"
    assert {span.tags.get("saas.org.id") for span in trace.spans if span.name != "begin"} == {
        "own-3"
    }


@pytest.mark.parametrize("arguments", [(), ("fails",)])
def test_a_script_of_a_second_delivers_its_heartbeat(
    scheduler: Environment, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """What cron starts ends long before the first export is due; its times arrive all the same."""
    with collectors.healthy() as fake:
        env = server.telemetry("cron", fake.url)
        code = (
            "import otel_shim, sys\n"
            "@otel_shim.job('audit.retention.job', schedule='0 3 * * *', critical=True)\n"
            "def retention():\n"
            "    if sys.argv[1:]: raise LookupError\n"
            "try: retention()\n"
            "except LookupError: pass\n"
        )
        run(scheduler, env, tmp_path, "-c", code, *arguments)
        told = metrics(fake)
    name = "audit.retention.job"
    assert told["saas.job.period", name] == (86400.0, True)
    assert ("saas.job.last_start.timestamp", name) in told
    assert (("saas.job.last_success.timestamp", name) in told) == (not arguments)


SLOW = """
import time
from opentelemetry.sdk.resources import Resource, ResourceDetector
time.sleep(7)
class Slow(ResourceDetector):
    def detect(self):
        return Resource({})
"""
PATIENT = """
import multiprocessing, sys, threading
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED
from apscheduler.executors.pool import ProcessPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

def work():
    pass

if __name__ == "__main__":
    method = multiprocessing.get_context(sys.argv[1])
    executors = {"default": ProcessPoolExecutor(1, {"mp_context": method})}
    scheduler = BackgroundScheduler(executors=executors, timezone="UTC")
    scheduler.start()
    over, codes = threading.Event(), []

    def ended(event):
        codes.append(event.code)
        if len(codes) == 3:
            over.set()

    scheduler.add_listener(ended, EVENT_JOB_ERROR | EVENT_JOB_EXECUTED | EVENT_JOB_MISSED)
    for number in range(3):
        scheduler.add_job(work, misfire_grace_time=6)
    assert over.wait(60)
    scheduler.shutdown()
    print("executed", codes.count(EVENT_JOB_EXECUTED))
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_telemetry_that_starts_slowly_makes_no_job_late(
    scheduler: Environment, tmp_path: Path, method: str
) -> None:
    """A child that was started for a job is set up first; its jobs are not missed for that."""
    site, code = tmp_path / "site", tmp_path / "patient.py"
    (site / "slow-1.dist-info").mkdir(parents=True)
    (site / "slow.py").write_text(SLOW)
    (site / "slow-1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: slow\nVersion: 1\n"
    )
    entry = "[opentelemetry_resource_detector]\nslow = slow:Slow\n"
    (site / "slow-1.dist-info/entry_points.txt").write_text(entry)
    code.write_text(PATIENT)
    with collectors.healthy() as fake:
        env = server.telemetry("patient", fake.url) | {
            "PYTHONPATH": str(site),
            "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "slow",
        }
        output = run(scheduler, env, tmp_path, str(code), method)
        outcomes = [
            s.attributes["saas.job.outcome"] for s in spans(fake) if s.name.endswith("work")
        ]
    assert "executed 3" in output
    assert outcomes == ["success"] * 3
