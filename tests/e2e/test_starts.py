"""Twenty starts with two workers each: every one serves, and every one ends when it is asked to."""

from __future__ import annotations

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from examples.saas.demo.stack import Stack

from . import server
from .apps.people import PEOPLE
from .environments import Environment

STARTS, AT_ONCE, WORKERS = 20, 4, 2
STOP_SECONDS = 30.0
SERVED = re.compile(r"^Started server process \[(\d+)\]$")
DIED = re.compile(r"^Child process \[\d+\] died$")
"""How uvicorn says that it gave a worker up and starts another; it says so as INFO."""
WIRED = re.compile(r"^otel-shim is active in process (\d+)$")
ENDED_BY_SIGTERM = (0, -signal.SIGTERM)


def faults(desk: server.Server, asked: int, exit_code: int) -> list[str]:
    """What was not as it should be in one start."""
    lines = [json.loads(line) for line in desk.log.splitlines()]
    served = {pid for line in lines for pid in SERVED.findall(line["message"])}
    wired = {pid for line in lines for pid in WIRED.findall(line["message"])}
    bad = [f"answered {asked}"] if asked != 200 else []
    bad += [f"exit code {exit_code}"] if exit_code not in ENDED_BY_SIGTERM else []
    bad += [f"{served} served"] if len(served) != WORKERS else []
    bad += [line["message"] for line in lines if DIED.match(line["message"])]
    bad += [f"{served - wired} served without the shim"] if not served <= wired else []
    return bad + [line["message"] for line in lines if line["severity"] != "INFO"]


def test_twenty_of_twenty_starts_succeed(
    stack: Stack, locked: Environment, backend: server.Backend, tmp_path: Path
) -> None:
    """Both workers come up with the shim, a request is served, SIGTERM ends all processes."""
    server.fill_database(locked, tmp_path)
    env = server.telemetry("starts", backend.otlp)

    def once(_: int) -> list[str]:
        desk = server.start(stack, locked, env, WORKERS)
        server.eventually(
            lambda: len(server.lines_with(desk.log, "Application startup complete")) >= WORKERS,
            server.READY_SECONDS,
            "both workers serve",
        )
        asked = desk.get("/async", PEOPLE[0].token).status_code
        desk.stop(STOP_SECONDS)
        return faults(desk, asked, desk.process.process.returncode)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(once, range(STARTS)))
    assert results == [[]] * STARTS
