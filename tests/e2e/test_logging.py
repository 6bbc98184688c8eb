"""Logs as applications and servers really write them: correlated, JSON, each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.saas.demo.stack import Stack

from . import collectors, expected, matrix, otlp, server
from .apps.people import PEOPLE
from .apps.shop_logging import CODE
from .environments import APPS, Environment
from .matrix import Cell
from .test_matrix import start, who

ANNA = PEOPLE[0]
REQUESTS = 6
WAYS = [
    ("dict", matrix.UVICORN),
    ("structlog", matrix.UVICORN),
    ("structlog-formatter", matrix.UVICORN),
    ("structlog-alone", matrix.UVICORN),
    ("loguru", matrix.UVICORN),
    ("loguru-alone", matrix.UVICORN),
    ("dict", matrix.GUNICORN),
    ("structlog", matrix.HYPERCORN),
]
"""How the application sets logging up, and the server that has loggers of its own."""


@pytest.fixture
def env(tmp_path: Path, locked: Environment) -> dict[str, str]:
    """What an operator sets, with a database of the test's own."""
    server.fill_database(locked, tmp_path)
    return {
        "DESK_DATABASE": str(tmp_path / "desk.db"),
        "PYTHONPATH": str(APPS.parent),
        "OTEL_METRICS_EXPORTER": "none",
    }


def identity(request_id: str) -> expected.Identity:
    """Who must be on every line of a request."""
    return {
        "saas.org.id": ANNA.org_id,
        "user.hash": expected.user_hash(server.SECRET, ANNA),
        "saas.actor.type": "user",
        "saas.actor.role": ANNA.role,
        "saas.plan": ANNA.plan,
        "saas.request.id": request_id,
    }


def parsed(line: str) -> dict[str, Any]:
    """A line of ours, of structlog or of loguru."""
    found: dict[str, Any] = json.loads(line)
    if (record := found.get("record")) is not None:
        found = {**record["extra"], "message": record["message"], "logger": record["name"]}
    return {"message": found.get("event"), "logger": "", **found}


def is_one(found: list[Any]) -> Any:
    """The one that there is."""
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(("way", "by"), WAYS, ids=lambda value: getattr(value, "name", value))
def test_each_line_is_written_and_sent_once(
    way: str, by: matrix.Server, stack: Stack, env: dict[str, str]
) -> None:
    """The application's errors, the server's access lines and its error for what nobody handled."""
    cell = Cell(matrix.ALONE, by, matrix.FASTAPI)
    with collectors.healthy() as sink:
        env = server.telemetry("logs", sink.url) | env | {"SHOP_LOGGING": way}
        shop = start(stack, cell, env)
        answers = [shop.get(f"/sync/{number}", ANNA.token) for number in range(REQUESTS)]
        boom = shop.get("/boom", ANNA.token)
        shop.stop(20)
        lines = [parsed(line) for line in shop.log.splitlines() if line.strip()]
        records = list(otlp.records(sink))
    for number, answer in enumerate(answers):
        its = [n for n in lines if n.get("trace_id") == answer.headers["X-Trace-Id"]]
        error = is_one([line for line in its if line["message"] == "no paper"])
        is_one([line for line in its if line["logger"].endswith(".access")])
        sent = is_one(
            [r for r in records if r.text == "no paper" and r.attributes["order"] == number]
        )
        assert sent.trace_id == error["trace_id"]
        for fields in (error, sent.attributes):
            assert who(fields) == identity(answer.headers["X-Request-Id"])
            assert fields["order"] == number
            assert fields["saas.error.code"] == CODE
            assert fields["http.route"] == "/sync/{order}"
    assert boom.status_code == 500
    if by is matrix.HYPERCORN:  # its logger has a handler and propagates to the root's, shim or not
        lines = list({line["timestamp"]: line for line in lines}.values())
    fire_is_said_once(boom.headers, lines, records)


def fire_is_said_once(headers: Any, lines: list[Any], records: list[otlp.Record]) -> None:
    """What nobody handled is one line and one record, with request, trace, person, code and endpoint.

    Beside that record FastAPI's own telemetry sends an event of the exception, in place of a span event.
    """
    line = is_one([line for line in lines if "on fire" in line.get("exception.message", "")])
    fires = [r for r in records if "on fire" in str(r.attributes.get("exception.message"))]
    fire = is_one([record for record in fires if record.logger != "fastapi"])  # its own: the event
    assert fire.trace_id == line["trace_id"] == headers["X-Trace-Id"]
    for fields in (line, fire.attributes):
        assert who(fields) == identity(headers["X-Request-Id"])
        assert fields["saas.error.code"] == "RuntimeError"
        assert fields["http.route"] == "/boom"


FIRES = (
    Cell(matrix.ALONE, matrix.UVICORN, matrix.STARLETTE),
    Cell(matrix.ALONE, matrix.GUNICORN, matrix.STARLETTE_OLD),
    Cell(matrix.ALONE, matrix.GUNICORN, matrix.CONTRIB),
    Cell(matrix.ALONE, matrix.HYPERCORN, matrix.CONTRIB_SQL20),
)
"""Where the server span is not FastAPI's own; each server says in its own words what nobody handled."""


@pytest.mark.parametrize("cell", FIRES, ids=str)
def test_what_nobody_handled_is_correlated_everywhere(
    cell: Cell, stack: Stack, env: dict[str, str]
) -> None:
    """The server's log of it has trace and request, and who asked, and its span the code of the error."""
    with collectors.healthy() as sink:
        shop = start(stack, cell, server.telemetry("fires", sink.url) | env)
        boom = shop.get("/boom", ANNA.token)
        shop.stop(20)
        lines = [json.loads(line) for line in shop.log.splitlines() if line.strip()]
        spans, records = list(otlp.spans(sink)), list(otlp.records(sink))
    assert boom.status_code == 500
    if cell.server is matrix.HYPERCORN:  # as above
        lines = list({line["timestamp"]: line for line in lines}.values())
    fire_is_said_once(boom.headers, lines, records)
    root = is_one([s for s in spans if s.attributes.get("http.route") == "/boom"])
    assert root.trace_id == boom.headers["X-Trace-Id"]
    assert root.attributes["saas.error.code"] == "500"
    assert who(root.attributes) == identity(boom.headers["X-Request-Id"])


def test_an_instrumentor_that_is_left_out_for_a_version_is_said(
    stack: Stack, env: dict[str, str], tmp_path: Path
) -> None:
    """Once, as an error on the console of the running application, which serves all the same.

    What telemetry says of itself is not sent.
    """
    info = tmp_path / "site/picky-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: picky\nVersion: 1\nProvides-Extra: instruments\n"
        'Requires-Dist: httpx<0.1; extra == "instruments"\n'
    )
    (info / "entry_points.txt").write_text(
        "[opentelemetry_instrumentor]\npicky = picky:PickyInstrumentor\n"
    )
    cell = Cell(matrix.ALONE, matrix.UVICORN, matrix.FASTAPI)
    with collectors.healthy() as sink:
        more = {"PYTHONPATH": f"{tmp_path / 'site'}:{env['PYTHONPATH']}"}
        shop = start(stack, cell, server.telemetry("picky", sink.url) | env | more)
        assert shop.get("/sync/1", ANNA.token).headers["X-Trace-Id"]
        shop.stop(20)
        lines = [json.loads(line) for line in shop.log.splitlines()]
        records = list(otlp.records(sink))
    said = is_one([line for line in lines if line["message"].startswith("picky only instruments")])
    assert said["severity"] == "ERROR"
    assert "httpx<0.1" in said["message"].replace(" ", "") and "outside" in said["message"]
    assert not [record for record in records if record.text == said["message"]]
