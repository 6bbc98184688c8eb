"""The sample's scheduler with a real Radicale: each fault shows in the traces, and is gone afterwards."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.saas.api.people import CUSTOMERS, PASSWORD
from examples.saas.demo import job_checks, parts
from examples.saas.demo.jaeger import Jaeger, Span, Trace
from examples.saas.demo.stack import clean_environment, running
from tests.wheel import ROOT

from . import collectors, environments, server
from .environments import Environment
from .test_jobs import FULL_QUEUES, ONE_LINER, arrived, script

# Nothing waits that long but on a machine that has much else to do.
SECONDS = 240.0
PERIOD_SECONDS = 3
SERVICE = "night-shift"
ORG = "org-hotel"
SYNCHRONISATION = "calendar.synchronize"
POLL_SECONDS = 0.25  # of api/worker.py
UNKNOWN_TOKEN = "http://radicale.org/ns/sync/" + "0" * 64
FEEDS = CALENDARS = len(CUSTOMERS)


@pytest.fixture(scope="module")
def jobs() -> Environment:
    """The environment of the scheduler."""
    return environments.make(environments.JOBS)


@dataclass(frozen=True)
class Night:
    """A running product: what it left in Jaeger and in its database, and what breaks it."""

    jaeger: Jaeger
    ports: parts.Ports
    out: Path

    def fault(self, *lines: str) -> int:
        """Switch exactly these faults on; gives the time just after, in microseconds.

        What begins later sees them from its start to its end; what began before may see a part.
        """
        new = self.out / "faults.new"
        new.write_text("\n".join(lines))
        new.replace(self.out / "faults")
        return int(time.time() * 1e6)

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask or change the product's database."""
        with closing(sqlite3.connect(self.out / parts.DATABASE, timeout=20)) as connection:
            rows = connection.execute(statement, values).fetchall()
            connection.commit()
            return rows

    def traces(self) -> list[Trace]:
        """All traces of the scheduler."""
        return list(self.jaeger.search(SERVICE))

    def span(self, since: int, name: str, fits: Callable[[Span], object]) -> Span:
        """The first span of this name that began later and fits, once there is one."""
        found: list[Span] = []

        def there() -> bool:
            traces = self.jaeger.search(SERVICE, {"saas.operation": name})
            spans = (span for trace in traces for span in trace.spans if span.name == name)
            found[:] = [span for span in spans if span.start_us > since and fits(span)]
            return bool(found)

        server.eventually(there, SECONDS, f"a span {name} that fits")
        return min(found, key=lambda span: span.start_us)

    def run(self, since: int, name: str, outcome: str) -> Span:
        """The first run of a job that began later and ended so."""
        return self.span(since, name, lambda span: span.tags.get("saas.job.outcome") == outcome)

    def lost(self, span: Span) -> bool:
        """Whether a token was lost; if not, one calendar gets a token that its server never gave.

        Asked again and again, because a synchronisation at work may overwrite that.
        """
        if span.tags.get("saas.calendar.token.lost"):
            return True
        change = "UPDATE subscription SET mark = ? WHERE org_id = ? AND kind = 'caldav'"
        self.ask(change, UNKNOWN_TOKEN, ORG)
        return False

    def publish(self) -> None:
        """A planner of each organisation publishes its first plan."""
        with httpx.Client(base_url=parts.url(self.ports.api), timeout=120) as client:
            for customer in CUSTOMERS:
                who = {"email": customer.people[1].email, "password": PASSWORD}
                token = client.post("/auth/login", json=who).json()["access_token"]
                auth = {"Authorization": f"Bearer {token}"}
                plan = client.get("/planning/plans", headers=auth).json()[0]["id"]
                client.post(f"/planning/plans/{plan}/publish", headers=auth).raise_for_status()


@pytest.fixture(scope="module")
def night(
    backend: server.Backend, jobs: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Night]:
    """Connector, API, calendar server with its gate, and the scheduler, each job every few seconds."""
    out = tmp_path_factory.mktemp("night")
    envs = ROOT / ".build/envs"
    assert (envs / "radicale").exists(), "run `make envs` first"
    otlp = httpx.URL(backend.otlp).port
    assert otlp is not None
    ports = dataclasses.replace(parts.choose_ports(), otlp_http=otlp)
    places = parts.Places(ROOT / ".build/bin", jobs.path, envs / "connector", out)
    product = Night(backend.jaeger, ports, out)
    more = {"SAAS_FAULTS": str(out / "faults"), "SAAS_SCHEDULE": f"every {PERIOD_SECONDS}s"}
    with running(out) as stack:
        parts.seed(places)
        for make in (parts.radicale, parts.gate, parts.connector, parts.api, parts.scheduler):
            part = make(places, ports)
            named = {"OTEL_SERVICE_NAME": SERVICE} if part.name == "scheduler" else {}
            stack.start(dataclasses.replace(part, env={**part.env, **more, **named}))
        stack.wait_ready(server.READY_SECONDS)
        product.publish()
        yield product
        stack.check_alive()


@pytest.fixture(autouse=True)
def _whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a fault to the next one."""
    yield
    if "night" in request.fixturenames:
        request.getfixturevalue("night").fault()


def test_every_job_works_and_is_found(night: Night) -> None:
    """All that the demo checks, with the same functions."""

    def enough() -> bool:
        return job_checks.lacking({trace.trace_id: trace for trace in night.traces()}) is None

    server.eventually(enough, SECONDS, "every job worked for every organisation")
    assert job_checks.lacking({}) is not None
    findings = job_checks.of_jobs(night.traces())
    late = "jobs: each organisation's work is its own"  # while spans still arrive
    assert not [each for each in findings if not each.ok and each.what != late]


@pytest.mark.parametrize("fault", ["html", "malformed", "down"])
def test_a_feed_that_is_none(night: Night, fault: str) -> None:
    """A login page, half a calendar, an error: five feeds fail, CalDAV goes on, and so do feeds later."""
    since = night.fault(f"feed {fault}")
    night.ask("UPDATE subscription SET mark = NULL WHERE kind = 'ics'")
    run = night.run(since, SYNCHRONISATION, "partial")
    assert run.tags["saas.job.items.rejected"] == FEEDS
    assert run.tags["saas.job.items.read"] == FEEDS + CALENDARS
    good = night.span(since, SYNCHRONISATION, _of("caldav"))
    assert good.tags["saas.calendar.sync.outcome"] == "success"
    night.run(night.fault(), SYNCHRONISATION, "success")


def test_a_calendar_server_that_is_down(night: Night) -> None:
    """Five calendars fail, each with its organisation; with the feeds too the job itself fails."""
    since = night.fault("calendar down")
    run = night.run(since, SYNCHRONISATION, "partial")
    assert run.tags["saas.job.items.rejected"] == CALENDARS
    bad = night.span(since, SYNCHRONISATION, _of("caldav"))
    assert bad.tags["saas.calendar.sync.outcome"] == "failure"
    assert bad.tags["error.type"]
    assert bad.tags["saas.org.id"] in {customer.id for customer in CUSTOMERS}
    since = night.fault("calendar down", "feed down")
    assert night.run(since, SYNCHRONISATION, "failure").tags["error.type"] == "CalendarsUnreachable"
    night.run(night.fault(), SYNCHRONISATION, "success")


def test_a_slow_calendar_server(night: Night) -> None:
    """The wait is on the calendar's own span, and nothing fails."""
    since = night.fault("calendar slow 1")
    slow = night.span(since, SYNCHRONISATION, _of("caldav"))
    assert slow.duration_us > 1_000_000
    assert slow.tags["saas.calendar.sync.outcome"] == "success"


def test_a_lost_token(night: Night) -> None:
    """Everything is read again, the span says so, and the product goes on with a token, not without."""
    entries = "SELECT href, starts FROM entry JOIN subscription s ON s.id = subscription_id WHERE org_id = ? AND kind = 'caldav'"
    before = sorted(night.ask(entries, ORG))
    since = night.fault()
    lost = night.span(since, SYNCHRONISATION, night.lost)
    assert lost.tags["saas.org.id"] == ORG
    assert lost.tags["saas.calendar.sync.mode"] in ("full_resync", "emulated")

    def later(span: Span) -> bool:
        mode = span.tags.get("saas.calendar.sync.mode")
        return span.tags.get("saas.org.id") == ORG and mode == "incremental"

    night.span(lost.start_us, SYNCHRONISATION, later)
    assert sorted(night.ask(entries, ORG)) == before
    (mark,) = night.ask("SELECT mark FROM subscription WHERE org_id = ? AND kind = 'caldav'", ORG)
    assert not mark[0].startswith("fake-")


def test_an_entry_that_somebody_deleted(night: Night) -> None:
    """What is gone on the server is gone in the product, and counted."""
    statement = "SELECT href FROM entry JOIN subscription s ON s.id = subscription_id WHERE org_id = ? AND kind = 'caldav'"
    server.eventually(
        lambda: bool(night.ask(statement, ORG)), SECONDS, "entries of the organisation"
    )
    before = night.ask(statement, ORG)
    since = night.fault()
    login = (parts.CALENDAR_USER, parts.CALENDAR_PASSWORD)
    httpx.delete(before[0][0], auth=login, timeout=30).raise_for_status()
    gone = night.span(since, SYNCHRONISATION, lambda s: s.tags.get("saas.calendar.items.deleted"))
    assert (gone.tags["saas.org.id"], gone.tags["saas.calendar.items.deleted"]) == (ORG, 1)
    server.eventually(lambda: night.ask(statement, ORG) == before[1:], SECONDS, "the entry is gone")


def test_a_job_that_fails(night: Night) -> None:
    """The run says so, and what it was; other jobs go on, and so does this one later."""
    since = night.fault("job fail payroll.export")
    assert night.run(since, "payroll.export", "failure").tags["error.type"] == "JobFault"
    night.run(since, "material.import", "success")
    night.run(night.fault(), "payroll.export", "success")


def test_a_job_that_hangs(night: Night) -> None:
    """As long as it does there is no other run of it; then it ends, and goes on."""
    since = night.fault("job hang material.import")
    night.run(since + 2 * PERIOD_SECONDS * 1_000_000, "payroll.export", "success")
    released = night.fault()
    # It may have begun before the line was there, and come to where it waits afterwards.
    hung = night.span(
        since - PERIOD_SECONDS * 1_000_000,
        "material.import",
        lambda s: _end(s) > released > s.start_us,
    )
    assert hung.tags["saas.job.outcome"] == "success"
    night.run(released, "material.import", "success")


def test_a_backup_that_is_damaged(night: Night) -> None:
    """Made without complaint, found by verification, whole again with the next one."""
    since = night.fault("backup corrupt")
    assert night.run(since, "backup.verify", "failure").tags["error.type"] == "BackupError"
    night.run(since, "backup.create", "success")
    night.run(night.fault(), "backup.verify", "success")


def test_workers_that_stop(night: Night) -> None:
    """What is published waits in the queue, and is delivered when they go on."""
    waiting = "SELECT count(*) FROM calendar_queue"
    server.eventually(lambda: night.ask(waiting) == [(0,)], SECONDS, "the queue is empty")
    night.fault("worker stop")
    # A worker that has just looked takes what is there, and then waits.
    time.sleep(4 * POLL_SECONDS)
    night.publish()
    run = night.run(int(time.time() * 1e6), "payroll.export", "success")
    assert night.ask(waiting) == [(len(CUSTOMERS),)]
    since = night.fault()
    delivery = night.span(since, job_checks.DELIVERY, lambda span: span.start_us > run.start_us)
    (request,) = night.jaeger.by_id(delivery.links).values()
    assert request.roots()[0].tags["http.route"] == "/planning/plans/{plan_id}/publish"
    server.eventually(lambda: night.ask(waiting) == [(0,)], SECONDS, "the queue is empty again")


def test_the_jobs_know_nothing_of_the_shim(jobs: Environment, tmp_path: Path) -> None:
    """Where the package is not installed they do their work all the same."""
    program = """
import sys
sys.modules["otel_shim"] = None
sys.path.insert(0, sys.argv[1])
from api import optional_identity, optional_operations, scheduler, seed
from api.jobs import JOBS
assert not optional_identity.INSTALLED and not optional_operations.INSTALLED
seed.ensure()
for job in JOBS.values():
    if job.name not in ("calendar.synchronize", "material.import"):  # these need their servers
        job.run()
assert len(scheduler.make_scheduler().get_jobs()) == len(JOBS) == 9
"""
    done = subprocess.run(
        [jobs.program("python"), "-c", program, str(parts.SAAS)],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "exports").iterdir())) == len(CUSTOMERS)
    assert len(list((tmp_path / "backups").iterdir())) == 2


def _end(span: Span) -> int:
    return span.start_us + span.duration_us


def _of(provider: str) -> Callable[[Span], bool]:
    return lambda span: span.tags.get("saas.calendar.provider") == provider


def test_telemetry_arrives_beside_urllib3_future(
    jobs: Environment, backend: server.Backend, tmp_path: Path
) -> None:
    """The HTTP client of caldav takes urllib3's place, the exporter's too: spans arrive all the same."""
    which = "import urllib3; assert int(urllib3.__version__.split('.')[2]) >= 900, urllib3"
    service = server.telemetry("beside-urllib3-future", backend.otlp)
    script(jobs, ("-c", which + ONE_LINER), service, tmp_path)
    assert len(arrived(backend, "beside-urllib3-future", 3)) == 1


@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_it_ends_beside_urllib3_future(jobs: Environment, tmp_path: Path, kind: str) -> None:
    """With a Collector that does not answer a process ends soon, and says once that nothing gets through."""
    with collectors.BROKEN[kind]() as collector:
        env = server.telemetry("unheard-beside-urllib3-future", collector.url)
        ended = script(jobs, ("-c", FULL_QUEUES), env, tmp_path)
    assert ended.seconds < 30
    assert len(server.lines_with(ended.output, "telemetry cannot be exported")) == 1
