"""otel_shim.signals.jobs: what is recorded of runs, and what is told of jobs that do not run."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

import otel_shim
from examples.saas.demo.ports import free_ports
from otel_shim import _semconv as semconv
from otel_shim import jobs
from otel_shim.heartbeats import Declaration, heartbeats
from otel_shim.jobs import Run
from otel_shim.signals import jobs as signals
from otel_shim.signals.jobs import JobMetrics, install
from tests.unit.telemetry import Telemetry
from tests.wheel import ROOT

NAME = "audit.retention.job"
DELTA = dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)


class Meter:
    """A provider with one reader."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader
        self.provider = MeterProvider([reader])

    def read(self) -> dict[str, list[Any]]:
        """Every metric with its points."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def only(points: list[Any]) -> Any:
    """The one point."""
    (point,) = points
    return point


@pytest.fixture(params=["cumulative", "delta"])
def meter(request: pytest.FixtureRequest) -> Iterator[Meter]:
    """Records for a reader of either temporality."""
    made = Meter(InMemoryMetricReader(DELTA if request.param == "delta" else None))  # type: ignore[arg-type]
    before = jobs.use_recorder(JobMetrics(made.provider))
    yield made
    jobs.use_recorder(before)
    made.provider.shutdown()


@otel_shim.job("etl.load")
def load(rejected: int = 0) -> None:
    otel_shim.job_items(read=10, written=10 - rejected, rejected=rejected)
    otel_shim.job_backlog(after=3)


def test_a_heartbeat_is_told_again_and_again(meter: Meter) -> None:
    """Each collection has it, with the same value, for as long as the process lives."""
    load()
    for _ in range(3):
        found = meter.read()
        labels = {semconv.SAAS_OPERATION: "etl.load"}
        beat = heartbeats.beats()["etl.load"]
        for name, value in (
            (semconv.METRIC_SAAS_JOB_LAST_START_TIMESTAMP, beat.last_start),
            (semconv.METRIC_SAAS_JOB_LAST_SUCCESS_TIMESTAMP, beat.last_success),
            (semconv.METRIC_SAAS_JOB_LAST_DURATION, beat.last_duration),
            (semconv.METRIC_SAAS_JOB_BACKLOG, 3),
            (semconv.METRIC_SAAS_JOB_ACTIVE, 0),
            (semconv.METRIC_SAAS_JOB_ACTIVE_SINCE_TIMESTAMP, 0),
        ):
            point = only(found[name])
            assert (point.value, dict(point.attributes)) == (value, labels), name


def test_a_declared_job_is_told_before_it_runs(meter: Meter) -> None:
    """When it was declared, its period and how long it may take, with whether it is critical."""
    heartbeats.declare(Declaration(NAME, "0 3 * * *", 86400.0, 600.0, critical=True, at=1000.0))
    heartbeats.declare(Declaration("no.schedule", max_runtime=60.0))
    found = meter.read()
    values = {
        name: {dict(p.attributes)["saas.operation"]: p.value for p in points}
        for name, points in found.items()
    }
    assert values[semconv.METRIC_SAAS_JOB_DECLARED_TIMESTAMP] == {NAME: 1000.0}
    assert values[semconv.METRIC_SAAS_JOB_PERIOD] == {NAME: 86400.0}
    assert values[semconv.METRIC_SAAS_JOB_MAX_RUNTIME] == {NAME: 600.0, "no.schedule": 60.0}
    point = only(found[semconv.METRIC_SAAS_JOB_PERIOD])
    assert dict(point.attributes) == {"saas.operation": NAME, "saas.job.critical": True}
    assert semconv.METRIC_SAAS_JOB_LAST_START_TIMESTAMP not in found


def test_a_schedule_that_was_withdrawn_is_told(meter: Meter) -> None:
    """As the period 0, as long as the process lives: silence would be that of a dead process."""
    heartbeats.declare(Declaration(NAME, "every 1h", 3600.0, at=1000.0), "apscheduler:a")
    heartbeats.withdraw(NAME, "apscheduler:a")
    for _ in range(2):
        found = meter.read()
        assert only(found[semconv.METRIC_SAAS_JOB_PERIOD]).value == 0
        assert only(found[semconv.METRIC_SAAS_JOB_DECLARED_TIMESTAMP]).value > 1000.0


def test_the_longest_run_at_work_is_told(meter: Meter) -> None:
    """Its start, whatever started since; 0 when it has ended."""
    with jobs.running(Run(NAME)) as work:
        assert work is not None
        with jobs.running(Run(NAME)):
            found = meter.read()
        since = only(found[semconv.METRIC_SAAS_JOB_ACTIVE_SINCE_TIMESTAMP])
        assert since.value == work.started_at
    assert only(meter.read()[semconv.METRIC_SAAS_JOB_ACTIVE_SINCE_TIMESTAMP]).value == 0


def test_the_age_of_what_was_proved(meter: Meter) -> None:
    """The time of the data, of the last run that ended well; a failed one moves nothing."""

    @otel_shim.job("backup.verify")
    def verify(at: float, good: bool = True) -> None:
        otel_shim.recovery_point(at)
        if not good:
            raise ValueError("x")

    verify(1000.0)
    with pytest.raises(ValueError, match="x"):
        verify(2000.0, good=False)
    points = meter.read()[semconv.METRIC_SAAS_JOB_RECOVERY_POINT_TIMESTAMP]
    assert (only(points).value, dict(only(points).attributes)) == (
        1000.0,
        {semconv.SAAS_OPERATION: "backup.verify"},
    )
    verify(900.0)
    points = meter.read()[semconv.METRIC_SAAS_JOB_RECOVERY_POINT_TIMESTAMP]
    assert only(points).value == 900.0


def test_a_run_at_work(meter: Meter) -> None:
    """It counts as active, and its start is known."""
    with jobs.running(Run(NAME)):
        found = meter.read()
        assert only(found[semconv.METRIC_SAAS_JOB_ACTIVE]).value == 1
        assert semconv.METRIC_SAAS_JOB_LAST_START_TIMESTAMP in found
        assert semconv.METRIC_SAAS_JOB_LAST_SUCCESS_TIMESTAMP not in found
    assert only(meter.read()[semconv.METRIC_SAAS_JOB_ACTIVE]).value == 0


def test_outcomes_and_items(meter: Meter) -> None:
    """Executions by outcome, items by state, with the labels of the contract only."""
    load()
    load(rejected=4)
    found = meter.read()
    runs = {
        dict(p.attributes)["saas.job.outcome"]: p.count
        for p in found[semconv.METRIC_SAAS_JOB_DURATION]
    }
    assert runs == {"success": 1, "partial": 1}
    items = {
        dict(p.attributes)["saas.job.item.state"]: p.value
        for p in found[semconv.METRIC_SAAS_JOB_ITEMS]
    }
    assert items == {"read": 20, "written": 16, "rejected": 4}
    for name, points in found.items():
        for point in points:
            assert point.attributes.keys() <= semconv.METRIC_ATTRIBUTES[name], name


def test_overruns_overlaps_and_delays(meter: Meter) -> None:
    """Each is counted once, by the job."""
    heartbeats.declare(Declaration(NAME, max_runtime=1e-9))
    due = datetime.now(timezone.utc) - timedelta(seconds=20)
    with jobs.running(Run(NAME, scheduled_time=due)), jobs.running(Run(NAME)):
        pass
    found = meter.read()
    assert only(found[semconv.METRIC_SAAS_JOB_OVERRUNS]).value == 2
    assert only(found[semconv.METRIC_SAAS_JOB_OVERLAPS]).value == 1
    delay = only(found[semconv.METRIC_SAAS_JOB_START_DELAY])
    assert delay.count == 1 and 20 <= delay.sum < 60


def test_runs_that_never_started(meter: Meter) -> None:
    """Counted by why, and they are no executions."""
    jobs.unstarted(Run(NAME), "missed", 3)
    jobs.unstarted(Run(NAME), "skipped")
    found = meter.read()
    counts = {
        dict(p.attributes)["saas.job.outcome"]: p.value
        for p in found[semconv.METRIC_SAAS_JOB_UNSTARTED]
    }
    assert counts == {"missed": 3, "skipped": 1}
    assert semconv.METRIC_SAAS_JOB_DURATION not in found


def test_names_made_of_tenants_are_limited(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many all have one series, whatever they say; those before go on as they were."""
    monkeypatch.setattr(signals, "LIMIT", 3)
    for tenant in (*range(10), 0):
        with jobs.running(Run(f"sync.{tenant}")):
            otel_shim.job_items(read=1)
        jobs.unstarted(Run(f"sync.{tenant}"), "missed")
    found = meter.read()
    runs = {
        (labels := dict(p.attributes)).get("saas.operation", labels.get("otel.metric.overflow")): p
        for p in found[semconv.METRIC_SAAS_JOB_DURATION]
    }
    counts = {name: point.count for name, point in runs.items()}
    assert counts == {"sync.0": 2, "sync.1": 1, "sync.2": 1, True: 7}
    assert dict(runs[True].attributes) == {"otel.metric.overflow": True}
    for name in (semconv.METRIC_SAAS_JOB_ITEMS, semconv.METRIC_SAAS_JOB_UNSTARTED):
        assert sorted(point.value for point in found[name]) == [1, 1, 2, 7]


def test_a_failed_run_names_its_trace(telemetry: Telemetry, meter: Meter) -> None:
    """The exemplar of its duration is its own span."""
    with pytest.raises(ValueError, match="x"), jobs.running(Run(NAME)):
        raise ValueError("x")
    point = only(meter.read()[semconv.METRIC_SAAS_JOB_DURATION])
    assert dict(point.attributes)["error.type"] == "ValueError"
    (span,) = telemetry.spans()
    assert span.context is not None
    assert [e.trace_id for e in point.exemplars] == [span.context.trace_id]


def test_an_instrumentor_alone_records_too() -> None:
    """Without our distro it makes the metrics; with it, it leaves them."""
    made = Meter(InMemoryMetricReader())
    before = jobs.use_recorder(None)
    install(made.provider)
    with jobs.running(Run(NAME)):
        pass
    first = jobs.use_recorder(None)
    jobs.use_recorder(first)
    install(MeterProvider())
    assert jobs.use_recorder(before) is first
    assert only(made.read()[semconv.METRIC_SAAS_JOB_DURATION]).count == 1
    made.provider.shutdown()


WORKERS = """
import os, sys
from pathlib import Path
from opentelemetry.sdk.metrics import MeterProvider
from otel_shim import jobs
from otel_shim.heartbeats import Declaration, heartbeats
from otel_shim.signals import jobs as signals
from otel_shim.signals.jobs import JobMetrics
from otel_shim.signals.scrape import Publisher, publish
meters = MeterProvider()
publisher = Publisher(Path(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), None)
publish(meters, publisher)
JobMetrics(meters)
for declared, start, seconds, success in (
    (3000.0, 5000.0, 7.0, True),   # the newest success, told first
    (1000.0, 4000.0, 99.0, True),
    (2000.0, 6000.0, 1.0, False),
):
    if (pid := os.fork()) == 0:
        heartbeats.declare(Declaration("audit.job", "0 3 * * *", 86400.0, at=declared))
        heartbeats.started("audit.job", start)
        point = declared - 500.0
        heartbeats.ended(
            "audit.job", start, seconds, success=success, backlog=int(start), recovery_point=point
        )
        sys.exit()
    os.waitpid(pid, 0)
print(publisher.text())
"""


def test_one_truth_of_several_processes(tmp_path: Path) -> None:
    """On /metrics the last process to run a job is right, not the last one to speak."""
    argv = [sys.executable, "-c", WORKERS, str(tmp_path / "shared"), str(free_ports(1)[0])]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    labels = 'saas_operation="audit.job"'
    for expected in (
        f"saas_job_last_start_timestamp_seconds{{{labels}}} 6000",
        f"saas_job_last_success_timestamp_seconds{{{labels}}} 5007",
        f"saas_job_last_duration_seconds{{{labels}}} 7",
        f"saas_job_backlog{{{labels}}} 6000",
        f'saas_job_declared_timestamp_seconds{{saas_job_critical="false",{labels}}} 1000',
        f"saas_job_recovery_point_timestamp_seconds{{{labels}}} 2500",
    ):
        assert expected in lines
    for name in ("saas_job_active", "saas_job_period"):  # of processes that are gone
        assert name not in run.stdout


AT_WORK = (
    WORKERS.partition("for declared")[0]
    + """
for start in map(float, sys.argv[3:]):
    heartbeats.started("audit.job", start)
heartbeats.declare(Declaration("audit.job", "0 3 * * *", 86400.0))
for _ in sys.stdin:
    publisher.read()
    print(publisher.text(), flush=True)
    print("over", flush=True)
"""
)


def scraped(process: subprocess.Popen[str]) -> list[str]:
    """What /metrics says, by one of the processes."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return [line.rstrip() for line in iter(process.stdout.readline, "over\n") if line]


def test_a_dead_process_has_nothing_at_work(tmp_path: Path) -> None:
    """On /metrics the longest run of those that live counts, whoever told of it first."""
    argv = [sys.executable, "-c", AT_WORK, str(tmp_path / "shared"), str(free_ports(1)[0])]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    name = 'saas_job_active_since_timestamp_seconds{saas_operation="audit.job"}'
    with contextlib.ExitStack() as alive:
        processes = []
        for starts in ((), ("5000",), ("4500", "4000")):
            process = alive.enter_context(subprocess.Popen([*argv, *starts], cwd=ROOT, **pipes))
            alive.callback(process.kill)
            processes.append(process)
            scraped(process)
        idle, _, longest = processes
        assert f"{name} 4000" in scraped(idle)
        longest.kill()
        longest.wait()
        assert f"{name} 5000" in scraped(idle)
