"""Celery and RQ on a real Redis, under the launcher: one story of a message, and its queue from outside."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.saas.demo.stack import Part, Running, Stack, clean_environment

from . import collectors, environments, exported_metrics, otlp, postgres, redis_server, server
from .apps import people
from .environments import APPS, Environment
from .redis_server import Redis

SECONDS = 90.0
PATIENCE = "600"
"""Seconds for which an exporter waits and tries again; with those, the SDK ends each signal after 30."""
ENDS_SECONDS = 25.0
"""Given to a worker whose processes all wait 3 s at most for their last telemetry, on a busy machine."""
PERSON = people.PEOPLE[5]
DEPTH, AGE = "saas.queue.depth", "saas.queue.oldest.age"


@pytest.fixture(scope="module")
def environment() -> Environment:
    """The libraries for queues beside the wheel."""
    return environments.make(environments.QUEUES)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of the test's own."""
    with redis_server.redis(tmp_path) as started:
        yield started


@dataclass(frozen=True)
class System:
    """One of the two libraries: its application, what is asked for, and how its worker is started."""

    module: str
    ask: str
    job: str
    queue: str
    worker: tuple[str, ...]


CELERY = System(
    "apps.tasks",
    "calendar.sync",
    "calendar.sync",
    "celery",
    ("celery", "-A", "apps.tasks", "worker", "-c", "2", "-Q", "celery,reports", "-l", "INFO"),
)
RQ = System("apps.rq_jobs", "sync", "apps.rq_jobs.sync", "reports", ("rq", "worker", "reports"))
BOTH = pytest.mark.parametrize("system", [CELERY, RQ], ids=["celery", "rq"])


@dataclass(frozen=True)
class Place:
    """Where a test's processes run: Redis and where they send telemetry."""

    environment: Environment
    redis: Redis
    stack: Stack
    otlp: str
    more: Mapping[str, str]

    def env(self, service: str) -> dict[str, str]:
        """What an operator sets."""
        return {
            **server.telemetry(service, self.otlp),
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "TASKS_BROKER": self.redis.url,
            "RQ_REDIS_URL": self.redis.url,
            "PYTHONPATH": str(APPS.parent),
            **self.more,
        }

    def api(self, system: System, service: str = "asking") -> server.Server:
        """Start the application that asks."""
        app = f"{system.module}:api"
        return server.start(self.stack, self.environment, self.env(service), app=app)

    def worker(self, system: System, service: str = "working") -> Running:
        """Start a worker; it needs no port to be ready."""
        argv = (self.environment.program(system.worker[0]), *system.worker[1:])
        launcher = self.environment.program("opentelemetry-instrument")
        return self.stack.start(Part(service, (launcher, *argv), "", env=self.env(service)))

    def run(self, system: System, name: str, count: int = 1) -> None:
        """Ask from a script that ends, without telemetry."""
        program = (self.environment.program("python"), "-m", system.module, name, str(count))
        subprocess.run(
            program,
            env=clean_environment() | self.env("script"),
            cwd=self.stack.out,
            check=True,
            timeout=120,
            capture_output=True,
        )


def asked(api: server.Server, name: str) -> httpx.Response:
    answer = api.get(f"/ask/{name}", PERSON.token)
    assert answer.status_code == 200, answer.text
    return answer


@BOTH
@pytest.mark.parametrize("relation", ["link", "parent"])
def test_one_story_in_jaeger(
    environment: Environment,
    redis: Redis,
    stack: Stack,
    backend: server.Backend,
    system: System,
    relation: str,
) -> None:
    """From the request over the wait to the run and back, as a link (the default) or as one trace."""
    name = f"{system.worker[0]}-{relation}"
    more = {} if relation == "link" else {"OTEL_SHIM_QUEUE_RELATION": relation}
    place = Place(environment, redis, stack, backend.otlp, more)
    api = place.api(system, f"asking-{name}")
    asked(api, system.ask)
    place.worker(system, f"working-{name}")
    expected = {f"send {system.job}", f"wait {system.queue}", system.job}
    found: dict[str, dict[str, Any]] = {}

    def arrived() -> bool:
        for service in (f"asking-{name}", f"working-{name}"):
            answer = httpx.get(f"{backend.jaeger.url}/api/traces", params={"service": service})
            for trace in answer.json().get("data") or ():
                found.update({span["operationName"]: span for span in trace["spans"]})
        return expected <= found.keys()

    server.eventually(arrived, SECONDS, f"Jaeger has {expected}")
    check_story(found, system, relation)


def check_story(found: dict[str, dict[str, Any]], system: System, relation: str) -> None:
    sent, waited, ran = (
        found[each] for each in (f"send {system.job}", f"wait {system.queue}", system.job)
    )
    request = next(span for name, span in found.items() if name.startswith("GET /ask"))
    assert _refers(sent, request, "CHILD_OF")
    assert _refers(waited, sent, "CHILD_OF")
    assert _refers(waited, ran, "FOLLOWS_FROM")
    together = relation == "parent"
    assert (ran["traceID"] == request["traceID"]) is together
    assert _refers(ran, sent, "CHILD_OF" if together else "FOLLOWS_FROM")
    assert waited["startTime"] + waited["duration"] <= ran["startTime"]
    tags = {tag["key"]: tag["value"] for tag in ran["tags"]}
    assert tags["saas.operation"] == system.job
    assert tags["saas.job.outcome"] == "success"
    assert tags["span.kind"] == "consumer"
    asker = {tag["key"]: tag["value"] for tag in request["tags"]}
    assert asker["saas.org.id"] == PERSON.org_id
    assert "user.hash" not in tags  # who asked is not who works
    if not together:
        assert "saas.org.id" not in tags


def _refers(span: dict[str, Any], other: dict[str, Any], how: str) -> bool:
    return any(
        (each["refType"], each["traceID"], each["spanID"])
        == (how, other["traceID"], other["spanID"])
        for each in span["references"]
    )


@pytest.fixture
def taker() -> Iterator[collectors.Fake]:
    """A collector that is well, and keeps what it is sent."""
    with collectors.healthy() as fake:
        yield fake


@pytest.fixture
def place(environment: Environment, redis: Redis, taker: collectors.Fake, stack: Stack) -> Place:
    """Workers are stopped before the collector is, so that none waits for it at its end."""
    return Place(environment, redis, stack, taker.url, {})


def newest(fake: collectors.Fake, metric: str, service: str, **labels: str) -> float | None:
    """The last value of a series that a service sent."""
    wanted = {key.replace("_", "."): value for key, value in labels.items()}
    values = [
        point.value
        for point in exported_metrics.of(fake, metric)
        if point.resource["service.name"] == service and wanted.items() <= point.attributes.items()
    ]
    return values[-1] if values else None


@BOTH
def test_a_queue_that_nobody_works_on(place: Place, taker: collectors.Fake, system: System) -> None:
    """Without a worker depth and age rise, as the asking application reads them at the broker."""
    api = place.api(system)
    queue = {"saas_queue_name": system.queue}
    ready = {**queue, "saas_queue_state": "ready"}
    for count in (1, 2, 3):
        asked(api, system.ask)
        server.eventually(
            lambda count=count: newest(taker, DEPTH, "asking", **ready) == count,  # type: ignore[misc]
            SECONDS,
            f"{count} wait",
        )
    age = newest(taker, AGE, "asking", **queue)
    assert age is not None
    server.eventually(
        lambda: (newest(taker, AGE, "asking", **queue) or 0) > age + 2, SECONDS, "the oldest ages"
    )
    assert newest(taker, "saas.queue.workers", "asking", **queue) == 0
    assert newest(taker, "saas.queue.arrivals", "asking", **queue) == 3
    place.worker(system)
    server.eventually(
        lambda: newest(taker, DEPTH, "asking", **ready) == 0, SECONDS, "a worker empties it"
    )
    server.eventually(
        lambda: newest(taker, AGE, "asking", **queue) == 0, SECONDS, "nothing is old any more"
    )
    server.eventually(lambda: _sum(taker, "saas.queue.completions") == 3, SECONDS, "all are done")
    assert _sum(taker, "saas.queue.wait.duration") == 3
    assert _sum(taker, "saas.job.duration") == 3


def _sum(fake: collectors.Fake, metric: str, service: str = "working", **labels: str) -> float:
    """The last values of all series of a metric together."""
    wanted = {key.replace("_", "."): value for key, value in labels.items()}
    last = {
        (point.resource["service.instance.id"], *sorted(point.attributes.items())): point.value
        for point in exported_metrics.of(fake, metric)
        if point.resource["service.name"] == service and wanted.items() <= point.attributes.items()
    }
    return sum(last.values())


@BOTH
@pytest.mark.parametrize("fault", ["dead", "hanging"])
def test_a_broker_that_does_not_answer(
    place: Place, taker: collectors.Fake, system: System, fault: str
) -> None:
    """It is counted by its error, the application answers, and metrics go on; then it is read again."""
    api = place.api(system)
    asked(api, system.ask)
    ready = {"saas_queue_name": system.queue, "saas_queue_state": "ready"}
    server.eventually(lambda: newest(taker, DEPTH, "asking", **ready) == 1, SECONDS, "one waits")
    if fault == "dead":
        place.redis.stop()
    else:
        place.redis.hang()
    before = Counter(path for path, _ in taker.bodies)["/v1/metrics"]
    server.eventually(
        lambda: (newest(taker, "saas.queue.unreadable", "asking") or 0) >= 2,
        SECONDS,
        "it is counted",
    )
    began = time.monotonic()
    assert api.get("/health").status_code == 200
    assert time.monotonic() - began < 20, "a request waited for Redis"
    assert Counter(path for path, _ in taker.bodies)["/v1/metrics"] > before
    if fault == "dead":
        place.redis.start()
    else:
        place.redis.go_on()
    reads = len(list(exported_metrics.of(taker, DEPTH)))
    server.eventually(
        lambda: len(list(exported_metrics.of(taker, DEPTH))) > reads, SECONDS, "it is read again"
    )


FAILURES: dict[System, dict[str, list[tuple[str, str | None]]]] = {
    CELERY: {
        "reports.fail": [("failure", "ValueError")],
        "reports.flaky": [("failure", "ConnectionError")] * 2 + [("success", None)],
        "reports.killed": [("timeout", "TimeLimitExceeded")],
        "reports.lost": [("failure", "WorkerLostError")],
        "reports.ignored": [("success", None)],
    },
    RQ: {
        "fail": [("failure", "ValueError")],
        "lost": [("failure", "WorkHorseTerminated")],
        "slow": [("timeout", "JobTimeoutException")],
    },
}


@BOTH
def test_runs_that_fail(place: Place, taker: collectors.Fake, system: System) -> None:
    """Each attempt is told once, also where its process is killed; what exceptions say stays here."""
    place.worker(system)
    prefix = "" if system is CELERY else "apps.rq_jobs."

    def ran() -> Counter[tuple[Any, ...]]:
        return Counter(
            (span.name, span.attributes["saas.job.outcome"], span.attributes.get("error.type"))
            for span in otlp.spans(taker)
            if "saas.job.outcome" in span.attributes
        )

    expected: Counter[tuple[Any, ...]] = Counter()
    for name, outcomes in FAILURES[
        system
    ].items():  # one by one: a process that dies takes more along
        expected.update((prefix + name, *outcome) for outcome in outcomes)
        place.run(system, name)
        server.eventually(lambda: ran() == expected, SECONDS, f"{name} ran")
    server.eventually(
        lambda: _sum(taker, "saas.job.duration") == expected.total(), SECONDS, "all are counted"
    )
    told = [body for path, body in taker.bodies if path != "/v1/logs"]
    assert not [body for body in told if b"example.com" in body]


POOLS = {
    "threads": System(**{**vars(CELERY), "worker": (*CELERY.worker, "-P", "threads")}),
    "solo": System(**{**vars(CELERY), "worker": (*CELERY.worker, "-P", "solo")}),
    "simple": System(**{**vars(RQ), "worker": (*RQ.worker, "-w", "rq.worker.SimpleWorker")}),
    "spawn": System(**{**vars(RQ), "worker": (*RQ.worker, "-w", "rq.worker.SpawnWorker")}),
}
IDLE = {"threads": 2, "solo": 1, "simple": 1, "spawn": 1}


@pytest.mark.parametrize("pool", POOLS)
def test_other_pools(place: Place, taker: collectors.Fake, pool: str) -> None:
    """Where runs share a process, and where each has a program of its own: one run and one count each."""
    system = POOLS[pool]
    place.run(system, system.ask, 3)
    place.worker(system)
    queue = {"saas_queue_name": system.queue}
    server.eventually(lambda: _sum(taker, "saas.job.duration") == 3, SECONDS, "all are counted")
    server.eventually(
        lambda: sum(span.name == system.job for span in otlp.spans(taker)) == 3, SECONDS, "all ran"
    )
    assert _sum(taker, "saas.queue.completions", **queue) == 3
    idle = {**queue, "saas_worker_state": "idle"}
    server.eventually(
        lambda: newest(taker, "saas.queue.workers", "working", **idle) == IDLE[pool],
        SECONDS,
        "its workers are known",
    )


def test_attempts_of_one_run(place: Place, taker: collectors.Fake) -> None:
    """What is retried is one run: its attempts have its id and are numbered."""
    place.run(CELERY, "reports.flaky")
    place.run(RQ, "flaky")
    place.worker(CELERY, "celery")
    place.worker(RQ, "rq")

    def attempts(name: str) -> list[tuple[Any, Any, Any]]:
        found = [span.attributes for span in otlp.spans(taker) if span.name == name]
        return sorted(
            (each["saas.job.run.id"], each["saas.job.attempt"], each["saas.job.trigger"])
            for each in found
        )

    for name in ("reports.flaky", "apps.rq_jobs.fail"):
        server.eventually(lambda name=name: len(attempts(name)) == 3, SECONDS, name)  # type: ignore[misc]
        ids, numbers, triggers = zip(*attempts(name), strict=True)
        assert len(set(ids)) == 1
        assert numbers == (1, 2, 3)
        assert triggers == ("manual", "retry", "retry")


def test_nothing_of_the_task_before(place: Place, taker: collectors.Fake) -> None:
    """A task that binds an organisation leaves nothing to the next one in the same process."""
    for _ in range(3):
        place.run(CELERY, "mail.bind")
        place.run(CELERY, "calendar.sync")
    worker = place.worker(CELERY)

    def done() -> bool:
        return sum(s.name in ("mail.bind", "calendar.sync") for s in otlp.spans(taker)) == 6

    server.eventually(done, SECONDS, "all ran")
    spans = list(otlp.spans(taker))
    assert {s.attributes.get("saas.org.id") for s in spans if s.name == "mail.bind"} == {"acme"}
    assert {s.attributes.get("saas.org.id") for s in spans if s.name == "calendar.sync"} == {None}
    assert worker.process.poll() is None
    ends = [s for s in spans if "saas.job.outcome" in s.attributes]
    assert len({s.trace_id for s in ends}) == len(ends), "a trace of its own for each"


def test_what_beat_sends_was_scheduled(place: Place, taker: collectors.Fake) -> None:
    """A task of Celery's beat says that its schedule was due."""
    place.worker(CELERY)
    launcher = place.environment.program("opentelemetry-instrument")
    argv = (launcher, place.environment.program("celery"), "-A", "apps.tasks", "beat")
    place.stack.start(Part("beat", argv, "", env=place.env("beat")))

    def ticks() -> list[Any]:
        return [
            span.attributes["saas.job.trigger"]
            for span in otlp.spans(taker)
            if span.name == "calendar.tick"
        ]

    server.eventually(lambda: len(ticks()) >= 2, SECONDS, "it ticks")
    assert set(ticks()) == {"schedule"}


def test_the_last_of_a_pool_is_not_lost(place: Place, taker: collectors.Fake) -> None:
    """What a pool's process holds is sent when the worker ends; each process is an instance."""
    place = Place(
        place.environment,
        place.redis,
        place.stack,
        taker.url,
        {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_METRIC_EXPORT_INTERVAL": "600000"},
    )
    place.run(CELERY, "calendar.sync", 20)
    worker = place.worker(CELERY)
    done = "Task calendar.sync"

    def ran() -> bool:
        log = worker.log.read_text(errors="replace")
        return sum(done in line and "succeeded" in line for line in log.splitlines()) == 20

    server.eventually(ran, SECONDS, "all ran")
    assert not list(otlp.spans(taker))
    place.stack.end("working")
    runs = [span for span in otlp.spans(taker) if span.name == "calendar.sync"]
    assert len(runs) == 20
    instances = {span.resource["service.instance.id"] for span in runs}
    assert _sum(taker, "saas.queue.completions") == 20
    assert len(instances) <= 2


@BOTH
@pytest.mark.parametrize("broken", ["dead", "silent"])
def test_a_worker_ends_without_its_collector(
    environment: Environment, redis: Redis, stack: Stack, system: System, broken: str
) -> None:
    """However long an exporter would wait for an answer, and try again: no signal waits for another's end."""
    with collectors.BROKEN[broken]() as sink:
        place = Place(environment, redis, stack, sink.url, {"OTEL_EXPORTER_OTLP_TIMEOUT": PATIENCE})
        place.run(system, "calendar.sync" if system is CELERY else "sync")
        worker = place.worker(system)

        def ran() -> bool:
            log = worker.log.read_text(errors="replace")
            return "synchronising north" in log and (broken == "dead" or sink.connections > 0)

        server.eventually(ran, SECONDS, "it ran, and what it exports is under way")
        worker.process.terminate()
        assert worker.process.wait(ENDS_SECONDS) == 0


def test_a_table_in_postgresql(locked: Environment, tmp_path: Path) -> None:
    """Sync and async engines read the same; a row that is not due is delayed, others wait since they were."""
    with postgres.cluster() as database:
        done = subprocess.run(
            (locked.program("python"), "-m", "apps.table_queue"),
            env=clean_environment()
            | {"PYTHONPATH": str(APPS.parent), "QUEUE_DATABASE": database.url},
            cwd=tmp_path,
            check=False,
            timeout=120,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    for reading in json.loads(done.stdout.splitlines()[-1]):
        assert 100 <= reading.pop("oldest_age") < 200
        assert reading == {
            "ready": 2,
            "in_flight": 1,
            "delayed": 1,
            "dead": 1,
            "busy": None,
            "workers": None,
        }


WATCHED = {
    "celery": System(
        **{
            **vars(CELERY),
            "module": "apps.watched",
            "worker": ("celery", "-A", "apps.watched", "worker", "-c", "2", "-l", "INFO"),
        }
    ),
    "rq": System(**{**vars(RQ), "module": "apps.watched"}),
}
NIGHT = {"saas_operation": "night.run"}
HOUR = 3600.0
FEED = b"""\
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//t//EN
BEGIN:VEVENT
UID:1
DTSTAMP:20260101T000000Z
DTSTART:20260105T090000Z
END:VEVENT
END:VCALENDAR
"""


def _last(fake: collectors.Fake, metric: str, **labels: str) -> dict[str, float]:
    """The last value of a series of each process of the worker's service."""
    wanted = {key.replace("_", "."): value for key, value in labels.items()}
    return {
        point.resource["service.instance.id"]: point.value
        for point in exported_metrics.of(fake, metric)
        if point.resource["service.name"] == "working"
        and wanted.items() <= point.attributes.items()
    }


@pytest.mark.parametrize("name", WATCHED)
def test_a_run_that_hangs_is_judged(
    place: Place, taker: collectors.Fake, tmp_path: Path, name: str
) -> None:
    """What a rule needs to judge a declared job comes from the worker's service while the run goes on, and after it."""
    until = tmp_path / "until"
    place = Place(
        place.environment, place.redis, place.stack, taker.url, {"WATCHED_UNTIL": str(until)}
    )
    place.worker(WATCHED[name])
    asked_at = time.time()
    place.run(WATCHED[name], f"{name}.run")

    def active() -> float:
        return max(_last(taker, "saas.job.active", **NIGHT).values(), default=0)

    server.eventually(lambda: active() == 1, SECONDS, "it is at work")
    time.sleep(3)  # a process that lives for several exports could tell of itself too
    for metric, value in (("saas.job.period", HOUR), ("saas.job.max_runtime", 1.0)):
        assert set(_last(taker, metric, saas_operation="night.run").values()) == {value}
    declared = _last(taker, "saas.job.declared.timestamp", **NIGHT)
    started = _last(taker, "saas.job.last_start.timestamp", **NIGHT)
    assert min(declared.values()) > asked_at - 120
    assert asked_at - 1 <= max(started.values()) <= time.time()
    assert not _last(taker, "saas.job.last_success.timestamp", **NIGHT)
    if name == "rq":
        assert len(declared) == len(started) == 1, "only the worker tells, no horse"
    until.touch()
    server.eventually(lambda: active() == 0, SECONDS, "it is over")
    success = _last(taker, "saas.job.last_success.timestamp", **NIGHT)
    assert max(success.values()) > max(started.values())
    assert _sum(taker, "saas.job.overruns", **NIGHT) == 1
    assert _sum(taker, "saas.job.duration", **NIGHT) == 1
    assert _sum(taker, "saas.job.overlaps", **NIGHT) == 0


def test_calendars_of_work_horses(place: Place, taker: collectors.Fake, tmp_path: Path) -> None:
    """What RQ's worker forks for a job synchronises a feed: the worker knows when that last succeeded."""
    with collectors.listening(collectors.answering("200 OK", FEED)) as feed:
        place = Place(
            place.environment,
            place.redis,
            place.stack,
            taker.url,
            {"WATCHED_FEED": f"{feed.url}/a.ics"},
        )
        place.worker(WATCHED["rq"])
        asked_at = time.time()
        for count in (1, 2):
            place.run(WATCHED["rq"], "rq.read")
            server.eventually(
                lambda count=count: _sum(taker, "saas.calendar.sync.duration") == count,  # type: ignore[misc]
                SECONDS,
                f"{count} synchronised",
            )
        success = _last(taker, "saas.calendar.oldest_success.timestamp")
        assert len(success) == 1
        assert asked_at < max(success.values()) <= time.time()
        assert (
            _sum(taker, "saas.calendar.items") == 2
        )  # new to each horse, which knows nothing of the one before
