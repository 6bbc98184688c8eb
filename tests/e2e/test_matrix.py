"""Loader, server and framework in the combinations in which they are run: each really started, each correct."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.saas.demo import parts
from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Part, Stack

from . import collectors, environments, expected, matrix, otlp, server
from .apps.people import PEOPLE, Person
from .apps.shop_logging import CODE
from .environments import APPS
from .matrix import CELLS, Cell
from .telling import OUTCOME

REQUESTS, AT_ONCE = 20, 4
ANSWER_SECONDS = 30.0
"""Until when every worker must have answered a request."""
STOP_SECONDS = 20.0
SERVER_KEYS = {
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "network.protocol.version",
    "server.address",
    "server.port",
    "url.path",
    "url.scheme",
    "saas.operation",
}
"""What a server span says in every framework, beside identity."""
QUERY_KEYS = {"db.namespace", "db.operation.name", "db.query.text", "db.system.name"}


@dataclass(frozen=True)
class Asked:
    """One request and its answer."""

    cell: Cell
    number: int
    route: str
    person: Person
    status: int
    request_id: str
    trace_id: str
    pid: int

    @property
    def identity(self) -> expected.Identity:
        """Who must be on all that it left."""
        return {
            "saas.org.id": self.person.org_id,
            "user.hash": expected.user_hash(server.SECRET, self.person),
            "saas.actor.type": "user",
            "saas.actor.role": self.person.role,
            "saas.plan": self.cell.loader.plan(self.person),
            "saas.request.id": self.request_id,
        }


@dataclass(frozen=True)
class Run:
    """What a cell left behind."""

    cell: Cell
    asked: list[Asked]
    spans: list[otlp.Span]
    records: list[otlp.Record]
    connections: int
    log: str

    def lines(self) -> Iterator[dict[str, Any]]:
        """The output, parsed. A line that is no JSON fails, but for what is said before ours is loaded."""
        for line in self.log.splitlines():
            plain = line.startswith(("Configuration of ", *self.cell.loader.errors))
            yield (
                {"message": line, "severity": "WARNING", "logger": ""}
                if plain and self.cell.loader.other
                else json.loads(line)
            )


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory, locked: environments.Environment) -> Path:
    """The shop's database, which the cells only read."""
    folder = tmp_path_factory.mktemp("shop")
    server.fill_database(locked, folder)
    return folder / "desk.db"


def environment_of(cell: Cell, sink: str, database: Path, out: Path) -> dict[str, str]:
    """What the operator of a cell sets."""
    env = {
        **server.telemetry("print-shop", sink),
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "300",
        "OTEL_BLRP_SCHEDULE_DELAY": "300",
        "DESK_DATABASE": str(database),
        "PYTHONPATH": str(APPS.parent),
        **cell.loader.variables,
    }
    if cell.loader.beside:
        env["PYTHONPATH"] = f"{matrix.official_distro()}:{APPS.parent}"
    if cell.loader.file is not None:
        file = out / "otel.yaml"
        file.write_text(cell.loader.file.format(otlp=sink))
        env["OTEL_CONFIG_FILE"] = str(file)
    return env


def start(stack: Stack, cell: Cell, env: dict[str, str]) -> server.Server:
    """Start a cell under the launcher and wait until it serves."""
    environment = environments.make(cell.framework.environment)
    (port,) = free_ports(1)
    program, *arguments = cell.server.argv(cell.framework.app, port)
    argv = (
        *(environment.program("opentelemetry-instrument"), environment.program(program)),
        *arguments,
    )
    part = Part(f"{program}-{port}", argv, parts.url(port, "/health"), env=env)
    return server.ready(port, stack.start(part))


def ask(shop: server.Server, cell: Cell, number: int) -> Asked:
    """One request, by one of the people, for the sync or the async engine."""
    person = PEOPLE[number * 2 % len(PEOPLE)]
    route = ("/async", "/sync")[number % 2]
    answer = shop.get(f"{route}/{number}", person.token)
    headers = answer.headers
    return Asked(
        cell,
        number=number,
        route=route + "/{order}",
        person=person,
        status=answer.status_code,
        request_id=headers.get("X-Request-Id", ""),
        trace_id=headers.get("X-Trace-Id", ""),
        pid=answer.json().get("pid", 0),
    )


def ask_all(shop: server.Server, cell: Cell) -> list[Asked]:
    """Twenty requests, four at a time, and as many more as it takes until every worker has answered one."""
    asked: list[Asked] = []
    deadline = time.monotonic() + ANSWER_SECONDS
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while len(asked) < REQUESTS or len({each.pid for each in asked}) < cell.server.workers:
            assert time.monotonic() < deadline, f"only {Counter(a.pid for a in asked)} answered"
            numbers = range(len(asked), len(asked) + AT_ONCE)
            asked += pool.map(lambda number: ask(shop, cell, number), numbers)
    return asked


def run(cell: Cell, stack: Stack, database: Path, out: Path) -> Run:
    """Start a cell, send its requests, and end it by SIGTERM."""
    with collectors.healthy() as sink:
        shop = start(stack, cell, environment_of(cell, sink.url, database, out))
        asked = ask_all(shop, cell)
        shop.stop(STOP_SECONDS)  # what was not sent yet must be sent now
        spans, records = list(otlp.spans(sink)), list(otlp.records(sink))
        return Run(cell, asked, spans, records, sink.connections, shop.log)


@pytest.mark.parametrize("cell", matrix.cells(), ids=str)
def test_a_cell_gives_correct_traces_and_logs(
    cell: Cell,
    stack: Stack,
    database: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Twenty requests leave twenty traces and twenty error logs, all with their own identity."""
    outcome = run(cell, stack, database, tmp_path)
    assert {asked.status for asked in outcome.asked} == {200}, outcome.log
    assert len({asked.pid for asked in outcome.asked}) == cell.server.workers
    if cell.loader.off:
        nothing_is_left(outcome)
    else:
        traces_are_right(outcome)
        records_are_right(outcome)
        lines_are_right(outcome)
        workers_are_told_apart(outcome)
        errors_are_said(outcome)
    record_property(OUTCOME, summary(outcome))


def summary(outcome: Run) -> str:
    """What stands in the table for a cell that is as it should be."""
    count = len({asked.trace_id for asked in outcome.asked})
    served = f"{len(outcome.asked)} served, nothing sent"
    return served if outcome.cell.loader.off else f"{count} traces, {count} error logs"


def nothing_is_left(outcome: Run) -> None:
    """The application and the server write what they would without us; nobody is connected to."""
    assert outcome.connections == 0
    assert {(asked.request_id, asked.trace_id) for asked in outcome.asked} == {("", "")}
    lines = outcome.log.splitlines()
    assert sum(line == "ERROR:shop:no paper" for line in lines) == len(outcome.asked)
    assert not [line for line in lines if "otel" in line.lower() or line.startswith("{")]


def traces_are_right(outcome: Run) -> None:
    """One server span and two queries each, where they are wanted; nothing else."""
    by_trace: dict[str, list[otlp.Span]] = defaultdict(list)
    for span in outcome.spans:
        by_trace[span.trace_id].append(span)
    queries = 2 if outcome.cell.loader.queries else 0
    for asked in outcome.asked:
        spans = by_trace[asked.trace_id]
        assert Counter(s.what for s in spans) == +Counter(server=1, query=queries), spans
        (root,) = (span for span in spans if span.what == "server")
        root_is_right(root, asked)
        if queries:
            queries_are_right([span for span in spans if span is not root], root, asked)
    healthy = [s for s in outcome.spans if s.attributes.get("http.route") == "/health"]
    strangers = len(outcome.spans) - (1 + queries) * len(outcome.asked) - len(healthy)
    assert strangers == 0, [s.name for s in outcome.spans]


def root_is_right(root: otlp.Span, asked: Asked) -> None:
    """It says who asked for what, and what came of it."""
    assert who(root.attributes) == asked.identity
    assert root.name == f"GET {asked.route}"
    assert root.attributes["http.route"] == asked.route
    assert root.attributes["http.response.status_code"] == 200
    assert {k for k in root.attributes if k not in expected.KEYS} == SERVER_KEYS


def queries_are_right(queries: list[otlp.Span], root: otlp.Span, asked: Asked) -> None:
    """Below the server span; identity on all that was open when it became known."""
    first, second = sorted(
        queries, key=lambda span: "FROM agent" not in span.attributes["db.query.text"]
    )
    assert {first.parent_id, second.parent_id} == {root.span_id}
    assert who(second.attributes) == asked.identity
    # Authentication's query ends before it is known who asks; the Collector completes it.
    assert who(first.attributes) in ({"saas.request.id": asked.request_id}, asked.identity)
    for query in (first, second):
        assert {k for k in query.attributes if k not in expected.KEYS} == QUERY_KEYS
        assert query.name == "SELECT desk.db"


def records_are_right(outcome: Run) -> None:
    """One exported error record for each request, with trace, identity, endpoint and error code."""
    errors = {r.attributes["order"]: r for r in outcome.records if r.text == "no paper"}
    sent = sum(r.text == "no paper" for r in outcome.records)
    assert sent == len(errors) == len(outcome.asked)
    for asked in outcome.asked:
        record = errors[asked.number]
        assert record.trace_id == asked.trace_id
        assert record.severity == "ERROR"
        assert_describes(record.attributes, asked)


def lines_are_right(outcome: Run) -> None:
    """Every line is JSON; one error line for each request, and one access line where they are written."""
    lines = [line for line in outcome.lines() if line["message"] == "no paper"]
    errors = {line["order"]: line for line in lines}
    assert len(lines) == len(errors) == len(outcome.asked)
    for asked in outcome.asked:
        assert errors[asked.number]["trace_id"] == asked.trace_id
        assert_describes(errors[asked.number], asked)
    by_trace = Counter(
        line.get("trace_id") for line in outcome.lines() if line["logger"].endswith(".access")
    )
    assert {by_trace[asked.trace_id] for asked in outcome.asked} == {1}


def assert_describes(fields: Any, asked: Asked) -> None:
    """Who, which endpoint, which error, which process."""
    assert who(fields) == asked.identity
    assert fields["http.route"] == asked.route
    assert fields["http.request.method"] == "GET"
    assert fields["saas.error.code"] == CODE
    assert fields["pid"] == asked.pid


def workers_are_told_apart(outcome: Run) -> None:
    """Each process has an instance id of its own, for spans and logs alike."""
    traces = {asked.trace_id: asked.pid for asked in outcome.asked}
    items: list[otlp.Span | otlp.Record] = [*outcome.spans, *outcome.records]
    pairs = {
        (traces[item.trace_id], item.resource["service.instance.id"])
        for item in items
        if item.trace_id in traces
    }
    processes = set(traces.values())
    assert len(processes) == outcome.cell.server.workers
    assert len(pairs) == len(processes) == len({instance for _, instance in pairs})


def errors_are_said(outcome: Run) -> None:
    """What the operator got wrong is said once in each process, and nothing else is amiss."""
    errors = Counter(
        line["message"]
        for line in outcome.lines()
        if line["severity"] not in ("INFO", "DEBUG") and line["message"] != "no paper"
    )
    unexpected = [m for m in errors if not m.startswith(outcome.cell.loader.errors or ("\0",))]
    assert not unexpected
    for error in outcome.cell.loader.errors:
        assert any(message.startswith(error) for message in errors)


def who(attributes: Any) -> expected.Identity:
    """The attributes that say who or which request."""
    return {key: attributes[key] for key in expected.KEYS if key in attributes}


def test_the_cells_cover_every_way() -> None:
    """No loader, server or framework is without a cell; each server has several, each is told apart."""
    assert len({str(cell) for cell in CELLS}) == len(CELLS)
    named = {cell.loader.name for cell in CELLS} | {cell.server.name for cell in CELLS}
    named |= {cell.framework.name for cell in CELLS}
    known = {
        each.name
        for each in vars(matrix).values()
        if isinstance(each, (matrix.Loader, matrix.Server, matrix.Framework))
    }
    assert named == known
    assert all(count >= 2 for count in Counter(cell.server.name for cell in CELLS).values())
