"""What stays open for long: identity for each connection, and memory that does not grow with time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.saas.demo.stack import running

from . import collectors, environments, expected, matrix, otlp, server, sockets
from .apps.feed import LOG_EACH, QUERY_EACH
from .apps.people import PEOPLE, Person

ANNA, BORIS = PEOPLE[0], PEOPLE[7]
ROUNDS, ITEMS = 10, 100
LONG = 30_000
"""Messages of a long stream; one a tenth of a second, as a feed sends them, is most of an hour."""
GROWTH_KIB = 24 * 1024


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


@pytest.fixture(scope="module", params=[matrix.FASTAPI, matrix.CONTRIB_SQL20], ids=lambda f: f.name)
def feed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Feed]:
    """The feed under the launcher, on FastAPI's own telemetry and on the official instrumentor."""
    environment = environments.make(request.param.environment)
    out = tmp_path_factory.mktemp("feed")
    server.fill_database(environment, out)
    with collectors.healthy() as sink, running(out) as stack:
        env = server.telemetry("feed", sink.url) | {"OTEL_METRICS_EXPORTER": "none"}
        yield Feed(server.start(stack, environment, env, app="apps.feed:app"), sink)


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


def who(attributes: Any) -> expected.Identity:
    """The attributes that say who or which request."""
    return {key: attributes[key] for key in expected.KEYS if key in attributes}


def check(feed: Feed, person: Person, headers: Any, items: int) -> None:
    """Every line and span of a connection carries its own identity; none is missing."""
    whole = identity_of(person, headers["x-request-id"])

    def logged() -> list[dict[str, Any]]:
        return [n for n in feed.lines(headers["x-request-id"]) if n["message"] == "item"]

    server.eventually(lambda: len(logged()) == items // LOG_EACH, 30, "all lines are written")
    for line in logged():
        assert who(line) == whole and line["reader"] == person.id
        assert line["trace_id"] == headers["x-trace-id"]
    queries = 1 + items // QUERY_EACH
    spans = feed.trace(headers["x-trace-id"], queries)
    assert Counter(span.what for span in spans) == {"server": 1, "query": queries}
    (root,) = (span for span in spans if span.what == "server")
    assert who(root.attributes) == whole
    for span in spans:
        if "FROM ticket" in span.attributes.get("db.query.text", ""):
            assert who(span.attributes) == whole


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


def test_a_long_stream_needs_no_more_memory_than_a_short_one(feed: Feed) -> None:
    """After its first third, thousands of logs and hundreds of queries later, memory has not grown."""
    params = {"token": ANNA.token, "count": str(LONG)}
    with httpx.stream("GET", feed.shop.url + "/events", params=params, timeout=60) as answer:
        early = 0
        for seen, _ in enumerate(line for line in answer.iter_lines() if line):
            if seen == LONG // 3:
                early = feed.resident_kib()
        late = feed.resident_kib()
    assert early and late - early < GROWTH_KIB
    check(feed, ANNA, answer.headers, LONG)


def test_a_long_socket_needs_no_more_memory_than_a_short_one(feed: Feed) -> None:
    """The same over a WebSocket."""
    with sockets.connect(feed.shop.url, f"/socket?token={BORIS.token}") as connection:
        seen = []
        for _ in range(3):
            connection.send(str(LONG // 3))
            assert [connection.receive() for _ in range(LONG // 3)][-1] == str(LONG // 3)
            seen.append(feed.resident_kib())
    assert seen[-1] - seen[0] < GROWTH_KIB
    check(feed, BORIS, connection.headers, LONG)


def test_a_machine_is_known_by_its_key(feed: Feed) -> None:
    """A dependency that gives an API key's record: organisation, type and pseudonym, and no person."""
    answer = httpx.get(feed.shop.url + "/machine", params={"token": "tok-1"})
    (line,) = feed.lines(answer.headers["x-request-id"])
    assert line["saas.org.id"] == "org-machines"
    assert line["saas.actor.type"] == "api_key"
    assert line["saas.actor.hash"] and "user.hash" not in line
