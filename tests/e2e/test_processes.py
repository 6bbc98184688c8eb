"""Beginning and end of processes: what is queued is sent, what is killed loses little, what is off costs nothing."""

from __future__ import annotations

import os
import re
import resource
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.saas.demo import parts
from examples.saas.demo.ports import free_ports
from examples.saas.demo.stack import Part, Stack, clean_environment

from . import collectors, exported_metrics, matrix, otlp, server
from .apps.people import PEOPLE
from .environments import APPS, Environment
from .matrix import Cell
from .telling import FIGURE
from .test_matrix import start

STARTS = 5
BATCH_MILLIS = 1000
ANSWER_SECONDS = 30.0
"""Until when every worker must have answered a request."""
SENT_AT_ITS_END = {
    "OTEL_BSP_SCHEDULE_DELAY": "600000",
    "OTEL_BLRP_SCHEDULE_DELAY": "600000",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_METRIC_EXPORT_INTERVAL": "600000",
}
"""Delays so long that only the end of the process sends anything."""
ROUTE = "/async/{order}"
SERVERS = (
    Cell(matrix.ALONE, matrix.UVICORN, matrix.FASTAPI),
    Cell(matrix.ALONE, matrix.UVICORN, matrix.STARLETTE_OLD),
    Cell(matrix.ALONE, matrix.UVICORN_WORKERS, matrix.FASTAPI),
    Cell(matrix.ALONE, matrix.UVICORN_RELOAD, matrix.FASTAPI),
    Cell(matrix.ALONE, matrix.GUNICORN, matrix.CONTRIB),
    Cell(matrix.ALONE, matrix.GUNICORN_PRELOAD, matrix.FASTAPI),
    Cell(matrix.ALONE, matrix.HYPERCORN, matrix.FASTAPI),
)
LOADED = """
import json, sys
print(json.dumps(sorted(n for n in sys.modules if n.startswith(("otel_shim", "opentelemetry.sdk")))))
"""


@pytest.fixture
def env(tmp_path: Path, locked: Environment) -> dict[str, str]:
    """What an operator sets, with a database of the test's own."""
    server.fill_database(locked, tmp_path)
    return {
        "DESK_DATABASE": str(tmp_path / "desk.db"),
        "PYTHONPATH": str(APPS.parent),
        "OTEL_METRICS_EXPORTER": "none",
    }


def ask(shop: server.Server, workers: int = 1) -> Counter[int]:
    """Twenty requests, and as many more until so many processes have answered; gives how many each did."""
    answered: Counter[int] = Counter()
    deadline = time.monotonic() + ANSWER_SECONDS
    while answered.total() < 20 or len(answered) < workers:
        assert time.monotonic() < deadline, f"only {answered} of {workers} answered"
        path = f"/async/{answered.total()}"
        answered[shop.get(path, PEOPLE[0].token).json()["pid"]] += 1
    return answered


def served(found: Iterable[otlp.Span]) -> list[otlp.Span]:
    """The server spans of what ``ask`` asked for."""
    return [span for span in found if span.attributes.get("http.route") == ROUTE]


def by_process(found: Iterable[Any]) -> Counter[str]:
    """How many spans, records or points there are of each process."""
    return Counter(str(each.resource["service.instance.id"]) for each in found)


def told(records: Iterable[otlp.Record]) -> list[otlp.Record]:
    """What the application logged for each request."""
    return [record for record in records if record.text == "no paper"]


def counted(sink: collectors.Fake) -> list[int]:
    """The requests that the newest export of each process counts, in ascending order."""
    newest: dict[str, float] = {}
    for point in exported_metrics.of(sink, "http.server.request.duration"):
        if point.attributes.get("http.route") == ROUTE:
            newest[str(point.resource["service.instance.id"])] = point.value
    return sorted(map(int, newest.values()))


@pytest.mark.parametrize("cell", SERVERS, ids=str)
def test_what_is_queued_is_sent_when_the_server_is_asked_to_end(
    cell: Cell, stack: Stack, env: dict[str, str]
) -> None:
    """With exports that would wait for ten minutes, SIGTERM sends spans, logs and metrics of every worker."""
    with collectors.healthy() as sink:
        shop = start(stack, cell, server.telemetry("ends", sink.url) | env | SENT_AT_ITS_END)
        asked = ask(shop, cell.server.workers)
        assert not sink.bodies
        shop.stop(20)
        spans, records, metrics = list(otlp.spans(sink)), list(otlp.records(sink)), counted(sink)
    each = sorted(asked.values())
    assert len(each) == cell.server.workers
    assert sorted(by_process(served(spans)).values()) == each
    assert sum(span.what == "query" for span in spans) == 2 * asked.total()
    assert sorted(by_process(told(records)).values()) == each
    assert metrics == each


def test_a_killed_worker_loses_at_most_its_last_batch(stack: Stack, env: dict[str, str]) -> None:
    """What a worker had sent before stays; the others lose nothing, and a new one takes its place."""
    cell = Cell(matrix.ALONE, matrix.GUNICORN, matrix.FASTAPI)
    delays = dict.fromkeys(
        ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"), str(BATCH_MILLIS)
    )
    with collectors.healthy() as sink:
        shop = start(stack, cell, server.telemetry("killed", sink.url) | env | delays)

        def arrived() -> tuple[int, int]:
            return len(served(otlp.spans(sink))), len(told(otlp.records(sink)))

        before = ask(shop, 2)
        everything = (before.total(), before.total())
        server.eventually(lambda: arrived() == everything, 20, "the first batches are there")
        last = ask(shop, 2)
        victim = min(last)
        os.kill(victim, signal.SIGKILL)
        server.eventually(lambda: bool(_alive(shop) - before.keys()), 30, "another worker serves")
        after = ask(shop, 2)
        shop.stop(20)
        spans, records = served(otlp.spans(sink)), told(otlp.records(sink))
    assert len(before) == len(last) == len(after) == 2
    assert victim not in after and after.keys() - before.keys()
    sent = (before + last + after).total()
    for found in (spans, records):
        assert sent - last[victim] <= len(found) <= sent
        assert len(by_process(found)) == len((before + last + after).keys()) == 3


def _alive(shop: server.Server) -> set[int]:
    """The processes that answer now."""
    return {shop.get("/health").json()["pid"] for _ in range(8)}


EDITION = """
from fastapi import FastAPI

app = FastAPI()

@app.get("/health")
def health():
    return {{}}

@app.get("/edition")
def edition():
    return {{"edition": {edition}}}
"""


def test_a_reload_flushes_the_old_process_and_traces_the_new(
    stack: Stack, locked: Environment, tmp_path: Path
) -> None:
    """A file is changed: the old process sends what it has and ends, the new one is instrumented."""
    code = tmp_path / "code" / "edited.py"
    code.parent.mkdir()
    code.write_text(EDITION.format(edition=1))
    (port,) = free_ports(1)
    with collectors.healthy() as sink:
        env = server.telemetry("reloads", sink.url) | SENT_AT_ITS_END
        argv = (
            *(locked.program("opentelemetry-instrument"), locked.program("uvicorn")),
            *("--app-dir", str(code.parent), "--reload", "--reload-dir", str(code.parent)),
            *("--port", str(port), "edited:app"),
        )
        part = Part("edited", argv, parts.url(port, "/health"), env=env)
        shop = server.ready(port, stack.start(part))

        def serves(edition: int) -> bool:
            try:
                return bool(shop.get("/edition").json() == {"edition": edition})
            except httpx.TransportError:  # in between
                return False

        def editions() -> Counter[str]:
            found = otlp.spans(sink)
            return by_process(s for s in found if s.attributes.get("http.route") == "/edition")

        assert serves(1) and not editions()
        code.write_text(EDITION.format(edition=2))
        server.eventually(lambda: serves(2), 30, "the new edition serves")
        server.eventually(lambda: len(editions()) == 1, 20, "the old process has sent its spans")
        (old,) = editions()
        assert serves(2)
        shop.stop(20)
        assert editions().keys() > {old} and len(editions()) == 2


def run(programs: Path, code: str, **variables: str) -> str:
    """Run Python code under the launcher; gives its standard output."""
    done = subprocess.run(
        [str(programs / "opentelemetry-instrument"), str(programs / "python"), "-c", code],
        env=clean_environment() | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_disabled_sdk_loads_nothing(locked: Environment) -> None:
    """With OTEL_SDK_DISABLED neither the SDK nor a capture is imported; without it both are."""
    off = run(locked.path / "bin", LOADED, OTEL_SDK_DISABLED="true")
    assert not re.search(r"opentelemetry\.sdk|otel_shim\.(distro|capture|signals|context)", off)
    on = run(locked.path / "bin", LOADED, OTEL_TRACES_EXPORTER="none", OTEL_LOGS_EXPORTER="none")
    assert "opentelemetry.sdk.trace" in on and "otel_shim.capture.fastapi" in on


def _spent() -> float:
    """The CPU seconds of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_the_launcher_starts_beside_the_official_one(
    record_property: Callable[[str, object], None], locked: Environment
) -> None:
    """Both are started in turns; the ratio of the CPU they take is printed, for whoever reads it."""
    ours, official = locked.path / "bin", matrix.official_launcher() / "bin"
    code = "import fastapi, sqlalchemy.ext.asyncio, httpx"
    seconds: dict[str, list[float]] = {"ours": [], "official": [], "disabled": []}
    quiet = {f"OTEL_{each}_EXPORTER": "otlp" for each in ("TRACES", "METRICS", "LOGS")}
    quiet |= {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_SHIM_SECRET": server.SECRET,
    }
    with collectors.healthy() as sink:
        quiet["OTEL_EXPORTER_OTLP_ENDPOINT"] = sink.url
        for _ in range(STARTS):
            for name, programs, more in (
                ("ours", ours, {}),
                ("official", official, {}),
                ("disabled", ours, {"OTEL_SDK_DISABLED": "true"}),
            ):
                before = _spent()
                run(programs, code, **quiet, **more)
                seconds[name].append(_spent() - before)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    record_property(
        FIGURE,
        f"CPU of a start by the launcher, median of {STARTS}: ours {middle['ours']:.2f} s, official "
        f"{middle['official']:.2f} s, ratio {middle['ours'] / middle['official']:.2f}; "
        f"ours with OTEL_SDK_DISABLED {middle['disabled']:.2f} s",
    )
    assert all(len(values) == STARTS for values in seconds.values())
