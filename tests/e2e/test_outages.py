"""A Collector that is dead, silent or talks nonsense: the application does not notice, the operator does."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx
import pytest

from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Stack, running

from . import collectors, server
from .apps.people import PEOPLE
from .environments import Environment

QUEUE, BATCH = 512, 128
REQUESTS, AT_ONCE = 600, 20
"""Requests of a round, shared by so many clients."""
ROUNDS = 4
"""Rounds at most: what telemetry costs shows in each of them, what else the machine does in some."""
SPANS_EACH, LOGS_EACH = 4, 3
SLOWEST_SECONDS = 1.0
"""Longest answer that is accepted, or five times the longest with a Collector that is well."""
GROWTH_KIB = 6 * 1024
"""Memory that a round may add; kept without bound, what it emits takes 10 MiB."""
EXIT_SECONDS = 15.0
WARNING = "telemetry cannot be exported"
LIMITS = {
    "OTEL_BSP_MAX_QUEUE_SIZE": str(QUEUE),
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": str(BATCH),
    "OTEL_BLRP_MAX_QUEUE_SIZE": str(QUEUE),
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": str(BATCH),
    "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
}


@dataclass(frozen=True)
class Load:
    """What a round of requests took."""

    slowest: float
    growth_kib: int

    def costs_nothing(self, well: Load) -> bool:
        """Whether it went as with a Collector that is well."""
        quick = self.slowest < max(SLOWEST_SECONDS, 5 * well.slowest)
        return quick and self.growth_kib < GROWTH_KIB


def start(stack: Stack, environment: Environment, otlp: str, **env: str) -> server.Server:
    """The application that shows its counters, with small queues."""
    server.fill_database(environment, stack.out)
    settings = server.telemetry("outage", otlp) | LIMITS | env
    return server.start(stack, environment, settings, app="apps.counting:app")


def resident_kib(desk: server.Server) -> int:
    """The memory that the process holds now."""
    pid = str(desk.process.process.pid)
    shown = subprocess.run(["ps", "-o", "rss=", "-p", pid], capture_output=True, check=True)
    return int(shown.stdout)


async def _ask(client: httpx.AsyncClient, count: int) -> list[float]:
    took = []
    for number in range(count):
        person = PEOPLE[number % len(PEOPLE)]
        began = time.perf_counter()
        answer = await client.get("/async", headers={"Authorization": f"Bearer {person.token}"})
        took.append(time.perf_counter() - began)
        assert answer.status_code == 200
    return took


async def _ask_at_once(url: str, count: int) -> list[float]:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        each = await asyncio.gather(*(_ask(client, count // AT_ONCE) for _ in range(AT_ONCE)))
    return [seconds for took in each for seconds in took]


def load(desk: server.Server) -> Load:
    """One round of requests."""
    before = resident_kib(desk)
    took = asyncio.run(_ask_at_once(desk.url, REQUESTS))
    return Load(max(took), resident_kib(desk) - before)


def counters(desk: server.Server) -> dict[str, int]:
    """What telemetry counted so far."""
    found: dict[str, int] = desk.get("/counters").json()
    return found


def accounted(counted: Mapping[str, int], signal: str) -> int:
    """How many spans or log records are known to be delivered or lost."""
    kinds = ("exported", "export_failed", "queue_dropped")
    return sum(counted.get(f"{signal}_{kind}", 0) for kind in kinds)


def complaints(desk: server.Server) -> list[str]:
    """What telemetry wrote at a level of WARNING or above."""
    lines = [json.loads(line) for line in desk.log.splitlines()]
    return [
        line["message"]
        for line in lines
        if line["severity"] != "INFO" and line["logger"].startswith(("otel_shim", "opentelemetry"))
    ]


@pytest.fixture(scope="module")
def well(
    locked: Environment, backend: server.Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Load]:
    """A round with the real Collector, which takes everything."""
    with running(tmp_path_factory.mktemp("well")) as stack:
        desk = start(stack, locked, backend.otlp)
        load(desk)
        yield load(desk)


@pytest.mark.parametrize("kind", collectors.BROKEN)
def test_a_broken_collector_costs_neither_latency_nor_memory(
    stack: Stack, locked: Environment, well: Load, kind: str
) -> None:
    """Answers stay quick, memory bounded; a warning says what is wrong, counters say what is lost.

    It is one warning for the outage, and the process still ends when it is asked to.
    """
    with collectors.BROKEN[kind]() as collector:
        desk = start(stack, locked, collector.url)
        rounds = [load(desk)]  # fills every queue, and is not looked at
        while len(rounds) <= ROUNDS and not any(r.costs_nothing(well) for r in rounds[1:]):
            rounds.append(load(desk))
        counted = counters(desk)
        print(kind, rounds, counted, "well:", well)
        assert rounds[-1].costs_nothing(well), (rounds, well)
        for signal, each in (("spans", SPANS_EACH), ("logs", LOGS_EACH)):
            sent = each * REQUESTS * len(rounds)
            assert sent - accounted(counted, signal) <= QUEUE + BATCH
            assert accounted(counted, signal) > sent / 2
            assert f"{signal}_exported" not in counted
        server.eventually(lambda: bool(complaints(desk)), 10, "the outage was warned of")
        assert desk.get("/async", PEOPLE[0].token).status_code == 200
        ended = desk.stop(EXIT_SECONDS)
        print("ended after", ended)
        (warning,) = complaints(desk)
        assert WARNING in warning and "otel_shim.counters_snapshot()" in warning


def test_an_outage_that_ends_is_said_and_the_next_is_warned_of_anew(
    stack: Stack, locked: Environment
) -> None:
    """One warning for each outage, one line when it is over, and exporting goes on."""
    (port,) = free_ports(1)
    desk = start(stack, locked, f"http://127.0.0.1:{port}")

    def ask_until(holds: str, count: int) -> None:
        def seen() -> bool:
            desk.get("/async", PEOPLE[0].token)
            return len(server.lines_with(desk.log, holds)) == count

        server.eventually(seen, 30, f"{count} x {holds!r}")

    ask_until(WARNING, 1)
    with collectors.listening(collectors.answering("200 OK", b""), port):
        ask_until("telemetry is exported again", 1)
        server.eventually(
            lambda: counters(desk).get("spans_exported", 0) > 0, 10, "spans were exported"
        )
    ask_until(WARNING, 2)
    assert len(complaints(desk)) == 2


def test_a_backend_for_spans_alone_is_one_warning(stack: Stack, locked: Environment) -> None:
    """Logs and metrics that nobody takes are said once; spans are delivered, the last ones at the end too."""
    with collectors.listening(collectors.only_spans) as collector:
        desk = start(stack, locked, collector.url)

        def refused_often() -> bool:
            assert desk.get("/async", PEOPLE[0].token).status_code == 200
            paths = collector.paths
            return paths.count("/v1/logs") > 3 and paths.count("/v1/metrics") > 3

        server.eventually(refused_often, 30, "logs and metrics were refused several times")
        counted = counters(desk)
        assert counted["spans_exported"] > 0 and counted["logs_export_failed"] > 0
        assert "spans_export_failed" not in counted and "logs_exported" not in counted
        before = collector.paths.count("/v1/traces")
        desk.stop(EXIT_SECONDS)
        assert collector.paths.count("/v1/traces") > before
        (warning,) = complaints(desk)
        assert WARNING in warning
        assert not server.lines_with(desk.log, "telemetry is exported again")


def test_a_collector_that_says_yes_is_believed(stack: Stack, locked: Environment) -> None:
    """Junk under the status 200 changes nothing for the application; OTLP's success is the status."""
    with collectors.listening(collectors.answering("200 OK", collectors.JUNK)) as collector:
        desk = start(stack, locked, collector.url)
        for _ in range(5):
            assert desk.get("/async", PEOPLE[0].token).status_code == 200
        server.eventually(
            lambda: counters(desk).get("spans_exported", 0) >= 5 * SPANS_EACH, 10, "all exported"
        )
        assert not complaints(desk)
        desk.stop(EXIT_SECONDS)
