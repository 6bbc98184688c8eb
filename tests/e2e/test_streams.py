"""What stays open for long: identity for each connection, and memory that does not grow with time."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.saas.demo.stack import running

from . import collectors, environments, expected, matrix, otlp, server, sockets
from .apps.feed import LOG_EACH, QUERY_EACH
from .apps.people import PEOPLE, Person
from .environments import APPS
from .matrix import Cell
from .test_matrix import start, who

ANNA, BORIS = PEOPLE[0], PEOPLE[7]
ROUNDS, ITEMS = 10, 100
LONG = 60_000
"""Messages of a long stream: an hour of them, at 17 a second."""
LONG_SECONDS = float(os.environ.get("STREAM_SECONDS", "0"))
"""How long a long stream takes: as short as it can, or an hour with `make hour`."""
KEPT_BYTES = 60.0
"""Growth for each message that is too much: a record of the log for each tenth of them, if kept, makes 180 of it."""
FEED = "apps.feed:app"
FEEDS = {
    "uvicorn, FastAPI": Cell(matrix.ALONE, matrix.UVICORN, replace(matrix.FASTAPI, app=FEED)),
    "uvicorn, FastAPI 0.110": Cell(
        matrix.ALONE, matrix.UVICORN, replace(matrix.CONTRIB_SQL20, app=FEED)
    ),
    "hypercorn, FastAPI": Cell(matrix.ALONE, matrix.HYPERCORN, replace(matrix.FASTAPI, app=FEED)),
    "gunicorn, Starlette": Cell(
        matrix.ALONE, matrix.GUNICORN, replace(matrix.STARLETTE, app="apps.feed_plain:app")
    ),
}
LONG_FEEDS = ("uvicorn, FastAPI", "uvicorn, FastAPI 0.110")
"""Those whose memory is watched."""


@dataclass(frozen=True)
class Feed:
    """A running feed and where its telemetry goes."""

    shop: server.Server
    sink: collectors.Fake

    def lines(self, request_id: str) -> list[dict[str, Any]]:
        """What the application logged for a request."""
        lines = (json.loads(line) for line in self.shop.log.splitlines())
        return [
            line
            for line in lines
            if line["logger"] == "feed" and line.get("saas.request.id") == request_id
        ]

    def resident_kib(self) -> int:
        """The memory that the server's process occupies."""
        status = Path(f"/proc/{self.shop.process.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1])

    def trace(self, trace_id: str, queries: int) -> list[otlp.Span]:
        """The spans of a request, once its server span and so many queries have arrived."""

        def spans() -> list[otlp.Span]:
            return [span for span in otlp.spans(self.sink) if span.trace_id == trace_id]

        def complete() -> bool:
            found = Counter(span.what for span in spans())
            return found["server"] == 1 and found["query"] >= queries

        server.eventually(complete, 30, f"server span and {queries} queries of {trace_id}")
        return spans()


def serve(cell: Cell, out: Path, pace: float) -> Iterator[Feed]:
    """The feed under the launcher, with its telemetry in a listener of its own; ``pace`` seconds an item."""
    environment = environments.make(cell.framework.environment)
    server.fill_database(environment, out)
    with collectors.healthy() as sink, running(out) as stack:
        env = {
            **server.telemetry("feed", sink.url),
            "OTEL_METRICS_EXPORTER": "none",
            "DESK_DATABASE": str(out / "desk.db"),
            "FEED_PACE_SECONDS": str(pace),
            "PYTHONPATH": str(APPS.parent),
        }
        yield Feed(start(stack, cell, env), sink)


@pytest.fixture(scope="module", params=FEEDS)
def feed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Feed]:
    """The feed in every framework and on every kind of server that speaks WebSocket."""
    yield from serve(FEEDS[request.param], tmp_path_factory.mktemp("feed"), 0)


@pytest.fixture(scope="module", params=LONG_FEEDS)
def long_feed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Feed]:
    """The feed on FastAPI's own telemetry and on the official instrumentor, in one process."""
    yield from serve(FEEDS[request.param], tmp_path_factory.mktemp("long"), LONG_SECONDS / LONG)


def identity_of(person: Person, request_id: str) -> expected.Identity:
    """Who must be on all that a connection leaves."""
    return {
        "saas.org.id": person.org_id,
        "user.hash": expected.user_hash(server.SECRET, person),
        "saas.actor.type": "user",
        "saas.actor.role": person.role,
        "saas.plan": person.plan,
        "saas.request.id": request_id,
    }


def check(feed: Feed, person: Person, headers: Any, items: int) -> None:
    """Every line, record and span of a connection carries its own identity; none is missing."""
    whole = identity_of(person, headers["x-request-id"])
    trace_id, count = headers["x-trace-id"], items // LOG_EACH

    def logged() -> list[dict[str, Any]]:
        return [n for n in feed.lines(headers["x-request-id"]) if n["message"] == "item"]

    server.eventually(lambda: len(logged()) == count, 30, "all lines are written")
    for line in logged():
        assert who(line) == whole and line["reader"] == person.id
        assert line["trace_id"] == trace_id
    check_records(feed, whole, trace_id, sorted(line["number"] for line in logged()))
    queries = 1 + items // QUERY_EACH
    spans = feed.trace(trace_id, queries)
    assert Counter(span.what for span in spans) == {"server": 1, "query": queries}
    (root,) = (span for span in spans if span.what == "server")
    assert who(root.attributes) == whole
    for span in spans:
        if "FROM ticket" in span.attributes.get("db.query.text", ""):
            assert who(span.attributes) == whole


def check_records(feed: Feed, whole: expected.Identity, trace_id: str, numbers: list[int]) -> None:
    """What is sent of the log is what is written."""

    def sent() -> list[otlp.Record]:
        found = otlp.records(feed.sink)
        return [r for r in found if r.trace_id == trace_id and r.text == "item"]

    server.eventually(lambda: len(sent()) >= len(numbers), 30, f"all records of {trace_id}")
    assert sorted(record.attributes["number"] for record in sent()) == numbers
    assert not [record for record in sent() if who(record.attributes) != whole]


def socket_session(feed: Feed, person: Person, rounds: int, items: int) -> dict[str, str]:
    """A connection over which so many items are read; gives the headers of its handshake."""
    target = f"/socket?token={person.token}"
    with sockets.connect(feed.shop.url, target) as connection:
        assert connection.status == 101
        for _ in range(rounds):
            connection.send(str(items))
            assert [connection.receive() for _ in range(items)][-1] == str(items)
    return connection.headers


def test_sockets_side_by_side_keep_their_own_identity(feed: Feed) -> None:
    """Two people at once on one server; ids are on the handshake beside the application's header."""
    with ThreadPoolExecutor(2) as pool:
        people = (ANNA, BORIS)
        sessions = list(pool.map(lambda p: socket_session(feed, p, ROUNDS, ITEMS), people))
    for person, headers in zip(people, sessions, strict=True):
        assert headers["x-feed"] == "7"
        check(feed, person, headers, ROUNDS * ITEMS)
    assert len({headers["x-request-id"] for headers in sessions}) == 2


@pytest.mark.parametrize("path", ["/events", "/stream"])
def test_streams_side_by_side_keep_their_own_identity(feed: Feed, path: str) -> None:
    """Server-sent events and a sync generator, for two people at once."""

    def read(person: Person) -> httpx.Headers:
        params = {"token": person.token, "count": str(ROUNDS * ITEMS)}
        return httpx.get(feed.shop.url + path, params=params, timeout=60).headers

    with ThreadPoolExecutor(2) as pool:
        sessions = list(pool.map(read, (ANNA, BORIS)))
    for person, headers in zip((ANNA, BORIS), sessions, strict=True):
        check(feed, person, headers, ROUNDS * ITEMS)


def test_a_long_stream_needs_no_more_memory_than_a_short_one(long_feed: Feed) -> None:
    """After its first third, thousands of logs and hundreds of queries later, memory has not grown."""
    params = {"token": ANNA.token, "count": str(LONG)}
    with httpx.stream("GET", long_feed.shop.url + "/events", params=params, timeout=60) as answer:
        held = []
        for seen, _ in enumerate((line for line in answer.iter_lines() if line), start=1):
            if seen % (LONG // 3) == 0:
                held.append(long_feed.resident_kib())
    keeps_nothing(held)
    check(long_feed, ANNA, answer.headers, LONG)


def test_a_long_socket_needs_no_more_memory_than_a_short_one(long_feed: Feed) -> None:
    """The same over a WebSocket."""
    with sockets.connect(long_feed.shop.url, f"/socket?token={BORIS.token}") as connection:
        held = []
        for _ in range(3):
            connection.send(str(LONG // 3))
            assert [connection.receive() for _ in range(LONG // 3)][-1] == str(LONG // 3)
            held.append(long_feed.resident_kib())
    keeps_nothing(held)
    check(long_feed, BORIS, connection.headers, LONG)


def keeps_nothing(held: list[int]) -> None:
    """From third to third: what is kept for each message makes both of them grow."""
    grown = [(late - early) * 1024 / (LONG // 3) for early, late in itertools.pairwise(held)]
    print("bytes for each message:", grown, held)
    assert len(grown) == 2 and min(grown) < KEPT_BYTES, grown
