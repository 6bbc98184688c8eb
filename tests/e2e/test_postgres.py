"""The sample SaaS on a real PostgreSQL: asyncpg and psycopg side by side, spans held against the server's log."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from examples.saas.api.people import PASSWORD
from examples.saas.demo import checks, journey_checks, journeys, parts
from examples.saas.demo.jaeger import Jaeger, Span

from . import postgres, product, server
from .environments import Environment

UNIQUE_VIOLATION = "23505"
ASYNC, SYNC = re.compile(r"\$\d+"), re.compile(r"%\(\w+\)s")
"""How asyncpg's and psycopg's statements name their parameters; psycopg sends them as the former."""
OWN = re.compile(r"(?!.*\bpg_(catalog|type)\b)\s*(SELECT|INSERT|UPDATE|DELETE)\b", re.DOTALL)
"""The application's statements, not what drivers ask the catalogue and not the ends of transactions."""
MANY_ROWS = re.compile(r"FROM \(VALUES .*\) AS imp_sen")
"""How SQLAlchemy inserts several rows with one statement and gets their keys back."""
GAUGES = re.compile(
    r"GROUP BY usage\.feature|count\(\*\) .*FROM privacy_request|sum\(CASE .*FROM calendar_queue",
    re.DOTALL,
)
"""What the product's gauges ask on the SDK's own thread, which the application leaves untraced."""
BATCH_SIZE = "db.operation.batch.size"
VALUES = (
    *checks.PERSONAL,
    PASSWORD,
    journeys.SHORT,
    journeys.LONG,
    str(journeys.BIRTH["born"]),
    journeys.MONTH,
    "apron",
    "vest-",
)
"""What the application sends as parameters, personal or not."""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind: in Jaeger, and in PostgreSQL's own log since the application started."""

    cluster: postgres.Cluster
    jaeger: Jaeger
    evidence: checks.Evidence
    logged: list[postgres.Statement]

    def queries(self) -> list[Span]:
        """The spans of the requests' queries."""
        spans = (span for trace in self.evidence.traces.values() for span in trace.spans)
        return [span for span in spans if "db.system.name" in span.tags]

    def raw(self) -> list[dict[str, Any]]:
        """All spans of the API as Jaeger keeps them, events included."""
        question = {"service": parts.API_SERVICE, "limit": "10000"}
        answer = httpx.get(f"{self.jaeger.url}/api/traces", params=question, timeout=60)
        return [span for trace in answer.json()["data"] for span in trace["spans"]]


@pytest.fixture(scope="module")
def outcome(
    backend: server.Backend, locked: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcome]:
    """Run the demo's traffic against API and connector, the API on PostgreSQL."""
    out = tmp_path_factory.mktemp("postgres")
    with postgres.cluster() as cluster:
        product.seed(locked, cluster.url, out)
        before = len(cluster.statements())
        evidence = product.evidence(locked, backend, cluster.url, out)
        yield Outcome(cluster, backend.jaeger, evidence, cluster.statements()[before:])


def test_the_application_answers_as_on_sqlite(outcome: Outcome) -> None:
    """All journeys work, with the same statuses."""
    product.hold(checks.of_answers(outcome.evidence.calls))


def test_identity_is_on_every_span(outcome: Outcome) -> None:
    """As on SQLite: nobody's is missing, nobody's is another's."""
    product.hold(checks.of_traces(outcome.evidence))
    product.hold(journey_checks.of_journeys(outcome.evidence))


def test_both_drivers_were_at_work(outcome: Outcome) -> None:
    """Guards the tests below: hundreds of statements each."""
    texts = [str(span.tags["db.query.text"]) for span in outcome.queries()]
    assert sum(bool(ASYNC.search(text)) for text in texts) > 500
    assert sum(bool(SYNC.search(text)) for text in texts) > 500


def test_one_span_for_each_query_that_the_server_ran(outcome: Outcome) -> None:
    """Statement by statement, the spans are those of the server's log; a batch is one span."""
    spans: Counter[str] = Counter()
    for span in outcome.queries():
        text = str(span.tags["db.query.text"])
        if OWN.match(text):
            rows_in_one = MANY_ROWS.search(text)
            spans[_shape(text)] += 1 if rows_in_one else int(span.tags.get(BATCH_SIZE, 1))
    traced = [each for each in outcome.logged if not GAUGES.search(each.text)]
    ran = Counter(_shape(each.text) for each in traced if OWN.match(each.text))
    assert ran.total() > 1_000
    assert spans == ran, (spans - ran, ran - spans)


def test_an_insert_of_many_rows_is_no_batch(outcome: Outcome) -> None:
    """It is one statement; `db.operation.batch.size` would say how many there are."""
    inserts = [
        span for span in outcome.queries() if MANY_ROWS.search(str(span.tags["db.query.text"]))
    ]
    assert inserts
    assert not [span for span in inserts if BATCH_SIZE in span.tags]


def _shape(text: str) -> str:
    """A statement without the names of its parameters, which differ from driver to server."""
    return " ".join(SYNC.sub("?", ASYNC.sub("?", text)).split())


def test_a_span_says_which_database_it_was(outcome: Outcome) -> None:
    """System, namespace, address and port, as the conventions name them."""
    wanted = {
        "db.system.name": "postgresql",
        "db.namespace": postgres.DATABASE,
        "server.address": "127.0.0.1",
        "server.port": outcome.cluster.port,
    }
    for span in outcome.queries():
        assert {key: span.tags.get(key) for key in wanted} == wanted, span
        assert span.tags["span.kind"] == "client"
        assert span.name == f"{span.tags['db.operation.name']} {postgres.DATABASE}"


def test_an_error_carries_the_servers_code(outcome: Outcome) -> None:
    """As many unique violations as the server counted, from both drivers; nothing else failed."""
    failed = [span for span in outcome.queries() if "error.type" in span.tags]
    codes = Counter(str(span.tags.get("db.response.status_code")) for span in failed)
    assert codes == Counter(each.sql_state for each in outcome.logged if not each.text)
    assert codes.keys() == {UNIQUE_VIOLATION}
    texts = {str(span.tags["db.query.text"]) for span in failed}
    assert any("INTO item" in text and ASYNC.search(text) for text in texts)
    assert any("INTO payslip" in text and SYNC.search(text) for text in texts)
    assert all(span.tags["otel.status_code"] == "ERROR" for span in failed)
    healthy = [span for span in outcome.queries() if "error.type" not in span.tags]
    assert not [span for span in healthy if "db.response.status_code" in span.tags]


def test_no_value_of_a_parameter_is_on_a_query_span(outcome: Outcome) -> None:
    """Neither on a tag nor in an event, neither of a person nor of anything else, nor the password."""
    raw = [span for span in outcome.raw() if "db.system.name" in _keys(span)]
    assert len(raw) >= len(outcome.queries())
    text = json.dumps(raw, ensure_ascii=False)
    assert not [value for value in (*VALUES, outcome.cluster.password) if value in text]


def test_no_person_is_on_any_span(outcome: Outcome) -> None:
    """Nor on those of requests, calls and operations; their own query string is not looked at here."""
    raw = outcome.raw()
    for span in raw:
        span["tags"] = [tag for tag in span["tags"] if tag["key"] != "url.query"]
    text = json.dumps(raw, ensure_ascii=False)
    assert not [value for value in (*checks.PERSONAL, PASSWORD) if value in text]


def _keys(span: dict[str, Any]) -> set[str]:
    return {tag["key"] for tag in span["tags"]}
