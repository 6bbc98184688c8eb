"""Beginning and end of processes: what is queued is sent, what is killed loses little, what is off costs nothing."""

from __future__ import annotations

import os
import re
import resource
import signal
import statistics
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from examples.saas.demo.stack import Stack, clean_environment

from . import collectors, matrix, otlp, server
from .apps.people import PEOPLE
from .environments import APPS, Environment
from .matrix import Cell
from .test_matrix import start

STARTS = 5
BATCH_MILLIS = 1000
AT_ITS_END = "600000"
"""A delay of batches so long that only the end of the process sends them."""
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


def ask(shop: server.Server, count: int) -> Counter[int]:
    """So many requests; gives how many each process answered."""
    token = PEOPLE[0].token
    return Counter(shop.get(f"/async/{number}", token).json()["pid"] for number in range(count))


@pytest.mark.parametrize("cell", SERVERS, ids=str)
def test_what_is_queued_is_sent_when_the_server_is_asked_to_end(
    cell: Cell, stack: Stack, env: dict[str, str]
) -> None:
    """With batches that would wait for ten minutes, SIGTERM sends spans and logs of every worker."""
    delays = {"OTEL_BSP_SCHEDULE_DELAY": AT_ITS_END, "OTEL_BLRP_SCHEDULE_DELAY": AT_ITS_END}
    with collectors.healthy() as sink:
        shop = start(stack, cell, server.telemetry("ends", sink.url) | env | delays)
        ask(shop, 20)
        assert not list(otlp.spans(sink))
        shop.stop(20)
        spans, records = list(otlp.spans(sink)), list(otlp.records(sink))
    assert sum(s.attributes.get("http.route") == "/async/{order}" for s in spans) == 20
    assert sum(span.what == "query" for span in spans) == 40
    assert sum(record.text == "no paper" for record in records) == 20


def test_a_killed_worker_loses_at_most_its_last_batch(stack: Stack, env: dict[str, str]) -> None:
    """What a worker had sent before stays; the others lose nothing, and a new one takes its place."""
    cell = Cell(matrix.ALONE, matrix.GUNICORN, matrix.FASTAPI)
    delays = dict.fromkeys(
        ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"), str(BATCH_MILLIS)
    )
    with collectors.healthy() as sink:
        shop = start(stack, cell, server.telemetry("killed", sink.url) | env | delays)

        def arrived() -> int:
            return sum(s.attributes.get("http.route") == "/async/{order}" for s in otlp.spans(sink))

        before = ask(shop, 20)
        server.eventually(lambda: arrived() == 20, 20, "the first batches are there")
        (victim, _) = before.most_common(1)[0]
        last = ask(shop, 10)
        os.kill(victim, signal.SIGKILL)
        server.eventually(lambda: set(_alive(shop)) != set(before), 30, "another worker serves")
        after = ask(shop, 10)
        assert victim not in after
        shop.stop(20)
        found = arrived()
        instances = {span.resource["service.instance.id"] for span in otlp.spans(sink)}
    assert 40 - last[victim] <= found <= 40
    assert len(instances) == len(before.keys() | last.keys() | after.keys())


def _alive(shop: server.Server) -> Counter[int]:
    """The processes that answer now."""
    return Counter(shop.get("/health").json()["pid"] for _ in range(8))


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
    capsys: pytest.CaptureFixture[str], locked: Environment
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
    with capsys.disabled():
        print(
            f"\nCPU of a start by the launcher, median of {STARTS}: ours {middle['ours']:.2f} s, official "
            f"{middle['official']:.2f} s, ratio {middle['ours'] / middle['official']:.2f}; "
            f"ours with OTEL_SDK_DISABLED {middle['disabled']:.2f} s"
        )
    assert all(len(values) == STARTS for values in seconds.values())
